"""Representations of a frozen backbone on disk: computed once, so that an epoch costs the heads alone."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from lit_rl.distributed import gather_objects, rank, world_size
from lit_rl.reward_models.backbone import length_batches
from lit_rl.tiny import cache_folder

Row = tuple[int, ...]
_LAYER, _POOLING, _NAME = "last", "mean", "representation"


class RepresentationCache:
    """One file for each prompt, named by a hash of all that its representation depends on.

    Files are written whole or not at all, so that many runs may share a folder.

    Args:
        backbone: What the backbone is, see `Backbone.identity`.
        pool_tokens: How many states are pooled; None all of them.
        folder: Where the files are; None is ``representations`` in the folder where tiny models are kept.
    """

    def __init__(self, backbone: str, pool_tokens: int | None, folder: str | Path | None = None):
        self.facts = [backbone, _LAYER, pool_tokens, _POOLING]
        self.folder = Path(folder).expanduser() if folder is not None else cache_folder() / "representations"
        self.computed = 0  # prompts this process has run through the backbone

    def path(self, row: Row) -> Path:
        """The file of a rendered prompt."""
        name = hashlib.sha256(json.dumps([*self.facts, row]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def fetch(self, rows: Sequence[Row], represent: Callable[[Sequence[Row]], Tensor], token_budget: int) -> Tensor:
        """Representations of rendered prompts, float32 ``(N, H)`` on the CPU; those that are missing are computed.

        Which prompts run together depends on all of ``rows`` and not on which are missing: a run that was cut off
        while it computed them goes on to the same bits.  Ranks share the work where they share the folder.

        Args:
            rows: Token ids, at least one row.
            represent: Runs some of them, ``(n, H)``.
            token_budget: Most padded tokens of one run.
        """
        unique = list(dict.fromkeys(rows))
        parts = [[unique[i] for i in part] for part in length_batches([len(row) for row in unique], token_budget)]
        for mine in (parts[rank() :: world_size()], parts):  # the second time for what is on no disk of this rank
            for part in mine:
                self._fill(part, represent)
            gather_objects(None)  # wait for the others
        return torch.stack([load_file(self.path(row))[_NAME] for row in rows])

    def _fill(self, part: Sequence[Row], represent: Callable[[Sequence[Row]], Tensor]) -> None:
        missing = [not self.path(row).is_file() for row in part]
        if any(missing):
            found = represent(part).float().cpu()
            self.computed += len(part)
            for row, is_missing, representation in zip(part, missing, found, strict=True):
                if is_missing:
                    self._write(self.path(row), representation)

    def _write(self, path: Path, representation: Tensor) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(save({_NAME: representation.contiguous()}))
        os.replace(scratch, path)
