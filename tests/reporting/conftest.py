import shutil
from pathlib import Path

import pytest

from tests.reporting.made_up_run import make_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart", batches=60, episodes=8, every=20)


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A run of 60 batches with all its files, to be changed at will."""
    return Path(shutil.copytree(finished_run, tmp_path / "quickstart"))
