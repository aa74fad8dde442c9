"""What callbacks share that measure held-out batches: when they begin, add and report; and sums logged as means."""

from abc import abstractmethod
from typing import Any

import lightning as L

from lit_rl.distributed import gather_objects
from lit_rl.listeners.figures import Sums, added, means


class HeldOut(L.Callback):
    """Measures the batches of a validation or a test, as `begin`, `add` and `report` say."""

    def begin(self, trainer: L.Trainer) -> None:
        """Forget what was added before."""
        raise NotImplementedError

    def add(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> None:
        """Measure a batch, before the module sees it."""
        raise NotImplementedError

    def report(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Log what was found; ``stage`` is "val" or "test"."""
        raise NotImplementedError

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin(trainer)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin(trainer)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.add(trainer, pl_module, batch)

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.add(trainer, pl_module, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.report(trainer, pl_module, "test")


class HeldOutSums(HeldOut):
    """Collects sums over the batches of a validation or test, of all ranks, and logs their means when it ends."""

    def __init__(self) -> None:
        self._held_out_sums: dict[str, Sums] = {}

    @abstractmethod
    def held_out_sums(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> Sums:
        """What a batch adds, by name of figure: sum and count."""

    def begin(self, trainer: L.Trainer) -> None:
        self._held_out_sums.clear()

    def add(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> None:
        label, sums = getattr(batch, "label", ""), self.held_out_sums(trainer, pl_module, batch)
        self._held_out_sums[label] = added([self._held_out_sums.get(label, {}), sums])

    def report(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        ranks = gather_objects(self._held_out_sums)
        for label in dict.fromkeys(label for sums in ranks for label in sums):
            for name, value in means(added(sums.get(label, {}) for sums in ranks)).items():
                pl_module.log("/".join(filter(None, (stage, label, name))), value, batch_size=1)
        self._held_out_sums = {}
