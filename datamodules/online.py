"""What DataModules share that play tasks in groups, with the policy as it is now."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import lightning as L

from lit_rl.datamodules.order import ShuffledOrder, run_seed
from lit_rl.datamodules.played import attached_module
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.distributed import rank, world_size
from lit_rl.dynamic_sampling import DynamicSampler, DynamicSampling
from lit_rl.environments import TaskSource
from lit_rl.environments.base import Environment
from lit_rl.episodes import Rollouts
from lit_rl.rollout import Planned, fill_reference
from lit_rl.sampling import SamplingSettings

Place = tuple[TaskSource, int, int]  # source, number of the task in it, number of the episode


class OnlineDataModule(L.LightningDataModule):
    """Groups of episodes of every task; a subclass says what an episode is and how it is played.

    Attributes:
        fit_conditions: Under which conditions held-out tasks are played while training.
        conditions: Under which ``lit-rl validate`` and ``test`` play them.

    Args:
        tasks: Problems to train on.
        validation_tasks: Problems to validate on; None holds out the last ``num_validation_tasks`` of ``tasks``.
        num_validation_tasks: Problems per validation.
        tasks_per_batch: Problems per training batch, over all ranks.
        group_size: Episodes per problem.
        batches_per_epoch: Training batches per epoch.
        dynamic_sampling: Play further problems in place of those whose episodes are all paid alike; None takes what
            comes.
        student: How the trained party samples in training.
        evaluation: How it samples in validation; None takes temperature 0.7 and top-p 0.95.  Conditions that end in
            "_greedy" take the likeliest token.
        validation_group_size: Episodes per problem in validation.
        max_rows: Episodes sampled at once.
        on_error: When a party, a verifier or an environment raises: "stop" the run, or "drop" the episode and count it.
        seed: Of task order and all sampling noise; None takes that of ``seed_everything``.
    """

    fit_conditions: Sequence[str]
    conditions: Sequence[str]

    def __init__(
        self,
        tasks: TaskSource,
        *,
        validation_tasks: TaskSource | None = None,
        num_validation_tasks: int = 128,
        tasks_per_batch: int = 32,
        group_size: int = 8,
        batches_per_epoch: int = 100,
        dynamic_sampling: DynamicSampling | None = None,
        student: SamplingSettings | None = None,
        evaluation: SamplingSettings | None = None,
        validation_group_size: int = 1,
        max_rows: int = 256,
        on_error: Literal["stop", "drop"] = "stop",
        seed: int | None = None,
    ):
        super().__init__()
        if len(tasks) == 0:
            raise ValueError(f"data.tasks ({tasks.name}) is empty; there is nothing to train on.")
        at_least_one(
            num_validation_tasks=num_validation_tasks,
            tasks_per_batch=tasks_per_batch,
            group_size=group_size,
            validation_group_size=validation_group_size,
            max_rows=max_rows,
        )
        self.tasks, self.tasks_per_batch, self.group_size = tasks, tasks_per_batch, group_size
        self.batches_per_epoch, self.validation_group_size = batches_per_epoch, validation_group_size
        self.student = student or SamplingSettings()
        self.student.check_trainable()
        short = self.student.max_tokens
        self.evaluation = evaluation or SamplingSettings(temperature=0.7, top_p=0.95, max_tokens=short)
        self.max_rows, self.on_error, self.seed = max_rows, on_error, run_seed(seed)
        self.held_out, training = _hold_out(tasks, validation_tasks, num_validation_tasks)
        self._order = ShuffledOrder(training, self.seed)
        self.dynamic_sampling = dynamic_sampling
        self._sampler = self._sampler_of(dynamic_sampling) if dynamic_sampling is not None else None
        self._stream: RolloutStream | None = None

    # -- what a subclass says ----------------------------------------------------------------------------------

    def training_world(self, task: int, index: int) -> Environment:
        """Episode ``index`` of the run, about task number ``task``."""
        raise NotImplementedError

    def play_training(self, planned: list[Planned]) -> Rollouts:
        """Play a batch."""
        raise NotImplementedError

    def play_held_out(self, places: Sequence[Place], condition: str) -> Rollouts:
        """Play episodes of held-out tasks under one condition."""
        raise NotImplementedError

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def train_dataloader(self) -> RolloutStream:
        """The one stream of the run; its place in the task order is in the checkpoint."""
        if self._stream is None and self._sampler is not None:
            self._stream = _DrawnStream(self._collect_training, self.batches_per_epoch, self._sampler)
        elif self._stream is None:
            self._stream = RolloutStream(self._collect_training, self.batches_per_epoch)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return [self._evaluation_stream(c) for c in (self.fit_conditions if fitting else self.conditions)]

    def test_dataloader(self) -> list[RolloutStream]:
        return [self._evaluation_stream(condition) for condition in self.conditions]

    def predict_dataloader(self) -> list[RolloutStream]:
        return [self._evaluation_stream(self.conditions[0])]

    # -- collecting --------------------------------------------------------------------------------------------

    def _collect_training(self, number: int) -> Rollouts:
        """Batch ``number``: this rank's share of it, whole groups."""
        module = self._module()
        if self._sampler is None:
            first = number * self.tasks_per_batch
            rollouts = self._play_places(_share(range(first, first + self.tasks_per_batch)))
        else:
            rollouts = self._sampler.collect(
                self._play_places,
                policy_version=module.policy_version,
                allowed_lag=getattr(module, "allowed_lag", 0),
                pad_id=module.policy.tokenizer.pad_token_id or 0,
                device=module.policy.device,
            )
        if module.needs_reference and len(rollouts):
            fill_reference(rollouts, module.policy, token_budget=module.micro_batch_tokens)
        return rollouts

    def _play_places(self, places: Sequence[int]) -> Rollouts:
        """A group of each of these places in the task order."""
        planned = []
        for place in places:
            task = self._order[place]
            for index in range(place * self.group_size, (place + 1) * self.group_size):
                world = self.training_world(task, index)
                planned.append(Planned(environment=world, index=index, task_id=str(task), group=place))
        return self.play_training(planned)

    def _sampler_of(self, settings: DynamicSampling) -> DynamicSampler:
        if self.group_size < 2:
            raise ValueError(
                f"data.group_size is {self.group_size}, but data.dynamic_sampling compares the episodes of a group; "
                "sample at least 2 of each problem."
            )
        return DynamicSampler(settings, groups=self.tasks_per_batch, order=self._order)

    def _evaluation_stream(self, condition: str) -> RolloutStream:
        """All held-out tasks of this rank under one condition."""
        tasks = self.held_out[rank() :: world_size()]
        if not tasks:
            raise ValueError(
                f"There are {len(self.held_out)} validation tasks for {world_size()} processes; raise "
                "data.num_validation_tasks so that each has one."
            )
        per_batch = max(1, self.max_rows // self.validation_group_size)

        def collect(number: int) -> Rollouts:
            places = [
                (source, task, index)
                for source, task in tasks[number * per_batch : (number + 1) * per_batch]
                for index in range(task * self.validation_group_size, (task + 1) * self.validation_group_size)
            ]
            return self.play_held_out(places, condition)

        return RolloutStream(collect, -(-len(tasks) // per_batch), repeat=True)

    def evaluation_settings(self, condition: str) -> SamplingSettings:
        """How the trained party samples under a condition."""
        if condition.endswith("_greedy"):
            return SamplingSettings(temperature=0.0, max_tokens=self.evaluation.max_tokens)
        return self.evaluation

    def _module(self) -> Any:
        return attached_module(self.trainer)


class _DrawnStream(RolloutStream):
    """A stream whose place in the task order is how far ``sampler`` has drawn, and not the number of the batch."""

    def __init__(self, collect: Callable[[int], Rollouts], num_batches: int, sampler: DynamicSampler):
        super().__init__(collect, num_batches)
        self.sampler = sampler

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"sampler": self.sampler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "sampler" not in state:
            raise ValueError(
                "The checkpoint was written by a run without data.dynamic_sampling, which does not say where to go on "
                "drawing; resume without it, or start a new run from the exported policy."
            )
        super().load_state_dict(state)
        self.sampler.load_state_dict(state["sampler"])


def at_least_one(**options: int | None) -> None:
    """Raise ValueError for an option of ``data`` below 1; None is none given."""
    for option, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"data.{option} is {value}; it must be at least 1.")


def _hold_out(tasks: TaskSource, others: TaskSource | None, count: int) -> tuple[list[tuple[TaskSource, int]], int]:
    """Tasks to validate on, and how many of ``tasks``, from the first on, are left to train on."""
    if others is not None:
        return [(others, i) for i in range(min(count, len(others)))], len(tasks)
    kept = len(tasks) - count
    if kept < 1:
        raise ValueError(
            f"data.tasks ({tasks.name}) has {len(tasks)} tasks and data.num_validation_tasks holds out {count}; none "
            "is left to train on. Hold out fewer, or give data.validation_tasks."
        )
    return [(tasks, i) for i in range(kept, len(tasks))], kept


def _share(places: range) -> range:
    """Every rank plays its own contiguous part, so that the union is what one process would play."""
    if len(places) % world_size():
        raise ValueError(
            f"data.tasks_per_batch is {len(places)}, which {world_size()} ranks cannot share evenly; use a multiple."
        )
    part = len(places) // world_size()
    return places[rank() * part : (rank() + 1) * part]
