"""Whether two mathematical answers are equal, in bounded time whatever a model wrote.

What has no exact value as a plain number is compared by math-verify, in a process of its own.  math-verify's own
timeouts rest on SIGALRM: they fail outside the main thread, and Python runs no handler while it multiplies large
integers, so ``9^{9^{9}}`` hangs with them.  The process here is ended by the kernel, from any thread.
"""

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from functools import lru_cache

from lit_rl.verification import math_worker
from lit_rl.verification.extraction import as_number, as_words, normalized, trimmed

MAX_LENGTH = 300  # characters of an answer that is compared by meaning
CPU_SECONDS = 5.0

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{3,}|^[^\W\d_]{2}$")  # two letters may be a product: "No", but not in "xy + z"


@lru_cache(maxsize=4096)
def math_equal(answer: str, gold: str, cpu_seconds: float = CPU_SECONDS) -> bool:
    r"""Whether an answer equals the right one: as text, as an exact number, or symbolically.

    Texts are compared after `normalized`; a right answer made of words as words (math-verify reads "cat" as a
    product, which equals "act"); plain numbers by exact value, so that ``0.5`` equals ``\frac{1}{2}`` and ``0.33``
    does not equal ``1/3``; everything else by math-verify.  One that is longer than ``MAX_LENGTH`` or takes longer than
    allowed is not equal.

    Args:
        answer: As given, LaTeX or plain.
        gold: The right one.
        cpu_seconds: Processor time for math-verify; a busy machine takes longer but decides the same.

    Raises:
        RuntimeError: math-verify cannot be started at all.
    """
    if normalized(answer) == normalized(gold):
        return True
    if _is_wordy(gold):
        return as_words(answer) == as_words(gold)
    values = as_number(answer), as_number(gold)
    if None not in values:
        return values[0] == values[1]
    ours, theirs = trimmed(answer), trimmed(gold)
    if not ours or not theirs or max(len(ours), len(theirs)) > MAX_LENGTH:
        return False
    return _worker.equal(ours, theirs, cpu_seconds)


def _is_wordy(answer: str) -> bool:
    """Whether it is made of words ("Tuesday", "\\text{odd}"), and not of symbols or of numbers with units."""
    plain = _COMMAND.sub("", answer).strip("{} ")
    return _WORD.search(plain) is not None and not any(c.isdigit() for c in plain)


class _Worker:
    """The one process of `math_worker`, started when first needed and again after it was ended."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None

    def equal(self, answer: str, gold: str, cpu_seconds: float) -> bool:
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self.process = _start()
            process = self.process
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps([answer, gold, cpu_seconds]) + "\n")
            process.stdin.flush()
            verdict = process.stdout.readline()
            if not verdict:
                self.stop()  # over its time or memory: it is gone
            return verdict == "true\n"

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()  # a forked child may hold its input open, so closing that would not end it
            process.communicate()


def _start() -> subprocess.Popen[str]:
    # By path and with -P: what it imports does not depend on where this run was started or installed.
    command = [sys.executable, "-P", math_worker.__file__]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    greeting = process.stdout.readline()
    if greeting != math_worker.READY:
        process.communicate()
        raise RuntimeError(
            f"The process that runs math-verify could not be started ({greeting.strip() or 'it said nothing'}); check "
            f"that `{sys.executable} -c 'import math_verify'` works."
        )
    return process


_worker = _Worker()
atexit.register(_worker.stop)


def _forget() -> None:
    """A forked child must neither speak to its parent's process nor wait for a lock another thread held."""
    _worker.lock, _worker.process = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
