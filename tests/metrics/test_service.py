"""Figures of served dialogues: by hand, over ranks, and with the scores of single dialogues."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.metrics.engagement import Milestones, tse
from lit_rl.metrics.service import ServedDialogue, ServiceScoring, ServiceSummary

TASK = Milestones(weights={"need": 0.4, "order": 0.6}, expert_turns={"need": 1, "order": 2})
SKILLS = ("ask", "close", "handoff")


def turn(skill: str | None, engagement: float, *milestones: str, **facts: Any) -> dict[str, Any]:
    plain = {"skill": skill, "chain": [skill] if skill else [], "engagement": engagement, "milestones": [*milestones]}
    return plain | {"broken_rules": [], "ok": True, "relevance": {}} | facts


GOOD = ServedDialogue(
    turns=[
        turn("ask", 0.5, "need", relevance={"ask": 3}, gre=1.0),
        turn("close", 1.0, "order", relevance={"ask": 2, "close": 1}, gre=0.5, patience=3),
    ],
    milestones=TASK,
    ordered=True,
)
BAD = ServedDialogue(
    turns=[
        turn("close", 0.5, "need", broken_rules=["no close before ask", "greet first"], ok=False, gre=None),
        turn(None, 0.0),
        turn("ask", 0.0, ok=True),
        turn("handoff", 0.0, broken_rules=["once"]),
    ],
    milestones=TASK,
    ordered=False,
)


def test_figures_of_single_dialogues_by_hand() -> None:
    good, bad = ServiceScoring().figures(GOOD), ServiceScoring().figures(BAD)
    assert good.tse == good.tse_compliant == pytest.approx(0.875)  # progress 1, mean engagement .75
    # turn 1: 1; turn 2: the lesser skill alone, 1 / (3 + 1 / log2(3))
    assert good.esndcg == pytest.approx((1 + 1 / (3 + 1 / math.log2(3))) / 2)
    assert (good.gre, good.violations, good.turns, good.ordered) == (0.75, 0, 2, True)
    assert bad.tse == pytest.approx(0.4 * (0.5 + 0.5 * 0.125)) and bad.tse_compliant == 0.0
    assert (bad.esndcg, bad.gre, bad.violations, bad.turns, bad.ordered) == (None, None, 3, 4, False)


def figures(*dialogues: ServedDialogue, scoring: ServiceScoring | None = None) -> dict[str, float]:
    metric = ServiceSummary(SKILLS, scoring)
    metric.update(dialogues)
    return {name: value.item() for name, value in metric.compute().items()}


def test_means_by_hand() -> None:
    found = figures(GOOD, BAD)
    assert found["tse"] == pytest.approx((0.875 + 0.225) / 2)
    assert found["tse_compliant"] == pytest.approx(0.875 / 2)
    assert found["esndcg"] == pytest.approx(ServiceScoring().figures(GOOD).esndcg)  # of the one that has it
    assert found["gre"] == 0.75
    assert (found["orders"], found["dialogues_with_violation"], found["violations_per_turn"]) == (0.5, 0.5, 0.5)
    assert (found["turns"], found["dialogues"]) == (3.0, 2.0)
    assert found["execution"] == pytest.approx(4 / 5)  # a turn without a skill is not planned
    assert [found[f"execution/{skill}"] for skill in SKILLS] == [1.0, 0.5, 1.0]


def test_nothing_gives_nothing() -> None:
    found = figures()
    assert found.pop("dialogues") == 0
    assert all(math.isnan(value) for value in found.values()) and len(found) == 9 + len(SKILLS)


def test_scoring_options_have_their_effect() -> None:
    assert figures(BAD, scoring=ServiceScoring(engagement_weight=0.0))["tse"] == pytest.approx(0.4)
    late = ServedDialogue(turns=[turn("ask", 0.0), *GOOD.turns], milestones=TASK, ordered=True)
    assert figures(late, scoring=ServiceScoring(lateness_discount=0.5))["tse"] == pytest.approx(0.375)
    linear = figures(GOOD, scoring=ServiceScoring(gain="linear"))["esndcg"]
    assert linear == pytest.approx((1 + 1 / (2 + 1 / math.log2(3))) / 2)
    assert figures(GOOD, scoring=ServiceScoring(cutoff=1))["esndcg"] == pytest.approx((1 + 1 / 3) / 2)
    assert figures(late, scoring=ServiceScoring(undefined=0.0, cutoff=1))["esndcg"] == pytest.approx((1 + 1 / 3) / 3)
    halved = figures(GOOD, scoring=ServiceScoring(cutoff=1, gamma=0.5))["esndcg"]
    assert halved == pytest.approx((1 + 0.5 / 3) / 1.5)


TURNS = st.builds(
    turn,
    st.sampled_from([*SKILLS, None]),
    st.floats(0, 1),
    st.sampled_from(["need", "order"]),
    broken_rules=st.lists(st.just("rule"), max_size=2),
    ok=st.booleans(),
    relevance=st.dictionaries(st.sampled_from(SKILLS), st.integers(0, 3)),
    gre=st.one_of(st.none(), st.floats(0, 1)),
)
DIALOGUES = st.builds(
    ServedDialogue, turns=st.lists(TURNS, max_size=4), milestones=st.just(TASK), ordered=st.booleans()
)


@settings(max_examples=25)
@given(st.lists(DIALOGUES, min_size=1, max_size=6), st.integers(0, 5))
def test_ranks_add_up_and_agree_with_tse(dialogues: list[ServedDialogue], cut: int) -> None:
    ranks = [ServiceSummary(SKILLS), ServiceSummary(SKILLS)]
    ranks[0].update(dialogues[:cut])
    ranks[1].update(dialogues[cut:])
    for name, reduction in ranks[0]._reductions.items():  # what torchmetrics does with the states of all ranks
        assert callable(reduction)
        setattr(ranks[0], name, reduction(torch.stack([getattr(m, name) for m in ranks])))
    found = {name: value.item() for name, value in ranks[0].compute().items()}
    assert found == pytest.approx(figures(*dialogues), nan_ok=True)
    slow = [tse([t["milestones"] for t in d.turns], [t["engagement"] for t in d.turns], TASK) for d in dialogues]
    assert found["tse"] == pytest.approx(sum(slow) / len(slow))
    assert found["tse_compliant"] <= found["tse"]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"skills is \['a', 'a'\]; give all skills, each once"):
        ServiceSummary(["a", "a"])
    with pytest.raises(ValueError, match=r"skills is \[\]"):
        ServiceSummary([])
    with pytest.raises(ValueError, match=r"has the skill 'ask'; ServiceSummary.skills is \['close'\]"):
        ServiceSummary(["close"]).update([GOOD])
    with pytest.raises(ValueError, match=r"engagement_weight 3"):
        ServiceScoring(engagement_weight=3)
    with pytest.raises(ValueError, match=r"cutoff 0"):
        ServiceScoring(cutoff=0)
    with pytest.raises(ValueError, match=r"gamma 2"):
        ServiceScoring(gamma=2)
