"""Raters that ask a party or a judge."""

from collections.abc import Mapping, Sequence

import pytest

from lit_rl.environments.base import Reply
from lit_rl.metrics.reply_quality import DIMENSIONS, RatedReply, ReplyRater, gre
from lit_rl.parties import Call
from lit_rl.protocols import Judge, Verdict
from lit_rl.service.raters import JudgeRater, PartyRater, read_points

FULL = "accuracy: 5\nstrategy: 4\nfluency: 4\nempathy: 3\ncompliance: 5"
LAMP = RatedReply(
    text="The {red} lamp.",
    history=("hi", "hello"),
    skill="recommend",
    facts=("lamp",),
    required=("red", "lamp"),
    forbidden=("guarantee",),
)


class Points:
    """A party that gives the points it is told to, and keeps what it was asked."""

    def __init__(self, *texts: str):
        self.texts, self.calls = texts, list[Call]()

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        self.calls += calls
        return [Reply(text=text) for text in self.texts[: len(calls)]]


def test_a_party_is_asked_once_per_reply() -> None:
    party = Points(FULL, "I would rather not say.")
    rater = PartyRater(party)
    assert isinstance(rater, ReplyRater)
    found = rater.rate([LAMP, RatedReply(text="no")])
    assert found[0] is not None and gre(found[0]) == pytest.approx(0.8)
    assert found[1] is None
    text = party.calls[0].messages[0].content
    for part in (
        "The {red} lamp.",
        "hi\nhello",
        "skill: recommend",
        "name: lamp",
        "say: red; lamp",
        "not say: guarantee",
    ):
        assert part in text
    assert all(f"{name}: " in text for name in DIMENSIONS) and "name: nothing" in party.calls[1].messages[0].content
    assert party.calls[0].key != party.calls[1].key
    assert rater.rate([]) == [] and len(party.calls) == 2


def test_equal_replies_have_equal_keys() -> None:
    party = Points(FULL, FULL)
    PartyRater(party).rate([LAMP, LAMP])
    assert party.calls[0].key == party.calls[1].key


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (FULL.upper().replace(":", " ="), [5, 4, 4, 3, 5]),
        (FULL.replace("accuracy: 5", "accuracy: 1, no, accuracy: 2/5"), [2, 4, 4, 3, 5]),
        (FULL.replace("empathy: 3", ""), None),
        (FULL.replace("empathy: 3", "empathy: 6"), None),
        (FULL.replace("empathy: 3", "empathy: 0"), None),
        (FULL.replace("empathy: 3", "empathy: 3.5"), None),
        (FULL.replace("empathy: 3", "empathy: 35"), None),
    ],
)
def test_points(text: str, found: list[int] | None) -> None:
    points = read_points(text)
    assert (None if points is None else [points[name] for name in DIMENSIONS]) == found


class Strict:
    """A judge that accepts what it is told to."""

    def __init__(self, accept: str):
        self.accept, self.asked = accept, list[tuple[Mapping[str, str], int]]()

    def judge(self, questions: Sequence[Mapping[str, str]], keys: Sequence[int]) -> list[Verdict]:
        self.asked += zip(questions, keys, strict=True)
        return [Verdict(accepted=self.accept in question["question"]) for question in questions]


def test_a_judge_is_asked_once_per_dimension() -> None:
    judge = Strict("how the customer feels")
    assert isinstance(judge, Judge)
    rater = JudgeRater(judge)
    assert isinstance(rater, ReplyRater)
    found = rater.rate([LAMP, LAMP])
    assert found == [{"accuracy": 1, "strategy": 1, "fluency": 1, "empathy": 5, "compliance": 1}] * 2
    assert len({key for _, key in judge.asked}) == len(DIMENSIONS)  # equal questions, equal keys
    assert judge.asked[0][0]["reply"] == LAMP.text and judge.asked[0][0]["history"] == "hi\nhello"
    assert rater.rate([]) == []


def test_a_prompt_without_the_reply_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prompt has no '\{reply\}'"):
        PartyRater(Points(), prompt="Rate it.")
