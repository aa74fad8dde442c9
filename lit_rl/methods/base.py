"""What every method shares: optimizer steps over a batch of rollouts, counted, summed over ranks, logged."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_rl.distributed import check_strategy, no_backward_sync, sync_gradients, world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.critique import CritiqueTerm, critique_scores, critique_sums, critique_targets
from lit_rl.methods.evaluation import Evaluation, dialogue_records, last_turns
from lit_rl.methods.figures import StepFigures
from lit_rl.methods.steps import StaleRollouts, check_finite, clip_gradients, step_batches
from lit_rl.methods.weights import check_checkpoint, saved_weights
from lit_rl.objectives import AggregationMode, KLEstimator, aggregation_totals, kl_estimate, token_weights
from lit_rl.policy import Policy, PolicyConfig


class Method(L.LightningModule):
    """Learns from batches of finished rollouts, with manual optimization.

    A subclass says how rewards become advantages (`advantages`) and what is minimized (`token_loss`).  One batch is
    ``epochs_per_batch`` passes of ``steps_per_batch`` optimizer steps; each step is split into micro-batches by
    ``micro_batch_tokens``, divided once by the denominator of the whole step on all ranks, and summed over ranks once.

    Args:
        policy: What to train.
        learning_rate: Of the default optimizer, AdamW without weight decay.
        optimizer: Another optimizer; called with one parameter group for each party.
        lr_scheduler: Of the learning rate.
        scheduler_interval: The scheduler steps after every optimizer step ("step"), or once after all of a batch
            ("rollout"); a batch that is skipped, as `lit_rl.dynamic_sampling.DynamicSampling` may, moves neither.
        aggregation: How token losses become one number (see `lit_rl.objectives.token_weights`).
        norm_length: The constant of ``aggregation="seq_mean_token_sum_norm"``.
        steps_per_batch: Optimizer steps each pass over a batch is split into, by whole groups.
        epochs_per_batch: Passes over a batch.
        micro_batch_tokens: Most padded tokens of one forward.
        max_grad_norm: Gradients are clipped to this norm; None leaves them.
        clip_each_party: Clip each party's gradients by their own norm, so that one cannot silence another.
        kl_coef: Weight of the KL estimate to the reference policy in the loss.
        kl_estimator: "k1", "k2" or "k3".
        entropy_coef: Weight of the entropy of the sampled tokens' distributions, which the loss is less by.
        critique_coef: Weight of the cross-entropy of what the teacher said (see `lit_rl.methods.critique`), under the
            sampler's temperature; needs `lit_rl.callbacks.TeacherCritiquePrediction`.
        allowed_lag: Most optimizer steps a batch's policy may be behind.
    """

    automatic_optimization = False
    strict_loading = False  # frozen weights are not in checkpoints; `on_load_checkpoint` checks the rest by name

    trained_parties: tuple[str, ...] = ("student",)
    policy: Policy | None

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        learning_rate: float = 1e-6,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["step", "rollout"] = "step",
        aggregation: AggregationMode = "seq_mean_token_mean",
        norm_length: int | None = None,
        steps_per_batch: int = 1,
        epochs_per_batch: int = 1,
        micro_batch_tokens: int = 16384,
        max_grad_norm: float | None = 1.0,
        clip_each_party: bool = False,
        kl_coef: float = 0.0,
        kl_estimator: KLEstimator = "k3",
        entropy_coef: float = 0.0,
        critique_coef: float = 0.0,
        allowed_lag: int = 0,
    ):
        super().__init__()
        _at_least(1, steps_per_batch=steps_per_batch, epochs_per_batch=epochs_per_batch)
        _at_least(1, micro_batch_tokens=micro_batch_tokens)
        _at_least(0, allowed_lag=allowed_lag, kl_coef=kl_coef, learning_rate=learning_rate, entropy_coef=entropy_coef)
        _at_least(0, critique_coef=critique_coef)
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"model.max_grad_norm is {max_grad_norm}; give a number above 0, or null for no clipping.")
        if scheduler_interval not in ("step", "rollout"):
            raise ValueError(f"model.scheduler_interval is {scheduler_interval!r}; it must be 'step' or 'rollout'.")
        if kl_coef and policy.adapters is None:
            raise ValueError(
                "model.kl_coef needs a reference policy, which is the base with adapters off: name the parties to "
                "train in policy.adapters, or set kl_coef to 0."
            )
        if (aggregation == "seq_mean_token_sum_norm") != (norm_length is not None):
            raise ValueError("model.norm_length goes with aggregation='seq_mean_token_sum_norm', which needs it.")
        self.policy_config, self.policy = policy, None
        self.learning_rate, self.optimizer, self.lr_scheduler = learning_rate, optimizer, lr_scheduler
        self.scheduler_interval = scheduler_interval
        self.aggregation, self.norm_length = aggregation, norm_length
        self.steps_per_batch, self.epochs_per_batch = steps_per_batch, epochs_per_batch
        self.micro_batch_tokens = micro_batch_tokens
        self.max_grad_norm, self.clip_each_party = max_grad_norm, clip_each_party
        self.kl_coef, self.kl_estimator, self.entropy_coef = kl_coef, kl_estimator, entropy_coef
        self.critique_coef = critique_coef
        self.allowed_lag = allowed_lag
        self.policy_version = 0  # own count of optimizer steps, saved with the weights: Lightning's is the Trainer's
        self._evaluation: Evaluation | None = None

    # -- what a method says ------------------------------------------------------------------------------------

    def advantages(self, rollouts: Rollouts) -> Tensor | None:
        """Per token, float32 ``(B, T)``; None where the loss needs none.  Not called if a callback wrote them."""
        raise NotImplementedError(f"{type(self).__name__} must say how rewards become advantages.")

    def token_loss(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        """What is minimized, of each token and not averaged, float32 ``(B, T)``, zero outside the learned tokens."""
        raise NotImplementedError(f"{type(self).__name__} must say what is minimized.")

    def learned_mask(self, rollouts: Rollouts) -> Tensor:
        """Tokens the loss is about, bool ``(B, T)``."""
        return rollouts.loss_mask

    def row_parties(self, rollouts: Rollouts) -> Tensor:
        """Whose row each is, as a number in ``rollouts.parties``, int64 ``(B,)``; -1 where nothing is to be learned.

        The party that sampled tokens of the row, who may also learn to predict others' words in it; of a row that
        nobody sampled, the party of its targets, or the first trained one where all of these are critiques it heard.
        """
        learned = self.learned_mask(rollouts)
        mask = torch.where(rollouts.loss_mask.any(1, keepdim=True), rollouts.loss_mask, learned)
        owner = torch.where(mask, rollouts.party_ids.long(), -1).amax(1)
        if not self.critique_coef:
            return torch.where(learned.any(1), owner, -1)
        heard_only = critique_targets(rollouts).any(1) & ~mask.any(1)
        owner = torch.where(heard_only, rollouts.parties.index(self.trained_parties[0]), owner)
        return torch.where(self._scored(rollouts).any(1), owner, -1)

    def _scored(self, rollouts: Rollouts) -> Tensor:
        """Tokens whose log-probs the loss needs, bool ``(B, T)``."""
        learned = self.learned_mask(rollouts)
        return learned | critique_targets(rollouts) if self.critique_coef else learned

    def step_weights(self, rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
        """What each token loss of an optimizer step is multiplied by: the sum of all products is the loss.

        Args:
            rollouts: This rank's part of the step, which may have no rows; every rank calls this once per step.

        Returns:
            A function from a micro-batch to weights, float32 ``(B, T)``.
        """
        totals = aggregation_totals(self.learned_mask(rollouts), group_ids=rollouts.group_ids)
        totals = totals.with_counts(world_sum(totals.counts))
        return lambda part: token_weights(
            self.learned_mask(part),
            mode=self.aggregation,
            totals=totals,
            group_ids=part.group_ids,
            max_length=self.norm_length,
        )

    def step_parts(self, rollouts: Rollouts) -> Iterable[Rollouts]:
        """The optimizer steps that one split of a batch is for: all of its rows in one, or as a subclass says.

        Every rank has to yield as often as the others, also where it has no rows.
        """
        yield rollouts

    def as_sampled(self, party: str, rollouts: Rollouts) -> bool:
        """Whether ``party`` still is what it was when it sampled these rollouts, so that log-probs must agree."""
        return rollouts.policy_version == self.policy_version

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Further figures of a micro-batch to log, each as (sum, count)."""
        return {}

    def hidden_loss(self, rollouts: Rollouts, hidden: Tensor) -> Tensor:
        """A further loss of the last hidden states ``(B, T, H)`` of a micro-batch, asked for where `reads_hidden`.

        Returns:
            What is added to the loss, weighed already, float32 ``(B, K)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what is minimized of hidden states.")

    @property
    def reads_hidden(self) -> bool:
        """Whether `hidden_loss` is part of the loss; the forward is that of the log-probs."""
        return False

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer by ``name``; an ``lr`` here is that group's own."""
        assert self.policy is not None
        return [{"params": params, "name": name} for name, params in self.policy.parameter_groups().items()]

    @property
    def needs_reference(self) -> bool:
        """Whether ``ref_log_probs`` have to be filled while collecting."""
        return self.kl_coef != 0

    def check_data(self, datamodule: Any) -> None:
        """Raise ValueError if the data cannot be learned from; called before the policy is loaded."""
        tasks = getattr(datamodule, "tasks_per_batch", None)
        if tasks is not None and tasks < self.steps_per_batch:
            raise ValueError(
                f"model.steps_per_batch is {self.steps_per_batch}, but data.tasks_per_batch is {tasks}; every "
                "optimizer step needs the dialogues of at least one task."
            )

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_strategy(self.trainer.strategy)
            datamodule = getattr(self.trainer, "datamodule", None)
            self.check_data(datamodule)
            if (sampling := getattr(datamodule, "dynamic_sampling", None)) is not None:
                sampling.check_run(getattr(self.trainer, "callbacks", ()), self.allowed_lag)

    def configure_model(self) -> None:
        """Load the policy, once: hooks call this more than once."""
        if self.policy is None:
            try:
                device = self.trainer.strategy.root_device
            except RuntimeError:  # no trainer: `load_from_checkpoint`
                device = self.device
            self.policy = Policy(self.policy_config, device)

    def configure_optimizers(self) -> Any:
        groups = self.optimizer_groups()
        if self.optimizer is not None:
            optimizer = self.optimizer(groups)
        else:
            optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=0.0)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(self.lr_scheduler, optimizer)
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ValueError(
                "model.lr_scheduler is ReduceLROnPlateau, which waits for a metric; take one that counts steps."
            )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def make_scheduler(self, make: LRSchedulerCallable, optimizer: Any) -> Any:
        """The schedule of the learning rates, made by ``lr_scheduler``."""
        return make(optimizer)

    def training_step(self, batch: Rollouts, batch_idx: int) -> None:
        self.refuse_stale(batch)
        if not bool(world_sum(torch.tensor(len(batch), device=batch.input_ids.device))):
            self.record(batch.figures)  # nobody has a row: no step is taken, and none is counted
            return
        start = time.perf_counter()
        learning_rate = float(self._optimizer().param_groups[0]["lr"])
        if batch.advantages is None:
            # A rank may have no row where others have some.
            batch.advantages = self.advantages(batch) if len(batch) else torch.zeros_like(batch.old_log_probs)
        figures = StepFigures()
        splits = step_batches(batch, self.steps_per_batch, self.epochs_per_batch)
        for rollouts in (part for split in splits for part in self.step_parts(split)):
            if figures.steps and self._steps_are_used_up():
                break
            self._optimizer_step(rollouts, figures)
        if self.scheduler_interval == "rollout":
            self._scheduler_step()
        figures.add_rollouts(batch)
        values = {f"train/{name}": value for name, value in figures.result().items()}
        seconds = time.perf_counter() - start
        values |= {"train/learning_rate": learning_rate, **batch.figures, "time/learning_seconds": seconds}
        values["time/learning_tokens_per_second"] = float(batch.attention_mask.sum()) * self.epochs_per_batch / seconds
        self.record(values, bar={"train/loss", "train/reward", f"train/accuracy_turn_{batch.rewards.shape[1]}"})

    def validation_step(self, batch: Rollouts, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch)

    def test_step(self, batch: Rollouts, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch)

    def predict_step(self, batch: Rollouts, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        return dialogue_records(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.policy is not None
        checkpoint["state_dict"] = saved_weights(checkpoint["state_dict"], self.policy)
        checkpoint["policy_version"] = self.policy_version

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.policy is not None
        check_checkpoint(checkpoint, saved_weights(self.state_dict(), self.policy))  # loading is not strict otherwise
        self.policy_version = checkpoint["policy_version"]

    def export(self, folder: str | Path) -> None:
        """Write the trained policy where other tools can load it, see `Policy.save`."""
        assert self.policy is not None
        self.policy.save(folder)

    # -- one optimizer step ------------------------------------------------------------------------------------

    def refuse_stale(self, batch: Rollouts) -> None:
        """Raise `StaleRollouts` for a batch of a policy more than ``allowed_lag`` optimizer steps behind, or ahead."""
        lag = self.policy_version - batch.policy_version
        if not 0 <= lag <= self.allowed_lag:
            raise StaleRollouts(
                f"A batch sampled at policy version {batch.policy_version} reached version {self.policy_version}; "
                f"model.allowed_lag is {self.allowed_lag} optimizer steps. Use a sized loader (RolloutStream), which "
                "Lightning does not fetch ahead, or raise model.allowed_lag."
            )

    def _steps_are_used_up(self) -> bool:
        """Trainer looks at ``max_steps`` between batches only."""
        limit = getattr(self.trainer, "max_steps", -1)
        return limit is not None and 0 <= limit <= self.trainer.global_step

    def _optimizer(self) -> Any:
        optimizer = self.optimizers()
        if isinstance(optimizer, list):
            raise ValueError(f"{type(self).__name__} has {len(optimizer)} optimizers; give one with a group per party.")
        return optimizer

    def _optimizer_step(self, rollouts: Rollouts, figures: StepFigures) -> None:
        optimizer, weigh = self._optimizer(), self.step_weights(rollouts)
        critique = CritiqueTerm(rollouts, self.critique_coef) if self.critique_coef else None
        losses = []
        with no_backward_sync(self.trainer.strategy):
            for party, part in self._micro_batches(rollouts):
                losses.append((part.episode_ids, self._backward(party, part, weigh, critique, figures)))
        sync_gradients([parameter for group in optimizer.param_groups for parameter in group["params"]])
        norm = clip_gradients(optimizer.param_groups, self.max_grad_norm, each=self.clip_each_party)
        try:
            check_finite(losses, norm, self.policy_version + 1)
            optimizer.step()
        finally:
            optimizer.zero_grad()
        if self.scheduler_interval == "step":
            self._scheduler_step()
        self.policy_version += 1
        figures.steps += 1
        figures.add("grad_norm", norm, torch.ones_like(norm))

    def _scheduler_step(self) -> None:
        for config in getattr(self.trainer, "lr_scheduler_configs", ()):
            config.scheduler.step()

    def _micro_batches(self, rollouts: Rollouts) -> Iterator[tuple[str, Rollouts]]:
        """One party at a time: switching adapters between a forward and its backward loses gradients silently."""
        owners = self.row_parties(rollouts)
        for number in torch.unique(owners).tolist():
            if number >= 0:
                rows = owners == number
                mine = rollouts if bool(rows.all()) else rollouts.select(rows)
                for part in mine.micro_batches(self.micro_batch_tokens):
                    yield rollouts.parties[number], part

    def _backward(
        self,
        party: str,
        part: Rollouts,
        weigh: Callable[[Rollouts], Tensor],
        critique: CritiqueTerm | None,
        figures: StepFigures,
    ) -> Tensor:
        """Forward, loss and backward of one micro-batch; returns what each token adds to the loss."""
        assert self.policy is not None
        mask = self.learned_mask(part)
        with self.policy.acting_as(party):
            hidden = self.policy.hidden(part.input_ids) if self.reads_hidden else None
            log_probs, entropy = self.policy.log_probs(
                part.input_ids,
                self._scored(part),
                temperature=part.temperature,
                constraint_states=part.constraint_states,
                with_entropy=True,
                hidden=hidden,
            )
            token_loss = self.token_loss(part, log_probs)
            if self.kl_coef:
                token_loss = token_loss + self.kl_coef * self._kl(part, log_probs)
            assert entropy is not None
            if self.entropy_coef:
                token_loss = token_loss - self.entropy_coef * entropy
            weighed = weigh(part) * token_loss
            if critique is not None:
                weighed = weighed + critique.loss(part, log_probs)
            if hidden is not None:
                weighed = torch.cat([weighed, self.hidden_loss(part, hidden)], dim=1)
            loss = weighed.sum()
            self.manual_backward(loss)
        with torch.no_grad():
            figures.add("loss", loss, torch.ones_like(loss))
            figures.add("entropy", entropy.masked_fill(~mask, 0.0).sum(), mask.sum())
            figures.compare(log_probs, part, mask, first=self.as_sampled(party, part))
            if critique is not None:
                figures.add("critique_loss", *critique_sums(part, log_probs))
            for name, (total, count) in self.step_figures(part, log_probs).items():
                figures.add(name, total, count)
        return weighed.detach()

    def _kl(self, part: Rollouts, log_probs: Tensor) -> Tensor:
        if part.ref_log_probs is None:
            raise ValueError("model.kl_coef is set but the rollouts have no ref_log_probs; fill them while collecting.")
        mask = self.learned_mask(part)
        return kl_estimate(log_probs, part.ref_log_probs, estimator=self.kl_estimator, loss_mask=mask)

    # -- figures -----------------------------------------------------------------------------------------------

    def record(self, values: Mapping[str, float], bar: Collection[str] = ()) -> None:
        """Log, with optimizer steps as the x axis; ``bar`` names what the progress bar shows."""
        for name, value in values.items():
            self.log(name, value, prog_bar=name in bar, batch_size=1)
        self.log("step", float(self.policy_version), batch_size=1)

    def _evaluate(self, batch: Rollouts) -> None:
        if self._evaluation is None:
            self._evaluation = Evaluation(self.trained_parties[0], self.device)
        self._evaluation.update(batch)
        if batch.target_mask is not None:
            assert self.policy is not None
            scores = critique_scores(self.policy, batch, self.trained_parties[0], self.micro_batch_tokens)
            self._evaluation.add_critiques(batch.label, scores)

    def _log_evaluation(self, stage: str) -> None:
        if self._evaluation is None:
            return
        values = {f"{stage}/{name}": value for name, value in self._evaluation.compute().items()}
        if not getattr(self.trainer, "sanity_checking", False):
            self.record(values, bar=last_turns(values))


def _at_least(least: int, **options: float) -> None:
    for name, value in options.items():
        if value < least:
            raise ValueError(f"model.{name} is {value}; it must be at least {least}.")
