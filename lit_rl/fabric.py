"""The same module, data and callbacks under ``lightning.fabric``, for clusters whose processes you start yourself.

    fabric = L.Fabric(accelerator="cuda", devices=8, num_nodes=4, strategy="ddp", loggers=TensorBoardLogger("runs"))
    fabric.launch()
    module, data = SocialMetaLearning(...), DidacticDataModule(...)
    fit(fabric, module, data, callbacks=[RunState(), MetricsFile(), Checkpoints()], max_batches=1000)

Trains to the bit what ``Trainer.fit`` trains.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from lit_rl.callbacks.checkpoints import AtomicCheckpointIO
from lit_rl.methods import Method


def fit(
    fabric: L.Fabric,
    module: Method,
    datamodule: L.LightningDataModule,
    *,
    callbacks: Sequence[L.Callback] = (),
    max_batches: int | None = None,
    max_steps: int = -1,
    validate_every_n_batches: int = 0,
    default_root_dir: str | Path = ".",
    ckpt_path: str | Path | None = None,
) -> "FabricLoop":
    """Train; all processes call this, after ``fabric.launch()``.

    Args:
        fabric: In one process or under a data-parallel strategy.
        module: What learns.
        datamodule: What it learns from.
        callbacks: Of Lightning, called in this order, those that write checkpoints last.
        max_batches: Training batches of the whole run, what came before ``ckpt_path`` included; None is one epoch.
        max_steps: Optimizer steps of the whole run; -1 is no limit.
        validate_every_n_batches: Validate after every n-th training batch; 0 never does.
        default_root_dir: Folder of the run, for callbacks that write files.
        ckpt_path: Go on from this checkpoint of such a run.

    Returns:
        The loop that ran, for its ``callback_metrics``, ``global_step`` and ``save_checkpoint``.
    """
    loop = FabricLoop(
        fabric,
        module,
        datamodule,
        callbacks=callbacks,
        max_batches=max_batches,
        max_steps=max_steps,
        validate_every_n_batches=validate_every_n_batches,
        default_root_dir=default_root_dir,
    )
    loop.run(ckpt_path)
    return loop


class FabricLoop:
    """A training loop over Fabric that module, data and callbacks may take for the Trainer.

    What it does not have itself (``strategy``, ``device``, ``world_size``, ``is_global_zero``, ``backward`` ...) is
    Fabric's; what it has beyond are the attributes of the Trainer that our classes and ordinary callbacks read.
    Arguments are those of `fit`.
    """

    def __init__(
        self,
        fabric: L.Fabric,
        module: Method,
        datamodule: L.LightningDataModule,
        *,
        callbacks: Sequence[L.Callback] = (),
        max_batches: int | None = None,
        max_steps: int = -1,
        validate_every_n_batches: int = 0,
        default_root_dir: str | Path = ".",
    ):
        for name, value, least in (
            ("max_batches", max_batches, 1),
            ("max_steps", max_steps, -1),
            ("validate_every_n_batches", validate_every_n_batches, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}.")
        self.fabric, self.lightning_module, self.datamodule = fabric, module, datamodule
        self.callbacks = sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))
        self.max_batches, self.max_steps = max_batches, max_steps
        self.validate_every_n_batches = validate_every_n_batches
        self.default_root_dir = str(default_root_dir)
        self.batches, self.should_stop = 0, False
        self.state = SimpleNamespace(fn="fit")
        self.training, self.validating, self.sanity_checking = False, False, False
        self.callback_metrics: dict[str, torch.Tensor] = {}
        self.optimizers: list[Any] = []
        self.lr_scheduler_configs: list[Any] = []
        self.train_dataloader: Any = None
        self._unlogged: dict[str, torch.Tensor] = {}
        self._version_before = 0  # policy version at the start of the run

    def __getattr__(self, name: str) -> Any:
        if name == "fabric":  # not set yet
            raise AttributeError(name)
        return getattr(self.fabric, name)

    @property
    def global_step(self) -> int:
        """Optimizer steps of the run."""
        return self.lightning_module.policy_version - self._version_before

    @property
    def current_epoch(self) -> int:
        """Passes over the loader that are over."""
        return self.batches // len(self.train_dataloader)

    # -- running -----------------------------------------------------------------------------------------------

    def run(self, ckpt_path: str | Path | None = None) -> None:
        """Train to the end, from ``ckpt_path`` if given."""
        try:
            self._set_up()
            if ckpt_path is not None:
                self._restore(self.fabric.load(ckpt_path, weights_only=True))
            self._call("on_fit_start")
            self.training = True
            self._call("on_train_start")
            while not self._is_over():
                self._call("on_train_epoch_start")
                self._train_epoch()
                self._call("on_train_epoch_end")
            self._call("on_train_end")
            self._call("on_fit_end")
        except BaseException as exception:
            for callback in self.callbacks:
                callback.on_exception(self, self.lightning_module, exception)  # type: ignore[arg-type]
            raise
        finally:
            self.training = False
            self._call("teardown", stage="fit")
            module: Any = self.lightning_module
            module.fabric = self.datamodule.trainer = None

    def _set_up(self) -> None:
        """In Trainer's order: what cannot run fails before a model is loaded."""
        module: Any = self.lightning_module
        self.datamodule.trainer = self  # type: ignore[assignment]
        module.fabric = self
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        self._call("setup", stage="fit")
        with self.fabric.init_module():
            module.configure_model()
        configured = module.configure_optimizers()
        if not isinstance(configured, dict):
            configured = {"optimizer": configured}
        if "lr_scheduler" in configured:
            self.lr_scheduler_configs = [SimpleNamespace(scheduler=configured["lr_scheduler"])]
        # The wrapped module is not kept: past it, a backward reduces nothing, and `sync_gradients` does so once a step.
        _, *self.optimizers = self.fabric.setup(module, configured["optimizer"])
        module.fabric = self
        self._version_before = module.policy_version
        self.train_dataloader = self.datamodule.train_dataloader()
        if not all(hasattr(self.train_dataloader, name) for name in ("__len__", "state_dict", "load_state_dict")):
            raise ValueError(
                f"train_dataloader() gave a {type(self.train_dataloader).__name__}, which is not sized or has no "
                "state_dict; give a lit_rl.datamodules.RolloutStream or an iterable like it."
            )
        if self.max_batches is None:
            self.max_batches = len(self.train_dataloader)

    def _is_over(self) -> bool:
        assert self.max_batches is not None
        steps_are_used_up = 0 <= self.max_steps <= self.global_step
        return self.should_stop or steps_are_used_up or self.batches >= self.max_batches

    def _train_epoch(self) -> None:
        first = self.batches % len(self.train_dataloader)
        for index, batch in enumerate(self.train_dataloader, first):
            self._train_batch(self.fabric.to_device(batch), index)
            if self.validate_every_n_batches and self.batches % self.validate_every_n_batches == 0:
                self._validate()
            if self._is_over():
                return

    def _train_batch(self, batch: Any, index: int) -> None:
        self._call("on_train_batch_start", batch, index)
        with self.fabric.autocast():
            self.lightning_module.training_step(batch, index)
        self.batches += 1
        self._call("on_train_batch_end", {}, batch, index)
        self._write_metrics()

    @torch.no_grad()
    def _validate(self) -> None:
        loaders = self.datamodule.val_dataloader()
        loaders = loaders if isinstance(loaders, list) else [loaders]
        self.training, self.validating = False, True
        self._call("on_validation_start")
        self._call("on_validation_epoch_start")
        for number, loader in enumerate(loaders):
            place = (number,) if len(loaders) > 1 else ()
            for index, batch in enumerate(loader):
                batch = self.fabric.to_device(batch)
                self._call("on_validation_batch_start", batch, index, *place)
                with self.fabric.autocast():
                    self.lightning_module.validation_step(batch, index, *place)
                self._call("on_validation_batch_end", None, batch, index, *place)
        self._call("on_validation_epoch_end")
        self._call("on_validation_end")
        self.training, self.validating = True, False
        self._write_metrics()

    def _call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Callbacks first, then the module; ``fabric.call`` would give the module the callbacks' arguments."""
        for callback in self.callbacks:
            getattr(callback, hook)(self, self.lightning_module, *args, **kwargs)
        getattr(self.lightning_module, hook)(*args, **kwargs)

    # -- metrics -----------------------------------------------------------------------------------------------

    def log_dict(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """What ``module.log`` comes to: kept for callbacks, and written to the loggers once a batch."""
        values = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in metrics.items()}
        self.callback_metrics |= values
        self._unlogged |= values

    def _write_metrics(self) -> None:
        """The logged value "step" is the x axis, as under Trainer."""
        step = self._unlogged.pop("step", None)
        self.fabric.log_dict(self._unlogged, step=self.global_step if step is None else int(step))
        self._unlogged = {}

    # -- checkpoints -------------------------------------------------------------------------------------------

    def save_checkpoint(self, path: str | Path, weights_only: bool = False) -> None:
        """Write trained weights and, unless ``weights_only``, optimizer and run state; every process must call this."""
        if type(self.fabric.strategy.checkpoint_io) is TorchCheckpointIO:
            self.fabric.strategy.checkpoint_io = AtomicCheckpointIO()
        checkpoint: dict[str, Any] = {
            "epoch": self.current_epoch,
            "global_step": self.global_step,
            "pytorch-lightning_version": L.__version__,
            "state_dict": self.lightning_module.state_dict(),
        }
        if not weights_only:
            checkpoint |= {
                "callbacks": {c.state_key: state for c in self.callbacks if (state := c.state_dict())},
                "optimizer_states": [optimizer.state_dict() for optimizer in self.optimizers],
                "lr_schedulers": [config.scheduler.state_dict() for config in self.lr_scheduler_configs],
                "fabric_loop": {"batches": self.batches, "train_dataloader": self.train_dataloader.state_dict()},
            }
        self.lightning_module.on_save_checkpoint(checkpoint)
        self.fabric.save(path, checkpoint)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        if "fabric_loop" not in checkpoint:
            raise ValueError("ckpt_path was not written under Fabric; go on with Trainer, or load its weights alone.")
        self.lightning_module.on_load_checkpoint(checkpoint)
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=False)
        self._version_before = self.lightning_module.policy_version - checkpoint["global_step"]
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        for config, state in zip(self.lr_scheduler_configs, checkpoint["lr_schedulers"], strict=True):
            config.scheduler.load_state_dict(state)
        self.batches = checkpoint["fabric_loop"]["batches"]
        self.train_dataloader.load_state_dict(checkpoint["fabric_loop"]["train_dataloader"])
        for callback in self.callbacks:
            if callback.state_key in checkpoint["callbacks"]:
                callback.load_state_dict(checkpoint["callbacks"][callback.state_key])
