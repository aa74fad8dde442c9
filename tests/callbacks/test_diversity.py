"""Diversity of validated responses: golden values of qempo.md 10.5, our and foreign batches, what is refused."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_rl.callbacks import MetricsFile, ValidationFile
from lit_rl.callbacks.diversity import Diversity
from lit_rl.episodes import Episode, Rollouts, Turn

TEXTS = ["the cat sat on the mat", "the cat sat on a rug", "a dog ran in the park"]


def said(text: str, answer: str | None, right: bool, log_probs: list[float], stop: str = "end") -> Turn:
    return Turn(
        party="student", exchange=0, text=text, prompt_ids=[1, 2], completion_ids=[7] * len(log_probs),
        log_probs=log_probs, stop_reason=stop, info={"correct": right, "answer": answer},
    )  # fmt: skip


def rollouts(turns: list[list[Turn]], label: str = "answers", temperature: float = 1.0) -> Rollouts:
    """One prompt for each inner list."""
    episodes = [
        Episode(index=10 * group + place, task_id=str(group), group=group, seed=0, turns=[turn], terminated=True)
        for group, responses in enumerate(turns)
        for place, turn in enumerate(responses)
    ]
    batch = Rollouts.from_episodes(
        episodes, trained=["student"], parties=["student"], label=label, temperature=temperature
    )
    batch.rewards = torch.tensor([[0.5 if t.info["correct"] else 0.25] for responses in turns for t in responses])
    return batch


def golden(label: str = "answers", temperature: float = 1.0) -> Rollouts:
    """The three texts, and four answers a, a, b, c of which the first two and the last are right."""
    first = [said(text, "x", False, [-1.0, -0.5]) for text in TEXTS]
    second = [said(a, a, a != "b", [-3.0], "length") for a in "aabc"]
    return rollouts([first, second], label, temperature)


class Loader:
    """Of one batch."""

    def __init__(self, batch: Any):
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        yield self.batch


class Foreign(L.LightningModule):
    """Somebody else's module, which validates on whatever batches it is given, one loader each."""

    def __init__(self, batches: list[Any]):
        super().__init__()
        self.batches = batches
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight * 0.0

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if dataloader_idx == 0:
            self.log("val/answers/accuracy_turn_1", 0.5, batch_size=1, add_dataloader_idx=False)

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Loader:
        return Loader(0)

    def val_dataloader(self) -> list[Loader]:
        return [Loader(batch) for batch in self.batches]

    test_dataloader = val_dataloader


def trainer(*callbacks: L.Callback, folder: Path | None = None) -> L.Trainer:
    return L.Trainer(
        default_root_dir=folder, callbacks=list(callbacks), max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def validated(*batches: Any, **options: Any) -> dict[str, float]:
    run = trainer(Diversity(**options))
    run.validate(Foreign(list(batches)), verbose=False)
    return {name: float(value) for name, value in run.callback_metrics.items()}


def test_golden_values() -> None:
    """qempo.md 10.5, over two prompts: means of the golden texts and of the answers a, a, b, c."""
    found = validated(golden(), orders=(1, 2), bleu_order=2, vocabulary_size=50, ks=(1, 2))
    assert found["val/answers/distinct_1"] == pytest.approx((0.611111 + 3 / 4) / 2, abs=1e-6)
    assert found["val/answers/distinct_2"] == pytest.approx((0.8 + 0) / 2)  # single words have no pairs
    entropies = 0.0, 1.039721
    assert found["val/answers/answer_entropy"] == pytest.approx(sum(entropies) / 2, abs=1e-6)
    assert found["val/answers/effective_answers"] == pytest.approx((1 + math.exp(entropies[1])) / 2, abs=1e-5)
    assert found["val/answers/distinct_correct"] == (0 + 2) / 2  # a and c
    assert found["val/answers/pass_at_1"] == pytest.approx((0 + 0.75) / 2)
    assert found["val/answers/pass_at_2"] == pytest.approx((0 + 1) / 2)
    assert found["val/answers/quality"] == pytest.approx((0.25 + (3 * 0.5 + 0.25) / 4) / 2)
    assert found["val/answers/sequence_entropy"] == pytest.approx((1.5 + 3) / 2)
    assert found["val/answers/token_entropy"] == pytest.approx((0.75 + 3) / 2)
    assert found["val/answers/truncated_share"] == 0.5 and found["val/answers/mean_length"] == 1.5
    assert 0 < found["val/answers/semantic_diversity"] < 1 and 1 < found["val/answers/vendi"] < 4
    assert found["val/answers/distinct_1_correct"] == pytest.approx(2 / 3)  # of a, a, c; the texts are all wrong


def test_self_bleu_of_the_golden_texts() -> None:
    """qempo.md 10.5."""
    first = rollouts([[said(text, "x", False, [-1.0]) for text in TEXTS]])
    assert validated(first)["val/answers/self_bleu_4"] == pytest.approx(0.364656, abs=1e-6)
    assert validated(first, bleu_order=2)["val/answers/self_bleu_2"] == pytest.approx(0.473737, abs=1e-6)


def test_a_dict_gives_what_rollouts_give() -> None:
    batch = golden()
    turns = [episode.turns[0] for episode in batch.episodes]
    plain = {
        "texts": [turn.text for turn in turns],
        "group_ids": batch.group_ids,
        "rewards": batch.rewards,
        "answers": [turn.info["answer"] for turn in turns],
        "correct": torch.tensor([turn.info["correct"] for turn in turns]),
        "old_log_probs": batch.old_log_probs,
        "loss_mask": batch.loss_mask,
        "truncated": torch.tensor([turn.stop_reason == "length" for turn in turns]),
        "label": "mine",
    }
    ours, theirs = validated(batch), validated(plain)
    names = {name.removeprefix("val/mine/") for name in theirs if name.startswith("val/mine/")}
    assert len(names) > 15
    for name in names:
        assert theirs[f"val/mine/{name}"] == pytest.approx(ours[f"val/answers/{name}"], rel=1e-6), name


def test_a_dict_of_texts_alone() -> None:
    found = validated({"texts": ["a b", "a c"], "group_ids": torch.tensor([3, 3])})
    assert found["val/responses/distinct_1"] == 0.75
    assert not {"val/responses/quality", "val/responses/sequence_entropy", "val/responses/pass_at_1"} & set(found)
    worth = {"texts": ["a", "b"], "group_ids": torch.tensor([3, 3]), "rewards": torch.tensor([[1.0, 1.0], [0.0, 1.0]])}
    assert validated(worth)["val/responses/quality"] == 1.5
    right = {"texts": ["a", "b"], "group_ids": torch.tensor([3, 3]), "correct": torch.tensor([True, True])}
    assert validated(right)["val/responses/distinct_correct"] == 2  # the texts are the answers


def test_what_is_not_defined_is_not_logged_and_labels_stay_apart() -> None:
    alone = rollouts([[said("a", "a", True, [-1.0])]], label="one")
    found = validated(golden(), alone)
    assert "val/one/self_bleu_4" not in found and found["val/one/quality"] == 0.5
    assert found["val/answers/distinct_correct"] == 1.0
    assert not any(math.isnan(value) for value in found.values())


def test_greedy_decoding_has_no_diversity() -> None:
    found = validated(golden(), golden("answers_greedy", temperature=0.0))
    assert not [name for name in found if "greedy" in name]


def test_every_validation_begins_anew() -> None:
    module, run = Foreign([golden()]), trainer(Diversity())
    run.validate(module, verbose=False)
    first = dict(run.callback_metrics)
    module.batches = [rollouts([[said("a", "a", True, [-1.0]), said("b", "b", True, [-2.0])]])]
    run.validate(module, verbose=False)
    assert run.callback_metrics["val/answers/sequence_entropy"] == 1.5 != first["val/answers/sequence_entropy"]


def test_figures_are_filed_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(Diversity(), ValidationFile(), folder=tmp_path).validate(Foreign([golden()]), verbose=False)
    filed = json.loads((tmp_path / "validation_before.json").read_text())["conditions"]["answers"]
    assert filed["distinct_correct"] == 1.0 and filed["accuracy"] == [0.5]
    printed = capsys.readouterr().out
    assert "distinct correct" in printed and "1.000" in printed
    trainer(Diversity(), MetricsFile(), folder=tmp_path).fit(Foreign([golden()]))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["val/answers/distinct_correct"] for line in lines if line["stage"] == "val"] == [1.0]
    assert "distinct correct" not in capsys.readouterr().out


def test_tests_are_measured_too() -> None:
    run = trainer(Diversity())
    run.test(Foreign([golden()]), verbose=False)
    assert run.callback_metrics["test/answers/distinct_correct"] == 1.0


class Lengths:
    """An embedding: how long a text is, against a constant."""

    def embed(self, texts: Any) -> torch.Tensor:
        return torch.tensor([[float(len(text)), 1.0] for text in texts])


def test_an_embedding_of_ones_own() -> None:
    batch = {"texts": ["ab", "cd", "ef"], "group_ids": torch.tensor([0, 0, 0])}
    found = validated(batch, embedding=Lengths())
    assert found["val/responses/semantic_diversity"] == pytest.approx(0.0, abs=1e-12)
    assert found["val/responses/vendi"] == pytest.approx(1.0)


def test_refusals() -> None:
    for options, sentence in (
        ({"ks": [0]}, "ks is \\[0\\]"),
        ({"orders": []}, "orders is \\[\\]"),
        ({"bleu_order": 0}, "bleu_order is 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Diversity(**options)
    for batch, sentence in (
        ({"texts": ["a"]}, "needs group_ids"),
        (torch.zeros(3), "this one is a Tensor"),
    ):
        with pytest.raises(ValueError, match=sentence):
            validated(batch)
    with pytest.raises(ValueError, match="'teacher' says nothing"):
        validated(golden(), party="teacher")


class OneEach(L.LightningDataModule):
    validation_group_size = 1

    def val_dataloader(self) -> Loader:
        return Loader(golden())


def test_single_responses_are_refused_before_any_batch() -> None:
    with pytest.raises(ValueError, match="validation_group_size is 1; set it to at least 4"):
        trainer(Diversity(ks=(1, 4))).validate(Foreign([]), OneEach(), verbose=False)
