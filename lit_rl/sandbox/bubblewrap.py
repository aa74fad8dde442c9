"""Model-written Python in namespaces of its own, by the tool bubblewrap."""

import json
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from lit_rl.sandbox.programs import Programs

NOBODY = 65534
TMP_BYTES = 16 * 2**20
_WHERE = "import json, os, sys; print(json.dumps([os.path.realpath(sys.executable), sys.base_prefix]))"
_LIBRARIES = ("/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/lib32", "/etc/ld.so.cache")


class Bubblewrap(Programs):
    """Runs programs without network, without the host's files and processes, and with bounded resources.

    A program sees a Python and the system's libraries, read-only, and an empty ``/tmp`` of 16 MB that goes with it;
    nothing else can be written, and there is no shell.  It has namespaces of its own for processes, network, users and
    mounts, no privileges, and (bubblewrap 0.8 on) cannot make further ones.  Limits: processor and real time, address
    space, 16 MB a file, 64 open files, 16 processes and threads, and output; whatever it started dies with it.

    Not bounded: the memory of its processes together beyond 16 times ``megabytes`` (that takes a control group), and
    what a hole in the kernel lets out.

    Started as root, programs run as the user nobody, for the kernel does not count root's processes.

    Args:
        python: Interpreter, without its installed packages; "/usr/bin/python3" or one given by its path.
        output_bytes: Of standard output and of standard error; a program that writes more is killed.

    Raises:
        ValueError: bubblewrap or the interpreter is missing, or cannot be used here; says what to do.
    """

    def __init__(self, python: str = "/usr/bin/python3", output_bytes: int = 65536):
        super().__init__(output_bytes)
        found = shutil.which("bwrap")
        if found is None:
            raise ValueError(
                "Bubblewrap needs the program bwrap, and there is none: `apt-get install bubblewrap` (or dnf, pacman) "
                "installs it.  Where that is impossible, lit_rl.sandbox.Unsandboxed runs model-written code with "
                "limits but without isolation, if you accept that."
            )
        self._prefix = [*_as_nobody(), found, *_isolation(found), *_binds(*_interpreter(python))]
        self.check()

    def command(self, arguments: list[str]) -> list[str]:
        return [*self._prefix, *arguments]

    def folder(self, temporary: str) -> str:
        return "/"  # the program's own folder is inside


def _as_nobody() -> list[str]:
    """A command to stop being root, by a program: done by Python, each run would copy the page tables of ours."""
    if os.geteuid() != 0:
        return []
    found = shutil.which("setpriv")
    if found is None:
        raise ValueError("Bubblewrap, started as root, needs the program setpriv of util-linux; install it.")
    return [found, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def _isolation(bwrap: str) -> list[str]:
    options = ["--unshare-user", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    options += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"]
    if "--disable-userns" in _help(bwrap):  # since 0.8
        options.append("--disable-userns")
    return options


@lru_cache
def _help(bwrap: str) -> str:
    return subprocess.run([bwrap, "--help"], capture_output=True, text=True, timeout=60).stdout


def _interpreter(python: str) -> tuple[str, str]:
    """Where an interpreter really is, and under which folder its library."""
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", _WHERE], capture_output=True, text=True, timeout=60, check=True
        )
        executable, prefix = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ValueError(f"Bubblewrap.python {python!r} is no Python that can be started: {error}.") from error
    return executable, prefix


def _binds(executable: str, prefix: str) -> list[str]:
    """All that exists in the sandbox, and the interpreter as the command."""
    options: list[str] = []
    for path in dict.fromkeys((*_LIBRARIES, f"{prefix}/lib", executable)):
        if Path(path).is_symlink():
            options += ["--symlink", os.readlink(path), path]
        elif Path(path).exists():
            options += ["--ro-bind", path, path]
    options += ["--proc", "/proc", "--dev", "/dev", "--size", str(TMP_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    # Memory can be filled by files as well: what is not bounded in size is not writable.
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/", executable]
