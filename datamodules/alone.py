"""What DataModules share in which one trained party answers or acts alone."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lit_rl.datamodules.online import OnlineDataModule, Place
from lit_rl.datamodules.played import played_rollouts
from lit_rl.environments.base import Environment
from lit_rl.episodes import Rollouts
from lit_rl.parties import PolicyParty
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.stream_keys import stream_key


class AloneDataModule(OnlineDataModule):
    """Episodes of one party; a subclass says what an episode is and what is written into its rollouts.

    Attributes:
        known: Names of the conditions there are.

    Args:
        tasks: What the episodes are about.
        party: Who answers or acts; the trained party of the method.
        fit_conditions: What is validated while training.
        conditions: What ``lit-rl validate`` and ``test`` play.
        kwargs: Of `OnlineDataModule`.
    """

    known: ClassVar[tuple[str, ...]]

    def __init__(
        self, tasks: Any, *, party: str, fit_conditions: Sequence[str], conditions: Sequence[str], **kwargs: Any
    ):
        super().__init__(tasks, **kwargs)
        for name in (*fit_conditions, *conditions):
            if name not in self.known:
                raise ValueError(f"data.conditions has {name!r}; known are {list(self.known)}.")
        if not conditions:
            raise ValueError(f"data.conditions is empty; name some of {list(self.known)}.")
        self.party = party
        self.fit_conditions, self.conditions = tuple(fit_conditions), tuple(conditions)

    def episode(self, source: Any, task: int) -> Environment:
        """A new episode about task number ``task`` of ``source``."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        self.check_use(stage, getattr(self.trainer, "lightning_module", None))

    def check_use(self, stage: str, module: Any) -> None:
        """Raise ValueError if ``module`` does not train the party."""
        trained = getattr(module, "trained_parties", (self.party,))
        if self.party not in trained:
            raise ValueError(f"data.party is {self.party!r}, but {type(module).__name__} trains {list(trained)}.")

    def training_world(self, task: int, index: int) -> Environment:
        return self.episode(self.tasks, task)

    def play_training(self, planned: list[Planned]) -> Rollouts:
        return self.play_alone(planned, "train", self.student)

    def play_held_out(self, places: Sequence[Place], condition: str) -> Rollouts:
        planned = [
            Planned(environment=self.episode(source, task), index=index, task_id=str(task), group=task)
            for source, task, index in places
        ]
        return self.play_alone(planned, condition, self.evaluation_settings(condition))

    def play_alone(self, planned: list[Planned], label: str, settings: SamplingSettings) -> Rollouts:
        """Play episodes, and make rollouts of them."""
        module = self._module()
        played = play(
            planned,
            {self.party: PolicyParty(adapter=self.party, settings=settings)},
            module.policy,
            seed=stream_key(self.seed, label),
            max_rows=self.max_rows,
            on_error=self.on_error,
        )
        parties = [self.party]
        return played_rollouts(played, module, settings, trained=parties, parties=parties, label=label, turns=1)
