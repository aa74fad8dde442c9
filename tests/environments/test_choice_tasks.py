"""Questions with options from files of the published layouts (remul.md section 8), all rows written by us."""

import inspect
import json
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import yaml

from lit_rl.environments.choice_layouts import CHOOSE, LAYOUTS, ChoiceLayout
from lit_rl.environments.choice_tasks import ChoiceTasks
from lit_rl.environments.choices import inline_options, lettered, without_list

DEDUCTION = {
    "input": "Three birds sit on a wire. The owl is left of the hen. The hen is left of the crow.\n"
    "Options:\n(A) The owl is the leftmost\n(B) The hen is the leftmost\n(C) The crow is the leftmost",
    "target": "(A)",
}
NAVIGATE = {
    "input": "Do you return to the start?\nTake 2 steps. Turn around. Take 2 steps.\nOptions:\n- Yes\n- No",
    "target": "Yes",
}
SPORTS = {"input": 'Is this plausible? "The goalkeeper hit a home run."', "target": "no"}
EXTRA_HARD = [
    {"task": "pronouns", "input": "Who left? (A) the cook (B) the maid (C) unclear", "target": "(C)", "mini": 0},
    {"task": "sums", "input": "Compute 2 @ 3.", "target": "7", "mini": 1},
    {"task": "pronouns", "input": "Who paid?\n(A) Ana\n(B) both (A) and the maid", "target": " (B)", "mini": 1},
]
MYSTERY = {
    "narrative": "The vase fell at noon. Only Bo was in.\n\nAna came home at one.",
    "question": "Who broke the vase?",
    "choices": "['Ana', \"Bo O'Hara\"]",
    "answer_index": 1,
    "answer_choice": "Bo O'Hara",
}
ZEBRA = {
    "id": "puzzle-2x2-1#mc-0",
    "puzzle": "There are 2 houses. Eric lives left of Peter.",
    "question": "Who lives in house 2?",
    "choices": ["Eric", "Peter"],
    "answer": "Peter",
    "created_at": "2024-01-01",
}
FOLIO = {
    "story_id": 1,
    "example_id": 77,
    "premises": "All cats purr.\nTom is a cat.",
    "conclusion": "Tom barks.",
    "label": "Uncertain",
}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_big_bench_hard_with_letters(tmp_path: Path) -> None:
    tasks = ChoiceTasks(write(tmp_path, DEDUCTION), "bbh")
    problem = tasks[0]
    assert problem.prompt == (
        f"{CHOOSE}\n\nThree birds sit on a wire. The owl is left of the hen. The hen is left of the crow.\n\n"
        "(A) The owl is the leftmost\n(B) The hen is the leftmost\n(C) The crow is the leftmost"
    )
    assert (problem.gold, problem.id, problem.domain) == ("A", "1", "rows")
    assert problem.meta["labels"] == ["A", "B", "C"] and problem.meta["options"]["C"] == "The crow is the leftmost"
    assert tasks.verify(problem, "<think> so </think> the owl is the leftmost.").correct
    assert tasks.verify(problem, "<think> (B) </think> Answer: (A)").correct
    assert tasks.verify(problem, "<think> so </think> The crow").answer is None


def test_big_bench_hard_with_yes_and_no(tmp_path: Path) -> None:
    """remul.md 8 and 3.6: bare words are answers too."""
    tasks = ChoiceTasks(write(tmp_path, NAVIGATE, SPORTS), "bbh_yes_no", tags=None)
    assert [tasks[i].gold for i in range(2)] == ["A", "B"]
    assert tasks[0].prompt.endswith("Turn around. Take 2 steps.\n\n(A) Yes\n(B) No")
    assert tasks[1].prompt.count("plausible") == 1
    for reply in ("Yes", "so it is: yes.", "Answer: A", "(A)"):
        assert tasks.verify(tasks[0], reply).correct and not tasks.verify(tasks[1], reply).correct
    assert tasks.verify(tasks[0], "I cannot know").answer is None


def test_big_bench_extra_hard_in_brackets(tmp_path: Path) -> None:
    file = write(tmp_path, *EXTRA_HARD)
    tasks = ChoiceTasks(file, "bbeh", bracketed_only=True, expected_size=2)
    assert [tasks[i].gold for i in range(2)] == ["C", "B"] and {tasks[i].domain for i in range(2)} == {"pronouns"}
    assert [tasks[i].id for i in range(2)] == ["1", "3"], "rows of the file"
    assert tasks[0].prompt == f"{CHOOSE}\n\nWho left?\n\n(A) the cook\n(B) the maid\n(C) unclear"
    assert tasks[1].meta["options"] == {"A": "Ana", "B": "both (A) and the maid"}
    with pytest.raises(ValueError, match=r"has 2 usable rows \(pronouns: 2\), not 120; check split"):
        ChoiceTasks(file, "bbeh", bracketed_only=True, expected_size=120)
    with pytest.raises(ValueError, match=r"has 3 usable rows \(pronouns: 2, sums: 1\), not 1"):
        ChoiceTasks(file, "bbeh", expected_size=1)
    with pytest.raises(ValueError, match=r"rows.jsonl, row 2: no options \(A\), \(B\)"):
        ChoiceTasks(file, "bbeh")


def test_musr(tmp_path: Path) -> None:
    """Its lists are written out; an option may hold quotation marks."""
    tasks = ChoiceTasks(write(tmp_path, MYSTERY), "musr")
    assert tasks[0].gold == "B" and tasks[0].meta["options"] == {"A": "Ana", "B": "Bo O'Hara"}
    assert tasks[0].prompt.startswith(f"{CHOOSE}\n\nThe vase fell at noon.") and "Ana came home" in tasks[0].prompt
    assert tasks[0].prompt.endswith("Who broke the vase?\n\n(A) Ana\n(B) Bo O'Hara")
    assert tasks.verify(tasks[0], "</think> bo o'hara").correct


def test_zebra_logic(tmp_path: Path) -> None:
    other = ZEBRA | {"id": "puzzle-2x2-1#mc-1", "answer": "Eric"}
    tasks = ChoiceTasks(write(tmp_path, ZEBRA, other), "zebra_logic", shuffle_seed=1)
    assert {tasks[i].id: tasks[i].gold for i in range(2)} == {"puzzle-2x2-1#mc-0": "B", "puzzle-2x2-1#mc-1": "A"}
    with pytest.raises(ValueError, match="row 2: the id 'puzzle-2x2-1#mc-0' is that of row 1 too"):
        ChoiceTasks(write(tmp_path, ZEBRA, ZEBRA), "zebra_logic")


def test_folio(tmp_path: Path) -> None:
    """remul.md 8: A true, B uncertain, C false; in some versions premises are a list."""
    listed = FOLIO | {"premises": ["All cats purr.", "Tom is a cat."], "label": "False", "example_id": 78}
    tasks = ChoiceTasks(write(tmp_path, FOLIO, listed), "folio")
    assert [tasks[i].gold for i in range(2)] == ["B", "C"] and [tasks[i].id for i in range(2)] == ["77", "78"]
    assert tasks[0].prompt == tasks[1].prompt
    assert tasks[0].prompt.endswith("All cats purr.\nTom is a cat.\n\nTom barks.\n\n(A) True\n(B) Uncertain\n(C) False")
    assert tasks.verify(tasks[0], "<think> </think> It is uncertain").correct
    assert tasks.verify(tasks[1], "<think> </think> Therefore False.").correct


def test_a_layout_of_ones_own_from_yaml(tmp_path: Path) -> None:
    """As the command line reads it; with it, parts that share no row."""
    rows = [{"q": f"Which is {i}?", "c": [str(i), str(i + 1)], "gold": str(i + i % 2)} for i in range(6)]
    file = write(tmp_path, *rows)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ChoiceTasks, "tasks")
    layout = {"question": "q", "options": "c", "answer": "gold", "instruction": "Choose."}

    def parsed(**part: Any) -> ChoiceTasks:
        init = {"path": str(file), "layout": layout, "tags": {"open": "[", "close": "]"}, **part}
        class_path = "lit_rl.environments.choice_tasks.ChoiceTasks"
        config = parser.parse_object({"tasks": {"class_path": class_path, "init_args": init}})
        return parser.instantiate_classes(config).tasks

    train, held_out = parsed(shuffle_seed=0, take=4), parsed(shuffle_seed=0, skip=4)
    assert len(train) == 4 and len(held_out) == 2
    problems = {task.id: task for tasks in (train, held_out) for task in (tasks[i] for i in range(len(tasks)))}
    assert [problems[str(i)].gold for i in range(1, 7)] == ["A", "B"] * 3
    assert problems["1"].prompt == "Choose.\n\nWhich is 0?\n\n(A) 0\n(B) 1"
    assert train.verify(problems["1"], "[ so ] (A)").correct


@pytest.mark.parametrize("name", LAYOUTS)
def test_known_layouts_are_ones_of_the_command_line(name: str, tmp_path: Path) -> None:
    rows = {"bbh": DEDUCTION, "bbh_yes_no": NAVIGATE, "bbeh": EXTRA_HARD[0], "musr": MYSTERY}
    file = write(tmp_path, (rows | {"zebra_logic": ZEBRA, "folio": FOLIO})[name])
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ChoiceTasks, "tasks")
    tasks = parser.instantiate_classes(parser.parse_object({"tasks": {"path": str(file), "layout": name}})).tasks
    assert len(tasks) == 1 and tasks[0].gold in tasks[0].meta["labels"]
    with pytest.raises(IndexError):
        tasks[1]


def test_the_examples_of_the_docstring() -> None:
    examples = [line for line in str(ChoiceTasks.__doc__).split("\n") if "init_args:" in line]
    assert len(examples) == 7
    for example in examples:
        arguments = yaml.safe_load(example)["init_args"]
        inspect.signature(ChoiceTasks).bind(**arguments)
        layout = arguments["layout"]
        assert (
            layout in LAYOUTS if isinstance(layout, str) else ChoiceLayout(**layout).columns == ["gold", "q", "choices"]
        )


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("Which? Options: (A) x y (B) z", "Which?", {"A": "x y", "B": "z"}),
        ("Is (A) or (B) right?\nOptions:\n(A) x\n(B) y\n", "Is (A) or (B) right?", {"A": "x", "B": "y"}),
        (
            "Q\n(A) x\n(B) y\n(C) both (A) and (B) of\n these",
            "Q",
            {"A": "x", "B": "y", "C": "both (A) and (B) of\n these"},
        ),
    ],
)
def test_options_at_the_end_of_a_text(text: str, question: str, options: dict[str, str]) -> None:
    assert inline_options(text) == (question, options)


def test_lists_of_dashes_are_left_out() -> None:
    assert without_list("Do I?\nOptions:\n- Yes\n- No\n") == "Do I?"
    assert without_list("Options: none.\nDo I?\n- Yes") == "Options: none.\nDo I?\n- Yes"


@pytest.mark.parametrize("texts", [[], ["a"], ["a", "A "], ["a", " "], [str(i) for i in range(27)]])
def test_bad_options(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="options"):
        lettered(texts)


@pytest.mark.parametrize(
    ("row", "layout", "message"),
    [
        (DEDUCTION, "bbhard", r"layout is 'bbhard'; did you mean 'bbh'\? known are \['bbh'.*or name the columns"),
        (DEDUCTION | {"target": "(D)"}, "bbh", r"row 1: the gold answer '\(D\)' is none of the labels"),
        (DEDUCTION | {"target": ""}, "bbh", "row 1: column 'target' holds ''"),
        (DEDUCTION, "musr", "row 1: there is no column 'answer_choice' in it"),
        (MYSTERY | {"choices": "[Ana, Bo]"}, "musr", r"row 1: column 'choices' holds '\[Ana, Bo\]'; wanted a list of"),
        (MYSTERY | {"choices": "{'a': 1}"}, "musr", "row 1: column 'choices' holds .*; wanted a list of texts"),
        (MYSTERY | {"choices": ["Bo O'Hara"]}, "musr", "row 1: there are 1 options; wanted 2 .. 26"),
        (ZEBRA | {"choices": ["Eric", 2]}, "zebra_logic", "row 1: column 'choices' holds .*; wanted a list of texts"),
        (FOLIO | {"label": "Unknown"}, "folio", "row 1: the gold answer 'Unknown' is none of"),
        (FOLIO | {"premises": ["All cats purr.", 3.5, None]}, "folio", "row 1: column 'premises' holds 'None'"),
    ],
)
def test_bad_rows(row: dict[str, Any], layout: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ChoiceTasks(write(tmp_path, row), layout)


def test_bad_layouts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has both options and fixed; give one of them"):
        ChoiceLayout(answer="a", question="q", options="c", fixed={"A": "x", "B": "y"})
    small = ChoiceLayout(answer="target", question="input", fixed={"yes": "Yes", "no": "No"})
    with pytest.raises(ValueError, match="row 1: labels hold 'yes'; they must be capital letters"):
        ChoiceTasks(write(tmp_path, NAVIGATE), small)
    with pytest.raises(ValueError, match="has 1 usable rows, and skip=0 with take=2 needs 2"):
        ChoiceTasks(write(tmp_path, NAVIGATE), "bbh_yes_no", take=2)
