"""What judges find in validated questions, by hand; on a module that is not ours; what is refused."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from lit_rl.callbacks.question_quality import QuestionQuality
from lit_rl.episodes import Episode, Turn
from lit_rl.papers import OracleJudge, QuestionTasks, graded_question

AXES = ("effort", "evidence", "grounding")


class Lengths:
    """A judge who counts letters: any text has effort, one of more than three letters has the rest too."""

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, Tensor]:
        long = torch.tensor([float(len(text) > 3) for text in completions])
        return {"reward": 1 + 2 * long, "effort": torch.ones_like(long), "evidence": long, "grounding": long}


class Opposite:
    """One who likes short texts alone."""

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, Tensor]:
        short = torch.tensor([float(len(text) <= 3) for text in completions])
        return {"reward": short, **dict.fromkeys(AXES, short)}


class Foreign(L.LightningModule):
    """Somebody else's module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    test_step = validation_step


class Loader:
    """Of one batch."""

    def __init__(self, batch: Any):
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        yield self.batch


def asked(prompt: str, questions: Sequence[str], group: int) -> list[Episode]:
    episodes = []
    for place, text in enumerate(questions):
        words = list(range(len(text.split())))
        turn = Turn(
            party="student", exchange=0, text=text, prompt_ids=[1], completion_ids=words, log_probs=[-1.0] * len(words),
            stop_reason="length" if text.endswith("-") else "end", info={"prompt": prompt},
        )  # fmt: skip
        episodes.append(
            Episode(index=10 * group + place, task_id=str(group), group=group, seed=0, turns=[turn], terminated=True)
        )
    return episodes


def logged(callback: QuestionQuality, episodes: Sequence[Episode], stage: str = "validate") -> dict[str, float]:
    trainer = L.Trainer(callbacks=[callback], logger=False, enable_progress_bar=False, enable_model_summary=False)
    run = getattr(trainer, stage)
    run(Foreign(), dataloaders=[Loader(SimpleNamespace(episodes=episodes, label="answers"))], verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


PAPER = "note: gating helps \f much more \f later"
EPISODES = asked(PAPER, ["why", "why gating later -"], 0) + asked("no pages", ["why", "why not so"], 1)


def test_figures_by_hand() -> None:
    callback = QuestionQuality({"long": Lengths(), "short": Opposite()}, best_of=[1, 2], chosen_by="long")
    found = logged(callback, EPISODES)
    expected = {
        # Two of four are long, worth 1 + 2; the longer one is chosen of two, which the other judge gives 0.
        **{"long/reward": 2.0, "long/effort": 1.0, "long/evidence": 0.5, "long/grounding": 0.5, "long/perfect": 0.5},
        **{"long/best_of_1": 2.0, "long/best_of_2": 3.0, "short/best_of_1": 0.5, "short/best_of_2": 0.0},
        **{"short/reward": 0.5, "short/effort": 0.5, "short/evidence": 0.5, "short/grounding": 0.5},
        # Content words of the first paper's questions: none, and "gating" (page one) and "later" (page three).
        **{"short/perfect": 0.5, "first_page_bias": 0.5, "later_only": 0.5},
        **{"unique_share": 0.75, "mean_length": (1 + 4 + 1 + 3) / 4, "truncated_share": 0.25},
    }
    assert found == pytest.approx({f"val/answers/{name}": value for name, value in expected.items()})


def test_of_a_test_and_without_choosing() -> None:
    found = logged(QuestionQuality({"long": Lengths()}), EPISODES, "test")
    assert found["test/answers/long/reward"] == 2.0 and not any("best_of" in name for name in found)


def test_the_paper_may_stand_behind_an_instruction() -> None:
    told = asked(f"ask gating : {PAPER}", ["why gating later"], 0)
    assert logged(QuestionQuality({"long": Lengths()}, paper_after="ask gating :"), told)[
        "val/answers/first_page_bias"
    ] == pytest.approx(0.5)


def test_without_pages_there_is_no_bias() -> None:
    found = logged(QuestionQuality({"long": Lengths()}), asked("no pages", ["why gating", "why"], 0))
    assert "val/answers/first_page_bias" not in found and found["val/answers/unique_share"] == 1.0


def test_the_oracle_is_a_judge() -> None:
    from random import Random

    tasks = QuestionTasks(2, seed=5)
    episodes = []
    for index, labels in enumerate([(1, 1, 1), (0, 1, 1)]):
        question = graded_question(tasks.papers[index], labels, Random(0))
        episodes += asked(tasks[index].prompt, [question], index)
    found = logged(QuestionQuality({"oracle": OracleJudge()}), episodes)
    assert found["val/answers/oracle/reward"] == 2.5 and found["val/answers/oracle/effort"] == 0.5


def test_a_second_validation_begins_anew() -> None:
    callback = QuestionQuality({"long": Lengths()})
    logged(callback, EPISODES)
    assert logged(callback, EPISODES[:1])["val/answers/long/reward"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judges": {}}, "judges is empty"),
        ({"best_of": [2]}, r"best_of is \[2\] and chosen_by None"),
        ({"chosen_by": "long"}, r"best_of is \[\] and chosen_by 'long'"),
        ({"best_of": [2], "chosen_by": "me"}, r"chosen_by is 'me'; the judges are \['long'\]"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuestionQuality(**({"judges": {"long": Lengths()}} | options))


def test_bad_batches_and_judges() -> None:
    class Silent:
        def score(self, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, Tensor]:
            return {"effort": torch.zeros(len(prompts))}

    with pytest.raises(ValueError, match=r"judge 'silent' scored \['effort'\]"):
        logged(QuestionQuality({"silent": Silent()}), EPISODES)
    with pytest.raises(ValueError, match="'teacher' asks nothing"):
        logged(QuestionQuality({"long": Lengths()}, party="teacher"), EPISODES)
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(validation_group_size=2))
    with pytest.raises(ValueError, match=r"chooses of 4 questions, but data.validation_group_size is 2"):
        QuestionQuality({"long": Lengths()}, best_of=[4], chosen_by="long").on_validation_epoch_start(
            trainer, Foreign()
        )
