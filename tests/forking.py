"""Runs of the command line in forked children of one process that has everything imported already."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_rl.cli import main


def in_child(function: Callable[[], object], output: Path) -> int:
    """Call ``function`` in a forked child with its output in a file.

    Returns:
        Its exit code: 0, the code of ``SystemExit``, 1 after another exception, or -N if signal N ended it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_the_child(function, output)
    _, status = os.waitpid(child, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _be_the_child(function: Callable[[], object], output: Path) -> None:
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        # torch makes its thread pool anew after a fork, when first asked, and two threads must not be first together.
        torch.set_num_threads(torch.get_num_threads())
        function()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_config(config: Mapping[str, Any], folder: Path) -> None:
    """``lit-rl fit`` for one batch, then ``lit-rl validate`` for one, of a config as it is given here."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    for command in (["fit", "--trainer.fast_dev_run=true"], ["validate", "--trainer.limit_val_batches=1"]):
        arguments = [*command, f"--config={path}", f"--trainer.default_root_dir={folder / 'run'}"]

        def child(arguments: list[str] = arguments) -> None:
            raise SystemExit(main([*arguments, "--trainer.enable_progress_bar=false"]))

        code = in_child(child, folder / "output.txt")
        assert code == 0, (folder / "output.txt").read_text()[-3000:]


def kill_on_call(owner: object, name: str, call: int, before: bool = True) -> None:
    """From its ``call``-th call on (1-based), ``owner.name`` is the end of this process by SIGKILL."""
    real, calls = getattr(owner, name), 0

    def killing(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if before and calls >= call:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if calls >= call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, killing)
