"""Small worlds for tests of methods: dialogues made by hand, NumberSearch played by a tiny model, two ranks by fork."""

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from lit_rl.datamodules import DidacticDataModule, RolloutStream
from lit_rl.datamodules.didactic import Dialogue
from lit_rl.environments import HigherLower, NumberSearch
from lit_rl.episodes import Episode, Heard, Rollouts, Turn
from lit_rl.methods import Method, SocialMetaLearning
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from tests import forking

WORDS = ["find", "n", "in", "ans", "higher", "lower", "please", "answer", "or", "ask"]
WORDS += ["That", "is", "not", "correct", ".", "Please", "try", "again"]
TINY = TinyModel(words=WORDS, numbers=10, hidden_size=16, layers=1, heads=2, max_length=64)
VOCABULARY = range(6, len(TINY.vocabulary()))  # without the special tokens


def policy_config(*parties: str, **options: Any) -> PolicyConfig:
    """All weights without parties, one adapter each with."""
    adapters = {party: LoRA(rank=2, alpha=4.0) for party in parties} or None
    return PolicyConfig(**{"tiny": TINY, "adapters": adapters} | options)


def learner(*parties: str, method: type[Method] = SocialMetaLearning, policy: Any = None, **options: Any) -> Any:
    return method(policy or policy_config(*parties), **{"learning_rate": 1e-2} | options)


def numbers(size: int = 3, **options: Any) -> Any:
    """NumberSearch with its teacher."""
    known: dict[str, Any] = {
        "validation_tasks": NumberSearch(size),
        "num_validation_tasks": size,
        "tasks_per_batch": 4,
        "group_size": 4,
        "batches_per_epoch": 3,
        "student": SamplingSettings(max_tokens=3),
        "dialogue": Dialogue(max_turns=2),
    }
    return DidacticDataModule(NumberSearch(size), HigherLower(), **known | options)


def trainer(folder: Path | None = None, **options: Any) -> L.Trainer:
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "max_epochs": 1, "num_sanity_val_steps": 0}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    quiet["enable_checkpointing"] = any(isinstance(c, Checkpoint) for c in options.get("callbacks", ()))
    return L.Trainer(**quiet | {"limit_val_batches": 0, "default_root_dir": folder} | options)


# -- dialogues made by hand --------------------------------------------------------------------------------------------


def dialogue(index: int, solved_at: int | None, turns: int = 4, group: int = 0, length: int = 2) -> Episode:
    """A student who is right at its ``solved_at``-th turn (1-based, None never), and a teacher between its turns.

    Token ids and log-probs are functions of ``index``; turns have ``length`` tokens, every third one more.
    """
    generator = torch.Generator().manual_seed(index)
    taken: list[Turn] = []
    for exchange in range(solved_at or turns):
        solved = exchange + 1 == solved_at
        said = torch.randint(
            VOCABULARY[0], VOCABULARY[-1], (length + (index + exchange) % 3 // 2,), generator=generator
        ).tolist()
        heard = torch.randint(VOCABULARY[0], VOCABULARY[-1], (2,), generator=generator).tolist()
        prompt = [4, *heard, 5] if exchange else [3, 7, 8, 5, 4]
        span = (Heard("teacher", exchange - 1, 1, 3),) if exchange else ()
        taken.append(
            Turn(party="student", exchange=exchange, text="", prompt_ids=prompt, completion_ids=said, heard=span,
                 log_probs=(-torch.rand(len(said), generator=generator) - 2).tolist(), new_row=not exchange,
                 reward=float(solved), info={"kind": "answer", "answer": str(exchange), "correct": solved})
        )  # fmt: skip
        if not solved and exchange + 1 < turns:
            taken.append(Turn(party="teacher", exchange=exchange, text="higher"))
    return Episode(
        index=index, task_id=str(group), group=group, seed=0, turns=taken, terminated=solved_at is not None,
        stop_reason="solved" if solved_at else "max_turns",
    )  # fmt: skip


def rollouts(*groups: Sequence[int | None], turns: int = 4, **options: Any) -> Rollouts:
    """Groups of dialogues solved at these turns."""
    flat = [(group, solved_at) for group, solving in enumerate(groups) for solved_at in solving]
    episodes = [dialogue(i, solved_at, turns, group) for i, (group, solved_at) in enumerate(flat)]
    return Rollouts.from_episodes(
        episodes, trained=["student"], parties=["student", "teacher"], **{"min_exchanges": turns} | options
    )


@torch.no_grad()
def as_sampled(batch: Rollouts, policy: Policy, off: float = 0.0, party: str = "student") -> Rollouts:
    """Give the batch the policy's own log-probs as the sampler's, moved by up to ``off``."""
    with policy.acting_as(party):
        log_probs, _ = policy.log_probs(batch.input_ids, batch.loss_mask)
    noise = torch.rand(log_probs.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch.old_log_probs = (log_probs + off * noise).masked_fill(~batch.loss_mask, 0.0)
    return batch


def learn(method: Method, batches: Sequence[Rollouts], **options: Any) -> L.Trainer:
    """Fit on given batches, stamped as just sampled."""

    def stamped(number: int) -> Rollouts:
        given = batches[number]
        batch = given.select(torch.arange(len(given))) if len(given) else given.without_rows()
        batch.policy_version = method.policy_version
        return batch

    running = trainer(**options)
    running.fit(method, train_dataloaders=RolloutStream(stamped, len(batches)))
    return running


def weights(method: Method) -> dict[str, torch.Tensor]:
    """A copy of what is trained."""
    assert method.policy is not None
    trained = set(method.policy.trainable_names())
    return {name: p.detach().clone() for name, p in method.policy.named_parameters() if name in trained}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: after[name] - before[name] for name in before}


def loaded(method: Method) -> Method:
    """With its policy, which a Trainer would load."""
    method.configure_model()
    return method


# -- two ranks ---------------------------------------------------------------------------------------------------------


def in_ranks(function: Callable[[int], object], folder: Path, count: int = 2) -> None:
    """Call ``function(rank)`` in forked processes that Trainer and Fabric take for ranks started by torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(count):
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        variables |= {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}

        def child(rank: int = rank, variables: dict[str, Any] = variables) -> None:
            os.environ.update({name: str(value) for name, value in variables.items()})
            function(rank)

        process = os.fork()
        if process == 0:
            forking._be_the_child(child, folder / f"rank{rank}.txt")
        children.append(process)
    codes = _exit_codes(children)
    outputs = [(folder / f"rank{rank}.txt").read_text()[-3000:] for rank in range(count)]
    assert codes == [0] * count, "\n".join(outputs)


def _exit_codes(processes: list[int]) -> list[int]:
    """When one fails, the others would wait for it for ever."""
    codes: dict[int, int] = {}
    deadline = math.inf
    while len(codes) < len(processes):
        for process in set(processes) - codes.keys():
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                codes[process] = os.waitstatus_to_exitcode(status)
                if codes[process]:
                    deadline = min(deadline, time.monotonic() + 20)
            elif time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[process] for process in processes]
