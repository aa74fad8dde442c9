"""What is installed is what stands in the repository: the package list, the wheel, the pinned versions."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "lit_rl": "lit_rl",
    "lit_rl.callbacks": "callbacks",
    "lit_rl.configs": "configs",
    "lit_rl.datamodules": "datamodules",
}
SHIPPED = {".py", ".yaml", ".j2", ".typed"}
IMPORT_ALL = """
import importlib, json, sys
files = {name: importlib.import_module(name).__file__ for name in json.loads(sys.argv[1])}
strangers = {name: file for name, file in files.items() if not file.startswith(sys.argv[2])}
assert not strangers, f"imported from elsewhere: {strangers}"
"""


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def shipped_files() -> dict[str, Path]:
    """What a wheel has to hold: each file by its path from where it is installed. ``rglob`` follows no links."""
    return {
        "/".join([*package.split("."), *file.relative_to(ROOT / folder).parts]): file
        for package, folder in FOLDERS.items()
        for file in (ROOT / folder).rglob("*")
        if file.suffix in SHIPPED and not file.is_symlink()
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for a build leaves files behind, and without isolation, for that asks an index."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in (*FOLDERS.values(), "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built), str(source))
    (path,) = built.glob("*.whl")
    return path


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_is_named(pyproject: dict[str, Any]) -> None:
    python_files = [Path(name) for name in shipped_files() if name.endswith(".py")]
    on_disk = {".".join(file.parent.parts) for file in python_files}
    assert set(pyproject["tool"]["setuptools"]["packages"]) == on_disk
    assert on_disk == {".".join(file.parent.parts) for file in python_files if file.name == "__init__.py"}


def test_folders_at_the_root_are_mapped_and_linked(pyproject: dict[str, Any]) -> None:
    assert pyproject["tool"]["setuptools"]["package-dir"] == FOLDERS
    for folder in ("callbacks", "configs", "datamodules"):
        link = ROOT / "lit_rl" / folder
        assert link.readlink() == Path("..", folder)


def test_types_are_checked_wherever_there_is_python(pyproject: dict[str, Any]) -> None:
    folders = [folder for folder in ("lit_rl", "tests", "scripts") if any((ROOT / folder).rglob("*.py"))]
    assert pyproject["tool"]["mypy"]["files"] == folders  # mypy refuses a folder without Python


def test_wheel_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("dist-info/entry_points.txt"))
        assert "lit-rl = lit_rl.cli:main" in archive.read(entry_points).decode()
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert {name for name in names if name.startswith("lit_rl/")} == set(shipped_files())


def test_every_module_of_the_wheel_imports_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    pip("install", "--no-deps", "--no-index", "--target", str(installed), str(wheel))
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in shipped_files()
        if name.endswith(".py")
    )
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(modules), str(installed)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_importing_lit_rl_imports_nothing_heavy() -> None:
    code = "import sys, lit_rl; print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "transformers", "peft", "numpy", "jsonargparse"} & set(done.stdout.split())
    assert "lit_rl" in done.stdout.split()


def test_every_dependency_has_a_tested_version(pyproject: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(versions) == len(pins), "a name stands twice in constraints.txt"
    project = pyproject["project"]
    for line in itertools.chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(line)
        version = versions.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"{line}: constraints.txt has {version}"
