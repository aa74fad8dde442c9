"""One batch as optimizer steps: how it is divided, how gradients are clipped, and which steps are refused."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_rl.distributed import gather_objects, world_sum
from lit_rl.episodes import Rollouts


class StaleRollouts(RuntimeError):
    """A batch was sampled by another policy than the method allows."""


class NonFiniteLoss(FloatingPointError):
    """A loss or gradient was NaN or infinite; the weights are those of the step before.

    Raised on all ranks at once, so that whoever catches it may still talk to the others.
    """

    on_all_ranks = True


def step_batches(batch: Rollouts, steps: int, epochs: int) -> Iterator[Rollouts]:
    """The rows of each optimizer step: every epoch deals whole groups to the steps anew.

    How groups are dealt depends on all of them together, so that any number of ranks takes the steps one process would
    take.  On a rank whose groups all went to other steps a step has no rows, and the others' gradients.

    Args:
        batch: This rank's rows.
        steps: Optimizer steps of one epoch; fewer if there are fewer groups on all ranks together.
        epochs: Passes over the batch.
    """
    if steps > 1:
        groups = sorted({group for mine in gather_objects(batch.group_ids.tolist()) for group in mine})
        steps = _possible_steps(len(groups), steps)
    for epoch in range(epochs):
        if steps == 1:
            yield batch
            continue
        step_of = _deal(groups, steps, seed=batch.policy_version * 1_000_003 + epoch)
        of_row = torch.tensor([step_of[group] for group in batch.group_ids.tolist()], device=batch.group_ids.device)
        for step in range(steps):
            yield batch.select(of_row == step) if bool((of_row == step).any()) else batch.without_rows()


def _possible_steps(groups: int, steps: int) -> int:
    if groups < steps:
        warnings.warn(
            f"A batch of {groups} groups was learned from in {groups} optimizer steps per pass: model.steps_per_batch "
            f"is {steps}, and every step needs a group.",
            stacklevel=2,
        )
    return min(groups, steps)


def _deal(groups: Sequence[int], steps: int, seed: int) -> dict[int, int]:
    """Which step each group goes to: of ``steps`` neighbours one to each, as ranks hold neighbours and keep pace so.

    A function of batch and epoch alone: a resumed run deals alike.
    """
    generator = torch.Generator().manual_seed(seed)
    dealt: list[int] = []
    while len(dealt) < len(groups):
        dealt += torch.randperm(steps, generator=generator).tolist()
    return dict(zip(groups, dealt, strict=False))


def clip_gradients(groups: Sequence[dict[str, Any]], max_norm: float | None, *, each: bool) -> Tensor:
    """Clip the gradients of an optimizer's parameter groups in place.

    Args:
        groups: Of the optimizer; one per party and one for value heads.  One with a ``max_norm`` is clipped by its own
            norm to that.
        max_norm: Largest norm left; None clips nothing.
        each: Clip every group by its own norm, so that one party's large gradient cannot silence another.

    Returns:
        The norm over all groups before clipping.
    """
    with_grad = [(group, [p for p in group["params"] if p.grad is not None]) for group in groups]
    with_grad = [(group, params) for group, params in with_grad if params]
    norms = [nn.utils.get_total_norm([p.grad for p in params]) for _, params in with_grad]
    if not norms:
        return torch.zeros((), device=groups[0]["params"][0].device)
    total = torch.stack([norm.to(norms[0].device) for norm in norms]).norm()
    for (group, params), norm in zip(with_grad, norms, strict=True):
        limit = group.get("max_norm", max_norm)
        if limit is not None:
            nn.utils.clip_grads_with_norm_(params, limit, norm if each or "max_norm" in group else total)
    return total


def check_finite(token_losses: Sequence[tuple[Tensor, Tensor]], norm: Tensor, step: int) -> None:
    """Raise `NonFiniteLoss` on every rank if anything of this optimizer step is NaN or infinite on one.

    Args:
        token_losses: Of each micro-batch its ``episode_ids`` int64 ``(b,)`` and token losses float ``(b, T)``.
        norm: Of the summed gradient.
        step: Number of the step, for the message.
    """
    bad_rows = [~torch.isfinite(losses).all(1) for _, losses in token_losses]
    wrong = ~torch.isfinite(norm) if not bad_rows else torch.cat(bad_rows).any() | ~torch.isfinite(norm)
    if not bool(world_sum(wrong.float()).item()):
        return
    mine = [ids[bad].tolist() for (ids, _), bad in zip(token_losses, bad_rows, strict=True)]
    episodes = sorted({episode for ranks in gather_objects(mine) for part in ranks for episode in part})
    more = f" and {len(episodes) - 8} more" if len(episodes) > 8 else ""
    where = f"in episodes {episodes[:8]}{more}" if episodes else "in no single episode: the gradient overflowed"
    raise NonFiniteLoss(
        f"The loss of optimizer step {step} is NaN or infinite ({where}). The step was not taken. Look at these "
        "episodes in the episode log, or lower the learning rate."
    )
