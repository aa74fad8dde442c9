"""Code data sets of known layouts (rows written by us), and dialogues about programs."""

import base64
import json
import pickle
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from lit_rl.environments import (
    CODE_INSTRUCTION,
    CodeColumns,
    CodeTasks,
    DidacticDialogue,
    Mixture,
    TaskSource,
    TeacherContext,
)
from lit_rl.environments.base import Reply
from lit_rl.environments.code_columns import tests_of as read_tests
from lit_rl.parties import Call, PolicyParty, ScriptedParty
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.sandbox import Bubblewrap, Unsandboxed
from lit_rl.tiny import TinyModel
from lit_rl.verification import StdinTest

Write = Callable[..., Path]


@pytest.fixture
def jsonl(tmp_path: Path) -> Write:
    def write(*rows: dict[str, Any]) -> Path:
        (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "tasks.jsonl"

    return write


def instruct_row(number: int, **changed: Any) -> dict[str, Any]:
    """As in OpenCodeInstruct (sml.md section 13)."""
    row = {
        "id": f"oci-{number}",
        "input": f"Write times(x), which gives {number} times x.",
        "output": f"Here:\n```python\ndef times(x):\n    return {number} * x\n```\nThis multiplies.",
        "domain": "generic",
        "generation_algorithm": "self-instruct",
        "llm_judgement": "{}",
        "unit_tests": json.dumps([f"\nassert times({x}) == {number * x}\n" for x in (1, 2, 35)]),
        "tests_execution_status": '["pass", "pass", "pass"]',
        "average_test_score": "1",
    }
    return row | changed


def packed(cases: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def bench_row(**changed: Any) -> dict[str, Any]:
    """As in LiveCodeBench: a problem with standard input."""
    hidden = [{"input": "20 22\n", "output": "42\n", "testtype": "stdin"}]
    row = {
        "question_title": "Sum",
        "question_content": "Print the sum of two numbers.",
        "platform": "atcoder",
        "question_id": "abc_a",
        "contest_id": "abc",
        "contest_date": "2024-01-06T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
        "private_test_cases": json.dumps(hidden),
        "metadata": "{}",
    }
    return row | changed


def function_row(**changed: Any) -> dict[str, Any]:
    """Likewise in the form of LeetCode, its hidden tests packed as in code_generation_lite."""
    public = [{"input": '[1, 2]\n"x"', "output": "[2, 4]", "testtype": "functional"}]
    hidden = [{"input": '[5]\n""', "output": "[10]", "testtype": "functional"}]
    return bench_row(
        question_id="3000",
        question_content="Double each number.",
        starter_code="class Solution:\n    def double(self, nums: List[int], label: str) -> List[int]:\n        ",
        public_test_cases=json.dumps(public),
        private_test_cases=packed(hidden),
        metadata=json.dumps({"func_name": "double"}),
        **changed,
    )


# -- OpenCodeInstruct ------------------------------------------------------------------------------------------


def test_open_code_instruct(jsonl: Write, bubblewrap: Bubblewrap) -> None:
    rows = [instruct_row(2), instruct_row(3, average_test_score="0.9"), instruct_row(4)]
    tasks = CodeTasks(jsonl(*rows), "open_code_instruct", bubblewrap, public_assertions=2, check_solutions=True)
    assert isinstance(tasks, TaskSource)
    assert [tasks[i].id for i in range(len(tasks))] == ["oci-2", "oci-4"], "solutions that fail are no reference"
    problem = tasks[1]
    assert problem.prompt == f"Write times(x), which gives 4 times x.\n\n{CODE_INSTRUCTION}"
    assert (
        problem.private == {"solution": "def times(x):\n    return 4 * x"}
        and problem.gold == problem.private["solution"]
    )
    assert [test.source.strip() for test in problem.meta["tests"].hidden] == ["assert times(35) == 140"]
    right = tasks.verify(problem, rows[2]["output"])
    assert (right.kind, right.correct, right.answer) == ("answer", True, problem.gold)
    wrong = tasks.verify(problem, rows[0]["output"])
    assert not wrong.correct and wrong.detail.startswith(
        "Public test 1 of 2 fails.\nTest: assert times(1) == 4\nGot: 2"
    )
    overfitted = tasks.verify(problem, "```\ntimes = {1: 4, 2: 8}.get\n```")
    assert not overfitted.correct and overfitted.detail == "All public tests (2) pass."
    with pytest.raises(IndexError):
        tasks[2]


def test_rows_that_cannot_be_used(jsonl: Write, bubblewrap: Bubblewrap) -> None:
    bad = [
        instruct_row(2, output="```\ndef times(x): return x\n```"),
        instruct_row(3, unit_tests='["print(times(1))"]'),
        instruct_row(5, unit_tests="[1]"),
        instruct_row(6, unit_tests="no list"),
        instruct_row(7, unit_tests="[]"),
        instruct_row(8, unit_tests='["assert"]'),
    ]
    reasons = [
        r"row 1: its solution does not pass its tests \(Public test 1 of 3 fails. Test: assert times\(1\) == 2 Got: 1",
        r"row 2: the test 'print\(times\(1\)\)' asserts nothing",
        r"row 3: column 'unit_tests' holds '\[1\]'; wanted a list of texts",
        r"row 4: column 'unit_tests' holds 'no list', which is not JSON",
        r"row 5: there are no tests in it",
        r"row 6: the test 'assert' cannot be read as Python",
    ]
    path = jsonl(*bad, instruct_row(9))
    tasks = CodeTasks(path, "open_code_instruct", bubblewrap, bad_rows="skip", check_solutions=True)
    assert len(tasks) == 1 and tasks[0].id == "oci-9"
    for sentence, reason in zip(tasks.left_out, reasons, strict=True):
        assert re.search(reason, sentence)
    for row, reason in zip(bad, reasons, strict=True):
        with pytest.raises(ValueError, match=reason.partition(": ")[2] + ".* With bad_rows='skip'"):
            CodeTasks(jsonl(row), "open_code_instruct", bubblewrap, check_solutions=True)


def test_parts_are_taken_among_usable_rows(jsonl: Write, bubblewrap: Bubblewrap) -> None:
    """2 000 rows, sampled among those whose reference passes (sml.md section 13)."""
    rows = [instruct_row(n, average_test_score="1" if n % 2 else "0.5") for n in range(20)]
    options: dict[str, Any] = {"layout": "open_code_instruct", "sandbox": bubblewrap, "shuffle_seed": 3}
    path = jsonl(*rows)
    train = CodeTasks(path, take=6, **options)
    test = CodeTasks(path, skip=6, **options)
    ids = [[part[i].id for i in range(len(part))] for part in (train, test)]
    assert len(train) == 6 and len(test) == 4 and set(ids[0] + ids[1]) == {f"oci-{n}" for n in range(1, 20, 2)}
    with pytest.raises(ValueError, match=r"has 10 usable rows, and skip=6 with take=5 needs 11"):
        CodeTasks(path, skip=6, take=5, **options)


# -- LiveCodeBench ---------------------------------------------------------------------------------------------


def test_live_code_bench(jsonl: Write, bubblewrap: Bubblewrap) -> None:
    tasks = CodeTasks(jsonl(bench_row(), function_row()), "live_code_bench", bubblewrap)
    reading, calling = tasks[0], tasks[1]
    assert reading.id == "abc_a" and "reads standard input" in reading.prompt
    assert reading.meta["tests"].hidden == (StdinTest("20 22\n", "42\n"),)
    assert tasks.verify(reading, "```python\nprint(sum(map(int, input().split())))\n```").correct
    assert not tasks.verify(reading, "```python\nprint(3)\n```").correct
    assert (
        "Complete this code:\n```python\nclass Solution:" in calling.prompt and "standard input" not in calling.prompt
    )
    assert calling.meta["tests"].public[0].source == "assert list(Solution().double([1, 2], 'x')) == [2, 4]"
    body = "class Solution:\n    def double(self, nums: List[int], label: str) -> List[int]:\n        return {}"
    for expression in ("[2 * n for n in nums]", "tuple(2 * n for n in nums)"):
        assert tasks.verify(calling, f"```python\n{body.format(expression)}\n```").correct
    wrong = tasks.verify(calling, f"```python\n{body.format('[2, 4]')}\n```")
    assert not wrong.correct and wrong.detail == "All public tests (1) pass." and wrong.answer
    assert reading.private == {} and reading.gold.startswith("tests ") and reading.gold != calling.gold


class Bomb:
    def __reduce__(self) -> Any:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"public_test_cases": "[{}]"},
            r"row 1: column 'public_test_cases' holds '\[\{\}\]'; wanted a JSON list of objects",
        ),
        ({"public_test_cases": '[{"input": "", "output": "", "testtype": "x"}]'}, "wanted a JSON list of objects"),
        ({"private_test_cases": "?"}, "holds '[?]', neither a JSON list nor a packed one"),
        ({"private_test_cases": packed({"a": 1})}, "wanted a JSON list"),
        ({"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(3))).decode()}, "holds a packed int"),
        ({"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Bomb()))).decode()}, "neither a JSON list"),
        ({"private_test_cases": '[{"input": "1", "output": "1", "testtype": "functional"}]'}, "there is no func_name"),
        ({"metadata": '{"func_name": "a b"}'}, "func_name 'a b', which is no name"),
        ({"metadata": "?"}, "column 'metadata' holds '[?]', which is not JSON"),
        ({"public_test_cases": "[]", "private_test_cases": "[]"}, "there are no tests in it"),
        ({"question_content": " "}, "column 'question_content' holds ' '"),
    ],
)
def test_bad_cases_are_named(
    jsonl: Write, capfd: pytest.CaptureFixture[str], changed: dict[str, Any], message: str, bubblewrap: Bubblewrap
) -> None:
    with pytest.raises(ValueError, match=message):
        CodeTasks(jsonl(bench_row(**changed)), "live_code_bench", bubblewrap)
    assert "unpickled" not in capfd.readouterr().out


def test_an_output_longer_than_the_sandbox_allows(jsonl: Write, bubblewrap: Bubblewrap) -> None:
    long = json.dumps([{"input": "", "output": "y" * 70000, "testtype": "stdin"}])
    with pytest.raises(
        ValueError, match=r"wants 70000 bytes of output and the sandbox allows 65536.*sandbox.output_by"
    ):
        CodeTasks(jsonl(bench_row(private_test_cases=long)), "live_code_bench", bubblewrap)
    wide = Bubblewrap(output_bytes=10**6)
    tasks = CodeTasks(jsonl(bench_row(public_test_cases="[]", private_test_cases=long)), "live_code_bench", wide)
    assert tasks.verify(tasks[0], "```\nprint('y' * 70000)\n```").correct


# -- other columns, and options --------------------------------------------------------------------------------


def test_columns_from_yaml(jsonl: Write, bubblewrap: Bubblewrap) -> None:
    path = jsonl({"text": "t", "checks": ["assert f() == 1"], "answer": "def f(): return 1"})
    parser = ArgumentParser()
    parser.add_argument("--tasks", type=TaskSource)
    text = f"""
    class_path: lit_rl.environments.CodeTasks
    init_args:
      path: {path}
      layout: {{prompt: text, assertions: checks, solution: answer}}
      sandbox:
        class_path: lit_rl.sandbox.Bubblewrap
        init_args: {{output_bytes: 1000}}
      instruction: ''
      seconds: 2
    """
    tasks = parser.instantiate(parser.parse_args([f"--tasks={text}"])).tasks
    assert tasks[0].prompt == "t" and tasks[0].id == "1" and tasks.sandbox.output_bytes == 1000
    assert tasks.verify(tasks[0], "```\ndef f(): return 1\n```").correct
    options = f"{{path: {jsonl(bench_row())}, layout: live_code_bench}}"
    named = f"{{class_path: lit_rl.environments.CodeTasks, init_args: {options}}}"
    assert parser.instantiate(parser.parse_args([f"--tasks={named}"])).tasks[0].id == "abc_a"


def test_docstrings_hold_yaml_that_runs(jsonl: Write, bubblewrap: Bubblewrap) -> None:
    """The two snippets of `CodeTasks`, with files of ours in place of the data sets."""
    instruct, bench = re.findall(r"^ +class_path: .*?\}$", str(CodeTasks.__doc__), re.DOTALL | re.MULTILINE)
    parser = ArgumentParser()
    parser.add_argument("--tasks", type=TaskSource)

    def count(snippet: str, *replaced: tuple[str, str]) -> int:
        for old, new in replaced:
            assert old in snippet
            snippet = snippet.replace(old, new)
        return len(parser.instantiate(parser.parse_args([f"--tasks={snippet}"])).tasks)

    path = jsonl(*(instruct_row(n) for n in range(1, 4)))
    assert count(instruct, ("nvidia/OpenCodeInstruct", str(path)), ("take: 2000", "take: 2")) == 2
    assert count(bench, ("test.jsonl", str(jsonl(bench_row(), function_row())))) == 2


def test_bad_options(jsonl: Write, bubblewrap: Bubblewrap) -> None:
    path = jsonl(bench_row())
    for options, message in (
        ({"layout": "code_contests"}, r"layout is 'code_contests'; it must be one of \['live_code_bench'"),
        ({"bad_rows": "drop"}, "bad_rows is 'drop'"),
        ({"public_assertions": -1}, "public_assertions is -1"),
        ({"check_solutions": True}, "needs a column with solutions"),
        ({"skip": -1}, "CodeTasks.skip is -1"),
        ({"take": 0}, "CodeTasks.take is 0"),
        ({"seconds": 0}, "Limits"),
        ({"layout": CodeColumns(prompt="question", public_cases="public_test_cases")}, "no column 'question'"),
    ):
        with pytest.raises(ValueError, match=message):
            CodeTasks(path, **{"layout": "live_code_bench", "sandbox": bubblewrap, **options})
    with pytest.raises(ValueError, match="names no column with tests"):
        CodeColumns(prompt="p")
    with pytest.raises(ValueError, match="the id 'abc_a' is that of row 1 too"):
        CodeTasks(jsonl(bench_row(), bench_row()), "live_code_bench", bubblewrap)


def test_without_bubblewrap_nothing_is_run(jsonl: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = jsonl(bench_row())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="apt-get install bubblewrap"):
        CodeTasks(path, "live_code_bench")
    accepted = Unsandboxed(i_accept_that_model_code_runs_on_this_machine=True)
    tasks = CodeTasks(path, "live_code_bench", accepted)
    assert tasks.verify(tasks[0], "```\nprint(sum(map(int, input().split())))\n```").correct


def test_tests_of_a_row() -> None:
    columns = CodeColumns(prompt="p", assertions="a", public_cases="c")
    cases = [{"input": "1", "output": "2", "testtype": "stdin"}]
    tests = read_tests({"a": ["assert f(1) == 2", "assert f(2) == 4"], "c": cases}, columns, 1)
    assert len(tests.public) == 2 and len(tests.hidden) == 1 and tests.preamble == ""


# -- dialogues -------------------------------------------------------------------------------------------------


def helpful(context: TeacherContext, key: int) -> str:
    """A teacher who passes on what the tests showed."""
    assert context.attempt.detail
    return f"Look: {context.attempt.detail.splitlines()[0]}"


class Student:
    """Says one thing in each exchange; keeps what it heard."""

    def __init__(self, words: Sequence[str]):
        self.words, self.heard = words, list[str]()

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        self.heard += [call.messages[-1].content for call in calls]
        return [Reply(text=self.words[call.exchange], stop_reason="end") for call in calls]


@pytest.fixture(scope="module")
def coder() -> Policy:
    """Random; its vocabulary spells a small program and what is said about it."""
    words = re.findall(
        r"\w+|[^\w\s]+", f"{CODE_INSTRUCTION} Write times ( x ), which gives 2 x . Look : Public test fails"
    )
    tiny = TinyModel(
        words=[*words, "def", "return", "of", "All", "tests", "pass", "please", "?"], numbers=9, hidden_size=32
    )
    return Policy(PolicyConfig(tiny=tiny, adapters={"student": LoRA(rank=2, alpha=4.0)}))


def test_a_student_solves_it_in_the_second_turn(jsonl: Write, bubblewrap: Bubblewrap, coder: Policy) -> None:
    source = Mixture([CodeTasks(jsonl(instruct_row(2)), "open_code_instruct", bubblewrap)])
    student = Student(["```\ndef times(x): return x\n```", "Now:\n```\ndef times(x): return x + x\n```"])
    dialogue = DidacticDialogue(source[0], source)
    played = play(
        [Planned(environment=dialogue, index=0, task_id="t", group=0)],
        {"student": student, "teacher": ScriptedParty(helpful)},
        coder,
        seed=0,
    )
    (episode,) = played.episodes
    assert episode.stop_reason == "solved" and [turn.party for turn in episode.turns] == [
        "student",
        "teacher",
        "student",
    ]
    assert [turn.reward for turn in episode.turns_of("student")] == [0.0, 1.0]
    assert student.heard[1] == "Look: Public test 1 of 3 fails."


def test_a_tiny_model_talks_about_a_program(jsonl: Write, bubblewrap: Bubblewrap, coder: Policy) -> None:
    row = instruct_row(2, input="Write times of x which gives 2 x")
    source = CodeTasks(jsonl(row), "open_code_instruct", bubblewrap, instruction="")
    seen: list[TeacherContext] = []

    def teacher(context: TeacherContext, key: int) -> str:
        seen.append(context)
        return "please return x"

    planned = [
        Planned(environment=DidacticDialogue(source[0], source, max_turns=3), index=i, task_id="t", group=0)
        for i in range(4)
    ]
    student = PolicyParty(settings=SamplingSettings(max_tokens=12), adapter="student")
    played = play(planned, {"student": student, "teacher": ScriptedParty(teacher)}, coder, seed=0)
    assert len(played.episodes) == 4 and not played.dropped
    for episode in played.episodes:
        assert episode.stop_reason in ("max_turns", "empty", "solved")
        turns = episode.turns_of("student")
        assert all(turn.completion_ids and turn.info["kind"] in ("malformed", "question", "answer") for turn in turns)
    assert seen and all(context.attempt.detail == "" or context.attempt.kind == "answer" for context in seen)
