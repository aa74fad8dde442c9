import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_rl.metrics import accuracy_by_turn, attempt_counts, attempt_shares
from lit_rl.metrics.plasticity import (
    Plasticity,
    answer_shift,
    attempt_records,
    compliance_counts,
    correction_counts,
    goes_where_told,
    total_variation,
)
from lit_rl.metrics.self_correction import SelfCorrectionSummary, attempts_and_verdicts, self_stopped


def pair(before: str | None, after: str, correct: bool = False, heard: str = "") -> list[dict[str, Any]]:
    first: dict[str, Any] = {"kind": "answer", "answer": before, "correct": False, "tokens": 4}
    second = {"kind": "answer", "answer": after, "correct": correct, "tokens": 1}
    return [first | ({"heard": heard} if heard else {}), second]


def test_rates_by_hand() -> None:
    """rl2f.md 15.6."""
    dialogues = [pair("12", "13", True), pair("12", "12"), pair("7", "9"), pair("5", "5"), pair(None, "4", True)]
    shares = attempt_shares(attempt_counts(dialogues))
    assert float(shares["repeat_rate"]) == 0.5 and float(shares["without_answer"]) == pytest.approx(0.2)
    follow, right = correction_counts(dialogues, 2)[:, 1].tolist()
    assert (follow, right) == (5, 2)
    metric = Plasticity(max_turns=2)
    metric.update(dialogues[:3], held=[True, False, False], groups=[0, 0, 1])
    metric.update(dialogues[3:], held=[True], groups=[2, 2])
    found = {name: float(x) for name, x in metric.compute().items()}
    assert math.isnan(found.pop("compliance"))  # nothing was said
    assert found == {
        "answer_shift": 0.5,  # of the one problem with two pairs: 12, 12 before, 13, 12 after
        "correction_rate": pytest.approx(0.4),
        "correction_rate_turn_2": pytest.approx(0.4),
        "tokens_ratio_turn_2": pytest.approx(0.25),
        "over_compliance": 0.5,
    }


def test_distances_by_hand() -> None:
    """rl2f.md 15.6."""
    before, after = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.6, 0.3])
    assert float(total_variation(before, after)) == pytest.approx(0.4)
    assert float(total_variation(before, before)) == 0
    samples = zip(["7"] * 5 + ["3"] * 3 + ["1"] * 2, ["7"] + ["3"] * 6 + ["1"] * 3, strict=True)
    dialogues = [pair(*sample) for sample in samples]
    assert answer_shift(dialogues) == pytest.approx(0.4)
    right = [{"answer": "9", "correct": True}, {"answer": "1", "correct": False}]  # says nothing of feedback
    assert answer_shift([*dialogues, pair(None, "9"), pair("7", "7")[:1], right]) == pytest.approx(0.4)
    assert answer_shift([pair("7", "3")] * 2) == 1
    assert math.isnan(answer_shift([pair("7", "3")]))


def test_nothing_follows_a_right_attempt() -> None:
    """A dialogue that goes on after it says nothing about corrections, and undefined is not zero."""
    right = [{"correct": True, "tokens": 2}, {"correct": False, "tokens": 2}]
    assert correction_counts([right], 2).tolist() == [[0, 0], [0, 0]]
    metric = Plasticity(max_turns=2)
    metric.update([right, right[:1]], held=[], groups=[0, 1])
    figures = metric.compute()
    assert math.isnan(figures["correction_rate"]) and math.isnan(figures["over_compliance"])
    assert float(figures["tokens_ratio_turn_2"]) == 1.0


def test_tokens_are_compared_within_a_dialogue() -> None:
    short, long = [{"tokens": 2}], [{"tokens": 10}, {"tokens": 5}]
    metric = Plasticity(max_turns=2)
    metric.update([short, long], held=[], groups=[0, 1])
    assert float(metric.compute()["tokens_ratio_turn_2"]) == 0.5


def test_compliance_where_it_can_be_told() -> None:
    dialogues = [pair("7", "11", heard="higher"), pair("7", "3", heard="higher"), pair("7", "5", heard="lower")]
    unknown = [pair("7", "5", heard="try again"), pair("7", "x", heard="lower"), pair(None, "5", heard="lower")]
    everything = [*dialogues, *unknown, pair("7", "5")]
    assert compliance_counts(everything, goes_where_told).tolist() == [3, 2]
    assert compliance_counts(unknown, goes_where_told).tolist() == [0, 0]
    metric = Plasticity(max_turns=2)
    metric.update(everything, held=[], groups=range(len(everything)))
    assert float(metric.compute()["compliance"]) == pytest.approx(2 / 3)


def turn(party: str, exchange: int, text: str = "", tokens: int = 0, **info: Any) -> Any:
    return SimpleNamespace(party=party, exchange=exchange, text=text, completion_ids=[1] * tokens, info=info)


def test_records_of_a_dialogue() -> None:
    taught = [
        turn("student", 0, "ans 7", 3, kind="answer", correct=False, answer="7"),
        turn("teacher", 0, "it is 9", leak=True, heard=False),
        turn("teacher", 0, "higher", leak=False, heard=True),
        turn("student", 1, "ans 9", 2, kind="answer", correct=True, answer="9"),
    ]
    first, second = attempt_records(taught, "student")
    assert (first["heard"], first["tokens"], first["answer"]) == ("higher", 3, "7")
    assert second["tokens"] == 2 and "heard" not in second
    own = [taught[0], turn("student", 0, "lower", 1, critique=True), taught[3]]
    assert [record.get("heard") for record in attempt_records(own, "student")] == ["lower", None]


# -- self-correction ---------------------------------------------------------------------------------------------------


def test_where_a_dialogue_stops_itself() -> None:
    """Accepts a wrong answer; accepts the right one late; never; was cut off before its last attempt."""
    right = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 1, -1]])
    accepts = torch.tensor([[1, 0, -1], [0, 1, -1], [0, 0, -1], [0, -1, -1]])
    used, good = self_stopped(right, accepts)
    assert used.tolist() == [1, 2, 3, 2] and good.tolist() == [False, True, True, True]


def test_summary_of_blind_self_correction() -> None:
    right = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    accepts = torch.tensor([[1, 0, -1], [0, 1, -1], [0, 0, -1], [0, 0, -1]])
    groups = torch.tensor([0, 0, 0, 1])  # means within problems: of three dialogues, and of one
    metric = SelfCorrectionSummary(max_turns=3)
    metric.update(right[:3], accepts[:3], groups[:3])
    metric.update(right[3:], accepts[3:], groups[3:])
    found = {name: float(x) for name, x in metric.compute().items()}
    assert [found[f"acc_last_turn_{k}"] for k in (1, 2, 3)] == pytest.approx([1 / 6, 1 / 3, 1 / 3])
    assert found["acc_self"] == pytest.approx(1 / 3)  # two of three, none of one
    assert found["attempts_used"] == pytest.approx((2 + 3) / 2)
    # Critiques of right attempts: 0, 1; of wrong ones: 1, 0, 0, 0, 0; one more comes after an acceptance.
    assert [found["true_accept"], found["false_accept"]] == pytest.approx([1 / 2, 1 / 5])
    assert found["verdict_accuracy"] == pytest.approx(5 / 7)


def test_without_an_acceptance_there_is_nothing_to_stop_at() -> None:
    metric = SelfCorrectionSummary(max_turns=2)
    metric.update(torch.tensor([[0, 1]]), torch.full((1, 2), -1), torch.tensor([0]))
    found = metric.compute()
    assert all(math.isnan(found[name]) for name in ("acc_self", "attempts_used", "verdict_accuracy", "true_accept"))
    assert float(found["acc_last_turn_2"]) == 1.0


def test_oracle_against_blind_scoring() -> None:
    """Methods/rl2f.md 15.2: a wrong attempt is repaired with 0.3, a right one survives a revision with 0.9."""
    paths: dict[tuple[int, ...], int] = {(1,): 4_000, (0,): 6_000}  # of 10,000 dialogues, 0.4 are right at first
    for _ in range(3):
        after = {0: {1: 3, 0: 7}, 1: {1: 9, 0: 1}}
        paths = {(*p, right): n * tenths for p, n in paths.items() for right, tenths in after[p[-1]].items()}
    share = math.gcd(*paths.values())
    right = torch.tensor([path for path, n in paths.items() for _ in range(n // share)])
    blind = SelfCorrectionSummary(max_turns=4)
    blind.update(right, torch.full_like(right, -1), torch.arange(len(right)))
    found = blind.compute()
    assert [float(found[f"acc_last_turn_{k}"]) for k in (1, 2, 3, 4)] == pytest.approx([0.4, 0.54, 0.624, 0.6744])
    first = torch.where(right.any(1), right.argmax(1), -1)
    assert accuracy_by_turn(first, 4).tolist() == pytest.approx([0.4, 0.58, 0.706, 0.7942])


def test_attempts_and_verdicts_of_episodes() -> None:
    episode = SimpleNamespace(
        turns=[
            turn("student", 0, kind="answer", correct=False),
            turn("student", 0, critique=True, accepts=False),
            turn("student", 1, kind="answer", correct=True),
        ]
    )
    right, accepts = attempts_and_verdicts([episode], 3)
    assert right.tolist() == [[0, 1, -1]] and accepts.tolist() == [[0, -1, -1]]
