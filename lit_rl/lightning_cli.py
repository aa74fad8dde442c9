"""LightningCLI with what every run of ours needs: checkpoints, metrics, episodes, random states, clear refusals."""

import gc
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

import lit_rl.environments
import lit_rl.methods  # noqa: F401  # by being imported their classes get short names on the command line
from lit_rl.callbacks import (
    AtomicCheckpointIO,
    Checkpoints,
    EpisodeLog,
    MetricsFile,
    PredictionFile,
    RunState,
    ValidationFile,
)
from lit_rl.config_errors import explain
from lit_rl.reporting.run_files import CONFIG

# Trainer options that a module with its own optimizer steps cannot obey -> what to set instead.
_MISPLACED = {
    "gradient_clip_val": "model.init_args.max_grad_norm",
    "gradient_clip_algorithm": "model.init_args.max_grad_norm (gradients are clipped by their norm)",
    "accumulate_grad_batches": "model.init_args.micro_batch_tokens, the most tokens of one forward",
}
_WRITERS = (Checkpoints, MetricsFile, EpisodeLog)


class ConfigError(ValueError):
    """A config or command line cannot be run; the message says what is wrong, where, and what would be right."""


class _Parser(LightningArgumentParser):
    """Raises instead of printing its whole usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ConfigError(message) from ex


class _Progress(RichProgressBar):
    """Without a version number: a run is its folder."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        return {name.rpartition("/")[2]: value for name, value in shown.items() if name != "v_num"}


class _QuietCollector(L.Callback):
    """Tells Python's collector that what stands when training starts stays.

    Otherwise it walks through all libraries and weights every few batches, half a second each time.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        gc.collect()
        gc.freeze()


class _SaveConfig(SaveConfigCallback):
    """Writes the resolved config of a training run into its folder."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":  # the parent saves at the first stage only, which may be a validation before it
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / CONFIG
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False)


class LitRLCLI(LightningCLI):
    """The command line of lit-rl; ``run=False`` builds model, data and trainer without running them."""

    def __init__(self, args: Sequence[str] | None, run: bool = True):
        strict = {"allow_abbrev": False}  # or --trainer.max_step would silently mean max_steps
        super().__init__(
            L.LightningModule,
            L.LightningDataModule,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={"num_sanity_val_steps": 0, "log_every_n_steps": 1, "use_distributed_sampler": False},
            seed_everything_default=0,
            parser_kwargs={**strict, **{name: dict(strict) for name in self.subcommands()}},
            parser_class=_Parser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=None if args is None else list(args),
            run=run,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        parser.add_lightning_class_args(MetricsFile, "metrics_file")
        parser.add_lightning_class_args(EpisodeLog, "episode_log")
        parser.add_argument(
            "--validate_first",
            type=bool,
            default=False,
            help="Before a training that starts anew, validate the model as it is: what the report calls before.",
        )

    def _parse_ckpt_path(self) -> None:
        """A checkpoint changes nothing of the config: what is given here holds."""

    # -- before anything is built ------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        config = self.config.get(str(self.subcommand), self.config)
        for option, instead in _MISPLACED.items():
            if config.trainer.get(option) != (1 if option == "accumulate_grad_batches" else None):
                raise ConfigError(f"trainer.{option} has no effect on our methods; set {instead}.")
        if config.trainer.default_root_dir is None:
            config.trainer.default_root_dir = _root_of(config.get("config"))
        if self.subcommand is not None:
            config.ckpt_path = _checkpoint(config.get("ckpt_path"), config.trainer.default_root_dir, self.subcommand)
            config.weights_only = True
        if self.subcommand in ("validate", "test"):
            config.verbose = False  # ValidationFile prints a table that can be read

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, FileNotFoundError, ImportError) as error:
            raise ConfigError(str(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        trainer: L.Trainer = super().instantiate_trainer(**kwargs)
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[L.Callback]) -> L.Trainer:
        config, root = dict(config), config["default_root_dir"]
        if not getattr(self.model, "plays_episodes", True):
            callbacks = [callback for callback in callbacks if not isinstance(callback, EpisodeLog)]
        trial = bool(config["fast_dev_run"])
        if trial:  # nothing of a trial may overwrite the files of a run
            callbacks = [callback for callback in callbacks if not isinstance(callback, _WRITERS)]
        else:
            callbacks = [*callbacks, ValidationFile(), PredictionFile()]
        own = config.get("callbacks") or []
        if config["enable_progress_bar"] is not False and not any(isinstance(c, RichProgressBar) for c in own):
            callbacks.append(_Progress())
        if config["logger"] in (None, True) and not trial:
            config["logger"] = TensorBoardLogger(root, name="", version="tensorboard")
        config["enable_checkpointing"] = not trial
        config["plugins"] = [*(config["plugins"] or []), AtomicCheckpointIO()]
        return super()._instantiate_trainer(config, [RunState(), _QuietCollector(), *callbacks])

    def after_instantiate_classes(self) -> None:
        fits: Callable[[Any], None] = getattr(self.model, "check_data", lambda data: None)
        serves: Callable[[str, Any], None] = getattr(self.datamodule, "check_use", lambda stage, model: None)
        try:
            fits(self.datamodule)
            serves(self.subcommand or "", self.model)  # no stage: whoever asked for the parts runs them
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def before_fit(self) -> None:
        config = self.config_init[self.subcommand]
        if config.validate_first and config.ckpt_path is None and not config.trainer.fast_dev_run:
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
            self.trainer.validate_loop.batch_progress.reset()  # a resumed run, whose checkpoints hold it, has none


def main(args: Sequence[str]) -> None:
    """Run ``args``, beginning with a subcommand.

    Raises:
        ConfigError: They cannot be run; one sentence says which key is wrong and what would be right.
    """
    sys.argv[1:] = list(args)  # further ranks are started with the arguments of this process
    _be_quiet()
    try:
        LitRLCLI(None)
    except ConfigError as error:
        roots: dict[str, Any] = dict.fromkeys(("model", "data", "seed_everything", "validate_first", "ckpt_path"))
        roots |= {"trainer": L.Trainer, "checkpoints": Checkpoints}
        roots |= {"metrics_file": MetricsFile, "episode_log": EpisodeLog}
        raise ConfigError(explain(str(error), args[1:], roots)) from error


def load(config: str | Path, *overrides: str) -> LitRLCLI:
    """Build what a config describes without running it: ``.model``, ``.datamodule`` and ``.trainer`` of the result.

    Args:
        config: A YAML file.
        overrides: Further arguments, as on the command line.
    """
    with warnings.catch_warnings():  # a script of ours has arguments of its own
        warnings.filterwarnings("ignore", ".*args parameter is intended to run from within Python")
        return LitRLCLI([f"--config={config}", *overrides], run=False)


def _be_quiet() -> None:
    """Leave out what is said in every run and is right in ours."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of weights that are loaded within a blink
    for message in (
        ".*module.s. in eval mode at the start of training",  # dropout is off on purpose, see Policy.train
        ".*isinstance.treespec, LeafSpec.. is deprecated",
    ):
        warnings.filterwarnings("ignore", message)
    tips = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    tips.addFilter(lambda record: "Tip:" not in record.getMessage())


def _root_of(configs: Any) -> str:
    """Folder of a run whose config names none: ``runs/`` and the names of the last config file and its folder."""
    if not configs:
        return "runs/unnamed"
    path = Path(str(configs[-1]))
    return f"runs/{path.resolve().parent.name}-{path.stem}"


def _checkpoint(given: Any, root: str, subcommand: str) -> str | None:
    """The checkpoint to load; "last" is that of the run's folder, and nothing where a training has not begun yet."""
    if given is None:
        return None
    path = Path(root) / "checkpoints" / "last.ckpt" if given == "last" else Path(str(given))
    if path.exists():
        return str(path)
    if given == "last" and subcommand == "fit":
        return None
    raise ConfigError(f"ckpt_path is {str(given)!r}, but there is no file {path}; train first or give another path.")


__all__ = ["ConfigError", "LitRLCLI", "load", "main"]
