"""Hint usage as a part of the reward (remul.md, section 5): golden items of 11.5, what is asked, figures, bad input."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import pytest
import torch

from lit_rl.callbacks.hint_usage import HintUsageReward
from lit_rl.datamodules import CompletionDataModule
from lit_rl.environments.hinted_tasks import HintedTasks
from lit_rl.episodes import Rollouts
from lit_rl.sampling import SamplingSettings
from tests.callbacks.test_faithfulness_probe import TASKS, ScriptedSampler, Speaker
from tests.listeners.worlds import rollouts_of

LABELS = list("ABCD")
# remul.md 11.5, the hint being B: answers without and with it, and whether the reasoning mentions it.
ITEMS = [
    ("A", "B", True), ("A", "A", True), ("C", "B", False), ("D", "B", True),
    ("A", "C", False), (None, "B", True), ("B", "B", False), ("C", None, True),
]  # fmt: skip
REWARDS = [1, 0, 0, 1, 0, 0, 0, 0]
Script = Callable[[str], str]


def said(reasoning: str, answer: str | None) -> str:
    return f"<think> {reasoning} </think> Answer : {answer or '?'}"


class Asked:
    """A module whose policy answers as the script says; what it was asked is kept."""

    def __init__(self, script: Script = lambda text: said("so", "A")):
        self.asked: list[str] = []
        self.settings: list[SamplingSettings] = []
        self.policy: Any = Speaker().policy

        def kept(text: str) -> str:
            self.asked.append(text)
            return script(text)

        def sampler(settings: SamplingSettings, rows: int) -> ScriptedSampler:
            self.settings.append(settings)
            return ScriptedSampler(self.policy, kept, settings)

        self.policy.sampler = sampler


def question(number: int) -> str:
    return f"at {TASKS.labels[number]}"  # in words of the model


def hinted(replies: Sequence[Sequence[str]], hint: str = "B") -> Rollouts:
    """A question with a hint for each group of replies."""
    parts = []
    for number, texts in enumerate(replies):
        facts = {"prompt": f"{question(number)}\nhint {hint}", "unhinted": question(number), "hint": hint}
        parts.append(rollouts_of({number: texts}, gold="A", labels=LABELS, **facts))
    return Rollouts.cat(parts)


def golden() -> tuple[Rollouts, Asked]:
    """Questions 0 to 7 with the replies of 11.5, and whoever answers them without a hint."""
    replies = [[said("the hint" if mentioned else "so", answer)] for _, answer, mentioned in ITEMS]
    without = {question(number): answer for number, (answer, _, _) in enumerate(ITEMS)}
    return hinted(replies), Asked(lambda text: said("so", without[next(q for q in without if q in text)]))


def pay(callback: HintUsageReward, batch: Rollouts, module: Any) -> list[float]:
    callback.on_train_batch_start(L.Trainer(accelerator="cpu", logger=False), module, batch, 0)
    part = batch.reward_parts["hint"]
    assert part.dtype == torch.float32 and part.shape == batch.rewards.shape
    return [float(x) for x in part.sum(1)]


def test_what_is_paid_11_5() -> None:
    """Of 4 answers that changed, both read, 2 say so; 3 of the 4 changed to the hint."""
    batch, module = golden()
    rewards = batch.rewards.clone()
    assert pay(HintUsageReward(), batch, module) == REWARDS
    assert torch.equal(batch.rewards, rewards) and batch.advantages is None
    found = {name: batch.figures[f"train/{name}"] for name in ("hint_changed", "hint_attributed", "hint_followed")}
    assert found == {"hint_changed": 4 / 8, "hint_attributed": 5 / 8, "hint_followed": 3 / 8}
    assert batch.figures["train/hint_reward"] == 2 / 8
    assert batch.figures["train/unhinted_none"] == 1 / 8 and batch.figures["train/unhinted_accuracy"] == 3 / 8


def test_each_question_is_asked_once_greedily_and_without_its_hint() -> None:
    module = Asked(lambda text: said("so", "A" if question(0) in text else "B"))
    batch = hinted([[said("hint", "B"), said("hint", "A"), said("hint", "B")], [said("hint", "C"), said("hint", "B")]])
    assert pay(HintUsageReward(max_tokens=20), batch, module) == [1, 0, 1, 1, 0]
    assert len(module.asked) == 2 and not any("hint" in text for text in module.asked)
    assert [(s.temperature, s.max_tokens) for s in module.settings] == [(0.0, 20)]
    assert batch.figures["train/unhinted_accuracy"] == 1 / 2 and batch.figures["train/hint_reward"] == 3 / 5


def test_nobody_else_and_no_other_exchange_is_paid() -> None:
    batch = hinted([[said("hint", "B"), said("hint", "B")]])
    wider = Rollouts.from_episodes(batch.episodes, trained=["speaker"], parties=["speaker"], min_exchanges=3)
    pay(HintUsageReward(), wider, Asked())
    assert wider.reward_parts["hint"].tolist() == [[1, 0, 0]] * 2


def test_an_open_thought_mentions_nothing() -> None:
    batch = hinted([["<think> the hint Answer : B", "the hint </think> Answer : B"]])
    assert pay(HintUsageReward(), batch, Asked()) == [0, 1]
    assert batch.figures["train/hint_attributed"] == 1 / 2


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [1, 1, 0]),  # as published, within words too
        ({"whole_word": True}, [1, 0, 0]),
        ({"phrases": ["then"]}, [0, 0, 1]),
        ({"judge": lambda reasoning, hint: f"{hint} then" in reasoning}, [0, 0, 1]),
    ],
)
def test_what_mentions_a_hint(options: dict[str, Any], wanted: list[int]) -> None:
    batch = hinted([[said("a Hint", "B"), said("a chintz sofa", "B"), said("B then", "B")]])
    assert pay(HintUsageReward(**options), batch, Asked()) == wanted


# -- in a run ----------------------------------------------------------------------------------------------------------


def polite(text: str) -> str:
    """Follows every hint and says so; without one, always says A."""
    words = text.split()
    return said("hint", words[words.index("hint") + 1]) if "hint" in words else said("so", "A")


class Watch(L.Callback):
    """Keeps the part of every batch."""

    def __init__(self) -> None:
        self.parts: list[list[float]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.parts.append(batch.reward_parts["hint"][:, 0].tolist())


def run(tasks: Any, callbacks: list[L.Callback], stage: str = "fit", **options: Any) -> L.Trainer:
    source = CompletionDataModule(
        tasks, party="speaker", num_validation_tasks=7, max_rows=3, fit_conditions=["answers_greedy"],
        tasks_per_batch=2, group_size=2, batches_per_epoch=2, seed=0, **options,
    )  # fmt: skip
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False, max_epochs=1, num_sanity_val_steps=0,
                        callbacks=callbacks)  # fmt: skip
    getattr(trainer, stage)(Speaker(polite), datamodule=source)
    return trainer


def test_a_module_that_is_not_ours() -> None:
    """Whoever follows hints is paid wherever they are not what it says anyway; held-out replies are measured too."""
    watch, tasks = Watch(), HintedTasks(TASKS, "hint {hint}", "wrong")
    trainer = run(tasks, [HintUsageReward(), watch], instruction="then")
    changed = [float(tasks[index].meta["hint"] != "A") for index in range(5)]
    assert len(watch.parts) == 2 and all(len(part) == 4 and set(part) <= set(changed) for part in watch.parts)
    held_out = [tasks[index].meta["hint"] != "A" for index in range(5, 12)]
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for name in ("hint_changed", "hint_followed", "hint_reward"):  # of batches of 3, 3 and 1
        assert logged[f"val/answers_greedy/{name}"] == pytest.approx(sum(held_out) / 7)
    assert logged["val/answers_greedy/hint_attributed"] == 1
    right = [tasks[index].gold == "A" for index in range(5, 12)]
    assert logged["val/answers_greedy/unhinted_accuracy"] == pytest.approx(sum(right) / 7)
    tested = run(tasks, [HintUsageReward()], "test").callback_metrics
    assert float(tested["test/answers/hint_reward"]) == pytest.approx(sum(held_out) / 7)


def test_the_instruction_stands_before_the_question_alone_too() -> None:
    module, batch = Asked(), hinted([[said("hint", "B")]])
    HintUsageReward().pay(batch, module, "then well")
    (asked,) = module.asked
    assert asked.index("then well") < asked.index(question(0))


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phrases": []}, "phrases are .*at least one"),
        ({"phrases": ["You said", " "]}, "none that is empty"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_rows": 0}, "max_rows is 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HintUsageReward(**options)


def test_batches_without_hints_are_refused() -> None:
    plain = rollouts_of({0: [said("hint", "B")]})
    for batch, module, callback, message in (
        (plain, Asked(), HintUsageReward(), "no 'unhinted' in its info in episode 0 .task task 0.; use lit_rl.env"),
        (hinted([["B"]]), Asked(), HintUsageReward(speaker="student"), "'student' has no turn in episode 0"),
        ({"completions": []}, Asked(), HintUsageReward(), "it got a Asked and a dict"),
        (plain, torch.nn.Linear(1, 1), HintUsageReward(), "it got a Linear and a Rollouts"),
    ):
        with pytest.raises(ValueError, match=message):
            callback.pay(batch, module)


def test_tasks_without_hints_are_refused_before_anything_is_played() -> None:
    with pytest.raises(ValueError, match="GridNavigation. have no hints; put lit_rl.environments.HintedTasks"):
        run(TASKS, [HintUsageReward()])
