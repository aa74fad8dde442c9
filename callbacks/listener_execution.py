"""Others continue what a speaker thought; agreement with its answer is a part of its reward (arXiv:2602.16154)."""

import time
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_rl.callbacks.held_out import HeldOutSums
from lit_rl.datamodules.order import run_seed
from lit_rl.distributed import gather_objects
from lit_rl.listeners import ListenerPool
from lit_rl.listeners.credit import Credit, LeakPolicy, Scale
from lit_rl.listeners.execution import Execution, ExecutionRules, Unclosed, execute
from lit_rl.listeners.figures import Sums, added, execution_sums, means
from lit_rl.listeners.leaks import LeakSearch
from lit_rl.listeners.spoken import spoken_in
from lit_rl.verification.traces import FRACTIONS, ShortTrace, ThinkTags, Unit

PART = "listener_match"


class ListenerExecution(HeldOutSums):
    """Writes how far a pool of listeners agrees with the speaker into ``reward_parts["listener_match"]`` of a batch.

    Each listener hears the question and the first quarter, half and three quarters of the reasoning, thinks it to the
    end and answers; each answer that is the speaker's own, right or wrong, counts 1 (REMUL, eq. 1).  An answer that
    cannot be read agrees with nothing.  Whoever trains adds the part to its rewards; `lit_rl.methods.REMUL` does.

    Batches are `lit_rl.episodes.Rollouts` (or objects with these fields) whose turns of ``speaker`` say ``prompt`` and
    ``labels`` in their ``info``, and ``aliases`` and ``options`` where there are some: the part is float32 ``(B, N)``,
    0 but for the exchanges in which the speaker spoke.  Or they are dictionaries with a list for each of "questions",
    "completions" and "labels" (and "aliases", "options", "group_ids", if any): the part is ``(B, 1)``, below
    "reward_parts".  A dictionary numbers nothing, so that equal completions of one question in different batches hear
    equal noise; and precision plugins may turn its float32 into bfloat16.

    Figures (see `lit_rl.listeners.figures.execution_sums`) go to ``batch.figures`` in training, or are logged where a
    batch has none; those of a validation or test are logged at its end, by the batch's ``label`` if it has one.

    Listeners are loaded when training or validation starts.  Nothing of them is trained or in a checkpoint.

    Args:
        pool: Who listens.
        fractions: Of the reasoning's units that are heard, each strictly between 0 and 1.
        unit: What reasoning is cut at: "line", "sentence" or "token" (a word).
        short_trace: Of fewer than 4 units: "refine" cuts at the next shorter unit, and pays nothing where there is none
            (ours); "as_is" takes what there is (as in the authors' code, which pays for leaving out line breaks).
        leak_policy: Of beginnings that give the answer away: None pays them as others (as published), "mask" pays
            nothing, "penalise" takes ``leak_penalty`` off for each that is heard (both ours).
        leak_penalty: See there.
        leak_search: How a beginning is searched, see `lit_rl.listeners.leaks.gives_away`.
        reward_scale: "sum" (eq. 1), or "mean": divided by the number of rewarded answers (ours).
        unclosed: A continuation that never closes its think block has no answer ("none", ours), or is read as a whole
            ("parse", as in the authors' code).
        empty_prefix: Also ask what each listener answers without a beginning, once for each question: if it is the
            same, the reasoning was not needed.
        tags: Think tags of the speaker; None is ``<think>`` and ``</think>``.
        speaker: Name of the party.
        seed: Of the listeners' noise; None takes that of ``seed_everything``.
    """

    reward_parts = (PART,)  # what it writes, for modules that ask before training

    def __init__(
        self,
        pool: ListenerPool,
        *,
        fractions: Sequence[float] = FRACTIONS,
        unit: Unit = "line",
        short_trace: ShortTrace = "refine",
        leak_policy: LeakPolicy | None = None,
        leak_penalty: float = 1.0,
        leak_search: LeakSearch = "parser",
        reward_scale: Scale = "sum",
        unclosed: Unclosed = "none",
        empty_prefix: bool = True,
        tags: ThinkTags | None = None,
        speaker: str = "speaker",
        seed: int | None = None,
    ):
        super().__init__()
        self.rules = ExecutionRules(
            fractions=tuple(fractions),
            unit=unit,
            short_trace=short_trace,
            unclosed=unclosed,
            empty_prefix=empty_prefix,
            leak_search=leak_search,
            tags=tags or ThinkTags(),
        )
        self.credit = Credit(leak_policy=leak_policy, leak_penalty=leak_penalty, reward_scale=reward_scale)
        self.pool, self.speaker, self.seed = pool, speaker, seed

    # -- hooks -------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._attach(pl_module)  # what cannot listen stops the run before anything is sampled

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._attach(pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._attach(pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        start = time.perf_counter()
        executions, rewards = self.listen(batch, pl_module)
        sums = added(gather_objects(execution_sums(executions, rewards)))
        figures = {f"train/{name}": value for name, value in means(sums).items()}
        figures |= self._costs() | {"time/listening_seconds": time.perf_counter() - start}
        if isinstance(getattr(batch, "figures", None), dict):
            batch.figures |= figures
        else:
            for name, value in figures.items():
                pl_module.log(name, value, batch_size=1)

    def held_out_sums(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> Sums:
        return execution_sums(*self.listen(batch, pl_module))

    # -- listening ---------------------------------------------------------------------------------------------

    def listen(self, batch: Any, module: Any) -> tuple[list[Execution], list[float]]:
        """What the pool makes of every reply in a batch, and the rewards, which are written into the batch too."""
        spoken = spoken_in(batch, self.speaker)
        self._attach(module)
        executions = execute(spoken, self.pool, self.rules, run_seed(self.seed))
        rewards = [self.credit.of(execution) for execution in executions]
        part = _new_part(batch, module)
        for execution, reward in zip(executions, rewards, strict=True):
            part[list(execution.spoken.rows), execution.spoken.column] = reward
        if isinstance(batch, MutableMapping):
            batch.setdefault("reward_parts", {})[PART] = part
        else:
            batch.reward_parts[PART] = part
        return executions, rewards

    def _attach(self, module: Any) -> None:
        for listener in self.pool.everybody:
            listener.attach(module)

    def _costs(self) -> dict[str, float]:
        """What listeners that keep count have run or asked so far, in this process."""
        costs: dict[str, float] = {}
        for listener in self.pool.everybody:
            counts: Mapping[str, float] = getattr(listener, "figures", dict)()
            costs |= {f"time/listener_{listener.name}_{name}": value for name, value in counts.items()}
        return costs


def _new_part(batch: Any, module: Any) -> Tensor:
    """Zeros for the rewards of a batch, float32 ``(B, N)``."""
    if isinstance(batch, Mapping):
        return torch.zeros(len(batch["completions"]), 1, device=module.device)
    return torch.zeros_like(batch.rewards, dtype=torch.float32)
