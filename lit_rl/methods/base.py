"""What every method shares: optimizer steps over a batch of rollouts, counted, summed over ranks, logged."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_rl.distributed import no_backward_sync, sync_gradients, world_sum
from lit_rl.episodes import Rollouts
from lit_rl.methods.figures import StepFigures
from lit_rl.metrics import AccuracyByTurn, solve_turns
from lit_rl.objectives import AggregationMode, KLEstimator, aggregation_totals, kl_estimate, token_weights
from lit_rl.policy import Policy, PolicyConfig


class StaleRollouts(RuntimeError):
    """A batch was sampled by an older policy than the method allows."""


class NonFiniteLoss(FloatingPointError):
    """A loss or gradient was NaN or infinite; the weights are those of the step before."""


class Method(L.LightningModule):
    """Learns from batches of finished rollouts, with manual optimization.

    A subclass says how rewards become advantages (`advantages`) and what is minimized (`token_loss`).  One batch is
    ``epochs_per_batch`` passes of ``steps_per_batch`` optimizer steps; each step is split into micro-batches by
    ``micro_batch_tokens``, divided once by the denominator of the whole step on all ranks, and summed over ranks once.

    Args:
        policy: What to train.
        learning_rate: Of the default optimizer, AdamW without weight decay.
        optimizer: Another optimizer; called with the parameter groups.
        lr_scheduler: Stepped after every optimizer step.
        aggregation: How token losses become one number (see `lit_rl.objectives.token_weights`).
        norm_length: The constant of ``aggregation="seq_mean_token_sum_norm"``.
        steps_per_batch: Optimizer steps each pass over a batch is split into, by whole groups.
        epochs_per_batch: Passes over a batch.
        micro_batch_tokens: Most padded tokens of one forward.
        max_grad_norm: Gradients are clipped to this norm; None leaves them.
        clip_each_party: Clip each party's gradients by their own norm, so that one cannot silence another.
        kl_coef: Weight of the KL estimate to the reference policy in the loss.
        kl_estimator: "k1", "k2" or "k3".
        allowed_lag: Most optimizer steps a batch's policy may be behind.
    """

    automatic_optimization = False
    strict_loading = False  # frozen weights are not in checkpoints; `on_load_checkpoint` checks the rest by name

    trained_parties: tuple[str, ...] = ("student",)

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        learning_rate: float = 1e-6,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        aggregation: AggregationMode = "seq_mean_token_mean",
        norm_length: int | None = None,
        steps_per_batch: int = 1,
        epochs_per_batch: int = 1,
        micro_batch_tokens: int = 16384,
        max_grad_norm: float | None = 1.0,
        clip_each_party: bool = False,
        kl_coef: float = 0.0,
        kl_estimator: KLEstimator = "k3",
        allowed_lag: int = 0,
    ):
        super().__init__()
        for name, value, least in (
            ("steps_per_batch", steps_per_batch, 1),
            ("epochs_per_batch", epochs_per_batch, 1),
            ("micro_batch_tokens", micro_batch_tokens, 1),
            ("allowed_lag", allowed_lag, 0),
        ):
            if value < least:
                raise ValueError(f"model.{name} is {value}; it must be at least {least}.")
        if kl_coef and policy.adapters is None:
            raise ValueError(
                "model.kl_coef needs a reference policy, which is the base with adapters off: name the parties to train "
                "in policy.adapters, or set kl_coef to 0."
            )
        if (aggregation == "seq_mean_token_sum_norm") != (norm_length is not None):
            raise ValueError("model.norm_length goes with aggregation='seq_mean_token_sum_norm', which needs it.")
        self.policy_config, self.policy = policy, None
        self.learning_rate, self.optimizer, self.lr_scheduler = learning_rate, optimizer, lr_scheduler
        self.aggregation, self.norm_length = aggregation, norm_length
        self.steps_per_batch, self.epochs_per_batch = steps_per_batch, epochs_per_batch
        self.micro_batch_tokens = micro_batch_tokens
        self.max_grad_norm, self.clip_each_party = max_grad_norm, clip_each_party
        self.kl_coef, self.kl_estimator, self.allowed_lag = kl_coef, kl_estimator, allowed_lag
        self.policy_version = 0  # own count of optimizer steps: Lightning's stays 0 under Fabric
        self.accuracies: dict[str, AccuracyByTurn] = {}

    policy: Policy | None

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

    def step_weights(self, rollouts: Rollouts) -> Callable[[Rollouts], Tensor]:
        """What each token loss of an optimizer step is multiplied by, so that the sum over all its micro-batches and
        ranks is the loss.

        Args:
            rollouts: This rank's part of the step; every rank calls this once per step.

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

    def step_figures(self, rollouts: Rollouts, log_probs: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Further figures of a micro-batch to log, each as (sum, count)."""
        return {}

    @property
    def needs_reference(self) -> bool:
        """Whether ``ref_log_probs`` have to be filled while collecting."""
        return self.kl_coef != 0

    def check_data(self, datamodule: Any) -> None:
        """Raise ValueError if the data cannot be learned from; called before the policy is loaded."""

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        self.check_data(getattr(self.trainer, "datamodule", None))

    def configure_model(self) -> None:
        """Load the policy, once: hooks call this more than once."""
        if self.policy is None:
            strategy = getattr(self._trainer, "strategy", None)
            device = getattr(strategy, "root_device", None) or self.device
            self.policy = Policy(self.policy_config, device)

    def configure_optimizers(self) -> Any:
        assert self.policy is not None
        groups = [{"params": params, "name": name} for name, params in self.policy.parameter_groups().items()]
        if self.optimizer is not None:
            optimizer = self.optimizer(groups)  # type: ignore[arg-type]
        else:
            optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=0.0)
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.lr_scheduler(optimizer)}

    def training_step(self, batch: Rollouts, batch_idx: int) -> None:
        self.refuse_stale(batch)
        start = time.perf_counter()
        if batch.advantages is None:
            batch.advantages = self.advantages(batch)
        figures = StepFigures(self.device)
        for step, rollouts in enumerate(self._optimizer_batches(batch)):
            if step and self._steps_are_used_up():
                break
            self._optimizer_step(rollouts, figures)
        seconds = time.perf_counter() - start
        self._log_batch(batch, figures, seconds)

    def refuse_stale(self, batch: Rollouts) -> None:
        """Raise `StaleRollouts` for a batch older than ``allowed_lag`` optimizer steps."""
        lag = self.policy_version - batch.policy_version
        if lag > self.allowed_lag:
            raise StaleRollouts(
                f"A batch sampled at policy version {batch.policy_version} reached version {self.policy_version}; at "
                f"most {self.allowed_lag} steps of lag are allowed. Use a sized loader (RolloutStream), which Lightning "
                "does not prefetch, or raise model.allowed_lag."
            )

    def validation_step(self, batch: Rollouts, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Rollouts, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: Rollouts, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """The dialogues played, as plain records."""
        return [
            {
                "task_id": episode.task_id,
                "condition": batch.label,
                "stop_reason": episode.stop_reason,
                "turns": [{"party": t.party, "text": t.text, "reward": t.reward} for t in episode.turns],
            }
            for episode in batch.episodes
        ]

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep trained weights only, chosen by name: ``requires_grad`` of the moment would drop whole parties."""
        assert self.policy is not None
        kept = {f"policy.{name}" for name in self.policy.trainable_names()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}
        checkpoint["policy_version"] = self.policy_version

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that lacks a trained weight or brings a strange one: loading is not strict otherwise."""
        assert self.policy is not None
        wanted = {f"policy.{name}" for name in self.policy.trainable_names()}
        # A tied head is one parameter under two names; state_dict lists both, named_parameters the first.
        found = {k for k in checkpoint["state_dict"] if k in wanted or k not in self.state_dict()}
        if missing := sorted(wanted - found):
            raise ValueError(f"The checkpoint lacks {len(missing)} trained weights, the first is {missing[0]!r}.")
        if strange := sorted(found - wanted):
            raise ValueError(f"The checkpoint has {len(strange)} weights this policy lacks, first {strange[0]!r}.")
        self.policy_version = checkpoint["policy_version"]

    def export(self, folder: str | Path) -> None:
        """Write the trained policy where other tools can load it, see `Policy.save`."""
        assert self.policy is not None
        self.policy.save(folder)

    # -- one optimizer step ------------------------------------------------------------------------------------

    def _optimizer_batches(self, batch: Rollouts) -> Iterator[Rollouts]:
        """Whole groups, shuffled anew for every pass by a generator that depends on the policy version alone."""
        if self.steps_per_batch == 1:
            for _ in range(self.epochs_per_batch):
                yield batch
            return
        groups = torch.unique(batch.group_ids)
        if len(groups) < self.steps_per_batch:
            raise ValueError(
                f"model.steps_per_batch is {self.steps_per_batch}, but the batch has only {len(groups)} groups; use at "
                "most one step per group."
            )
        for epoch in range(self.epochs_per_batch):
            generator = torch.Generator().manual_seed(batch.policy_version * 1_000_003 + epoch)
            order = torch.randperm(len(groups), generator=generator).to(groups.device)
            for part in groups[order].chunk(self.steps_per_batch):
                yield batch.select(torch.isin(batch.group_ids, part))

    def _steps_are_used_up(self) -> bool:
        limit = getattr(self.trainer, "max_steps", -1)
        return limit is not None and 0 <= limit <= self.policy_version

    def _optimizer_step(self, rollouts: Rollouts, figures: StepFigures) -> None:
        optimizer = self.optimizers()
        weigh = self.step_weights(rollouts)
        bad: list[int] = []
        with no_backward_sync(self.trainer.strategy, self):
            for party, part in self._micro_batches(rollouts):
                bad += self._backward(party, part, weigh, figures)
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        sync_gradients(trained)
        norm = self._clip(optimizer.param_groups)
        self._refuse_non_finite(bad, norm, optimizer)
        optimizer.step()
        optimizer.zero_grad()
        self._step_scheduler()
        self.policy_version += 1
        figures.add("grad_norm", norm, torch.ones_like(norm))
        figures.steps += 1

    def _micro_batches(self, rollouts: Rollouts) -> Iterator[tuple[str, Rollouts]]:
        """One party at a time: switching adapters between a forward and its backward loses gradients silently."""
        mask = self.learned_mask(rollouts)
        owner = torch.where(mask, rollouts.party_ids.long(), -1).amax(1)
        for number, party in enumerate(rollouts.parties):
            rows = owner == number
            if party in self.trained_parties and bool(rows.any()):
                for part in rollouts.select(rows).micro_batches(self.micro_batch_tokens):
                    yield party, part

    def _backward(
        self, party: str, part: Rollouts, weigh: Callable[[Rollouts], Tensor], figures: StepFigures
    ) -> list[int]:
        """Forward, loss and backward of one micro-batch; returns the episodes whose loss is not finite."""
        assert self.policy is not None
        mask = self.learned_mask(part)
        with self.policy.acting_as(party):
            log_probs, entropy = self.policy.log_probs(
                part.input_ids,
                mask,
                temperature=part.temperature,
                constraint_states=part.constraint_states,
                with_entropy=True,
            )
            token_loss = self.token_loss(part, log_probs)
            if self.kl_coef:
                token_loss = token_loss + self.kl_coef * self._kl(part, log_probs)
            loss = (weigh(part) * token_loss).sum()
            self.manual_backward(loss)
        with torch.no_grad():
            figures.add("loss", loss, torch.ones_like(loss))
            assert entropy is not None
            figures.add("entropy", entropy.sum(), mask.sum())
            figures.compare(log_probs, part, mask, first=part.policy_version == self.policy_version)
            for name, (total, count) in self.step_figures(part, log_probs).items():
                figures.add(name, total, count)
            rows = ~torch.isfinite(token_loss).all(1)
            return part.episode_ids[rows].tolist() if bool(rows.any()) else []

    def _kl(self, part: Rollouts, log_probs: Tensor) -> Tensor:
        if part.ref_log_probs is None:
            raise ValueError("model.kl_coef is set but the rollouts have no ref_log_probs; fill them while collecting.")
        mask = self.learned_mask(part)
        return kl_estimate(log_probs, part.ref_log_probs, estimator=self.kl_estimator, loss_mask=mask)

    def _clip(self, groups: list[dict[str, Any]]) -> Tensor:
        """Clip, and return the norm over everything before clipping."""
        norms = []
        for group in groups:
            with_grad = [p for p in group["params"] if p.grad is not None]
            norms.append(nn.utils.get_total_norm([p.grad for p in with_grad]).to(self.device))
        total = torch.stack(norms).norm()
        if self.max_grad_norm is not None:
            for group, norm in zip(groups, norms, strict=True):
                scale = norm if self.clip_each_party else total
                nn.utils.clip_grads_with_norm_(group["params"], self.max_grad_norm, scale)
        return total

    def _refuse_non_finite(self, bad: list[int], norm: Tensor, optimizer: Any) -> None:
        """All ranks decide alike, or those that go on would wait for ever."""
        wrong = torch.tensor([float(bool(bad)) + float(not torch.isfinite(norm))], device=self.device)
        if not bool(world_sum(wrong).item()):
            return
        optimizer.zero_grad()
        where = f"episodes {sorted(set(bad))[:8]}" if bad else "no single episode: the gradient's norm overflowed"
        raise NonFiniteLoss(
            f"The loss is NaN or infinite in optimizer step {self.policy_version + 1} ({where}). The step was not "
            "taken. Lower the learning rate or look at these episodes in the log."
        )

    def _step_scheduler(self) -> None:
        for config in getattr(self.trainer, "lr_scheduler_configs", ()):
            config.scheduler.step()

    # -- figures -----------------------------------------------------------------------------------------------

    def _log_batch(self, batch: Rollouts, figures: StepFigures, seconds: float) -> None:
        figures.add_rollouts(batch)
        values = {f"train/{name}": value for name, value in figures.result(world_sum).items()}
        values["train/learning_rate"] = self._learning_rate()
        values |= {name: value for name, value in batch.figures.items()}
        values["time/learning_seconds"] = seconds
        tokens = float(batch.attention_mask.sum()) * self.epochs_per_batch
        values["time/learning_tokens_per_second"] = tokens / seconds
        self.record(values, step=self.policy_version)

    def _learning_rate(self) -> float:
        optimizer = self.optimizers()
        return float(optimizer.param_groups[0]["lr"])  # type: ignore[union-attr]

    def record(self, values: dict[str, float], step: int) -> None:
        """Log under Trainer and Fabric alike, with optimizer steps as the x axis."""
        if self._fabric is not None:
            self._fabric.log_dict(values, step=step)
            return
        bar = {name for name in values if name in ("train/reward", "train/loss") or name.endswith("_turn_4")}
        for name, value in values.items():
            self.log(name, value, prog_bar=name in bar, batch_size=1)
        self.log("step", float(step), batch_size=1)

    def _evaluate(self, batch: Rollouts, stage: str) -> None:
        name = f"{stage}/{batch.label}"
        if name not in self.accuracies:
            self.accuracies[name] = AccuracyByTurn(max_turns=int(batch.rewards.shape[1])).to(self.device)
        self.accuracies[name].update(solve_turns(batch.episodes).to(self.device), batch.group_ids)

    def _log_evaluation(self, stage: str) -> None:
        values: dict[str, float] = {}
        for name, metric in self.accuracies.items():
            if name.startswith(f"{stage}/"):
                accuracy = metric.compute()
                values |= {f"{name}/accuracy_turn_{k + 1}": float(a) for k, a in enumerate(accuracy.reshape(-1))}
                metric.reset()
        if values and not getattr(self.trainer, "sanity_checking", False):
            self.record(values, step=self.policy_version)
