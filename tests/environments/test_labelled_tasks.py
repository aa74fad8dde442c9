"""Tasks of reasoning-gym as questions with options, by name."""

import pytest

from lit_rl.environments import ReasoningGymTasks, reasoning
from lit_rl.environments.labelled_tasks import LabelledTasks

YES_NO = {"A": "Yes", "B": "No"}
COLOURS = r"a (\w+) (?:top|right|front|left|back|bottom) side"


def test_syllogisms() -> None:
    tasks = LabelledTasks(ReasoningGymTasks("syllogism", 20), YES_NO)
    assert {tasks[i].gold for i in range(20)} == {"A", "B"} and len(tasks) == 20
    for i in range(20):
        problem, plain = tasks[i], tasks.tasks[i]
        assert problem.prompt == f"{plain.prompt.strip()}\n\n(A) Yes\n(B) No"
        assert problem.meta["labels"] == ["A", "B"] and YES_NO[problem.gold] == plain.gold
        other = "B" if problem.gold == "A" else "A"
        for right, wrong in ((problem.gold, other), (plain.gold, YES_NO[other])):
            assert tasks.verify(problem, f"<think> {wrong} </think> Answer: {right}").correct
            assert not tasks.verify(problem, f"<think> {right} </think> Answer: {wrong}").correct
        assert tasks.verify(problem, f"Answer: {problem.gold}").answer is None


@pytest.mark.parametrize("name", ["course_schedule", "isomorphic_strings", "ransom_note"])
def test_other_tasks_with_two_answers(name: str) -> None:
    tasks = LabelledTasks(ReasoningGymTasks(name, 8), {"A": "True", "B": "False"}, tags=None)
    for problem in (tasks[i] for i in range(8)):
        assert tasks.verify(problem, tasks.tasks[0].gold).answer in ("A", "B")
        assert tasks.verify(problem, f"({problem.gold})").correct


def test_options_found_in_the_prompt() -> None:
    tasks = LabelledTasks(ReasoningGymTasks("color_cube_rotation", 12), option_pattern=COLOURS)
    for i in range(12):
        problem = tasks[i]
        assert problem.meta["options"][problem.gold] == tasks.tasks[i].gold and len(problem.meta["labels"]) == 6
        assert tasks.verify(problem, f"</think> {tasks.tasks[i].gold}").correct
    assert len({tasks[i].gold for i in range(12)}) > 1


def test_zebra_puzzles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is one of the names in the first list."""
    monkeypatch.setattr(reasoning, "ALLOWED", ("zebra_puzzles",))
    small = {"num_people": 3, "num_characteristics": 2}
    source = ReasoningGymTasks("zebra_puzzles", 3, options=small, distinct=False)
    tasks = LabelledTasks(source, option_pattern=r"unique name: (.+)")
    for i in range(3):
        assert len(tasks[i].meta["labels"]) == 3
        assert tasks[i].meta["options"][tasks[i].gold] == source[i].gold
        assert tasks.verify(tasks[i], f"<think> so </think> Answer: {tasks[i].gold}").correct


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either options or option_pattern"),
        ({"options": YES_NO, "option_pattern": "(a)"}, "give either options or option_pattern"),
        ({"option_pattern": "a"}, r"option_pattern 'a' needs a group \(...\) around an answer"),
        ({"option_pattern": "(kangaroo)"}, "problem syllogism-0-.* of syllogism: there are 0 options; wanted 2 .. 26"),
        ({"options": {"yes": "Yes", "no": "No"}}, "labels hold 'yes'"),
        ({"options": {"A": "Right", "B": "Wrong"}}, "problem syllogism-0-.*: the gold answer .* is none of the labels"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelledTasks(ReasoningGymTasks("syllogism", 2), **arguments)
