import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lit_rl.metrics import (
    AccuracyByTurn,
    AttemptShares,
    TurnSummary,
    accuracy_by_turn,
    conditional_success,
    first_jump,
    normalized_gain,
    solve_turns,
)

GOLDEN = torch.tensor([0, 1, 1, 3, -1, -1, 2, 0])  # solved at turns 1, 2, 2, 4, never, never, 3, 1


def summary_of(solved_at: Tensor, max_turns: int, group_ids: Tensor | None = None) -> dict[str, Tensor]:
    metric = TurnSummary(max_turns)
    metric.update(solved_at, group_ids)
    return metric.compute()


def test_golden_values() -> None:
    summary = summary_of(GOLDEN, 4)
    assert summary["accuracy"].tolist() == [0.25, 0.5, 0.625, 0.75]
    assert summary["gain"].item() == 0.5
    assert summary["normalized_gain"].item() == pytest.approx(0.6666667)  # 0.5 / 0.75
    assert summary["first_jump"].item() == 0.25
    assert summary["area_under_turns"].item() == 0.53125
    assert summary["conditional_success"].tolist() == pytest.approx([2 / 8, 2 / 6, 1 / 4, 1 / 3])
    assert summary["mean_turns_to_solve"].item() == pytest.approx(13 / 6)  # (1 + 1 + 2 + 2 + 3 + 4) / 6


def test_problems_weigh_alike_whatever_their_number_of_dialogues() -> None:
    solved_at, groups = torch.tensor([0, 0, 0, -1]), torch.tensor([3, 3, 3, 9])
    assert accuracy_by_turn(solved_at, 1, groups).tolist() == [0.5]
    assert accuracy_by_turn(solved_at, 1).tolist() == [0.75]
    metric = AccuracyByTurn(1)
    metric.update(solved_at[:3], groups[:3])
    metric.update(solved_at[3:], groups[3:])
    assert metric.compute().reshape(-1).tolist() == [0.5]


def test_edges() -> None:
    all_at_once = torch.tensor([0, 0])
    assert normalized_gain(accuracy_by_turn(all_at_once, 3)).item() == 0.0  # nothing was left to gain
    success = conditional_success(all_at_once, 3)
    assert success[0] == 1 and success[1:].isnan().all()  # nobody reaches turns 2 and 3
    assert summary_of(torch.tensor([-1, -1]), 2)["mean_turns_to_solve"].isnan()
    assert first_jump(torch.tensor([0.5])).item() == 0.0
    assert accuracy_by_turn(torch.tensor([4]), 3).tolist() == [0, 0, 0]  # later than is looked at


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 3)), min_size=1, max_size=20), st.integers(0, 20))
def test_ranks_that_share_whole_groups_add_up(dialogues: list[tuple[int, int]], cut: int) -> None:
    solved_at, groups = torch.tensor(dialogues).unbind(1)
    slow = [
        sum(
            sum(0 <= s <= k for s, h in dialogues if h == g) / sum(h == g for _, h in dialogues)
            for g in set(groups.tolist())
        )
        / len(set(groups.tolist()))
        for k in range(4)
    ]
    here = groups <= cut % 4
    ranks = [AccuracyByTurn(4), AccuracyByTurn(4)]
    for metric, part in zip(ranks, (here, ~here), strict=True):
        metric.update(solved_at[part], groups[part])
    for name, reduction in ranks[0]._reductions.items():  # what torchmetrics does with the states of all ranks
        assert callable(reduction)
        setattr(ranks[0], name, reduction(torch.stack([getattr(m, name) for m in ranks])))
    assert ranks[0].compute().tolist() == pytest.approx(slow)


def test_update_names_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) solve turns and \(2,\) group_ids"):
        AccuracyByTurn(2).update(torch.tensor([0, 1, -1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="max_turns is 0"):
        AccuracyByTurn(0)


def test_metrics_are_modules_with_state_to_move() -> None:
    assert isinstance(AccuracyByTurn(2), nn.Module)


def turn(party: str, exchange: int, **info: object) -> SimpleNamespace:
    return SimpleNamespace(party=party, exchange=exchange, info=info)


def test_solve_turns_reads_the_first_correct_turn() -> None:
    episodes = [
        SimpleNamespace(
            turns=[turn("student", 0, correct=False), turn("teacher", 0), turn("student", 1, correct=True)]
        ),
        SimpleNamespace(turns=[turn("student", 0, correct=False), turn("critic", 0, correct=True)]),
        SimpleNamespace(turns=[]),
    ]
    assert solve_turns(episodes).tolist() == [1, 0, -1]
    assert solve_turns(episodes, party="student").tolist() == [1, -1, -1]
    assert solve_turns(episodes).dtype == torch.int64


def attempt(kind: str, answer: str | None, correct: bool = False, incomplete: bool = False) -> dict[str, object]:
    return {"kind": kind, "answer": answer, "correct": correct, "incomplete": incomplete}


def test_attempt_shares_by_hand() -> None:
    metric = AttemptShares()
    metric.update([[attempt("answer", "7"), attempt("answer", "7"), attempt("answer", "11", correct=True)]])
    metric.update([[attempt("malformed", None), attempt("answer", "3")]])
    shares = {name: value.item() for name, value in metric.compute().items()}
    assert shares["repeat_rate"] == 0.5  # 7 -> 7, 7 -> 11
    assert shares["without_answer"] == pytest.approx(1 / 3)  # None -> 3
    assert shares["malformed_share"] == pytest.approx(1 / 5)
    assert math.isnan(shares["premature_rate"])  # every task was told completely


def test_premature_attempts_by_hand() -> None:
    """Four parts, one told a turn: attempt, question, attempt, then a complete one that is right."""
    metric = AttemptShares()
    turns = [attempt("answer", "1", incomplete=True), attempt("question", None, incomplete=True)]
    turns += [attempt("both", "2", incomplete=True), attempt("answer", "3", correct=True)]
    metric.update([turns])
    assert metric.compute()["premature_rate"].item() == pytest.approx(2 / 3)
    assert metric.compute()["question_share"].item() == pytest.approx(1 / 4)  # who answers too does not only ask


def test_a_turn_after_a_right_answer_is_no_repeat() -> None:
    metric = AttemptShares()
    metric.update([[attempt("answer", "5", correct=True), attempt("answer", "5")]])
    assert math.isnan(metric.compute()["repeat_rate"].item())
