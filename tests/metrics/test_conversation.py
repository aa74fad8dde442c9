"""Figures of conversations: golden values of sml.md 16.7, the edge cases of section 11, and sums over ranks."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_rl.metrics import (
    ConversationSummary,
    conversation_counts,
    conversation_score,
    conversation_shares,
    percentile,
    sharded_performance,
)


def turn(reply_class: str, incomplete: bool = False, correct: bool = False) -> dict[str, Any]:
    return {"reply_class": reply_class, "incomplete": incomplete, "correct": correct}


GOLDEN = [
    turn("answer", incomplete=True),
    turn("clarification", incomplete=True),
    turn("answer", incomplete=True),
    turn("answer", correct=True),
]


def shares(*conversations: list[dict[str, Any]]) -> dict[str, float]:
    return {name: x.item() for name, x in conversation_shares(conversation_counts(conversations)).items()}


def test_golden_conversation() -> None:
    """Four shards, one a message: attempt, clarification, attempt, right attempt."""
    assert shares(GOLDEN) == pytest.approx(
        {
            "premature_rate": 2 / 3,
            "premature_conversations": 1.0,
            "first_attempt_position": 1 / 4,
            "without_attempt": 0.0,
            "question_rate": 1 / 4,
            "clarification_rate": 1 / 4,
            "score": 1.0,
        }
    )


def figures(scores: list[float], groups: list[int] | None = None) -> list[float]:
    found = sharded_performance(torch.tensor(scores), torch.tensor(groups or [0] * len(scores)))
    return [found[name].item() for name in ("performance", "aptitude", "unreliability")]


def test_golden_runs() -> None:
    assert figures([100.0] * 6 + [0.0] * 4) == pytest.approx([60, 100, 100])
    tens = [10.0 * k for k in range(1, 11)]
    assert figures(tens) == pytest.approx([55, 91, 72])  # percentiles 91 and 19
    assert percentile(torch.tensor(tens), 10).item() == pytest.approx(19)
    assert figures(tens + [100.0], [0] * 10 + [1]) == pytest.approx([77.5, 95.5, 36])  # instructions weigh alike


def test_percentiles_interpolate() -> None:
    scores = torch.tensor([3, 1, 2])
    assert [percentile(scores, p).item() for p in (0, 25, 50, 75, 100)] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert percentile(torch.tensor([7.0]), 90).item() == 7.0
    assert percentile(torch.tensor([]), 90).isnan()
    with pytest.raises(ValueError, match=r"percent is 101; it must lie in 0 \.\. 100"):
        percentile(scores, 101)


def test_a_lucky_early_answer_is_premature() -> None:
    found = shares([turn("answer", incomplete=True, correct=True)])
    assert (found["premature_rate"], found["premature_conversations"], found["score"]) == (1, 1, 1)


def test_a_task_told_at_once_has_no_premature_rate() -> None:
    found = shares([turn("answer")])
    assert math.isnan(found["premature_rate"]) and found["premature_conversations"] == 0


def test_conversations_without_attempts_are_counted_apart() -> None:
    silent = [turn("discussion", incomplete=True), turn("refusal"), turn("missing"), turn("hedge")]
    found = shares(GOLDEN, silent)
    assert found["first_attempt_position"] == 1 / 4 and found["without_attempt"] == 1
    assert (found["score"], found["premature_conversations"]) == (0.5, 0.5)
    assert found["premature_rate"] == 2 / 4
    alone = shares(silent)
    assert math.isnan(alone["first_attempt_position"]) and alone["score"] == 0


def test_questions_of_both_kinds() -> None:
    found = shares([turn("interrogation"), turn("clarification"), turn("interrogation"), turn("answer")])
    assert (found["question_rate"], found["clarification_rate"], found["first_attempt_position"]) == (0.75, 0.25, 1)


def test_the_last_attempt_is_scored() -> None:
    assert conversation_score([turn("answer", correct=True), turn("answer")]) == 0
    assert conversation_score([turn("answer"), turn("answer", correct=True), turn("discussion")]) == 1
    assert conversation_score([turn("discussion", correct=True)]) == 0
    assert conversation_score([]) == 0


def test_nothing_gives_nothing() -> None:
    metric = ConversationSummary()
    metric.update([], torch.tensor([], dtype=torch.int64))
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found.pop("without_attempt") == 0
    assert all(math.isnan(value) for value in found.values()) and len(found) == 9


CLASSES = ["answer", "clarification", "interrogation", "discussion", "hedge", "refusal", "missing"]
TURNS = st.lists(st.builds(turn, st.sampled_from(CLASSES), st.booleans(), st.booleans()), min_size=1, max_size=5)


@given(st.lists(st.tuples(TURNS, st.integers(0, 3)), min_size=1, max_size=12), st.integers(0, 3))
def test_ranks_that_share_whole_instructions_add_up(played: list[tuple[list[dict[str, Any]], int]], cut: int) -> None:
    whole, ranks = ConversationSummary(), [ConversationSummary(), ConversationSummary()]
    whole.update([turns for turns, _ in played], torch.tensor([group for _, group in played]))
    for metric, mine in zip(
        ranks, ([p for p in played if (p[1] <= cut) is side] for side in (True, False)), strict=True
    ):
        metric.update([turns for turns, _ in mine], torch.tensor([group for _, group in mine], dtype=torch.int64))
    for name, reduction in ranks[0]._reductions.items():  # what torchmetrics does with the states of all ranks
        assert callable(reduction)
        setattr(ranks[0], name, reduction(torch.stack([getattr(m, name) for m in ranks])))
    expected = {name: value.item() for name, value in whole.compute().items()}
    assert {name: x.item() for name, x in ranks[0].compute().items()} == pytest.approx(expected, nan_ok=True)
    groups = {group for _, group in played}
    slow = sum(
        sum(conversation_score(t) for t, g in played if g == group) / sum(g == group for _, g in played)
        for group in groups
    ) / len(groups)
    assert expected["performance"] == pytest.approx(slow)


def test_update_names_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"There are \(1,\) scores and \(2,\) group_ids"):
        ConversationSummary().update([GOLDEN], torch.tensor([0, 0]))
