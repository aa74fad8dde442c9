"""Running a command with bounded time and bounded output, whatever it does."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

CHUNK = 65536
TICK = 0.05  # seconds between looks at whether it ended while something still holds its output open


@dataclass(slots=True)
class Ended:
    """How a command ended."""

    returncode: int  # as a shell gives it: 128 + the signal's number where one ended it
    stdout: bytes
    stderr: bytes
    seconds: float  # of real time
    timed_out: bool
    flooded: bool  # killed because it wrote more than was allowed


def run_bounded(
    command: Sequence[str],
    stdin: bytes,
    *,
    seconds: float,
    most: int,
    cwd: str,
    env: Mapping[str, str],
) -> Ended:
    """Run a command in a process group of its own, which is killed at the end.

    Nothing of an output beyond ``most`` bytes is ever held, and no input waits for a process that does not read it.

    Args:
        command: Program and arguments.
        stdin: All it can read.
        seconds: Of real time.
        most: Bytes of each of the two outputs; more ends it.
        cwd: Folder it starts in.
        env: Its whole environment.
    """
    pipe, start = subprocess.PIPE, time.monotonic()
    process = subprocess.Popen(
        command, 0, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=env, start_new_session=True
    )
    try:
        streams = _Streams(process, stdin, most)
        timed_out = not streams.serve(start + seconds)
    finally:
        _kill(process)
    code = process.returncode
    return Ended(
        returncode=code if code >= 0 else 128 - code,
        stdout=bytes(streams.read["stdout"]),
        stderr=bytes(streams.read["stderr"]),
        seconds=time.monotonic() - start,
        timed_out=timed_out,
        flooded=streams.flooded,
    )


class _Streams:
    """The three pipes of a process."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes, most: int):
        self.process, self.most, self.flooded = process, most, False
        self.waiting = memoryview(stdin)
        self.read = {"stdout": bytearray(), "stderr": bytearray()}
        self.selector = selectors.DefaultSelector()
        for pipe, name in ((process.stdin, "stdin"), (process.stdout, "stdout"), (process.stderr, "stderr")):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self.selector.register(pipe, selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ, name)

    def serve(self, deadline: float) -> bool:
        """Until it ends, floods, or the time is up; whether it was in time."""
        while not _has_ended(self.process):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._once(min(left, TICK))
            if self.flooded:
                return True
        while self._once(0):  # what it left in its pipes; what outlives it may hold them open, so not to their end
            pass
        return True

    def _once(self, timeout: float) -> bool:
        """Move what can be moved; whether that was anything."""
        if not self.selector.get_map():  # it has closed all pipes and goes on
            time.sleep(min(timeout, TICK / 10))
            return False
        moved = False
        for key, _ in self.selector.select(timeout):
            moved |= self._feed(key.fileobj) if key.data == "stdin" else self._take(key.fileobj, key.data)
        return moved and not self.flooded

    def _feed(self, pipe: Any) -> bool:
        try:
            sent = os.write(pipe.fileno(), self.waiting[:CHUNK])
        except BlockingIOError:
            return False
        except BrokenPipeError:
            sent = len(self.waiting)
        self.waiting = self.waiting[sent:]
        if not self.waiting:
            self._close(pipe)
        return True

    def _take(self, pipe: Any, name: str) -> bool:
        try:
            found = os.read(pipe.fileno(), CHUNK)
        except BlockingIOError:
            return False
        if not found:
            self._close(pipe)
            return False
        kept = self.read[name]
        self.flooded |= len(kept) + len(found) > self.most
        kept += found[: self.most - len(kept)]
        return True

    def _close(self, pipe: IO[bytes]) -> None:
        self.selector.unregister(pipe)
        pipe.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole group; only then is its leader's number given back, so that it cannot be another's by now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing but ended processes, on some systems
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
