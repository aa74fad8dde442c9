"""What our two ways to run a program have in common: limits, bounded time and output, and a check at construction."""

import math
import signal
import tempfile
from pathlib import Path

from lit_rl.protocols import Execution
from lit_rl.sandbox import start
from lit_rl.sandbox.bounded import Ended, run_bounded

PATIENCE = 2  # of real time for one second of processor time, for programs that sleep and machines that are busy
FILE_BYTES = 16 * 2**20
OPEN_FILES = 64
PROCESSES = 16
_START = Path(start.__file__).read_text(encoding="utf-8")
# Sets iterate alike in every run; the host's own variables stay outside.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "HOME": "/tmp", "PATH": "/usr/bin:/bin"}


class Programs:
    """Runs Python programs; subclasses say by which command.

    Args:
        output_bytes: Of standard output and of standard error; a program that writes more is killed.

    Raises:
        ValueError: ``output_bytes`` is not positive.
    """

    def __init__(self, output_bytes: int):
        if output_bytes < 1:
            raise ValueError(f"{type(self).__name__}.output_bytes is {output_bytes}; it must be at least 1.")
        self.output_bytes = output_bytes

    def run(self, code: str, *, stdin: str = "", seconds: float = 5.0, megabytes: int = 512) -> Execution:
        """Run one Python program to its end or its limits.

        Args:
            code: The program.
            stdin: What it can read.
            seconds: Of processor time for each of its processes, rounded up to whole seconds; real time may be
                ``PATIENCE`` times as long, so that a busy machine takes longer and decides the same.
            megabytes: Of address space for each of its processes.

        Returns:
            ``returncode`` as of a shell: 128 and the number of the signal where one ended it.  An output that was cut
            says so in its last line.

        Raises:
            RuntimeError: The sandbox did not start, although it did when this object was made.
        """
        program = code.encode("utf-8", "replace")
        limits = (math.ceil(seconds), megabytes * 2**20, FILE_BYTES, OPEN_FILES, self.processes(), 0)
        arguments = ["-s", "-S", "-B", "-X", "utf8", "-c", _START, str(len(program)), *map(str, limits)]
        with tempfile.TemporaryDirectory(prefix="lit-rl-", ignore_cleanup_errors=True) as folder:
            ended = run_bounded(
                self.command(arguments),
                program + stdin.encode("utf-8", "replace"),
                seconds=PATIENCE * seconds,
                most=self.output_bytes + len(start.READY),
                cwd=self.folder(folder),
                env=ENVIRONMENT,
            )
        return self._execution(ended, seconds)

    def command(self, arguments: list[str]) -> list[str]:
        """The command that starts Python with these arguments."""
        raise NotImplementedError

    def folder(self, temporary: str) -> str:
        """Where the command is started."""
        return temporary

    def processes(self) -> int:
        """How many a program may have at once."""
        return PROCESSES

    def check(self) -> None:
        """Raise ValueError, with what was said, unless a program runs to its end."""
        try:
            done = self.run("print(6 * 7)")
            reason = "" if done.stdout == "42\n" else f"it printed {done.stdout[:200]!r} instead of 42"
        except (RuntimeError, OSError, ImportError) as error:
            reason = str(error)
        if reason:
            raise ValueError(f"{type(self).__name__} cannot run programs here: {reason}.")

    def _execution(self, ended: Ended, seconds: float) -> Execution:
        out = ended.stdout
        if not out.startswith(start.READY):
            if not ended.timed_out:
                said = ended.stderr.decode("utf-8", "replace").strip()[-500:] or "it said nothing"
                raise RuntimeError(f"{type(self).__name__} did not start (exit status {ended.returncode}): {said}")
            out = start.READY
        killed = ended.returncode in (128 + signal.SIGKILL, 128 + signal.SIGXCPU) and not ended.flooded
        return Execution(
            returncode=ended.returncode,
            stdout=self._text(out[len(start.READY) :], ended.flooded),
            stderr=self._text(ended.stderr, ended.flooded),
            timed_out=ended.timed_out or (killed and ended.seconds >= seconds),
        )

    def _text(self, output: bytes, flooded: bool) -> str:
        text = output[: self.output_bytes].decode("utf-8", "replace")
        if flooded and len(output) >= self.output_bytes:
            text += f"\n[cut after {self.output_bytes} bytes]"
        return text
