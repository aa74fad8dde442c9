"""What the scripts' shared shell functions decide, with ``pip`` replaced by a line of what it was asked."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A virtual environment that has this Python, and a pip that installs nothing.
PREPARE = """
set -euo pipefail
source scripts/_environment.sh
mkdir -p .venv/bin
[ -e .venv/bin/python ] || printf '#!/bin/sh\\nexec "{python}" "$@"\\n' > .venv/bin/python
chmod +x .venv/bin/python
pip_install() {{ echo "pip $*"; }}
install_torch() {{ echo torch; }}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/_environment.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def bash(checkout: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = PREPARE.format(python=sys.executable) + code
    environment = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run(["bash", "-c", script], cwd=checkout, env=environment, capture_output=True, text=True)


def installed(checkout: Path, code: str, **environment: str) -> list[str]:
    done = bash(checkout, code, **environment)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("==> ")]


def editable(extras: str) -> list[str]:
    return ["torch", f"pip --constraint .venv/constraints.txt --editable .{extras}"]


def test_second_run_installs_nothing(checkout: Path) -> None:
    assert installed(checkout, "ensure_environment core") == editable("")
    assert installed(checkout, "ensure_environment core") == []
    assert "torch==" not in (checkout / ".venv/constraints.txt").read_text()


def test_an_extra_once_installed_stays(checkout: Path) -> None:
    assert installed(checkout, "ensure_environment core reasoning") == editable("[reasoning]")
    assert installed(checkout, "ensure_environment dev") == editable("[dev,reasoning]")
    assert installed(checkout, "ensure_environment core") == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_changed_file_installs_anew(checkout: Path, changed: str) -> None:
    installed(checkout, "ensure_environment dev")
    with (checkout / changed).open("a") as file:
        file.write("# more\n")
    assert installed(checkout, "ensure_environment core") == editable("[dev]")


def test_another_torch_installs_anew(checkout: Path) -> None:
    installed(checkout, "ensure_environment core")
    assert installed(checkout, "ensure_environment core", LIT_RL_TORCH="torch==2.6.0") == editable("")


def test_an_interrupted_installation_is_done_again(checkout: Path) -> None:
    broken = bash(checkout, "pip_install() { return 1; }; ensure_environment dev")
    assert broken.returncode == 1
    assert installed(checkout, "ensure_environment core") == editable("[dev]")


CPU_TORCH = 'pip_install() {{ echo "pip $*" ; [[ "$*" =~ ^({works})$ ]]; }}; install_cpu_torch torch==2.13.0'


@pytest.mark.parametrize(
    ("works", "last"),
    [
        ("--quiet --no-index --no-deps torch==2.13.0|torch==2.13.0", "pip torch==2.13.0"),
        (r"--quiet --no-deps torch==2.13.0\+cpu|torch==2.13.0\+cpu", "pip torch==2.13.0+cpu"),
        ("torch==2.13.0", "pip torch==2.13.0"),
    ],
    ids=["local wheel", "index with +cpu", "neither"],
)
def test_cpu_torch_is_taken_from_the_first_place_that_has_it(checkout: Path, works: str, last: str) -> None:
    done = installed(checkout, "uname() { echo Linux; }\n" + CPU_TORCH.format(works=works))
    assert done[-1] == last
    # The default build is the last resort, after uv has been tried.
    assert ("pip --quiet uv" in done) == (works == "torch==2.13.0")


def test_a_python_that_does_not_run_is_named(checkout: Path) -> None:
    done = bash(checkout, "find_python", LIT_RL_PYTHON="no-such-python")
    assert done.returncode == 1
    assert "No Python 3.11 or newer among: no-such-python." in done.stderr


# A Python for .venv whose ``-m lit_rl`` writes down its arguments and leaves the files of a run; FAIL_AT cuts it off.
FAKE_PYTHON = """#!/bin/sh
[ "$1 $2" = "-m lit_rl" ] || exec "{python}" "$@"
shift 2
echo "$*" >> calls
case "$1" in
fit) mkdir -p runs/quickstart/checkpoints && touch runs/quickstart/checkpoints/last.ckpt ;;
esac
[ "$1" != "$FAIL_AT" ] || exit 1
[ "$1" != report ] || touch runs/quickstart/report.html
"""
FIT = "fit --config configs/quickstart/number_search.yaml"
VALIDATE = "validate --config configs/quickstart/number_search.yaml"
CHECKPOINT = "--ckpt_path runs/quickstart/checkpoints/last.ckpt"
REPORT = "report runs/quickstart"


@pytest.fixture
def quickstart(checkout: Path) -> Callable[..., list[str]]:
    """Runs the script on a prepared ``.venv``; gives the calls of ``lit-rl`` in this run."""
    script = (ROOT / "scripts/quickstart").read_text()
    stubs = "pip_install() { :; }\ninstall_torch() { :; }\nlit_rl() {"
    (checkout / "scripts/quickstart").write_text(script.replace("lit_rl() {", stubs))
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON.format(python=sys.executable))
    python.chmod(0o755)

    def run(*arguments: str, fail_at: str = "") -> list[str]:
        (checkout / "calls").write_text("")
        environment = {"PATH": "/usr/bin:/bin", "FAIL_AT": fail_at}
        done = subprocess.run(["bash", "scripts/quickstart", *arguments], cwd=checkout, env=environment)
        assert done.returncode == (1 if fail_at else 0)
        return (checkout / "calls").read_text().splitlines()

    return run


def test_quickstart_passes_arguments_on(quickstart: Callable[..., list[str]]) -> None:
    calls = quickstart("--trainer.max_epochs=2")
    arguments = "--trainer.max_epochs=2"
    assert calls == [f"{FIT} {arguments}", f"{VALIDATE} {arguments} {CHECKPOINT}", REPORT]


def test_quickstart_keeps_a_finished_run(quickstart: Callable[..., list[str]], checkout: Path) -> None:
    quickstart()
    assert quickstart() == [FIT, f"{VALIDATE} {CHECKPOINT}", REPORT]
    assert len(list(checkout.glob("runs/quickstart-*/report.html"))) == 1


@pytest.mark.parametrize("fail_at", ["fit", "validate", "report"])
def test_quickstart_goes_on_with_a_run_that_was_cut_off(quickstart: Callable[..., list[str]], fail_at: str) -> None:
    quickstart(fail_at=fail_at)
    assert quickstart() == [f"{FIT} {CHECKPOINT}", f"{VALIDATE} {CHECKPOINT}", REPORT]


def test_help_installs_nothing() -> None:
    for script in ("quickstart", "test"):
        done = subprocess.run([ROOT / "scripts" / script, "--help"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"./scripts/{script} [")
