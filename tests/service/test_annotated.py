"""Annotated dialogues: what is a record, files and back, scores of them, and played dialogues as records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_rl.episodes import Episode, Turn
from lit_rl.metrics.engagement import Milestones
from lit_rl.metrics.service import ServiceScoring
from lit_rl.parties import ScriptedParty
from lit_rl.policy import Policy
from lit_rl.rollout import Planned, play
from lit_rl.service import (
    LABELS,
    ScriptedPlanner,
    ServiceDialogue,
    ServiceScenarios,
    SkillLabels,
    scripted_customer,
    scripted_responder,
    served,
)
from lit_rl.service.annotated import AnnotatedDialogue, AnnotatedTurn, played_dialogue, scenario_ids
from lit_rl.service.annotated_files import read_annotated, write_annotated

TASK = Milestones(weights={"need": 0.4, "order": 0.6}, expert_turns={"need": 1, "order": 2})


def row(**changes: Any) -> dict[str, Any]:
    """A line of a file, with some keys changed."""
    service = {
        "role": "service", "text": "what do you need", "skill": "ask", "chain": ["ask", "close"],
        "relevance": {"ask": 3, "close": 1}, "engagement": 0.5, "milestones": ["need"], "sop_state": "start",
    }  # fmt: skip
    closing = {"role": "service", "text": "done", "skill": "close", "engagement": 1.0, "milestones": ["order"]}
    return {
        "dialogue_id": "d1",
        "scenario": {"goal": {"item": 2}, "persona": {"patience": 8}, "seed": 3},
        "turns": [{"role": "customer", "text": "hi"}, service, {"role": "customer", "text": "a lamp"}, closing],
        "outcome": {"ordered": True, "satisfaction": None},
        "sop_id": "toy",
    } | changes


def scored(**changes: Any) -> dict[str, Any]:
    stated = {"weights": dict(TASK.weights), "expert_turns": dict(TASK.expert_turns)}
    return row(scenario=row()["scenario"] | {"milestones": stated}, **changes)


def stored(folder: Path, *rows: Any) -> Path:
    file = folder / "dialogues.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in rows), encoding="utf-8")
    return file


def test_the_layout_of_section_8(tmp_path: Path) -> None:
    found = read_annotated(stored(tmp_path, row(), row(dialogue_id="d2")), skills=["ask", "close", "handoff"])
    assert [dialogue.dialogue_id for dialogue in found] == ["d1", "d2"]
    dialogue = found[0]
    assert (dialogue.goal, dialogue.persona, dialogue.seed) == ({"item": 2}, {"patience": 8}, 3)
    assert (dialogue.ordered, dialogue.satisfaction, dialogue.sop_id) == (True, None, "toy")
    assert dialogue.turns[0] == AnnotatedTurn(role="customer", text="hi")
    assert dialogue.turns[1].chain == ("ask", "close") and dialogue.turns[1].sop_state == "start"
    assert dialogue.turns[3].chain is None and dialogue.turns[3].facts()["chain"] == ("close",)


def test_what_is_null_is_not_annotated(tmp_path: Path) -> None:
    names = ("skill", "chain", "relevance", "engagement", "sop_state")
    bare = {"role": "service", "text": "hello", **dict.fromkeys(names)}
    found = read_annotated(stored(tmp_path, row(turns=[{"role": "customer", "text": "hi", "skill": None}, bare])))
    assert found[0].turns[1] == AnnotatedTurn(role="service", text="hello")


def test_files_and_back(tmp_path: Path) -> None:
    found = read_annotated(stored(tmp_path, scored(), row(dialogue_id="d2")))
    file = tmp_path / "new" / "copy.jsonl"
    write_annotated(file, found)
    assert read_annotated(file) == found
    assert [path.name for path in file.parent.iterdir()] == ["copy.jsonl"]
    assert found[0].milestones == TASK and found[1].milestones is None


def test_scores_of_records(tmp_path: Path) -> None:
    broken = scored()
    broken["turns"][3] |= {"broken_rules": ["no close"], "ok": False}
    first, second = read_annotated(stored(tmp_path, scored(), broken | {"dialogue_id": "d2"}))
    figures = ServiceScoring().figures(first.served())
    assert figures.tse == figures.tse_compliant == pytest.approx(0.875)
    assert (figures.esndcg, figures.violations, figures.turns, figures.ordered) == (1.0, 0, 2, True)
    figures = ServiceScoring().figures(second.served())
    assert figures.tse_compliant == pytest.approx(0.35) and figures.violations == 1
    with pytest.raises(ValueError, match=r"Dialogue d1 has no milestones"):
        read_annotated(stored(tmp_path, row()))[0].served()


def test_dialogues_of_one_scenario(tmp_path: Path) -> None:
    other = {"goal": {"item": 2}, "persona": {"patience": 8}, "seed": 4}
    rows = [row(), row(dialogue_id="d2", scenario=other), row(dialogue_id="d3"),
            row(dialogue_id="d4", scenario=other | {"goal": {"item": 1}})]  # fmt: skip
    found = read_annotated(stored(tmp_path, *rows))
    assert scenario_ids(found) == [0, 1, 0, 2]
    assert scenario_ids(found, by="goal") == [0, 0, 0, 1]
    with pytest.raises(ValueError, match=r"by is 'seed'; use 'scenario' or 'goal'"):
        scenario_ids(found, by="seed")


def closing(exchange: int, **changes: Any) -> dict[str, Any]:
    facts = {
        "turn": exchange + 1, "skill": "ask", "chain": ["ask"], "sop_state": "start", "broken_rules": [],
        "relevance": {"ask": 3}, "ok": True, "faults": [], "effect": True, "engagement": 0.5, "milestones": ["need"],
        "ended": None, "success": False, "event": None, "world": {},
    }  # fmt: skip
    return facts | changes


def played() -> Episode:
    scenario = {
        "scenario": {"goal": {"item": 2}, "persona": {}, "seed": 3},
        "milestone_weights": dict(TASK.weights),
        "expert_turns": dict(TASK.expert_turns),
    }
    turns = [
        Turn(party="customer", exchange=0, text="hi", info=scenario),
        Turn(party="planner", exchange=0, text="<ask>", info={"skill": "ask"}),
        Turn(party="responder", exchange=0, text="what do you need", info=closing(0)),
        Turn(party="customer", exchange=1, text="a lamp"),
        Turn(
            party="planner", exchange=1, text="what", info=closing(
                1, skill=None, chain=[], ok=False, engagement=0.0, milestones=[], relevance={}
            ),
        ),
        Turn(party="customer", exchange=2, text="well?"),
        Turn(
            party="responder", exchange=2, text="done", info=closing(
                2, skill="close", chain=["close"], broken_rules=["once"], engagement=1.0, milestones=["order"],
                success=True, ended="ordered",
            ),
        ),
    ]  # fmt: skip
    return Episode(index=17, task_id="0", group=0, seed=0, turns=turns, terminated=True)


def test_played_dialogues_become_records(tmp_path: Path) -> None:
    dialogue = played_dialogue(played(), sop_id="toy")
    assert [turn.text for turn in dialogue.turns] == ["hi", "what do you need", "a lamp", "", "well?", "done"]
    assert dialogue.turns[3].skill is None and dialogue.turns[5].broken_rules == ("once",)
    assert (dialogue.dialogue_id, dialogue.ordered, dialogue.goal, dialogue.milestones) == (
        "17",
        True,
        {"item": 2},
        TASK,
    )
    write_annotated(tmp_path / "played.jsonl", [dialogue])
    again = read_annotated(tmp_path / "played.jsonl")[0]
    scores = ServiceScoring()
    assert scores.figures(again.served()) == scores.figures(dialogue.served())
    figures = scores.figures(again.served())
    assert figures.tse == pytest.approx((0.4 + 0.6 * 0.9) * 0.75) and figures.violations == 1


def test_played_dialogues_score_as_their_records_do(tmp_path: Path, make_policy: Callable[[], Policy]) -> None:
    source, labels = ServiceScenarios(12), SkillLabels(LABELS)
    planned = [
        Planned(environment=ServiceDialogue(source[i], labels=labels), index=i, task_id=str(i), group=i)
        for i in range(12)
    ]
    parties = {
        "customer": ScriptedParty(scripted_customer),
        "planner": ScriptedParty(ScriptedPlanner(random_share=0.5)),
        "responder": ScriptedParty(scripted_responder),
    }
    episodes = play(planned, parties, make_policy(), seed=0).episodes
    write_annotated(tmp_path / "played.jsonl", [played_dialogue(episode, sop_id="toy_shop") for episode in episodes])
    records = read_annotated(tmp_path / "played.jsonl", skills=source.procedure.skills)
    scores = ServiceScoring()
    before = [scores.figures(served(episode)) for episode in episodes]
    assert [scores.figures(record.served()) for record in records] == before
    assert 0 < sum(figures.ordered for figures in before) < 12 and len(set(before)) > 3
    assert scenario_ids(records, by="scenario") == list(range(12))
    said = [turn.text for turn in episodes[0].turns if turn.party == "responder"]
    assert [turn.text for turn in records[0].turns if turn.role == "service"] == said


def test_no_dialogue_is_no_record() -> None:
    with pytest.raises(ValueError, match=r"Task 0: episode 1 does not begin with a customer's scenario"):
        played_dialogue(Episode(index=1, task_id="0", group=0, seed=0))


def turn(**changes: Any) -> list[dict[str, Any]]:
    return [{"role": "customer", "text": "hi"}, {"role": "service", "text": "hello"} | changes]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"dialogue_id": "x"}, r"row 2: there is no column 'scenario'"),
        (row(scenario=3), r"row 2, scenario: it is 3; wanted an object with names"),
        (row(scenario={"persona": {}}), r"row 2, goal: it is None; wanted an object"),
        (row(scenario={"goal": {}, "mood": 1}), r"row 2, scenario: it has 'mood'; the names are \['goal', 'persona'"),
        (row(outcome={"ordered": "yes"}), r"row 2: ordered is 'yes'; it must be true or false"),
        (row(scenario={"goal": {}, "seed": "x"}), r"row 2: seed is 'x'; it must be a whole number"),
        (
            row(scenario={"goal": {}, "milestones": {"weights": {"a": "1"}, "expert_turns": {"a": 1}}}),
            r"row 2, milestones.weights: it is {'a': '1'}; wanted a number for each milestone",
        ),
        (row(turns="none"), r"row 2: turns is none; it must be a list"),
        (row(turns=turn()[:1]), r"row 2: no turn of the service is among the turns"),
        (row(turns=turn(role="seller")), r"row 2, turn 2: role is 'seller'"),
        (row(turns=turn(text=None)), r"row 2, turn 2: role is 'service' and text None; a turn has a role of"),
        (row(turns=turn(mood=1)), r"row 2, turn 2: it has 'mood'; the names are"),
        (row(turns=turn(chain="ask")), r"row 2, turn 2: chain is 'ask'; it must be a list of texts"),
        (row(turns=turn(chain=[1])), r"row 2, turn 2: chain is \[1\]; it must be a list of texts"),
        (row(turns=turn(skill="close", chain=["ask"])), r"a chain begins with the skill"),
        (row(turns=turn(skill=4)), r"row 2, turn 2: skill is 4; it must be a text, or null"),
        (row(turns=turn(relevance={"ask": 4})), r"relevance of 'ask' is 4; grades are 0 \.\. 3"),
        (row(turns=turn(relevance=[1])), r"row 2, turn 2, relevance: it is \[1\]"),
        (row(turns=turn(engagement=1.5)), r"engagement is 1.5; it must lie in \[0, 1\]"),
        (row(turns=turn(engagement="high")), r"engagement is 'high'"),
        (row(turns=turn(ok="yes")), r"ok is 'yes'; it must be true or false"),
        (row(turns=[*turn(), {"role": "customer", "text": "a", "engagement": 0.5}]),
         r"turn 3: a customer's turn has 'engagement'; annotate the turn of the service before it"),
        (row(turns=turn(skill="dance")), r"row 2, turn 2: it names \['dance'\]; the skills are \['ask', 'close'\]"),
        (row(), r"row 2: the dialogue_id 'd1' is that of row 1 too"),
        (scored(turns=turn(milestones=["sale"])), r"row 2: a turn has the milestone 'sale'; the scenario has"),
        (row(scenario={"goal": {}, "milestones": {"weights": {"a": 2.0}, "expert_turns": {"a": 1}}}),
         r"row 2, milestones: Milestones.weights are"),
        (row(scenario={"goal": {}, "milestones": {"weights": {"a": 1.0}}}),
         r"row 2, milestones.expert_turns: it is None"),
    ],
)  # fmt: skip
def test_errors_name_file_and_row(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_annotated(stored(tmp_path, row(), line), skills=["ask", "close"])
    assert f"{tmp_path}/dialogues.jsonl, row 2" in str(error.value)


def test_a_record_needs_no_file() -> None:
    said = (AnnotatedTurn(role="service", text="hello", skill="greet"),)
    dialogue = AnnotatedDialogue(dialogue_id="1", goal={}, turns=said, ordered=False)
    assert dialogue.as_row()["outcome"] == {"ordered": False, "satisfaction": None}
