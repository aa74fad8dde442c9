"""Credit for the turns of dialogues that are compared in groups, each with one customer (gopo.md section 5).

As published (GOPO, arXiv 2602.15854, by its digests): the planner learns by policy gradient from whole dialogues and an
expert reward, the responder from a reward joint with it.  Our reading: the formulas.
"""

import torch
from torch import Tensor

from lit_rl.objectives.advantages import group_advantages, leave_one_out_advantages


def centred_in_group(values: Tensor, group_ids: Tensor, defined: Tensor) -> Tensor:
    """Values of turns less the mean of all that are defined in the group, whatever their turn.

    Args:
        values: Of each turn, float ``(D, N)``; anything, NaN too, where it is undefined.
        group_ids: Of each dialogue, int64 ``(D,)``.
        defined: Turns that have a value, bool ``(D, N)``.

    Returns:
        ``(D, N)``, dtype of ``values``, 0 where undefined, without gradient.

    Raises:
        ValueError: Shapes disagree.

    Example:
        >>> values, every = torch.tensor([[0.5, 1.0], [0.0, 9.0]]), torch.tensor([[True, True], [True, False]])
        >>> centred_in_group(values, torch.tensor([0, 0]), every)
        tensor([[ 0.0000,  0.5000],
                [-0.5000,  0.0000]])
    """
    _check(values, group_ids, defined)
    found = torch.zeros_like(values)
    groups = group_ids[:, None].expand_as(values)[defined]
    found[defined] = group_advantages(values[defined], groups, scale_by_std=False)
    return found


def leave_one_out_by_turn(values: Tensor, group_ids: Tensor, defined: Tensor) -> Tensor:
    """Values of turns less the mean of the *others* of the group at the same turn; 0 for one that is alone there.

    Arguments, result and errors are those of `centred_in_group`.

    Example:
        >>> values, every = torch.tensor([[0.5, 1.0], [0.0, 9.0]]), torch.tensor([[True, True], [True, False]])
        >>> leave_one_out_by_turn(values, torch.tensor([0, 0]), every)
        tensor([[ 0.5000,  0.0000],
                [-0.5000,  0.0000]])
    """
    _check(values, group_ids, defined)
    found = torch.zeros_like(values)
    groups = torch.unique(group_ids, return_inverse=True)[1]
    turns = torch.arange(values.shape[1], device=values.device)
    cells = (groups[:, None] * values.shape[1] + turns)[defined]
    found[defined] = leave_one_out_advantages(values[defined], cells)
    return found


def one_row_per_dialogue(episode_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The first row of each dialogue, and for each row the place of its dialogue among those; int64.

    Args:
        episode_ids: Of each row, whichever party's it is, int64 ``(B,)``.

    Example:
        >>> one_row_per_dialogue(torch.tensor([4, 4, 2]))
        (tensor([2, 0]), tensor([1, 1, 0]))
    """
    dialogues, back = torch.unique(episode_ids, return_inverse=True)
    rows = torch.arange(len(episode_ids), device=episode_ids.device)
    first = torch.full_like(dialogues, len(episode_ids)).scatter_reduce_(0, back, rows, reduce="amin")
    return first, back


def _check(values: Tensor, group_ids: Tensor, defined: Tensor) -> None:
    if values.ndim != 2 or group_ids.shape != values.shape[:1] or defined.shape != values.shape:
        raise ValueError(
            f"Credit of dialogues: values {tuple(values.shape)} and defined {tuple(defined.shape)} must both be "
            f"(dialogues, turns), group_ids {tuple(group_ids.shape)} (dialogues,)."
        )
