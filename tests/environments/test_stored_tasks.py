"""Tasks and rows from files and from the hub, and what is said about bad ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_rl.environments import StoredTasks, read_rows

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
