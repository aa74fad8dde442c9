"""What a run needs beside weights to continue to the bit: random states of all ranks, and its place in the data."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch

from lit_rl.distributed import gather_objects, rank, world_size


def random_states() -> dict[str, Any]:
    """The global random states of this process, in types that load with ``weights_only=True``."""
    numpy_state = np.random.get_state(legacy=False)
    inner = numpy_state["state"]
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(inner["key"].astype(np.int64)),
            "pos": int(inner["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
    }
    if torch.cuda.is_initialized():  # of this rank's device alone: asking for all would open every one of them
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Undo what happened since `random_states`."""
    torch.set_rng_state(states["torch"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    saved = states["numpy"]
    np.random.set_state(
        ("MT19937", saved["key"].numpy().astype(np.uint32), saved["pos"], saved["has_gauss"], saved["gauss"])
    )
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


class RunState(L.Callback):
    """Puts the random states of all ranks into checkpoints, and keeps validation from changing them.

    Without the second, a checkpoint taken just before a due validation, which a resumed run skips, resumes to other
    numbers.  Also keeps the state of a training loader that has one: Lightning restores it in the middle of an epoch,
    but a finished run that is given more epochs would begin the data anew.
    """

    def __init__(self) -> None:
        self._fitting = True
        self._before_validation: dict[str, Any] | None = None
        self._loader: Any = None
        self._loader_state: dict[str, Any] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._fitting = stage == "fit"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._loader = trainer.train_dataloader
        if self._loader_state is not None and self._loader_state != _state_of(self._loader):
            self._loader.load_state_dict(self._loader_state)
        self._loader_state = None

    def state_dict(self) -> dict[str, Any]:
        return {"ranks": gather_objects(random_states()), "loader": _state_of(self._loader)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self._fitting:
            return  # validating a checkpoint takes as many processes as one likes
        ranks = state_dict["ranks"]
        if len(ranks) != world_size():
            raise ValueError(
                f"The checkpoint was written by {len(ranks)} processes and this run has {world_size()}; resume with as "
                "many (trainer.devices times trainer.num_nodes), or start a new run from the exported policy."
            )
        set_random_states(ranks[rank()])
        self._loader_state = state_dict["loader"]

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before_validation = random_states()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._before_validation is not None:
            set_random_states(self._before_validation)
            self._before_validation = None


def _state_of(loader: Any) -> dict[str, Any] | None:
    stateful = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
    return dict(loader.state_dict()) if stateful else None
