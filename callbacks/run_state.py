"""What a run needs beside weights to continue to the bit: random states of all ranks, left alone by validation."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch

from lit_rl.distributed import gather_objects, rank


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
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
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
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])


class RunState(L.Callback):
    """Puts the random states of all ranks into checkpoints, and keeps validation from changing them.

    Without the second, a checkpoint taken just before a due validation, which a resumed run skips, resumes to other
    numbers.
    """

    def __init__(self) -> None:
        self._before_validation: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"ranks": gather_objects(random_states())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        ranks = state_dict["ranks"]
        if rank() >= len(ranks):
            raise ValueError(
                f"The checkpoint holds random states of {len(ranks)} processes, this is number {rank() + 1}; resume "
                "with as many processes as it was written by."
            )
        set_random_states(ranks[rank()])

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before_validation = random_states()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._before_validation is not None:
            set_random_states(self._before_validation)
            self._before_validation = None
