"""Procedures as automata: states, masks, broken rules, and what is refused when one is written."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.service import Procedure

SKILLS = ["a", "b", "c", "safe"]


def written(*rules: Any, **changes: Any) -> dict[str, Any]:
    mapping = {"id": "p", "skills": SKILLS, "safe_skill": "safe", "goal_skill": "c", "rules": list(rules)}
    return {key: value for key, value in {**mapping, **changes}.items() if value is not None}


def read(*rules: Any, **changes: Any) -> Procedure:
    return Procedure.from_mapping(written(*rules, **changes))


def test_the_states_of_a_small_procedure() -> None:
    """Gopo.md section 3: finite states, derived from the skills done; b waits for a, a is done once."""
    sop = read({"type": "precede", "first": "a", "then": ["b", "c"]}, {"type": "once", "skill": "a"})
    assert sop.num_states == 2 and [sop.state_name(s) for s in range(2)] == ["start", "a"]
    assert sop.admissible(0) == ("a", "safe") and sop.allowed(0) == (True, False, False, True)
    assert sop.next(0, "safe") == 0 and sop.next(0, "a") == 1 == sop.state_number("a")
    assert sop.admissible(1) == ("b", "c", "safe") and sop.next(1, "b") == 1  # nothing watches b
    assert sop.broken_rules(0, "b") == ("precede 1",) and sop.broken_rules(1, "a") == ("once 2",)
    assert sop.broken_rules(0, "a") == ()
    assert sop.done(1) == ("a",)


def test_every_kind_of_rule() -> None:
    sop = read(
        {"type": "require_before", "skill": "c", "required": ["a", "b"], "name": "told"},
        {"type": "forbid", "skill": "b", "after": "a", "until": "c", "name": "pause"},
    )
    after_a = sop.next(0, "a")
    assert sop.broken_rules(0, "b") == () and sop.broken_rules(after_a, "b") == ("pause",)
    assert sop.broken_rules(0, "c") == ("told",) == sop.broken_rules(after_a, "c")  # both a and b are needed
    forced = sop.next(after_a, "c")  # whoever breaks a rule has done it
    assert sop.state_name(forced) == "a+c" and sop.broken_rules(forced, "b") == ()
    assert sop.broken_rules(sop.next(after_a, "b"), "c") == ()


def test_a_skill_forbidden_from_the_start_until_another() -> None:
    sop = read({"type": "forbid", "skill": "a", "until": ["b", "c"]})
    assert sop.admissible(0) == ("b", "c", "safe")
    assert sop.admissible(sop.next(0, "b")) == tuple(SKILLS) == sop.admissible(sop.next(0, "c"))


def test_what_may_follow_within_some_steps() -> None:
    sop = read({"type": "precede", "first": "a", "then": "b"}, {"type": "precede", "first": "b", "then": "c"})
    masks = [sop.ahead(0, steps) for steps in range(3)]
    assert masks == [(True, False, False, True), (True, True, False, True), (True, True, True, True)]
    assert masks[0] == sop.allowed(0)


pairs = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=3)


@settings(max_examples=40, deadline=None)
@given(before=pairs, once=st.sets(st.sampled_from("abc")), plan=st.lists(st.sampled_from(SKILLS), max_size=6))
def test_masks_and_broken_rules_agree_with_the_history(
    before: list[tuple[str, str]], once: set[str], plan: list[str]
) -> None:
    """Gopo.md section 12.1: no reachable mask is empty, and a forced action is counted, against a check of all history.

    Sets of rules that cancel each other are refused, which is checked against the same slow reading.
    """
    before = [(first, then) for first, then in before if first != then]
    rules = [{"type": "precede", "first": first, "then": then} for first, then in before]
    rules += [{"type": "once", "skill": skill} for skill in sorted(once)]

    def wrong(history: list[str], skill: str) -> int:
        return sum(then == skill and first not in history for first, then in before) + (
            skill in once and skill in history
        )

    todo, never = [list[str]()], set("abc")
    for history in todo:
        for skill in SKILLS:
            if not wrong(history, skill) and skill not in history:
                never -= {skill}
                todo.append([*history, skill])
    if never:
        with pytest.raises(ValueError, match="can never be done"):
            read(*rules)
        return
    sop, state, history = read(*rules), 0, list[str]()
    for skill in plan:
        assert len(sop.broken_rules(state, skill)) == wrong(history, skill)
        assert sop.allowed(state)[SKILLS.index("safe")]
        assert (skill in sop.admissible(state)) == (not wrong(history, skill))
        state = sop.next(state, skill)
        history.append(skill)


WAITS = {"type": "precede", "first": "a", "then": "b"}


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ([], "must be a mapping with"),
        (written(goal=1), "unknown key 'goal'"),
        (written(id=None), "has no 'id'"),
        (written(skills=["a", "a", "safe"]), "give different names"),
        (written(skills=["a b", "safe"]), "a word without"),
        (written(skills="abc"), "skills is 'abc'; it must be a list"),
        (written(rules="none"), "rules is 'none'; it must be a list"),
        (written(start="a"), "give a word that is not a skill"),
        (written(safe_skill="d"), "safe_skill names 'd'"),
        (written(goal_skill="d"), "goal_skill names 'd'"),
        (written(replies={"d": {}}), "replies names 'd'"),
        (written(replies={"a": {"must": []}}), "the reply of 'a' has 'must'"),
        (written(replies={"a": {"required": ["x y"], "forbidden": ["Y"]}}), "the reply of 'a': required 'x y' cannot"),
        (written(WAITS, "once a"), "rule 2 is 'once a'; it must be a mapping with a type"),
        (written({"type": ["once"], "skill": "a"}), "rule 1 is .*it must be a mapping with a type, one of"),
        (written({"type": "precede", "first": "a"}), r"rule 1 \(precede\): 'then' is missing; it takes first and then"),
        (written({"type": "once", "skill": "a", "by": 1}), r"rule 1 \(once\): 'by' is unknown; it takes skill"),
        (written({"type": "once", "skill": ["a", "b"]}), "give one skill"),
        (written({"type": "forbid", "skill": []}), "give a skill or a list of skills"),
        (written(WAITS, {"type": "once", "skill": "d"}), r"rule 2 \(once\): skill names 'd'"),
        (written({"type": "precede", "first": "a", "then": ["a", "b"]}), "'a' would have to be done before itself"),
        (written({**WAITS, "name": "x"}, {"type": "once", "skill": "a", "name": "x"}), "are both called 'x'"),
        (written({"type": "once", "skill": "safe"}), r"rule 1 \(once\) can forbid the safe skill 'safe'"),
        (
            written(WAITS, {"type": "precede", "first": "b", "then": "a"}),
            r"'a' and 'b' can never be done, because of rule 1 \(precede\) and rule 2 \(precede\)",
        ),
        (
            written({"type": "forbid", "skill": "c"}),
            r"'c' can never be done \(the goal skill among them\), because of rule 1",
        ),
    ],
)
def test_what_is_refused(mapping: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refusal:
        Procedure.from_mapping(mapping)
    assert "\n" not in str(refusal.value)


def test_too_many_watched_skills() -> None:
    skills = [f"s{i}" for i in range(15)]
    rules = [{"type": "once", "skill": skill} for skill in skills]
    with pytest.raises(ValueError, match="watch 15 skills"):
        read(*rules, skills=[*skills, "safe"], goal_skill="s0")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "sop.yaml"
    file.write_text("id: p\nskills: [a, safe]\nsafe_skill: safe\ngoal_skill: a\nreplies: {a: {required: [x y]}}\n")
    sop = Procedure.from_yaml(file)
    assert sop.id == "p" and sop.replies["a"].required == ("x y",) and sop.replies["safe"].required == ()
    with pytest.raises(ValueError, match="There is no procedure .*other.yaml"):
        Procedure.from_yaml(tmp_path / "other.yaml")
    file.write_text("skills: [a")
    with pytest.raises(ValueError, match="sop.yaml is not YAML"):
        Procedure.from_yaml(file)
    file.write_text("id: p\nskills: [a, safe]\nsafe_skill: other\ngoal_skill: a\n")
    with pytest.raises(ValueError, match="sop.yaml: Procedure 'p': safe_skill names 'other'"):
        Procedure.from_yaml(file)


def test_unknown_states_and_skills(procedure: Procedure) -> None:
    with pytest.raises(ValueError, match="has no state 'lost'"):
        procedure.state_number("lost")
    with pytest.raises(ValueError, match="names 'dance'"):
        procedure.broken_rules(0, "dance")
