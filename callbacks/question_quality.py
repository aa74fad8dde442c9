"""What validated questions about papers are worth to several judges, and what they are like."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch

from lit_rl.callbacks.held_out import HeldOut
from lit_rl.distributed import gather_objects
from lit_rl.metrics.chosen_of_n import ChosenOfN
from lit_rl.metrics.first_page_bias import FirstPageBias
from lit_rl.metrics.questions import QuestionFigures
from lit_rl.protocols import RewardModel

_LENGTHS = ("mean_length", "truncated_share")  # figures that are not a judge's


class QuestionQuality(HeldOut):
    """Logs ``val/LABEL/JUDGE/...`` of generated questions for each judge, and ``val/LABEL/...`` of the questions.

    Who trains a generator by a reward model should have somebody else judge it too: what only that model finds in the
    questions is over-optimisation.  Of a judge: ``reward``, each axis, ``perfect``, and ``best_of_N``, which is the
    reward that this judge gives to the question ``chosen_by`` prefers of N.  Of the questions: ``first_page_bias`` and
    ``later_only`` where papers have form feeds between their pages, ``unique_share`` (different questions among all),
    ``mean_length`` and ``truncated_share``.  In tests they begin with ``test/``.

    A batch is an object with ``episodes`` and ``label``, as `lit_rl.episodes.Rollouts`; a question is the first turn of
    ``party``, whose ``info`` has the ``prompt``.  All questions about a paper have to be in one batch.

    Args:
        judges: By name; each gives "reward" and the axes.
        best_of: For which N to choose; at most ``data.validation_group_size``.
        chosen_by: Name of the judge who chooses.
        paper_after: What stands in every prompt before the paper; "" takes whole prompts.
        axes: Names of the axes.
        party: Who asks.

    Raises:
        ValueError: There is no judge, or ``chosen_by`` is none of them.
    """

    def __init__(
        self,
        judges: Mapping[str, RewardModel],
        *,
        best_of: Sequence[int] = (),
        chosen_by: str | None = None,
        paper_after: str = "",
        axes: Sequence[str] = ("effort", "evidence", "grounding"),
        party: str = "student",
    ):
        if not judges:
            raise ValueError("QuestionQuality.judges is empty; name at least one.")
        if bool(best_of) != (chosen_by is not None):
            raise ValueError(f"QuestionQuality: best_of is {list(best_of)} and chosen_by {chosen_by!r}; give both.")
        if chosen_by is not None and chosen_by not in judges:
            raise ValueError(f"QuestionQuality.chosen_by is {chosen_by!r}; the judges are {sorted(judges)}.")
        self.judges, self.best_of, self.chosen_by = dict(judges), tuple(best_of), chosen_by
        self.paper_after, self.axes, self.party = paper_after, tuple(axes), party
        self._metrics: dict[str, dict[str, Any]] = {}  # by label, then by name
        self._questions: dict[str, list[str]] = {}

    def begin(self, trainer: L.Trainer) -> None:
        self._metrics, self._questions = {}, {}
        most = getattr(getattr(trainer, "datamodule", None), "validation_group_size", None)
        if most is not None and max(self.best_of, default=1) > most:
            raise ValueError(
                f"QuestionQuality chooses of {max(self.best_of)} questions, but data.validation_group_size is {most}; "
                "raise it, or lower best_of."
            )

    def add(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> None:
        turns, device = [self._asked(episode) for episode in batch.episodes], pl_module.device
        prompts, questions = [turn.info["prompt"] for turn in turns], [turn.text for turn in turns]
        lengths = torch.tensor([len(turn.completion_ids) for turn in turns], device=device)
        truncated = torch.tensor([turn.stop_reason == "length" for turn in turns], device=device)
        groups = torch.tensor([episode.group for episode in batch.episodes])
        metrics = self._metrics.setdefault(batch.label, {})
        scores = {name: _scored(judge, name, prompts, questions) for name, judge in self.judges.items()}
        for name, found in scores.items():
            figures = metrics.setdefault(name, QuestionFigures(self.axes).to(device))
            figures.update({axis: values.to(device) for axis, values in found.items()}, lengths, truncated)
            if self.chosen_by is not None:
                chosen = metrics.setdefault(f"{name}, chosen", ChosenOfN(self.best_of).to(device))
                chosen.update(scores[self.chosen_by]["reward"].cpu(), found["reward"].cpu(), groups)
        paged = [(question, self._pages(prompt)) for question, prompt in zip(questions, prompts, strict=True)]
        paged = [(question, pages) for question, pages in paged if len(pages) > 1]
        bias = metrics.setdefault("", FirstPageBias().to(device))
        bias.update([question for question, _ in paged], [pages for _, pages in paged])
        self._questions.setdefault(batch.label, []).extend(questions)

    def _asked(self, episode: Any) -> Any:
        turns = episode.turns_of(self.party)
        if not turns or "prompt" not in turns[0].info:
            raise ValueError(
                f"QuestionQuality: {self.party!r} asks nothing in an episode, or its turn has no info['prompt']; set "
                "party, or take single-turn data such as CompletionDataModule."
            )
        return turns[0]

    def _pages(self, prompt: str) -> list[str]:
        return prompt.partition(self.paper_after)[2].split("\f") if self.paper_after else prompt.split("\f")

    def report(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        ranks: list[dict[str, list[str]]] = gather_objects(self._questions)
        if getattr(trainer, "sanity_checking", False):
            return
        for label, metrics in self._metrics.items():
            asked = [question for questions in ranks for question in questions.get(label, [])]
            figures = {"unique_share": len(set(asked)) / len(asked)}
            for name, metric in metrics.items():
                judge = name.removesuffix(", chosen")
                for figure, value in metric.compute().items():
                    own = judge and figure not in _LENGTHS
                    figures[f"{judge}/{figure}" if own else figure] = float(value)
            for name in ("questions", "skipped"):
                del figures[name]
            for name, value in figures.items():
                if value == value:
                    pl_module.log(f"{stage}/{label}/{name}", value, batch_size=1)


def _scored(judge: RewardModel, name: str, prompts: Sequence[str], questions: Sequence[str]) -> dict[str, torch.Tensor]:
    scores = judge.score(prompts, questions)
    if "reward" not in scores:
        raise ValueError(f"QuestionQuality: judge {name!r} scored {sorted(scores)}; 'reward' has to be among them.")
    return dict(scores)
