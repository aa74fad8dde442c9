"""Equality of mathematical answers: what is equal, and that nothing a model writes can hang or fool it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lit_rl.verification import equality
from lit_rl.verification.equality import math_equal
from tests.forking import in_child

BOMB = r"9^{9^{9}}"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("$ 1,234 $", "1234"),
        ("0.5", r"\frac{1}{2}"),
        ("12.0", "12"),
        (r"\text{Tuesday}", "tuesday."),
        ("no", "No"),
        (r"(x+1)^2", "x^2 + 2x + 1"),
        (r"\{2, 1\}", r"\{1, 2\}"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"r^2 \pi", r"\pi r^2"),
        (r"50\%", "0.5"),
        ("5", r"5 \text{ cm}"),
        ("z + xy", "xy + z"),
    ],
)
def test_equal(answer: str, gold: str) -> None:
    assert math_equal(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("13", "12"),
        ("0.33", r"\frac{1}{3}"),
        ("act", "cat"),
        ("on", "No"),
        ("(2, 1)", "(1, 2)"),
        (r"\frac{", "1"),
        ("", "1"),
        ("x", "y"),
        ("1" + " + 0" * 100, "2 - 1 + x - x"),
    ],
)
def test_not_equal(answer: str, gold: str) -> None:
    assert not math_equal(answer, gold)


def test_plain_answers_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "_worker", None)
    assert math_equal("0.250", r"\frac{1}{4}") and not math_equal("0.251", "1/4") and not math_equal("dogs", "cats")
    with pytest.raises(AttributeError):
        math_equal("x + y", "y - x")


def test_a_bomb_is_wrong_soon_and_the_next_answer_is_read() -> None:
    start = time.perf_counter()
    assert not math_equal(BOMB, "1", cpu_seconds=0.3)
    assert time.perf_counter() - start < 15
    assert math_equal("a + b", "b + a", cpu_seconds=4.0)


def test_in_another_thread_and_after_a_fork(tmp_path: Path) -> None:
    """Signals, on which math-verify's own timeouts rest, work in neither."""
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.extend([math_equal("b + c", "c + b"), math_equal("b", "c")]))
    thread.start()
    thread.join(30)
    assert verdicts == [True, False]
    mine = equality._worker.process

    def child() -> None:
        signal.alarm(60)  # should it wait for a lock that nobody holds here
        assert math_equal("c + d", "d + c") and not math_equal("c", "d")
        assert mine is not None and equality._worker.process is not None and equality._worker.process.pid != mine.pid
        equality._worker.stop()

    with equality._worker.lock:  # as if another thread were comparing
        assert in_child(child, tmp_path / "output") == 0, (tmp_path / "output").read_text()
    assert math_equal("d + e", "e + d") and equality._worker.process is mine, "the parent's process is still its own"


def test_a_process_that_was_killed_is_started_again() -> None:
    assert math_equal("e + f", "f + e")
    assert equality._worker.process is not None
    os.kill(equality._worker.process.pid, signal.SIGKILL)
    equality._worker.process.wait()
    assert math_equal("f + g", "g + f")


def test_no_text_is_run(tmp_path: Path) -> None:
    target = tmp_path / "written"
    for text in (f"__import__('os').system('touch {target}')", rf"\operatorname{{open}}('{target}','w')", "1+1;x"):
        assert not math_equal(text, "x + 1")
    assert not target.exists()


def test_a_process_that_cannot_start_is_an_error_and_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "_worker", equality._Worker())
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    with pytest.raises(RuntimeError, match="could not be started"):
        math_equal("g + h", "h + g")


def test_imports_point_one_way_and_are_light() -> None:
    """Verification can be imported first, and neither package loads what is heavy or optional."""
    heavy = ("torch", "datasets", "reasoning_gym", "math_verify", "sympy", "pyarrow", "lit_rl.rollout")
    for package in ("lit_rl.verification.answers", "lit_rl.environments"):
        code = f"import sys, {package}; assert not {{*sys.modules}} & {set(heavy)}, {{*sys.modules}} & {set(heavy)}"
        subprocess.run([sys.executable, "-c", code], check=True)
