"""An entropy coefficient that follows a floor on quality, or a target of entropy (arXiv 2602.15894)."""

import math
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from lit_rl.distributed import world_sum
from lit_rl.objectives.max_entropy import rlhf_quality
from lit_rl.objectives.shaping import dual_step, entropy_dual_step

NAME = "entropy_coefficient"
_MOST = 3.0  # times ``step_size``: before a policy finds anything, rewards hardly deviate and a step would be endless
_ALIKE = 1e-6  # rewards that deviate less differ by rounding


class EntropyConstraint(L.Callback):
    """Writes the entropy coefficient ``a`` into every training batch, and moves it towards a constraint after.

    Of a floor R on quality: ``log a <- clip(log a + step_size (mean r - R) / std r)``, so that quality to spare buys
    entropy.  Of a target H* of entropy: ``log a <- clip(log a + step_size (H* - mean H) / std H)`` with the sampled
    responses' ``-log pi``.  Means and deviations run over batches and ranks.  As published: a floor on quality, at what
    RLHF reaches.  Our choice: the step, its numbers, and that one step is at most 3 times ``step_size``.

    A batch is an object with an ``extras`` dict (as `lit_rl.episodes.Rollouts`) or a dict; one row is one response.  It
    has ``rewards`` ``(B,)`` or ``(B, N)``, unshaped; for a target of entropy ``old_log_probs`` and ``loss_mask``
    ``(B, T)``, the sampler's log-probs of tokens.  ``extras["entropy_coefficient"]``, of a dict the batch's own
    ``"entropy_coefficient"``, is float32 ``(B,)``.  Whoever trains shapes the reward with it, and keeps ``b / a``:
    `lit_rl.methods.QEMPO` does.  Precision plugins may turn the float32 of a dict's other fields into bfloat16.

    A rank may have no row where others have some.  A batch of no row on any rank, which is skipped, moves nothing.

    Args:
        quality_floor: R; "match_rlhf" takes what RLHF at temperature ``rlhf_beta`` would reach, estimated from the
            first batch, which the reference has to have sampled (as an adapter that is not trained yet does).
        target_entropy: H*, in nats per response; give either this or a floor.
        rlhf_beta: Of "match_rlhf".
        initial: Where ``a`` starts; None takes the module's ``entropy``.
        step_size: Of the logarithm of ``a``, in standard deviations.
        low: Least ``a``.
        high: Greatest ``a``.
        momentum: What each batch leaves of those before it in the running mean.
    """

    def __init__(
        self,
        *,
        quality_floor: float | Literal["match_rlhf"] | None = None,
        target_entropy: float | None = None,
        rlhf_beta: float | None = None,
        initial: float | None = None,
        step_size: float = 0.05,
        low: float = 1e-4,
        high: float = 10.0,
        momentum: float = 0.9,
    ):
        if (quality_floor is None) == (target_entropy is None):
            raise ValueError(
                f"EntropyConstraint: quality_floor is {quality_floor} and target_entropy {target_entropy}; give "
                "exactly one of them."
            )
        if (quality_floor == "match_rlhf") != (rlhf_beta is not None) or not (rlhf_beta is None or rlhf_beta > 0):
            raise ValueError(
                f"EntropyConstraint: rlhf_beta is {rlhf_beta}; quality_floor='match_rlhf' needs it, a number above 0, "
                "and nothing else does."
            )
        if isinstance(quality_floor, str) and quality_floor != "match_rlhf":
            raise ValueError(f"EntropyConstraint: quality_floor is {quality_floor!r}; give a number or 'match_rlhf'.")
        if not 0 <= momentum < 1:
            raise ValueError(f"EntropyConstraint: momentum is {momentum}; it must lie in [0, 1).")
        if not (0 < low <= high and step_size > 0 and (initial is None or low <= initial <= high)):
            raise ValueError(
                f"EntropyConstraint: low is {low}, high {high}, initial {initial} and step_size {step_size}; it needs "
                "0 < low <= initial <= high and step_size > 0."
            )
        self.quality_floor, self.target_entropy, self.rlhf_beta = quality_floor, target_entropy, rlhf_beta
        self.initial, self.step_size, self.low, self.high, self.momentum = initial, step_size, low, high, momentum
        self.log_entropy: float | None = None  # until the first batch
        self.matched_floor: float | None = None
        self.sums = [0.0, 0.0, 0.0]  # responses, their values and squares, over past batches with less and less weight

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.log_entropy is None:
            self.log_entropy = math.log(self._start(pl_module))
        rewards, coefficient = _field(batch, "rewards"), math.exp(self.log_entropy)
        _write(batch, torch.full((len(rewards),), coefficient, dtype=torch.float32, device=rewards.device))
        if not self._add(_worth(rewards) if self.target_entropy is None else _surprise(batch)):
            return
        if self.quality_floor == "match_rlhf" and self.matched_floor is None:
            self.matched_floor = self._match(batch, trainer.global_step)
        mean, _ = self._statistics()
        what = "quality" if self.target_entropy is None else "entropy"
        values = {f"train/{NAME}": coefficient, f"train/running_{what}": mean}
        if self.matched_floor is not None:
            values["train/quality_floor"] = self.matched_floor
        for name, value in values.items():
            pl_module.log(name, value, batch_size=1)
        self.log_entropy = self._stepped(self.log_entropy)  # the next batch's: this one must not choose its own

    def state_dict(self) -> dict[str, Any]:
        return {"log_entropy": self.log_entropy, "matched_floor": self.matched_floor, "sums": list(self.sums)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.log_entropy, self.matched_floor = state_dict["log_entropy"], state_dict["matched_floor"]
        self.sums = list(state_dict["sums"])

    # -- inner workings ----------------------------------------------------------------------------------------

    def _start(self, module: Any) -> float:
        start = getattr(module, "entropy", None) if self.initial is None else self.initial
        if not isinstance(start, float | int) or not self.low <= start <= self.high:
            raise ValueError(
                f"EntropyConstraint starts from {start!r}, which {type(module).__name__} has for `entropy`; give "
                f"`initial`, a number between {self.low} and {self.high}."
            )
        return float(start)

    def _match(self, batch: Any, steps: int) -> float:
        if steps:
            raise ValueError(
                f"EntropyConstraint: quality_floor='match_rlhf' needs a first batch of the reference, but the policy "
                f"has taken {steps} optimizer steps; start a new run, or give the floor as a number."
            )
        assert self.rlhf_beta is not None
        qualities = rlhf_qualities(_worth(_field(batch, "rewards")), _field(batch, "group_ids"), beta=self.rlhf_beta)
        total, count = world_sum(torch.stack([qualities.sum(), torch.ones_like(qualities).sum()])).tolist()
        return float(total / count)

    def _add(self, values: Tensor) -> bool:
        """Add the responses of all ranks to the running sums; False, and nothing added, if there is none."""
        exact = values.detach().double()
        new = world_sum(torch.stack([torch.ones_like(exact).sum(), exact.sum(), exact.square().sum()])).tolist()
        if not new[0]:
            return False
        self.sums = [self.momentum * old + more for old, more in zip(self.sums, new, strict=True)]
        return True

    def _statistics(self) -> tuple[float, float]:
        """Running mean and standard deviation."""
        count, total, squares = self.sums
        mean = total / count
        return mean, math.sqrt(max(squares / count - mean**2, 0.0))

    def _stepped(self, log_entropy: float) -> float:
        mean, deviation = self._statistics()
        floor = self.matched_floor if self.matched_floor is not None else self.quality_floor
        target = self.target_entropy if self.target_entropy is not None else floor
        assert isinstance(target, float | int)
        scale = max(deviation, abs(mean - target) / _MOST, _ALIKE)
        step = dual_step if self.target_entropy is None else entropy_dual_step
        limits = {"step_size": self.step_size, "low": self.low, "high": self.high}
        return step(log_entropy, mean=mean, target=target, scale=scale, **limits)


def rlhf_qualities(rewards: Tensor, group_ids: Tensor, *, beta: float) -> Tensor:
    """`rlhf_quality` of each prompt, from samples of the reference in any order.

    Args:
        rewards: Of samples of the reference, float ``(B,)``.
        group_ids: Samples of one prompt share a value, int64 ``(B,)``.
        beta: Above 0.

    Returns:
        One for each prompt, float64, in the order of their ids; perhaps none.

    Example:
        >>> rlhf_qualities(torch.tensor([1.0, 0.0, 0.5]), torch.tensor([3, 3, 4]), beta=1.0)
        tensor([0.7311, 0.5000], dtype=torch.float64)
    """
    each = [rlhf_quality(rewards[group_ids == group].detach(), beta=beta) for group in torch.unique(group_ids)]
    return torch.stack(each) if each else rewards.new_empty(0, dtype=torch.float64)


def _field(batch: Any, name: str) -> Any:
    found = batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)
    if found is None:
        raise ValueError(
            f"EntropyConstraint needs batches with {name}; this {type(batch).__name__} has none. Yield rollouts or a "
            "dict of tensors with it, or leave the callback out."
        )
    return found


def _worth(rewards: Tensor) -> Tensor:
    """Of each response, over all its turns, ``(B,)``."""
    return rewards[:, None].flatten(1).sum(1)  # reshape(len(rewards), -1) cannot tell -1 where there is no row


def _surprise(batch: Any) -> Tensor:
    """``-log pi`` of each response, ``(B,)``."""
    log_probs, mask = _field(batch, "old_log_probs"), _field(batch, "loss_mask")
    return -log_probs.masked_fill(~mask, 0.0).double().sum(-1)


def _write(batch: Any, coefficient: Tensor) -> None:
    if isinstance(batch, MutableMapping):
        batch[NAME] = coefficient
    elif isinstance(getattr(batch, "extras", None), dict):
        batch.extras[NAME] = coefficient
    else:
        raise ValueError(f"EntropyConstraint: this {type(batch).__name__} is no dict and has no extras to write into.")
