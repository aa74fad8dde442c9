"""Online completions: one prompt, one answer, paid by a verifier, a function or a reward model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_rl.datamodules.alone import AloneDataModule
from lit_rl.environments import Problem, TaskSource
from lit_rl.environments.completion import Completion
from lit_rl.episodes import Rollouts
from lit_rl.protocols import RewardModel
from lit_rl.rollout import Planned
from lit_rl.sampling import SamplingSettings

ANSWERS = "answers"
CONDITIONS = (ANSWERS, f"{ANSWERS}_greedy")
Quality = Callable[[Problem, str], float]


class CompletionDataModule(AloneDataModule):
    """Groups of completions of every prompt, with what each is worth as the reward of its one turn.

    ``reward_parts`` of a batch holds "correct" (the verifier's verdict, 1 or 0) and, with a ``quality``, its named
    parts.

    Args:
        tasks: Prompts with a verifier.
        quality: What a completion is worth: a function ``(problem, completion) -> float``, or a
            `lit_rl.protocols.RewardModel`, which sees whole batches; None pays 1 for a right answer.
        party: Who answers; the trained party of the method.
        instruction: System message before every prompt.
        fit_conditions: What is validated while training: "answers", "answers_greedy".
        conditions: What ``lit-rl validate`` and ``test`` play.
        kwargs: Of `OnlineDataModule`; ``student`` is how the party samples.
    """

    known = CONDITIONS

    def __init__(
        self,
        tasks: TaskSource,
        *,
        quality: Quality | RewardModel | None = None,
        party: str = "student",
        instruction: str | None = None,
        fit_conditions: Sequence[str] = (ANSWERS,),
        conditions: Sequence[str] = CONDITIONS,
        **kwargs: Any,
    ):
        super().__init__(tasks, party=party, fit_conditions=fit_conditions, conditions=conditions, **kwargs)
        if quality is not None and not callable(quality) and not isinstance(quality, RewardModel):
            raise ValueError(
                f"data.quality is a {type(quality).__name__}; give a function (problem, completion) -> float, or a "
                "class with a method score(prompts, completions)."
            )
        self.quality, self.instruction = quality, instruction

    def episode(self, source: TaskSource, task: int) -> Completion:
        return Completion(source[task], source, party=self.party, instruction=self.instruction)

    def play_alone(self, planned: list[Planned], label: str, settings: SamplingSettings) -> Rollouts:
        rollouts = super().play_alone(planned, label, settings)
        rollouts.reward_parts["correct"] = rollouts.rewards.clone()
        if self.quality is not None:
            worlds = {plan.index: plan.environment for plan in planned if isinstance(plan.environment, Completion)}
            self._pay(rollouts, [worlds[index].problem for index in rollouts.episode_ids.tolist()])
        return rollouts

    def _pay(self, rollouts: Rollouts, problems: Sequence[Problem]) -> None:
        """Write what every completion is worth into ``rewards``, and its parts."""
        texts = {episode.index: episode.turns[0].text for episode in rollouts.episodes}
        completions = [texts[index] for index in rollouts.episode_ids.tolist()]
        assert self.quality is not None
        parts = scored(self.quality, problems, completions)
        for name, values in parts.items():
            if values.shape != (len(problems),) or not bool(values.isfinite().all()):
                raise ValueError(
                    f"data.quality gave {name!r} as {_told(values)} for {len(problems)} completions; give one finite "
                    "number each."
                )
            parts[name] = values.to(rollouts.rewards)[:, None].expand_as(rollouts.rewards).clone()
        rollouts.rewards = parts.pop("reward")
        rollouts.reward_parts |= parts


def scored(
    quality: Quality | RewardModel, problems: Sequence[Problem], completions: Sequence[str]
) -> dict[str, Tensor]:
    """What each completion is worth, float32 ``(B,)``: "reward", and its parts where a reward model names some."""
    if isinstance(quality, RewardModel):
        parts = dict(quality.score([problem.prompt for problem in problems], completions))
        if "reward" not in parts:
            raise ValueError(
                f"The reward model {type(quality).__name__} scored {sorted(parts)}; 'reward' has to be among them."
            )
        return parts
    values = [float(quality(problem, text)) for problem, text in zip(problems, completions, strict=True)]
    return {"reward": torch.tensor(values, dtype=torch.float32)}


def _told(values: Tensor) -> str:
    if not bool(values.isfinite().all()):
        return f"{values[~values.isfinite()][0].item()} (completion {int((~values.isfinite()).nonzero()[0, 0])})"
    return f"a tensor of shape {tuple(values.shape)}"
