"""Programs that try to get out, to stay, or to take more than their share; each attack is checked from outside."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lit_rl.protocols import Execution, Sandbox
from lit_rl.sandbox import Bubblewrap, Unsandboxed
from lit_rl.sandbox.bounded import run_bounded

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unsandboxed() -> Unsandboxed:
    return Unsandboxed(i_accept_that_model_code_runs_on_this_machine=True)


@pytest.fixture(params=["bubblewrap", "unsandboxed"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    made: Sandbox = request.getfixturevalue(request.param)
    return made


def marked_processes(mark: str) -> list[int]:
    """Processes of this machine, sandboxed ones included, whose command line holds a mark."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it ended while we looked
    return found


def wait_until_gone(mark: str) -> None:
    deadline = time.monotonic() + 5
    while marked_processes(mark):
        assert time.monotonic() < deadline, "a process of the sandbox lives on"
        time.sleep(0.01)


# -- what runs -------------------------------------------------------------------------------------------------


def test_a_program_reads_prints_and_ends(sandbox: Sandbox) -> None:
    code = "import sys\nprint(input(), len(sys.stdin.read()), sys.argv, __name__)\n"
    code += "print('é', file=sys.stderr)\nsys.exit(3)"
    done = sandbox.run(code, stdin="first\nsecond\nü")
    assert done == Execution(returncode=3, stdout="first 8 ['program.py'] __main__\n", stderr="é\n")
    assert isinstance(sandbox, Sandbox)


def test_an_error_is_told_with_its_line(sandbox: Sandbox) -> None:
    done = sandbox.run("x = 1\n1 / 0\n")
    assert done.returncode == 1 and not done.timed_out
    assert 'File "program.py", line 2' in done.stderr and "ZeroDivisionError" in done.stderr
    for broken in ("def f(:", "x = '\0'", "x = '\ud800'"):
        assert sandbox.run(broken + "\nprint(1)").returncode in (0, 1)


def test_classes_of_a_program_belong_to_its_main_module(sandbox: Sandbox) -> None:
    code = """
from __future__ import annotations
import pickle
from dataclasses import dataclass
@dataclass
class P:
    x: int
print(pickle.loads(pickle.dumps(P(2))), len({f"{i}" for i in range(9)}), list({"a", "b", "c", "d", "e"}))
"""
    first = sandbox.run(code)
    assert first.stdout.startswith("P(x=2) 9 [") and first == sandbox.run(code), "sets iterate alike in every run"


def test_input_that_is_not_read_blocks_nobody(sandbox: Sandbox) -> None:
    """A flood towards the program."""
    flood = "x" * 20_000_000
    assert sandbox.run("print(1)", stdin=flood).stdout == "1\n"
    assert sandbox.run("import sys; print(len(sys.stdin.read()))", stdin=flood).stdout == "20000000\n"
    assert sandbox.run("import os; os.close(0); print(1)", stdin=flood).stdout == "1\n"


# -- limits, in both -------------------------------------------------------------------------------------------


def test_an_endless_loop_and_one_that_ignores_signals(sandbox: Sandbox) -> None:
    deaf = "import signal\nfor s in range(1, 32):\n  try: signal.signal(s, signal.SIG_IGN)\n  except OSError: pass\n"
    for code in ("while True: pass", deaf + "while True: pass", deaf + "import time; time.sleep(60)"):
        start = time.monotonic()
        done = sandbox.run("print('began', flush=True)\n" + code, seconds=0.25)
        assert done.timed_out and done.returncode == 137 and done.stdout == "began\n"
        assert time.monotonic() - start < 3


def test_a_flood_of_output_is_cut_and_said(sandbox: Sandbox) -> None:
    start = time.monotonic()
    for stream in ("stdout", "stderr"):
        done = sandbox.run(f"import sys\nwhile True: sys.{stream}.write('y' * 1000)", seconds=20)
        text = getattr(done, stream)
        assert text == "y" * 65536 + "\n[cut after 65536 bytes]" and done.returncode == 137 and not done.timed_out
    assert time.monotonic() - start < 10, "it is ended, not read to its time limit"
    whole = sandbox.run("print('y' * 65535)")
    assert whole.returncode == 0 and len(whole.stdout) == 65536, "exactly as much as is allowed"


def test_a_memory_bomb(sandbox: Sandbox) -> None:
    done = sandbox.run("x = 'y' * 200_000_000\nprint(len(x))", megabytes=128)
    assert done.returncode == 1 and "MemoryError" in done.stderr and not done.stdout
    assert sandbox.run("x = 'y' * 200_000_000\nprint(len(x))", megabytes=512).stdout == "200000000\n"


def test_limits_cannot_be_lifted(bubblewrap: Bubblewrap) -> None:
    code = """
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
    soft, hard = resource.getrlimit(kind)
    try:
        resource.setrlimit(kind, (hard + 1, hard + 1))
    except (ValueError, OSError):
        print("refused", soft == hard)
"""
    assert bubblewrap.run(code).stdout == "refused True\n" * 4


def test_a_huge_file(sandbox: Sandbox) -> None:
    code = "import os\nf = open('big', 'wb', 0)\nfor i in range(40): f.write(b'x' * 2**20)\nprint('written')"
    done = sandbox.run(code)
    assert done.returncode != 0 and not done.stdout and ("File too large" in done.stderr or "No space" in done.stderr)


# -- attacks on the machine ------------------------------------------------------------------------------------


def test_the_network_is_not_there(bubblewrap: Bubblewrap) -> None:
    code = """
import socket
for address in ((%r, %d), ("8.8.8.8", 53)):
    try:
        socket.create_connection(address, timeout=2)
        print("connected")
    except OSError as error:
        print(type(error).__name__)
try:
    socket.getaddrinfo("example.org", 80)
    print("resolved")
except OSError:
    print("no names")
"""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        done = bubblewrap.run(code % (host, port))
    assert "connected" not in done.stdout and "resolved" not in done.stdout
    assert done.stdout.split("\n")[0] == "ConnectionRefusedError" and "no names" in done.stdout, done


def test_files_of_the_host_are_not_there(bubblewrap: Bubblewrap) -> None:
    wanted = ["/etc/shadow", "/etc/passwd", str(ROOT / "pyproject.toml"), "/root", "/home", "/proc/1/root" + str(ROOT)]
    code = f"""
import os
for path in {wanted!r}:
    print(os.path.exists(path))
print(sorted(os.listdir("/")), os.getcwd(), sorted(k for k in os.environ if "KEY" in k or "TOKEN" in k))
"""
    lines = bubblewrap.run(code).stdout.splitlines()
    assert lines[:-1] == ["False"] * len(wanted)
    assert lines[-1].endswith("/tmp []") and "home" not in lines[-1] and "root" not in lines[-1]


def test_nothing_but_its_own_folder_can_be_written(bubblewrap: Bubblewrap) -> None:
    code = """
import os, sys
for folder in ("/", "/dev", "/dev/shm", "/usr", "/usr/lib", "/etc", "/proc/sys/kernel", os.path.dirname(os.__file__)):
    try:
        open(folder + "/lit-rl-attack", "w").write("x")
        print("wrote", folder)
    except OSError:
        pass
try:
    open(sys.executable, "r+b"); print("opened Python")
except OSError:
    pass
open("/tmp/mine", "w").write("x"); print(os.listdir("/tmp"))
"""
    assert bubblewrap.run(code).stdout == "['mine']\n"
    assert bubblewrap.run("import os; print(os.listdir('/tmp'))").stdout == "[]\n", "each run has a folder of its own"


def test_deleting_everything(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("here")
    code = f"""
import os, shutil
for top in (os.path.dirname(os.__file__), "/tmp", {str(tmp_path)!r}, {str(ROOT)!r}):
    shutil.rmtree(top, ignore_errors=True)
print(os.path.exists(os.__file__), os.path.exists("/tmp"))
"""
    assert bubblewrap.run(code).stdout == "True True\n"
    assert precious.read_text() == "here" and (ROOT / "pyproject.toml").exists()


def test_memory_cannot_be_filled_by_files(bubblewrap: Bubblewrap) -> None:
    code = """
written = 0
try:
    for i in range(100):
        with open(f"/tmp/{i}", "wb", 0) as file:
            written += file.write(b"x" * 2**20)
except OSError as error:
    print(written <= 2**24, error.strerror)
"""
    assert bubblewrap.run(code).stdout == "True No space left on device\n"


def test_a_fork_bomb(bubblewrap: Bubblewrap) -> None:
    code = """
import os, time
count = 0
try:
    while count < 500:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    print("stopped at", count)
"""
    done = bubblewrap.run(code)
    count = int(done.stdout.rpartition(" ")[2])
    assert 1 <= count < 16, done
    one = "import os; print(os.waitstatus_to_exitcode(os.waitpid(os.fork() or os._exit(7), 0)[1]))"
    assert bubblewrap.run(one).stdout == "7\n", "a few processes are fine"
    endless = bubblewrap.run("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", seconds=0.25)
    assert endless.timed_out
    assert bubblewrap.run("print('well')").stdout == "well\n", "nothing is left of the bombs"


def test_a_daemonised_child_dies_with_its_program(bubblewrap: Bubblewrap) -> None:
    mark = f"lit-rl-daemon-{os.getpid()}"
    code = f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sleep = "import time; print('up', flush=True); time.sleep(60)"
        os.execv(sys.executable, [sys.executable, "-S", "-c", sleep, {mark!r}])
    os._exit(0)
time.sleep(0.3)
print("over")
"""
    start = time.monotonic()
    done = bubblewrap.run(code)
    assert sorted(done.stdout.split()) == ["over", "up"], done
    assert time.monotonic() - start < 4, "its open output keeps nobody waiting"
    wait_until_gone(mark)


def test_after_a_timeout_nothing_lives_on(sandbox: Sandbox) -> None:
    mark = f"lit-rl-child-{os.getpid()}"
    code = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)", {mark!r}])
while True: pass
"""
    assert sandbox.run(code, seconds=0.25).timed_out
    wait_until_gone(mark)


def test_processes_of_the_host_can_be_neither_seen_nor_ended(bubblewrap: Bubblewrap) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as victim:
        code = f"""
import os, signal
print(max(int(name) for name in os.listdir("/proc") if name.isdigit()) < 20, os.path.exists("/proc/{victim.pid}"))
for pid in range(2, {victim.pid + 1000}):
    if pid != os.getpid():
        try: os.kill(pid, signal.SIGKILL)
        except OSError: pass
try: os.kill(-1, signal.SIGKILL)
except OSError: pass
"""
        assert bubblewrap.run(code).stdout == "True False\n"
        assert victim.poll() is None
        victim.kill()


def test_it_has_no_privileges_and_can_get_none(bubblewrap: Bubblewrap) -> None:
    code = """
import os
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(os.getuid(), status["CapEff"], status["CapBnd"], status["NoNewPrivs"])
try: os.setuid(0); print("root")
except OSError: pass
"""
    assert bubblewrap.run(code).stdout.split() == ["65534", "0" * 16, "0" * 16, "1"]
    nested = "import ctypes, os; print(ctypes.CDLL(None).unshare(0x10000000))"
    supported = "--disable-userns" in subprocess.run(["bwrap", "--help"], capture_output=True, text=True).stdout
    assert not supported or bubblewrap.run(nested).stdout == "-1\n", "no user namespaces inside"


# -- what is refused -------------------------------------------------------------------------------------------


def test_without_bubblewrap_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"apt-get install bubblewrap.*lit_rl.sandbox.Unsandboxed"):
        Bubblewrap()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_needs_setpriv(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "setpriv" else found(name) or "/bin/true")
    with pytest.raises(ValueError, match="needs the program setpriv"):
        Bubblewrap()


def test_a_bubblewrap_that_may_not_work_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container without user namespaces."""
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!{shutil.which('sh')}\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    made_by_pytest = [path for path in tmp_path.parents if Path(tempfile.gettempdir()) in path.parents]
    for path in (fake, tmp_path, *made_by_pytest):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ValueError, match=r"cannot run programs here: .*No permissions to create new namespace"):
        Bubblewrap()


def test_python_that_is_none(bubblewrap: Bubblewrap) -> None:
    for python in ("/no/python", "/usr/bin/env"):
        with pytest.raises(ValueError, match="is no Python that can be started"):
            Bubblewrap(python=python)


def test_unsandboxed_only_where_it_is_accepted() -> None:
    with pytest.raises(ValueError, match="read, write, delete and send whatever this user can"):
        Unsandboxed()
    with pytest.raises(ValueError, match="i_accept_that_model_code_runs_on_this_machine=True"):
        Unsandboxed(i_accept_that_model_code_runs_on_this_machine=1)


def test_output_bytes(bubblewrap: Bubblewrap, unsandboxed: Unsandboxed) -> None:
    small = Unsandboxed(i_accept_that_model_code_runs_on_this_machine=True, output_bytes=10)
    assert small.run("print('y' * 20)").stdout == "y" * 10 + "\n[cut after 10 bytes]"
    for make in (lambda: Bubblewrap(output_bytes=0), lambda: Unsandboxed(output_bytes=-1)):
        with pytest.raises(ValueError, match="output_bytes is"):
            make()


def test_a_sandbox_that_breaks_later_raises(unsandboxed: Unsandboxed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a silent failure of the program: the run stops."""
    monkeypatch.setattr(unsandboxed, "python", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"Unsandboxed did not start \(exit status 1\)"):
        unsandboxed.run("print(1)")


def test_a_command_that_closes_its_pipes_and_stays(tmp_path: Path) -> None:
    code = "import os, time; [os.close(i) for i in range(3)]; time.sleep(60)"
    start = time.monotonic()
    ended = run_bounded([sys.executable, "-S", "-c", code], b"", seconds=0.5, most=10, cwd=str(tmp_path), env={})
    assert ended.timed_out and ended.returncode == 137 and time.monotonic() - start < 3
