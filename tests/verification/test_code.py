"""Programs as answers (sml.md section 3.4): which is taken, when it is right, what is told, how it may cheat."""

import json
from typing import Any

import pytest

from lit_rl.sandbox import Bubblewrap
from lit_rl.verification import Assertions, CodeTests, Limits, StdinTest, code_answer, run_tests
from lit_rl.verification.assertions import Assertions as Parsed
from lit_rl.verification.code import last_code_block
from lit_rl.verification.code_runs import cut, run_assertions, same_output
from lit_rl.verification.code_worker import Opaque, decode, encode

QUICK = Limits(seconds=2.0)
SHORT = Limits(seconds=0.25)  # for programs that never end
DOUBLE = "```python\ndef f(x):\n    return 2 * x\n```"


def asserting(*public: str, hidden: tuple[str, ...] = ()) -> CodeTests:
    return CodeTests(public=tuple(map(Assertions, public)), hidden=tuple(map(Assertions, hidden)))


# -- the program in an utterance -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("a\n```\nx = 1\n```\nb\n```py\ny = 2\n\nz = 3\n```\nend", "y = 2\n\nz = 3"),
        ("~~~\nx = '```'\n~~~", "x = '```'"),
        ("````\nx = '''\n```\n'''\n````", "x = '''\n```\n'''"),
        ("1. so:\n   ```python\n   x = 1\n   ```", "   x = 1"),
        ("```python\nx = 1\n```\nand\n```python\ny = 2", "x = 1"),
        ("use `f` and ```g``` here", None),
        ("```python\nx = 1", None),
        ("x = 1", None),
        ("", None),
    ],
)
def test_the_last_closed_block(text: str, block: str | None) -> None:
    assert last_code_block(text) == block


def test_what_an_utterance_is(bubblewrap: Bubblewrap) -> None:
    tests = asserting("assert f(1) == 2")
    kinds = {
        DOUBLE: ("answer", True),
        f"<think>{DOUBLE}</think>\n```\ndef f(x): return x\n```": ("answer", False),
        f"<think>{DOUBLE}</think>": ("malformed", False),
        f"Is it like this?\n{DOUBLE}": ("answer", True),
        "What is f?": ("question", False),
        "def f(x): return 2 * x": ("malformed", False),
        "```\n\n```": ("malformed", False),
        "  \n": ("empty", False),
    }
    for utterance, expected in kinds.items():
        attempt = code_answer(utterance, tests, bubblewrap, QUICK)
        assert (attempt.kind, attempt.correct) == expected, utterance
        assert (attempt.answer is not None) == (attempt.kind == "answer")
        assert bool(attempt.detail) == (attempt.kind == "answer")


# -- assertions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "program", "checks"),
    [
        ("assert f(1) == 2", "_report(0, f(1))", ["_values[0] == 2"]),
        ("assert f(1) == 2, 'the answer is 2'", "_report(0, f(1))", ["_values[0] == 2"]),
        ("assert -1 == f(f(0))", "_report(0, f(f(0)))", ["-1 == _values[0]"]),
        ("assert not f(1)", "_report(0, f(1))", ["not _values[0]"]),
        ("assert f(1) is None", "_report(0, f(1))", ["_values[0] is None"]),
        ("assert f(1) is f(1)", "_report(0, f(1) is f(1))", ["_values[0]"]),
        ("assert 1 < f(1) <= 3 and g(2)", "_report(0, f(1), g(2))", ["1 < _values[0] <= 3 and _values[1]"]),
        ("assert abs(f(1) - 2.5) < 1e-06", "_report(0, f(1))", ["abs(_values[0] - 2.5) < 1e-06"]),
        ("assert math.isclose(f(1), 2, rel_tol=0.1)", "_report(0, f(1))", ["math.isclose(_values[0], 2, rel_tol=0.1)"]),
        ("assert (f(1), [g(2)]) == (2, [3])", "_report(0, f(1), g(2))", ["(_values[0], [_values[1]]) == (2, [3])"]),
        ("assert f(2) == float('inf')", "_report(0, f(2))", ["_values[0] == float('inf')"]),
        ("assert sorted(f(2)) == [1]", "_report(0, sorted(f(2)))", ["_values[0] == [1]"]),
        ("right = [1, 2]\nassert f(1) == right", "_report(0, f(1))", ["_values[0] == [1, 2]"]),
        ("n = 5\nassert f(n) == n", "n = 5\n_report(0, f(n))", ["_values[0] == 5"]),
        ("x = [2]\nf(x)\nassert x == [1]", "x = [2]\nf(x)\n_report(0, x)", ["_values[0] == [1]"]),
    ],
)
def test_right_values_stay_outside(source: str, program: str, checks: list[str]) -> None:
    parsed = Parsed(source)
    assert parsed.program == program and list(parsed.checks) == checks
    assert parsed.required == frozenset(range(len(checks)))


def test_assertions_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"the test 'f\(1\)' asserts nothing"):
        Assertions("f(1)")
    with pytest.raises(ValueError, match=r"cannot be read as Python: invalid syntax"):
        Assertions("assert f(1) = 2")
    with pytest.raises(ValueError, match="neither public nor hidden tests"):
        CodeTests()
    for limits in ({"seconds": 0.0}, {"megabytes": 3}):
        with pytest.raises(ValueError, match="Limits"):
            Limits(**limits)


ONE_TEST_EACH = [
    ("def f(x): return x + 1", "assert f(1) == 2"),
    ("def f(x): raise ValueError", "try:\n    f(1)\n    assert False\nexcept ValueError:\n    pass"),
    ("def f(x): return {'a': (1, 2.5), 'b': {3}, 'c': None}", "assert f(1) == {'a': (1, 2.5), 'b': {3}, 'c': None}"),
    ("def f(x): return float('nan')", "assert f(1) != f(1)"),
    ("def f(x): return 10 ** 5000", "assert f(1) == 10 ** 5000"),
    ("def f(x): return x", "for a, b in [(1, 1), ('é', 'é')]:\n    assert f(a) == b"),
    ("def f(x: int) -> None: return x", "assert f.__annotations__[str(chr(120))] is f(int)"),
    ("def f(x): return x", "def test():\n    assert f(1) == 1\ntest()"),
    ("import re\ndef f(x): return re.match('a', x)", "assert f('abc')\nassert not f('b')\nassert f('b') is None"),
    ("from collections import Counter as f", "assert f('aab') == {'a': 2, 'b': 1}"),
    (
        "class S:\n    def __init__(s): s.x = []\n    def __len__(s): return 3",
        "s = S()\nassert len(s) == 3 and s.x == []",
    ),
    ("if __name__ == '__main__': input()\ndef f(x): return x", "assert f(1) == 1"),
    (
        "import sys\ndef f(x):\n    print('noise' * 100000)\n    sys.stderr.write('x' * 100000)\n    return x",
        "assert f(1) == 1",
    ),
]


def test_right_programs_pass(bubblewrap: Bubblewrap) -> None:
    for program, test in ONE_TEST_EACH:
        tested = run_tests(program, asserting(test), bubblewrap, QUICK)
        assert tested.correct, (program, test, tested.log)


def test_wrong_programs_fail(bubblewrap: Bubblewrap) -> None:
    wrong = "def f(x): return 'other'\nclass S:\n    x = 1\n    def __len__(s): return 1"
    tests = [test for _, test in ONE_TEST_EACH if test != "assert f(1) != f(1)"]
    results, failure = run_assertions(wrong, list(map(Assertions, tests)), bubblewrap, QUICK)
    assert not failure and not any(result.passed for result in results)


EVIL = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return True
    def __lt__(self, other): return True
    def __sub__(self, other): return self
    def __abs__(self): return self
    def __hash__(self): return 0
    def __contains__(self, other): return True
    def __repr__(self): return '2'
"""
FORGERY = """
import os, gc, sys, json
def f(x):
    for number in range(3, 64):
        for facts in ({"test": 0, "check": 0, "values": '[{"int": "0x3"}]', "shown": ["2"]}, {"test": 0, "done": True},
                      {"test": 0, "check": 0, "values": "[" * 30000}, {"test": 0, "check": 0, "values": [2]},
                      {"right": True}, {"test": "x", "shown": 3}, {"test": 0, "check": 0, "shown": 3}, [], 3):
            try:
                os.write(number, json.dumps(facts).encode() + b"\\n")
                os.write(number, b'{"test": 0, "shown": [' + b"[" * 900 + b"]" * 900 + b']}\\n')
            except OSError: pass
    os._exit(0)
"""
HUNT = """
import gc, sys
def f(x):
    found, frame = [], sys._getframe().f_back
    while frame:
        found += [repr(frame.f_locals)[:100000], repr(frame.f_code.co_consts)]
        frame = frame.f_back
    found += [repr(o)[:10000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple, str))]
    try: found.append(sys.stdin.read())
    except Exception: pass
    wanted = "".join(reversed("828172"))
    return int(wanted) if any(wanted in text for text in found) else 0
"""
CHEATS = {
    "exit with success": "import sys\nsys.exit(0)",
    "exit when called": "import sys\ndef f(x): sys.exit(0)",
    "leave the process": "import os\ndef f(x): os._exit(0)",
    "print success": "print('OK\\n{\"right\": true}\\nAll tests passed')\ndef f(x): print('passed')",
    "an object that equals all": EVIL + "def f(x): return Yes()",
    "a number that equals all": EVIL + "class I(Yes, int): pass\ndef f(x): return I(5)",
    "redefined helpers": "def abs(x): return 0\ndef _report(*x): pass\ndef f(x): pass",
    "redefined builtins": "import builtins\nbuiltins.abs = builtins.bool = lambda x: 0\ndef f(x): return 3",
    "forged reports": FORGERY,
    "guesses": "f = lambda x: [1, 2, 3]",
    "a thread": "import threading, os\ndef f(x): threading.Thread(target=os._exit, args=(0,)).start()",
    "a loop": "def f(x):\n    while True: pass",
    "recursion": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "a deep value": "import sys\nsys.setrecursionlimit(10**6)\ndef f(x):\n    a = 2\n"
    "    for _ in range(3000): a = [a]\n    return a",
    "a name like ours": "Opaque = decode = encode = judge = None\ndef f(x): return encode",
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_do_not_pass(name: str, bubblewrap: Bubblewrap) -> None:
    """Neither where one value is wanted, nor with a tolerance."""
    for test in ("assert f(1) == 2", "assert abs(f(1) - 2) < 1e-6"):
        limits = SHORT if name == "a loop" else QUICK
        tested = run_tests(CHEATS[name], asserting(test, hidden=(test,)), bubblewrap, limits)
        assert not tested.correct and tested.log


def test_a_right_value_cannot_be_found_in_the_process(bubblewrap: Bubblewrap) -> None:
    wanted = "assert f(1) == 271828"
    assert not run_tests(HUNT, asserting(wanted), bubblewrap).correct
    named = "right = 271828\nassert f(1) == right"
    assert not run_tests(HUNT, asserting(named), bubblewrap).correct
    computed = "right = str(271828)\nassert str(f(1)) == right"
    assert run_tests(HUNT, asserting(computed), bubblewrap).correct, "as documented: what a test computes can be found"


# -- standard input and output ---------------------------------------------------------------------------------


def test_programs_that_read_and_print(bubblewrap: Bubblewrap) -> None:
    tests = CodeTests(public=(StdinTest("1 2\n", "3\n"),), hidden=(StdinTest("40 2\n", "42"),))
    code = "a, b = map(int, input().split())\nprint(a + b)"
    assert run_tests(code, tests, bubblewrap, QUICK).correct
    assert run_tests(code + "\nimport sys\nsys.exit(0)", tests, bubblewrap, QUICK).correct
    wrong = {
        code + "\n1 / 0": "It ended with an error: ZeroDivisionError: division by zero",
        "print(4)": "Input:\n1 2\nExpected:\n3\nGot:\n4",
        "print(3)\nprint(4)": "Got:\n3\n4",
        "import os\nprint(3, flush=True)\nos._exit(5)": "It ended with exit status 5.",
    }
    for program, told in wrong.items():
        tested = run_tests(program, tests, bubblewrap, QUICK)
        assert not tested.correct and told in tested.log and "42" not in tested.log
    endless = run_tests("while True: pass", tests, bubblewrap, SHORT)
    assert not endless.correct and endless.log.endswith("It took longer than 0.25 seconds.")
    only_public = run_tests("print(3)", tests, bubblewrap, QUICK)
    assert not only_public.correct and only_public.log == "All public tests (1) pass."


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("3", "3\n", True),
        (" 1  2 \n3\n\n", "1 2\n3", True),
        ("1.50", "1.5", True),
        ("YES", "Yes", False),
        ("1 2", "1\n2", False),
        ("1", "1 2", False),
        ("nan", "nan", True),
        ("1e5", "100000", True),
        ("", "1", False),
    ],
)
def test_same_output(output: str, expected: str, same: bool) -> None:
    assert same_output(output, expected) is same


# -- what is told ----------------------------------------------------------------------------------------------


def test_only_public_tests_are_told(bubblewrap: Bubblewrap) -> None:
    tests = asserting("assert f(1) == 2", "assert f(2) == 4", hidden=("assert f(731) == 1462",))
    logs = {
        "def f(x): return 2 * x": "All public tests (2) pass.",
        "def f(x): return x * 2 if x < 9 else print(x)": "All public tests (2) pass.",
        "def f(x): return 2": "Public test 2 of 2 fails.\nTest: assert f(2) == 4\nGot: 2",
        "def f(x):\n    return 1 / (x - 1)": "Public test 1 of 2 fails.\nTest: assert f(1) == 2\n"
        "Error: ZeroDivisionError: division by zero (line 2)",
        "def f(x) return x": "The program fails before any test: SyntaxError: expected ':' (solution.py, line 1)",
        "def g(x): return x": "Public test 1 of 2 fails.\nTest: assert f(1) == 2\nError: NameError: name 'f' is not "
        "defined",
        "def f(x): assert x < 9, x; return 2 * x": "All public tests (2) pass.",
        "import os\ndef f(x): os._exit(0) if x == 2 else 0\n    ".strip(): "Public test 1 of 2 fails.\n"
        "Test: assert f(1) == 2\nGot: None",
    }
    for program, log in logs.items():
        tested = run_tests(program, tests, bubblewrap, QUICK)
        assert tested.log == log and tested.correct == (program == "def f(x): return 2 * x")
        assert "731" not in tested.log
    for number, log in ((9, "All public tests (2) pass."), (1, "Public test 2 of 2 fails.")):
        endless = run_tests(f"def f(x):\n    while x > {number}: pass\n    return 2 * x", tests, bubblewrap, SHORT)
        assert not endless.correct and endless.log.startswith(log)
    hidden = run_tests("def f(x): return 0", asserting(hidden=("assert f(731) == 1462",)), bubblewrap, QUICK)
    assert not hidden.correct and hidden.log == ""


def test_long_values_are_cut(bubblewrap: Bubblewrap) -> None:
    test = asserting(f"assert f({[0] * 2000}) == 1")
    log = run_tests("def f(x): return 'y' * 5000", test, bubblewrap, QUICK).log
    assert len(log) < 1200 and "more characters)" in log
    flood = run_tests("def f(x): return 'y' * 10**7", test, bubblewrap, QUICK)
    assert not flood.correct and "exit status 137" in flood.log
    assert cut(" abc ", 2) == "ab ... (1 more characters)"


# -- values on their way ---------------------------------------------------------------------------------------


def test_values_come_back_as_they_were() -> None:
    numbers: list[Any] = [None, True, 0, -3, 10**5000, 1.5, float("inf"), 2j]
    texts = ["\u00e9\ud800", b"\x00\xff"]
    nested = [[1, [2]], (1, (2,)), {3}, frozenset({4}), {(1, 2): [None], "list": {"int": 3}}, {"int": "0x3"}, []]
    for value in [*numbers, *texts, *nested]:
        back = decode(json.loads(json.dumps(encode(value))))
        assert back == value and type(back) is type(value)


def test_other_values_equal_nothing() -> None:
    class Text(str):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    assert decode(encode(Text("a"))) == "a" and decode(encode(Text("a"))) != "b"
    loop: list[Any] = []
    loop.append(loop)
    for odd in (object(), loop, print, range(3)):
        back = decode(encode(odd))
        assert isinstance(back, Opaque) and back and back != odd
    assert not decode(encode(range(0)))
