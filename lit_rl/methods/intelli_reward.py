"""IntelliReward: a reward model of questions, three heads on one language model (arXiv 2602.15849, section 5.2)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from rich.table import Table
from torch import Tensor

from lit_rl.distributed import check_strategy, no_backward_sync, sync_gradients, world_sum
from lit_rl.methods.figures import StepFigures
from lit_rl.methods.steps import NonFiniteLoss, clip_gradients
from lit_rl.metrics.label_agreement import LabelAgreement
from lit_rl.papers.records import AXES
from lit_rl.reward_models.backbone import BackboneConfig
from lit_rl.reward_models.batch import QuestionBatch
from lit_rl.reward_models.chunk_head import ChunkTransformer
from lit_rl.reward_models.heads import HeadConfig
from lit_rl.reward_models.model import MultiObjectiveRewardModel, RewardModelConfig
from lit_rl.reward_models.prompts import RUBRIC
from lit_rl.reward_models.saved import save_reward_model
from lit_rl.reward_models.scores import Scoring, axis_loss_sums, predictions

MODEL = "reward_model"  # the condition whose figures are those of the model


class IntelliReward(L.LightningModule):
    """Learns whether a question takes effort, rests on evidence and is grounded, from three labels of each question.

    As published: a frozen causal LM reads rubric, paper and question, its last 50 states are pooled, and three heads
    that share nothing give two logits each; the loss is the sum of three mean cross-entropies; AdamW, learning rate
    2e-5, weight decay 0.01, 5 epochs of batches of 8.  Ours: that the pooling is a mean over the prompt's states, and
    ``select``.

    The data is `lit_rl.datamodules.AnnotatedQuestions`.  Its export is a folder that
    `lit_rl.reward_models.SavedRewardModel` makes the reward of any method.

    Args:
        backbone: The language model below.
        head: Of each axis; None is the published transformer head.
        pool_tokens: See `RewardModelConfig`.
        rubric: System turn of the prompt; None is ours.
        train_backbone: Train the language model's weights too, with the same optimizer; no state is cached then.
        learning_rate: Of the default optimizer.
        weight_decay: Of the default optimizer.
        optimizer: Another optimizer.
        lr_scheduler: Stepped after every optimizer step; None keeps the learning rate, as published.
        max_grad_norm: Gradients are clipped to this norm; None leaves them, as published.
        micro_batch_tokens: Most padded tokens of one forward of the language model.
        select: Which weights are exported, validated and tested: the "last", or the "best" by validation loss.
        seed: Of the heads' weights.
    """

    automatic_optimization = False
    plays_episodes = False

    def __init__(
        self,
        backbone: BackboneConfig,
        *,
        head: HeadConfig | None = None,
        pool_tokens: int | None = 50,
        rubric: str | None = None,
        train_backbone: bool = False,
        learning_rate: float = 2e-5,
        weight_decay: float = 0.01,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        max_grad_norm: float | None = None,
        micro_batch_tokens: int = 32768,
        select: Literal["last", "best"] = "last",
        seed: int = 0,
    ):
        super().__init__()
        for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
            if value < 0:
                raise ValueError(f"model.{name} is {value}; it must be at least 0.")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"model.max_grad_norm is {max_grad_norm}; give a number above 0, or null for no clipping.")
        if micro_batch_tokens < 1:
            raise ValueError(f"model.micro_batch_tokens is {micro_batch_tokens}; it must be at least 1.")
        if select not in ("last", "best"):
            raise ValueError(f"model.select is {select!r}; it must be 'last' or 'best'.")
        self.config = RewardModelConfig(
            backbone=backbone,
            head=head or ChunkTransformer(),
            pool_tokens=pool_tokens,
            rubric=RUBRIC if rubric is None else rubric,
            train_backbone=train_backbone,
            seed=seed,
        )
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.max_grad_norm, self.micro_batch_tokens, self.select = max_grad_norm, micro_batch_tokens, select
        self.reward_model: MultiObjectiveRewardModel | None = None
        self.policy_version = 0  # own count of optimizer steps, as methods have it
        self._best: dict[str, Any] | None = None  # loss and weights of the best validation so far
        self._agreement: LabelAgreement | None = None
        self._losses = StepFigures()

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def check_data(self, datamodule: Any) -> None:
        """Raise ValueError if the data cannot be learned from; called before the backbone is loaded."""
        records = getattr(datamodule, "records", None)
        if not isinstance(records, Mapping):
            raise ValueError(
                f"IntelliReward learns from annotated questions, and data is {type(datamodule).__name__}; take "
                "lit_rl.datamodules.AnnotatedQuestions."
            )
        if self.select == "best" and not records["val"]:
            raise ValueError("model.select is 'best', by validation loss, but data.validation_share is 0; raise it.")

    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_strategy(self.trainer.strategy)
            self.check_data(getattr(self.trainer, "datamodule", None))

    def configure_model(self) -> None:
        """Load the backbone, once: hooks call this more than once."""
        if self.reward_model is None:
            try:
                device = self.trainer.strategy.root_device
            except RuntimeError:  # no trainer: `load_from_checkpoint`
                device = self.device
            self.reward_model = MultiObjectiveRewardModel(self.config, device)

    def configure_optimizers(self) -> Any:
        parameters = list(self._model().parameters())
        if self.optimizer is not None:
            optimizer = self.optimizer(parameters)
        else:
            optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ValueError(
                "model.lr_scheduler is ReduceLROnPlateau, which waits for a metric; take one that counts steps."
            )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: QuestionBatch, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        learning_rate = float(optimizer.param_groups[0]["lr"])
        figures = StepFigures()
        self._optimizer_step(batch, optimizer, figures)
        values = {f"train/{name}": value for name, value in figures.result().items()}
        self.record(values | {"train/learning_rate": learning_rate, **batch.figures}, bar={"train/loss"})

    def validation_step(self, batch: QuestionBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch)

    def test_step(self, batch: QuestionBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch)

    def predict_step(self, batch: QuestionBatch, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        logits = self._all_logits(batch)
        axes = Scoring(mode="soft_sum").of_axes(logits).tolist()
        return [
            {
                "paper_id": record.paper_id,
                "question": record.question,
                "source": record.source,
                "labels": dict(zip(AXES, record.labels, strict=True)),
                "probabilities": dict(zip(AXES, row, strict=True)),
                "score": int(score),
            }
            for record, row, score in zip(batch.records, axes, Scoring().total(logits).tolist(), strict=True)
        ]

    def on_validation_start(self) -> None:
        if self.trainer.state.fn == "validate":
            self._take_best()

    def on_test_start(self) -> None:
        self._take_best()

    def on_predict_start(self) -> None:
        self._take_best()

    def on_validation_epoch_end(self) -> None:
        loss = self._log_evaluation("val")
        better = loss is not None and (self._best is None or loss < self._best["loss"])
        if self.select == "best" and self.trainer.state.fn == "fit" and better:
            weights = {name: x.detach().cpu().clone() for name, x in self._model().state_dict().items()}
            self._best = {"loss": loss, "weights": weights, "policy_version": self.policy_version}

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"policy_version": self.policy_version, "best": self._best}
        checkpoint["backbone"] = self._model().backbone.identity

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.configure_model()
        if "backbone" not in checkpoint:
            raise ValueError("The checkpoint holds no reward model: IntelliReward did not write it.")
        if not self.config.train_backbone and checkpoint["backbone"] != self._model().backbone.identity:
            raise ValueError(
                "The heads of the checkpoint were trained on another backbone; load it with the model.backbone.* "
                "options it was trained with."
            )
        self.policy_version, self._best = checkpoint["policy_version"], checkpoint["best"]

    def export(self, folder: str | Path) -> None:
        """Write the reward model that ``select`` names, see `lit_rl.reward_models.save_reward_model`."""
        model = self._model()
        last = {name: x.detach().clone() for name, x in model.state_dict().items()}
        self._take_best()
        save_reward_model(model, folder)
        model.load_state_dict(last)

    # -- one optimizer step ------------------------------------------------------------------------------------

    def _optimizer_step(self, batch: QuestionBatch, optimizer: Any, figures: StepFigures) -> None:
        counts = world_sum((batch.labels >= 0).sum(0)).clamp(min=1)
        with no_backward_sync(self.trainer.strategy):
            for places in batch.parts(self.micro_batch_tokens):
                logits, labels = self._logits(batch, places), batch.labels[places]
                sums, _ = axis_loss_sums(logits, labels)
                loss = (sums / counts).sum()
                self.manual_backward(loss)
                self._add_figures(figures, loss, logits, labels)
        sync_gradients([parameter for group in optimizer.param_groups for parameter in group["params"]])
        norm = clip_gradients(optimizer.param_groups, self.max_grad_norm, each=False)
        try:
            if bool(world_sum((~torch.isfinite(norm)).float())):
                raise NonFiniteLoss(
                    f"The gradient of optimizer step {self.policy_version + 1} is NaN or infinite. The step was not "
                    "taken. Lower model.learning_rate, or set model.max_grad_norm."
                )
            optimizer.step()
        finally:
            optimizer.zero_grad()
        for config in getattr(self.trainer, "lr_scheduler_configs", ()):
            config.scheduler.step()
        self.policy_version += 1
        figures.steps += 1
        figures.add("grad_norm", norm, torch.ones_like(norm))

    @torch.no_grad()
    def _add_figures(self, figures: StepFigures, loss: Tensor | None, logits: Tensor, labels: Tensor) -> None:
        if loss is not None:
            figures.add("loss", loss, torch.ones_like(loss))
        sums, counts = axis_loss_sums(logits, labels)
        right = ((predictions(logits) == labels) & (labels >= 0)).sum(0)
        for axis, total, hits, count in zip(AXES, sums, right, counts, strict=True):
            figures.add(f"{axis}/loss", total, count)
            figures.add(f"{axis}/accuracy", hits, count)

    def _logits(self, batch: QuestionBatch, places: list[int]) -> Tensor:
        """Of some rows of a batch, float32 ``(B, 3, 2)``."""
        model = self._model()
        if batch.representations is not None:
            return model.logits(batch.representations[places])
        return model.logits(model.represent([batch.rows[place] for place in places]))

    def _all_logits(self, batch: QuestionBatch) -> Tensor:
        logits = torch.zeros(len(batch), len(AXES), 2, device=batch.labels.device)
        for places in batch.parts(self.micro_batch_tokens):
            logits[places] = self._logits(batch, places)
        return logits

    # -- figures -----------------------------------------------------------------------------------------------

    def record(self, values: Mapping[str, float], bar: set[str] | None = None) -> None:
        """Log, with optimizer steps as the x axis; ``bar`` names what the progress bar shows."""
        for name, value in values.items():
            self.log(name, value, prog_bar=name in (bar or ()), batch_size=1)
        self.log("step", float(self.policy_version), batch_size=1)

    def _evaluate(self, batch: QuestionBatch) -> None:
        if self._agreement is None:
            self._agreement = LabelAgreement(AXES).to(self.device)
        logits = self._all_logits(batch)
        self._agreement.update(predictions(logits), batch.labels, [record.source for record in batch.records])
        self._add_figures(self._losses, None, logits, batch.labels)

    def _log_evaluation(self, stage: str) -> float | None:
        """Log what was evaluated since the last time; returns the loss, or None of a sanity check."""
        if self._agreement is None:
            return None
        losses, self._losses = self._losses.result(), StepFigures()
        found = self._agreement.compute()
        self._agreement.reset()
        if getattr(self.trainer, "sanity_checking", False):
            return None
        loss = sum(value for name, value in losses.items() if name.endswith("/loss"))
        values = {f"{stage}/loss": loss}
        for name, figures in found.items():
            condition = f"{stage}/{MODEL if name == 'model' else name}"
            # In one turn, which is what files and reports know the accuracy of a condition by.
            values[f"{condition}/accuracy_turn_1"] = figures.pop("accuracy")
            values |= {f"{condition}/{figure}": value for figure, value in figures.items()}
        self.record(values, bar={f"{stage}/loss", f"{stage}/{MODEL}/accuracy_turn_1"})
        return loss

    def validation_table(self, conditions: Mapping[str, Mapping[str, Any]]) -> Table:
        """Accuracies of the model and of the baselines, for whoever waits for a validation."""
        table = Table(title="Agreement with the annotators on held-out papers")
        for column in ("", *AXES, "mean"):
            table.add_column(column, justify="right" if column else "left")
        names = {MODEL: MODEL, "majority": "better constant", "source_mix": "  if sources were equal"}
        names |= {"by_source": "  of each source"}
        rows = [(name, conditions[key], "accuracy") for key, name in names.items() if key in conditions]
        if MODEL in conditions:
            rows.append((f"{MODEL}, balanced", conditions[MODEL], "balanced_accuracy"))
        for name, figures, figure in rows:
            mean = figures["accuracy"][0] if figure == "accuracy" else figures.get(figure)
            cells = [*(figures.get(f"{axis}/{figure}") for axis in AXES), mean]
            table.add_row(name, *("" if cell is None else f"{cell:.3f}" for cell in cells))
        return table

    # -- inner workings ----------------------------------------------------------------------------------------

    def _model(self) -> MultiObjectiveRewardModel:
        assert self.reward_model is not None
        return self.reward_model

    def _take_best(self) -> None:
        """Use the weights that ``select`` names; without a validation so far these are the last."""
        if self.select == "best" and self._best is not None:
            self._model().load_state_dict(self._best["weights"])
