"""Time limits for worlds that may hang."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lit_rl.worlds.base import Observation, Step, World, WorldFailure


class TimeLimited:
    """A world whose `reset` and `step` raise `WorldFailure` when they take too long; the rest is the world's own.

    The call is interrupted by a signal, wherever its Python code is; compiled code that never returns to Python is
    not.  Played with ``on_error="drop"``, the episode is given up and counted.

    Args:
        world: Any world.
        step_seconds: Limit of a step.
        reset_seconds: Limit of the beginning, where games are loaded.

    Raises:
        ValueError: A limit that is not above 0.
    """

    def __init__(self, world: World, *, step_seconds: float = 60.0, reset_seconds: float = 300.0):
        for name, seconds in (("step_seconds", step_seconds), ("reset_seconds", reset_seconds)):
            if not seconds > 0:
                raise ValueError(f"TimeLimited.{name} is {seconds}; it must be above 0.")
        self.world, self.step_seconds, self.reset_seconds = world, step_seconds, reset_seconds

    @property
    def task(self) -> str:
        return self.world.task

    def reset(self) -> Observation:
        with time_limit(self.reset_seconds, f"{type(self.world).__name__}.reset()"):
            return self.world.reset()

    def step(self, action: str) -> Step:
        with time_limit(self.step_seconds, f"{type(self.world).__name__}.step({action!r})"):
            return self.world.step(action)

    def close(self) -> None:
        self.world.close()


class _Late(BaseException):
    """No Exception, for a world that catches those would go on."""


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Interrupt the block after so many seconds and raise `WorldFailure`; a timer set before goes on afterwards.

    Raises:
        WorldFailure: The block took too long, or runs in a thread that gets no signals (any but the main one).
    """
    if threading.current_thread() is not threading.main_thread():
        raise WorldFailure(f"{what} has a time limit, which only the main thread can keep; play episodes there.")
    inside = True

    def ring(number: int, frame: FrameType | None) -> None:
        if inside:
            raise _Late

    start, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Late:
        raise WorldFailure(f"{what} took longer than {seconds:g} seconds.") from None
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if waiting:
            left = waiting - (time.monotonic() - start)
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3), interval)
