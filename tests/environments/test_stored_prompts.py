"""Open-ended prompts from files: read like stored tasks, and never answered rightly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from lit_rl.environments.problems import TaskSource
from lit_rl.environments.stored_prompts import StoredPrompts

ROWS = [{"topic": f"t{i}", "text": f"Write a story about {i}.", "other": None} for i in range(12)]


@pytest.fixture
def stories(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: dict[str, Any]) -> Path:
        file = tmp_path / "stories.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS), encoding="utf-8")
        return file

    return write


def test_prompts_have_no_right_answer(stories: Callable[..., Path]) -> None:
    prompts = StoredPrompts(stories(), "text")
    assert isinstance(prompts, TaskSource) and len(prompts) == 12
    problem = prompts[2]
    assert (problem.id, problem.domain, problem.prompt) == ("3", "stories", "Write a story about 2.")
    assert problem.gold == "" and not problem.private
    for text in ("Once upon a time.", " ans 3 ask\n", r"\boxed{2}", problem.gold + "x"):
        attempt = prompts.verify(problem, text)
        assert (attempt.kind, attempt.answer, attempt.correct) == ("answer", text.strip(), False)
    assert prompts.verify(problem, " \n").kind == "empty" and not prompts.verify(problem, "").correct
    with pytest.raises(IndexError):
        prompts[12]


def test_parts_and_ids(stories: Callable[..., Path]) -> None:
    path = stories()
    train = StoredPrompts(path, "text", id="topic", shuffle_seed=0, take=8)
    test = StoredPrompts(path, "text", id="topic", shuffle_seed=0, skip=8)
    ids = [[part[i].id for i in range(len(part))] for part in (train, test)]
    assert sorted(ids[0] + ids[1]) == sorted(f"t{i}" for i in range(12)) and len(ids[1]) == 4
    assert ids[0] != sorted(ids[0], key=lambda topic: int(topic[1:]))
    named = StoredPrompts(path, "text", id="text")
    assert named[0].id == named[0].prompt == "Write a story about 0."


def test_from_yaml(stories: Callable[..., Path]) -> None:
    snippet = {"class_path": "lit_rl.environments.stored_prompts.StoredPrompts"}
    snippet["init_args"] = {"path": str(stories()), "prompt": "text", "take": 2}
    parser = ArgumentParser()
    parser.add_argument("--tasks", type=TaskSource)
    tasks = parser.instantiate(parser.parse_args([f"--tasks={json.dumps(snippet)}"])).tasks
    assert isinstance(tasks, StoredPrompts) and len(tasks) == 2


def test_bad_files(stories: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"stories.jsonl, row 1: there is no column 'prompt' in it"):
        StoredPrompts(stories())
    with pytest.raises(ValueError, match="StoredPrompts.skip is -1"):
        StoredPrompts(stories(), "text", skip=-1)
    with pytest.raises(ValueError, match="has 12 usable rows, and skip=10 with take=4 needs 14"):
        StoredPrompts(stories(), "text", skip=10, take=4)
    with pytest.raises(ValueError, match=r"row 2: column 'text' holds ' '; wanted text that is not empty"):
        StoredPrompts(stories(ROWS[0], {"text": " "}), "text")
    with pytest.raises(ValueError, match=r"row 2: the id 't0' is that of row 1 too"):
        StoredPrompts(stories(ROWS[0], ROWS[0]), "text", id="topic")
