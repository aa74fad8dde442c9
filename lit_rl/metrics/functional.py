"""Figures of dialogues that may be solved at one of several turns, as pure functions.

A *solve turn* is the 0-based turn at which a dialogue was solved, -1 if it never was.  Figures that are undefined
(nobody reached a turn, nothing was solved) are NaN, so that they cannot pass for a zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def solve_turns(episodes: Iterable[Any], party: str | None = None) -> Tensor:
    """The turn each episode was solved at: the exchange of its first turn whose ``info["correct"]`` is true.

    Args:
        episodes: Objects with ``turns``, each turn with ``party``, ``exchange`` and a mapping ``info``.
        party: Look at turns of this party only; None looks at all.

    Returns:
        int64 ``(E,)``; -1 where no turn was correct.
    """
    solved = []
    for episode in episodes:
        right = (t for t in episode.turns if (party is None or t.party == party) and t.info.get("correct"))
        solved.append(min((turn.exchange for turn in right), default=-1))
    return torch.tensor(solved, dtype=torch.int64)


def solved_by_turn(solved_at: Tensor, max_turns: int) -> Tensor:
    """Whether each dialogue was solved at turn ``k`` or before, bool ``(E, K)``.

    Args:
        solved_at: 0-based solve turns, int64 ``(E,)``; -1 unsolved.
        max_turns: ``K``.
    """
    turns = torch.arange(max_turns, device=solved_at.device)
    return (solved_at[:, None] >= 0) & (solved_at[:, None] <= turns)


def group_mean(values: Tensor, group_ids: Tensor) -> Tensor:
    """Mean of ``values`` ``(E, K)`` within each group, float64 ``(G, K)``, in the order of the sorted group ids."""
    groups, place = torch.unique(group_ids, return_inverse=True)
    sums = torch.zeros(len(groups), values.shape[1], dtype=torch.float64, device=values.device)
    sums.index_add_(0, place, values.to(torch.float64))
    return sums / torch.bincount(place, minlength=len(groups))[:, None]


def accuracy_by_turn(solved_at: Tensor, max_turns: int, group_ids: Tensor | None = None) -> Tensor:
    """Accuracy within ``k`` turns for ``k = 1 .. max_turns``, averaged within a problem, then over problems.

    Args:
        solved_at: 0-based solve turns, int64 ``(E,)``; -1 unsolved.
        max_turns: ``K``.
        group_ids: Problem of each dialogue, int64 ``(E,)``; None takes each dialogue as a problem of its own.

    Returns:
        float64 ``(K,)``; NaN if there is no dialogue.

    Example:
        >>> accuracy_by_turn(torch.tensor([0, 1, 1, 3, -1, -1, 2, 0]), 4).tolist()
        [0.25, 0.5, 0.625, 0.75]
    """
    solved = solved_by_turn(solved_at, max_turns)
    if group_ids is None:
        return solved.to(torch.float64).mean(0)
    return group_mean(solved, group_ids).mean(0)


def gain(accuracy: Tensor) -> Tensor:
    """What the turns after the first add: ``acc@K - acc@1`` of an accuracy by turn ``(K,)``."""
    return accuracy[-1] - accuracy[0]


def normalized_gain(accuracy: Tensor) -> Tensor:
    """`gain` as a share of what was left to gain, ``(acc@K - acc@1) / (1 - acc@1)``; 0 if nothing was left."""
    left = 1 - accuracy[0]
    return torch.where(left == 0, torch.zeros_like(left), gain(accuracy) / left.masked_fill(left == 0, 1.0))


def first_jump(accuracy: Tensor) -> Tensor:
    """``acc@2 - acc@1``; a large one often means that the second turn repairs the format of the first."""
    return accuracy[1] - accuracy[0] if len(accuracy) > 1 else torch.zeros_like(accuracy[0])


def area_under_turns(accuracy: Tensor) -> Tensor:
    """Mean of the accuracies within 1, 2, ..., K turns, ``AUC@K``."""
    return accuracy.mean()


def conditional_success(solved_at: Tensor, max_turns: int) -> Tensor:
    """Share solved at turn ``k`` of the dialogues still open there, float64 ``(K,)``; NaN if none is open.

    Args:
        solved_at: 0-based solve turns, int64 ``(E,)``; -1 unsolved.
        max_turns: ``K``.
    """
    return conditional_success_of_counts(*solve_counts(solved_at, max_turns))


def solve_counts(solved_at: Tensor, max_turns: int) -> tuple[Tensor, Tensor]:
    """``(solved at each turn, dialogues)``: int64 ``(K,)`` and a number; sums over parts of the data."""
    inside = solved_at[(solved_at >= 0) & (solved_at < max_turns)]
    return torch.bincount(inside, minlength=max_turns), torch.tensor(len(solved_at), device=solved_at.device)


def conditional_success_of_counts(solved: Tensor, dialogues: Tensor) -> Tensor:
    """`conditional_success` from `solve_counts`."""
    still_open = dialogues - (solved.cumsum(0) - solved)
    return solved.to(torch.float64) / still_open  # 0 / 0 is NaN: nobody reached the turn


def mean_turns_to_solve(solved: Tensor) -> Tensor:
    """Mean 1-based solve turn over the solved dialogues, from counts per turn int64 ``(K,)``; NaN if none is solved."""
    turns = torch.arange(1, len(solved) + 1, device=solved.device)
    return (solved * turns).sum().to(torch.float64) / solved.sum()


# -- how a student attempts ------------------------------------------------------------------------------------------

ATTEMPT_COUNTS = (
    "turns",
    "malformed",
    "questions",
    "pairs",
    "repeats",
    "pairs_without_answer",
    "incomplete",
    "premature",
)


def attempt_counts(dialogues: Iterable[Sequence[Mapping[str, Any]]]) -> Tensor:
    """Counts behind `attempt_shares`, int64 in the order of ``ATTEMPT_COUNTS``; they sum over parts of the data.

    Args:
        dialogues: For each dialogue the records of the student's turns: ``kind`` ("answer", "question", "both",
            "hedge", "malformed", "empty"), ``answer`` (str or None), ``correct`` (bool) and, where the task is told in
            parts, ``incomplete`` (bool: a part was still to be told when the student spoke).
    """
    counts = dict.fromkeys(ATTEMPT_COUNTS, 0)
    for turns in dialogues:
        for turn in turns:
            counts["turns"] += 1
            counts["malformed"] += turn.get("kind") in ("malformed", "empty", "hedge")
            counts["questions"] += turn.get("kind") == "question"
            counts["incomplete"] += bool(turn.get("incomplete"))
            counts["premature"] += bool(turn.get("incomplete")) and turn.get("kind") in ("answer", "both")
        for turn, following in pairwise(turns):
            if turn.get("correct"):
                continue
            answers = turn.get("answer"), following.get("answer")
            counts["pairs_without_answer"] += None in answers
            counts["pairs"] += None not in answers
            counts["repeats"] += None not in answers and answers[0] == answers[1]
    return torch.tensor([counts[name] for name in ATTEMPT_COUNTS])


def attempt_shares(counts: Tensor) -> dict[str, Tensor]:
    """How the student attempts, from `attempt_counts`; each a float64 number, NaN where undefined.

    * ``repeat_rate``: of the turns after a wrong answer, how many give the same answer again.  Pairs in which either
      answer is missing do not count; ``without_answer`` is their share.
    * ``malformed_share``: turns without exactly one readable answer or question.
    * ``question_share``: turns that ask and do not answer.
    * ``premature_rate``: attempts at turns where the task was not told completely, of all such turns.
    """
    count = {name: counts[i].to(torch.float64) for i, name in enumerate(ATTEMPT_COUNTS)}
    return {
        "repeat_rate": count["repeats"] / count["pairs"],
        "without_answer": count["pairs_without_answer"] / (count["pairs"] + count["pairs_without_answer"]),
        "malformed_share": count["malformed"] / count["turns"],
        "question_share": count["questions"] / count["turns"],
        "premature_rate": count["premature"] / count["incomplete"],
    }
