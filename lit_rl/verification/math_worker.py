"""The process in which math-verify compares answers; a script that imports nothing of lit-rl.

It reads lines of JSON, ``[answer, gold, seconds]``, and writes ``true`` or ``false`` for each.  The kernel ends it when
a comparison takes more processor time or memory than it may, which no Python code could be relied on to do.
"""

import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import replace
from typing import Any

READY = "ready\n"
MEMORY = 4 * 2**30  # bytes of address space
PATIENCE = 20  # of real time for one second of processor time, should the process be stuck without computing


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing that a library prints may pass for an answer
    try:
        from math_verify import LatexExtractionConfig, parse, verify
    except Exception as error:
        answers.write(f"{error!r}\n")
        return
    logging.disable()  # math-verify warns that it runs without timeouts of its own
    _limit_memory()
    answers.write(READY)

    # LaTeX only: the parser for plain expressions hands text to sympy's parse_expr, which evaluates it.
    with_units = LatexExtractionConfig()
    # Without them first, for "b + c" would lose its c to the units.
    exact = replace(with_units, normalization_config=replace(with_units.normalization_config, units=False))

    def same(gold: str, answer: str, reader: Any) -> bool:
        ours, theirs = (parse(f"${text}$", [reader], parsing_timeout=None) for text in (answer, gold))
        return bool(verify(theirs, ours, timeout_seconds=None))

    for line in sys.stdin:
        answer, gold, seconds = json.loads(line)
        _allow(seconds)
        equal = False
        with contextlib.suppress(Exception):
            equal = same(gold, answer, exact) or same(gold, answer, with_units)
        _allow(0)
        answers.write(json.dumps(equal) + "\n")


def _allow(seconds: float) -> None:
    """Be ended by the kernel after this processor time; 0 takes the limit away."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))


if __name__ == "__main__":
    main()
