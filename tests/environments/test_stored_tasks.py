"""Tasks and rows from files and from the hub, and what is said about bad ones."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jsonargparse import ArgumentParser

from lit_rl.environments import StoredTasks, TaskSource, read_rows
from lit_rl.environments.parts import row_order

ROWS = [{"prompt": "1 + 1", "answer": 2, "more": "x"}, {"prompt": "half", "answer": "1/2", "more": "y"}]


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: Any, name: str = "tasks.jsonl") -> Path:
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    def write(**columns: list[Any]) -> Path:
        pq.write_table(pa.table(columns), tmp_path / "tasks.parquet")
        return tmp_path / "tasks.parquet"

    return write


# -- reading ---------------------------------------------------------------------------------------------------


def test_rows_in_order_with_the_wanted_columns(jsonl: Callable[..., Path], parquet: Callable[..., Path]) -> None:
    assert read_rows(jsonl(*ROWS), ["answer", "prompt"]) == [
        {"answer": 2, "prompt": "1 + 1"},
        {"answer": "1/2", "prompt": "half"},
    ]
    chats = [[{"role": "user", "content": "hello"}], []]
    assert read_rows(parquet(messages=chats, id=[1, 2]), ["messages"]) == [{"messages": chat} for chat in chats]


def test_lines_end_at_line_feeds_only(jsonl: Callable[..., Path]) -> None:
    """JSON may hold a line separator of Unicode unescaped."""
    assert read_rows(jsonl('{"prompt": "a\u2028b"}', {"prompt": "c"}), ["prompt"])[0]["prompt"] == "a\u2028b"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([ROWS[0], '{"prompt": "x", '], r"tasks.jsonl, row 2: it is not JSON \(Expecting property name"),
        ([ROWS[0], {"prompt": "x"}], r"row 2: there is no column 'answer' in it; it has \['prompt'\]"),
        ([ROWS[0], {"prompt": "x", "answer": None}], "row 2: there is no column 'answer'"),
        ([ROWS[0], "", ROWS[1]], "row 2: it is not JSON"),
        (["[1, 2]"], r"row 1: it is \[1, 2\], not an object"),
        ([""], "tasks.jsonl has no rows"),
    ],
)
def test_a_bad_row_is_named(jsonl: Callable[..., Path], lines: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_rows(jsonl(*lines), ["prompt", "answer"])


def test_bad_parquet(parquet: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"tasks.parquet, row 1: there is no column 'answer' in it; it has \['prompt'\]"
    ):
        read_rows(parquet(prompt=["a", "b"]), ["prompt", "answer"])
    with pytest.raises(ValueError, match=r"tasks.parquet, row 2: there is no column 'answer'"):
        read_rows(parquet(prompt=["a", "b"], answer=["1", None]), ["prompt", "answer"])
    with pytest.raises(ValueError, match="tasks.parquet has no rows"):
        read_rows(parquet(prompt=[]), ["prompt"])
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"broken.parquet cannot be read as Parquet"):
        read_rows(broken, ["prompt"])


def test_files_that_are_not_there_or_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file missing.jsonl; give a .jsonl or .parquet file"):
        read_rows("missing.jsonl", ["prompt"])
    (tmp_path / "tasks.csv").write_text("prompt\n")
    with pytest.raises(ValueError, match=r"tasks.csv is not a file we read"):
        read_rows(tmp_path / "tasks.csv", ["prompt"])
    with pytest.raises(ValueError, match=r"\./missing is not a file we read"):
        read_rows("./missing", ["prompt"])


def test_a_hub_that_cannot_be_reached() -> None:
    """Tests are offline; the sentence says what was tried and what came back."""
    with pytest.raises(
        ValueError, match=r"Cannot load 'nobody/nothing' \(split 'test', subset 'main'\).*hub gave \w+"
    ) as e:
        read_rows("nobody/nothing", ["prompt"], split="test", subset="main")
    assert "\n" not in str(e.value)


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(path: str, name: str | None, *, split: str) -> datasets.Dataset:
        asked.append((path, name, split))
        return datasets.Dataset.from_list([{"question": "1 + 1", "answer": "It is so. #### 2", "other": 1}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    tasks = StoredTasks("openai/gsm8k", "question", split="train[:1]", subset="main", answer_pattern="#### (.+)")
    assert asked == [("openai/gsm8k", "main", "train[:1]")]
    assert (tasks[0].prompt, tasks[0].gold, tasks[0].domain) == ("1 + 1", "2", "gsm8k")


# -- tasks -----------------------------------------------------------------------------------------------------


def test_problems_and_their_verifier(jsonl: Callable[..., Path]) -> None:
    tasks = StoredTasks(jsonl(*ROWS), solution="more", id="prompt")
    assert [tasks[i].id for i in range(len(tasks))] == ["1 + 1", "half"]
    assert tasks[1].private == {"answer": "1/2", "solution": "y"} and tasks[0].gold == "2"
    assert tasks.verify(tasks[1], r"so \boxed{0.5}").correct and not tasks.verify(tasks[1], r"\boxed{0.6}").correct
    marked = StoredTasks(jsonl(*ROWS), answer_format="marked")
    assert marked.verify(marked[0], "ans 2").correct and marked.verify(marked[1], "ans 1 / 2").correct
    assert not marked.verify(marked[0], r"\boxed{2}").correct
    assert [marked[i].id for i in range(2)] == ["1", "2"]
    with pytest.raises(IndexError):
        tasks[2]


def test_a_column_of_numbers_with_gaps_holds_whole_numbers(parquet: Callable[..., Path]) -> None:
    tasks = StoredTasks(parquet(prompt=["a", "b"], answer=[3.0, 2.5]))
    assert (tasks[0].gold, tasks[1].gold) == ("3", "2.5")


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"prompt": " ", "answer": 1}, {}, r"row 2: column 'prompt' holds ' '; wanted text that is not empty"),
        ({"prompt": "a", "answer": [1]}, {}, r"row 2: column 'answer' holds '\[1\]'"),
        ({"prompt": "a", "answer": True}, {}, "row 2: column 'answer' holds 'True'"),
        ({"prompt": "1 + 1", "answer": 2}, {"id": "prompt"}, "row 2: the id '1 \\+ 1' is that of row 1 too"),
        ({"prompt": "a", "answer": "x"}, {"answer_pattern": "boxed"}, r"row 1: answer_pattern 'boxed' finds no answer"),
        ({"prompt": "a", "answer": "x"}, {"answer_pattern": "(2)"}, r"row 2: answer_pattern '\(2\)' finds no answer"),
    ],
)
def test_a_bad_task_is_named(
    jsonl: Callable[..., Path], row: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        StoredTasks(jsonl(ROWS[0], row), **options)


def test_bad_options(jsonl: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="answer_format is 'latex'; it must be 'marked' or 'boxed'"):
        StoredTasks(jsonl(*ROWS), answer_format="latex")
    with pytest.raises(ValueError, match="needs a group"):
        StoredTasks(jsonl(*ROWS), answer_pattern="####.+")


# -- parts, and data sets of known layouts (rows written by us) ------------------------------------------------

OMNI = [
    {
        "domain": ["Mathematics -> Algebra", "Mathematics -> Number Theory"],
        "difficulty": 4.5,
        "problem": f"What is {n} + 1/2?",
        "solution": f"It is \\boxed{{{n}.5}}.",
        "answer": f"\\frac{{{2 * n + 1}}}{{2}}",
        "source": "made up",
    }
    for n in range(40)
]


def snippets() -> list[str]:
    """The YAML in the docstring of `StoredTasks`."""
    return re.findall(r"^ +class_path: .*?\}$", str(StoredTasks.__doc__), re.DOTALL | re.MULTILINE)


def from_yaml(snippet: str, *replaced: tuple[str, str]) -> StoredTasks:
    for old, new in replaced:
        assert old in snippet
        snippet = snippet.replace(old, new)
    parser = ArgumentParser()
    parser.add_argument("--tasks", type=TaskSource)
    tasks = parser.instantiate(parser.parse_args([f"--tasks={snippet}"])).tasks
    assert isinstance(tasks, StoredTasks)
    return tasks


def test_omni_math_from_yaml(parquet: Callable[..., Path]) -> None:
    """Columns of sml.md section 13; a list in a column that is not used is no matter."""
    path = parquet(**{name: [row[name] for row in OMNI] for name in OMNI[0]})
    omni, _ = snippets()
    tasks = from_yaml(omni, ("KbsdJames/Omni-MATH", str(path)), ("take: 2000", "take: 30"))
    assert len(tasks) == 30
    for i in range(30):
        n = int(tasks[i].id) - 1
        assert tasks[i].prompt == f"What is {n} + 1/2?" and tasks[i].private["solution"] == OMNI[n]["solution"]
        assert tasks.verify(tasks[i], f"\\boxed{{{n}.5}}").correct


def test_hard_math_2_from_yaml(jsonl: Callable[..., Path]) -> None:
    """Columns of rl2f.md section 12: the answer stands in the solution."""
    rows = [
        {
            "prompt": "Integrate x.",
            "solution": "First $\\boxed{1}$, no:\n$$\\boxed{\\frac{x^{2}}{2}}$$",
            "type": "integral",
        },
        {"prompt": "Expand.", "solution": "It is $\\boxed{y(x) = 1 + x}$ near 0.", "type": "ODE"},
    ]
    _, hard = snippets()
    tasks = from_yaml(hard, ("hard_math2.jsonl", str(jsonl(*rows))))
    assert [tasks[i].gold for i in range(2)] == ["\\frac{x^{2}}{2}", "y(x) = 1 + x"]
    assert tasks[0].private["solution"] == rows[0]["solution"]
    assert tasks.verify(tasks[0], r"\boxed{\frac{x^2}{2}}").correct


def test_two_parts_share_no_row(jsonl: Callable[..., Path]) -> None:
    """The split of Omni-MATH into 2 000 and 500 by a fixed seed (sml.md section 13), in small."""
    path = jsonl(*OMNI)
    options: dict[str, Any] = {"prompt": "problem", "shuffle_seed": 0}
    train, test = StoredTasks(path, take=25, **options), StoredTasks(path, skip=25, take=10, **options)
    ids = [[int(part[i].id) for i in range(len(part))] for part in (train, test)]
    assert len(set(ids[0])) == 25 and len(set(ids[1])) == 10 and not set(ids[0]) & set(ids[1])
    assert ids[0] != sorted(ids[0]) and ids[0] == [int(StoredTasks(path, take=25, **options)[i].id) for i in range(25)]
    whole = StoredTasks(path, **options)
    assert [int(whole[i].id) for i in range(40)][:35] == ids[0] + ids[1] and len(whole) == 40
    other = StoredTasks(path, prompt="problem", shuffle_seed=1)
    assert [other[i].id for i in range(40)] != [whole[i].id for i in range(40)]
    plain = StoredTasks(path, prompt="problem", skip=2, take=3)
    assert [plain[i].id for i in range(3)] == ["3", "4", "5"]


def test_row_order_is_the_same_everywhere() -> None:
    assert row_order(6, None) == [0, 1, 2, 3, 4, 5]
    assert row_order(6, 0) == [1, 0, 4, 3, 5, 2]


def test_parts_that_are_not_there(jsonl: Callable[..., Path]) -> None:
    path = jsonl(*ROWS)
    for options, message in (
        ({"skip": -1}, "StoredTasks.skip is -1; it must be 0 or more"),
        ({"take": 0}, "StoredTasks.take is 0; it must be at least 1"),
        ({"skip": 1, "take": 2}, r"tasks.jsonl has 2 usable rows, and skip=1 with take=2 needs 3"),
        ({"skip": 2}, "has 2 usable rows, and skip=2 with take=None needs 3"),
    ):
        with pytest.raises(ValueError, match=message):
            StoredTasks(path, **options)
