"""What callbacks share that make advantages of the rewards of turns: reading batches of any kind, and writing them."""

from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_rl.objectives.plan_penalties import PlanPenalties, shape_rewards
from lit_rl.objectives.turn_grid import TurnGrid

Reduce = Callable[[Tensor], Tensor]


class NonFiniteAdvantage(FloatingPointError):
    """A reward or a value was NaN or infinite where it is read; raised on all ranks at once."""

    on_all_ranks = True


class TurnCredit(L.Callback):
    """Gives every turn of a training batch its advantage, before the module sees the batch.

    A batch is a mapping of tensors or an object with such attributes, as `lit_rl.episodes.Rollouts`; what an object has
    no attribute for is looked for, and written, in its ``extras``.  Every row is one turn of an episode:

    ====================  =================================================================================
    ``episode_ids``       int64 ``(B,)``
    ``turn_ids``          number of the row's turn, from 0 on, integer ``(B,)``; or ``(B, T)``, whose largest counts
    ``rewards``           float ``(B,)``; or ``(B, N)``, of which the row's own turn counts
    ``loss_mask``         tokens that were sampled, bool ``(B, T)``
    ``turn_valid``        optional, bool ``(B, N)``: turns of the row's episode, to notice missing rows
    ``kept``, ``valid``   bool ``(B,)``, and so is ``rewritten``; for ``penalties`` that are not 0
    ====================  =================================================================================

    Written are ``advantages`` float32 ``(B, T)`` and what the subclass says.  ``rewards`` stay as they are.  Precision
    plugins such as ``bf16-true`` turn the float32 of a mapping into bfloat16 before callbacks run; objects keep it.

    Args:
        penalties: What the form of a turn costs; None costs nothing.
    """

    def __init__(self, penalties: PlanPenalties | None = None):
        self.penalties = penalties or PlanPenalties()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.annotate(batch, reduce=rank_sum(trainer))

    def annotate(self, batch: Any, reduce: Reduce | None = None) -> None:
        """Write the advantages into ``batch``; what the hook does, for loops without a Trainer.

        Args:
            batch: As described above.
            reduce: Adds up a tensor over ranks; None in a single process.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how rewards become advantages.")

    def shaped_rewards(self, turns: "TurnTable") -> Tensor:
        """Rewards with the penalties in them, float64 ``(E, N)``."""
        penalties = self.penalties
        return shape_rewards(
            turns.rewards(), turns.lengths, penalties,
            kept=turns.flags("kept") if penalties.keep or penalties.rewritten else None,
            valid=turns.flags("valid") if penalties.invalid else None,
            rewritten=turns.flags("rewritten") if penalties.rewritten else None,
        )  # fmt: skip


class TurnTable:
    """Rows of a batch as turns: float64 ``(E, N)`` to compute with, and back to rows.

    Args:
        batch: See `TurnCredit`.
        rows: Which of its rows, int64 ``(M,)``; None is all.
        grid: Of other rows of the same turns; None makes one of these.
    """

    def __init__(self, batch: Any, rows: Tensor | None = None, grid: TurnGrid | None = None):
        self.batch = batch
        episode_ids = read(batch, "episode_ids")
        self.rows = torch.arange(len(episode_ids), device=episode_ids.device) if rows is None else rows
        self.turn_ids, self.episode_ids = _turn_ids(batch)[self.rows], episode_ids[self.rows]
        self.grid = grid or TurnGrid(self.episode_ids, self.turn_ids)
        self.cells = self.grid.cells(self.episode_ids, self.turn_ids)
        if grid is None:
            self._refuse_missing_rows()

    @property
    def lengths(self) -> Tensor:
        """Turns of each episode, int64 ``(E,)``."""
        return self.grid.lengths

    def values(self, name: str) -> Tensor:
        """A number of each turn, float64 ``(E, N)``, NaN where there is none."""
        values = read(self.batch, name)[self.rows]
        if values.ndim != 1:
            raise ValueError(f"{name} has shape {tuple(values.shape)}; wanted one number a row, (rows,).")
        return self.grid.padded(values.detach().double(), self.cells, fill=torch.nan)

    def integers(self, name: str) -> Tensor:
        """An integer of each turn, int64 ``(E, N)``, 0 where there is none."""
        return self.grid.padded(read(self.batch, name)[self.rows].long(), self.cells, fill=0)

    def flags(self, name: str) -> Tensor:
        """What is true of each turn, bool ``(E, N)``, False where there is none."""
        return self.values(name) > 0

    def rewards(self) -> Tensor:
        """Of each turn, float64 ``(E, N)``, 0 where there is none."""
        rewards = read(self.batch, "rewards")[self.rows]
        if rewards.ndim == 2:
            rewards = rewards.gather(1, self.turn_ids.long()[:, None]).squeeze(1)
        return self.grid.padded(rewards.double(), self.cells, fill=0.0)

    def first(self, name: str) -> Tensor:
        """What the row of each episode's first turn has, ``(E,)``."""
        return self._at(name, self.turn_ids == 0)

    def last(self, name: str) -> Tensor:
        """What the row of each episode's last turn has, ``(E,)``."""
        episode = self.cells // self.grid.turns
        return self._at(name, self.turn_ids == self.lengths[episode] - 1)

    def to_rows(self, padded: Tensor) -> Tensor:
        """Of each row of the batch its entry in ``(E, N)``; float32 or bool ``(B,)``, 0 in rows that are not ours."""
        mine = padded.flatten()[self.cells]
        mine = mine if mine.dtype == torch.bool else mine.float()
        return mine.new_zeros(len(read(self.batch, "episode_ids"))).index_put((self.rows,), mine)

    def _at(self, name: str, chosen: Tensor) -> Tensor:
        order = torch.argsort(self.episode_ids[chosen])
        return read(self.batch, name)[self.rows[chosen][order]]

    def _refuse_missing_rows(self) -> None:
        turn_valid = find(self.batch, "turn_valid")
        if turn_valid is None:
            return
        wanted, found = turn_valid[self.rows].sum(1), self.lengths[self.cells // self.grid.turns]
        if bool((wanted != found).any()):
            row = int((wanted != found).nonzero()[0])
            raise ValueError(
                f"Episode {int(self.episode_ids[row])} has {int(wanted[row])} turns and {int(found[row])} rows; credit "
                "needs a row of every turn."
            )


def find(batch: Any, name: str) -> Any:
    """A field of a mapping or of an object, or one of the object's ``extras``; None if it is nowhere."""
    if isinstance(batch, Mapping):
        return batch.get(name)
    field = getattr(batch, name, None)
    return getattr(batch, "extras", {}).get(name) if field is None else field


def read(batch: Any, name: str) -> Tensor:
    """As `find`, but what is nowhere raises ValueError."""
    field: Tensor | None = find(batch, name)
    if field is None:
        raise ValueError(
            f"Assigning credit needs {name!r}, and the batch, a {type(batch).__name__}, has neither such a field nor "
            "such an extra. The callback's docstring says what each is."
        )
    return field


def write(batch: Any, name: str, tensor: Tensor) -> None:
    """Set a field of a mapping or an object; what an object has no attribute for goes into its ``extras``."""
    if isinstance(batch, MutableMapping):
        batch[name] = tensor
    elif hasattr(batch, name) or not hasattr(batch, "extras"):
        setattr(batch, name, tensor)
    else:
        batch.extras[name] = tensor


def rank_sum(trainer: Any) -> Reduce:
    """Sums over the ranks of a Trainer, or of a loop over Fabric."""
    strategy = trainer.strategy
    return partial(getattr(strategy, "reduce", None) or strategy.all_reduce, reduce_op="sum")


def refuse_non_finite(by_row: Mapping[str, Tensor], batch: Any, reduce: Reduce | None) -> None:
    """Raise `NonFiniteAdvantage` on every rank if an advantage on one is NaN or infinite: whitening would spread it.

    Args:
        by_row: Advantages by name, float ``(B,)``.
        batch: What they belong to.
        reduce: As in `TurnCredit.annotate`.
    """
    bad = {name: ~torch.isfinite(advantages) for name, advantages in by_row.items()}
    count = torch.stack([wrong.sum() for wrong in bad.values()]).sum().double()
    if not bool(reduce(count) if reduce else count):
        return
    here = {name: read(batch, "episode_ids")[wrong].unique().tolist()[:8] for name, wrong in bad.items() if wrong.any()}
    raise NonFiniteAdvantage(
        f"An advantage is NaN or infinite: {here or 'on another rank'} (stream: episodes). Look at the rewards and "
        "values of these episodes."
    )


def _turn_ids(batch: Any) -> Tensor:
    turn_ids = read(batch, "turn_ids")
    return (turn_ids.amax(1) if turn_ids.ndim == 2 else turn_ids).long()
