import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from lit_rl.callbacks import Checkpoints, MetricsFile, RunState, ValidationFile
from lit_rl.datamodules.annotated_questions import AnnotatedQuestions
from lit_rl.datamodules.completions import CompletionDataModule
from lit_rl.distributed import rank
from lit_rl.environments.problems import Attempt, Problem
from lit_rl.methods.intelli_reward import IntelliReward
from lit_rl.methods.sml import SocialMetaLearning
from lit_rl.papers.records import AXES, QuestionRecord
from lit_rl.policy import PolicyConfig
from lit_rl.reward_models import BackboneConfig, LinearHead, SavedRewardModel, reward_model_loss
from lit_rl.sampling import SamplingSettings
from tests.methods.worlds import in_ranks
from tests.reward_models.worlds import HEAD, TINY, record

RECORDS = [record(number) for number in range(96)]
DEFAULT: dict[str, Any] = {"head": HEAD, "pool_tokens": 12, "rubric": "judge", "learning_rate": 1e-2}
Values = dict[str, Tensor]


def module(**options: Any) -> IntelliReward:
    return IntelliReward(BackboneConfig(tiny=TINY), **DEFAULT | options)


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., AnnotatedQuestions]:
    def data(records: Sequence[QuestionRecord] = RECORDS, **options: Any) -> AnnotatedQuestions:
        known: dict[str, Any] = {"cache": str(tmp_path / "cache"), "batch_size": 16, "seed": 0}
        return AnnotatedQuestions(records, **known | options)

    return data


def trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "max_epochs": 1, "num_sanity_val_steps": 0}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    quiet["enable_checkpointing"] = any(isinstance(c, Checkpoint) for c in options.get("callbacks", ()))
    return L.Trainer(**quiet | options)


def weights(method: IntelliReward) -> Values:
    assert method.reward_model is not None
    return {name: x.detach().clone() for name, x in method.reward_model.state_dict().items()}


def backbone_of(method: IntelliReward) -> Values:
    assert method.reward_model is not None
    return {name: x.clone() for name, x in method.reward_model.backbone.model.state_dict().items()}


@pytest.mark.parametrize(("head", "learning_rate"), [(HEAD, 1e-2), (LinearHead(), 3e-2)], ids=["transformer", "linear"])
def test_learns_what_a_frozen_backbone_shows_and_leaves_it_as_it_was(
    data: Any, tmp_path: Path, head: Any, learning_rate: float
) -> None:
    torch.manual_seed(0)
    method = module(head=head, learning_rate=learning_rate)
    method.configure_model()
    before = backbone_of(method)
    running = trainer(tmp_path, max_epochs=20, check_val_every_n_epoch=20)
    running.fit(method, datamodule=data([record(number) for number in range(192)], validation_share=0.2))
    figures = running.callback_metrics
    assert figures["val/reward_model/balanced_accuracy"] > 0.95 > figures["val/majority/accuracy_turn_1"]
    assert all(figures[f"val/reward_model/{axis}/kappa"] > 0.8 for axis in AXES)
    after = backbone_of(method)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert method.policy_version == running.global_step == 20 * 10  # 152 questions in batches of 16


def test_the_first_loss_and_step_by_hand(data: Any, tmp_path: Path) -> None:
    """One step of plain SGD on the sum of three means, whatever the micro-batches, with the labels of one axis few."""
    few = [record(n, evidence=n % 2 if n < 5 else None) for n in range(16)]
    sgd: Any = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
    for options in ({}, {"train_backbone": True, "micro_batch_tokens": 50}):
        method, plain = (module(head=LinearHead(), optimizer=sgd, **options) for _ in range(2))
        running = trainer(tmp_path)
        running.fit(method, datamodule=data(few, validation_share=0.0))
        plain.configure_model()
        model = plain.reward_model
        assert model is not None
        rows = [model.prompts.ids(r.paper_text, r.question) for r in few]
        labels = torch.tensor([[-100 if x is None else x for x in r.labels] for r in few])
        loss = reward_model_loss(model.logits(model.represent(rows)), labels)
        loss.backward()
        assert running.callback_metrics["train/loss"].item() == pytest.approx(loss.item(), abs=1e-5)
        found = weights(method)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(found[name], parameter - 0.1 * parameter.grad, atol=1e-5, rtol=1e-4)


def test_the_preset_is_the_published_one() -> None:
    method = IntelliReward(BackboneConfig(tiny=TINY), head=HEAD)
    method.configure_model()
    optimizer = method.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["lr"] == 2e-5 and optimizer.defaults["weight_decay"] == 0.01
    other = IntelliReward(BackboneConfig(tiny=TINY), head=HEAD, weight_decay=0.5)
    other.configure_model()
    assert other.configure_optimizers().defaults["weight_decay"] == 0.5
    published = IntelliReward(BackboneConfig(tiny=TINY)).config
    assert published.pool_tokens == 50 and not published.train_backbone
    assert sum(p.numel() for p in published.head.build(2880).parameters()) == 9_820_162


def test_a_scheduler_counts_optimizer_steps(data: Any, tmp_path: Path) -> None:
    def linear(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=12)

    method = module(lr_scheduler=linear)
    running = trainer(tmp_path, max_epochs=1)
    running.fit(method, datamodule=data(validation_share=0.0))
    assert running.callback_metrics["train/learning_rate"].item() == pytest.approx(1e-2 * (1 - 5 / 12))
    waiting = module(lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    waiting.configure_model()
    with pytest.raises(ValueError, match="ReduceLROnPlateau, which waits for a metric"):
        waiting.configure_optimizers()


def test_a_trained_backbone_learns(data: Any, tmp_path: Path) -> None:
    method = module(train_backbone=True, micro_batch_tokens=200, learning_rate=1e-3)
    method.configure_model()
    before = backbone_of(method)
    trainer(tmp_path).fit(method, datamodule=data())
    assert any(not torch.equal(before[name], x) for name, x in backbone_of(method).items())


def test_clipping(data: Any, tmp_path: Path) -> None:
    sgd: Any = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
    moved = []
    for norm in (None, 1e-3):
        method = module(optimizer=sgd, max_grad_norm=norm)
        method.configure_model()
        before = weights(method)
        trainer(tmp_path, limit_train_batches=1).fit(method, datamodule=data(validation_share=0.0))
        moved.append(torch.stack([(x - before[name]).norm() for name, x in weights(method).items()]).norm().item())
    assert moved[1] == pytest.approx(1e-3, rel=1e-2) and moved[0] > 1e-2


def test_a_gradient_that_is_not_finite_stops_the_run(data: Any, tmp_path: Path) -> None:
    method = module()
    method.configure_model()
    assert method.reward_model is not None
    with torch.no_grad():
        next(method.reward_model.heads["effort"].parameters()).fill_(torch.inf)
    before = weights(method)
    with pytest.raises(FloatingPointError, match="The gradient of optimizer step 1 is NaN or infinite"):
        trainer(tmp_path).fit(method, datamodule=data())
    assert all(torch.equal(x, before[name]) for name, x in weights(method).items())


# -- resume ------------------------------------------------------------------------------------------------------------


def run(folder: Path, data: AnnotatedQuestions, epochs: int, checkpoint: Path | None = None) -> IntelliReward:
    torch.manual_seed(0)
    method = module(select="best", learning_rate=3e-3)
    callbacks = [RunState(), MetricsFile(), Checkpoints(every_n_batches=1, export=False)]
    running = trainer(folder, max_epochs=epochs, callbacks=callbacks)
    running.fit(method, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
    return method


def test_four_steps_are_two_steps_and_two_after_a_restart(data: Any, tmp_path: Path) -> None:
    """With dropout, a validation after every pass of two batches, and the best weights so far."""
    records = RECORDS[:32]
    whole = run(tmp_path / "whole", data(records), 2)
    run(tmp_path / "cut", data(records), 1)
    resumed = run(tmp_path / "cut", data(records), 2, tmp_path / "cut/checkpoints/last.ckpt")
    assert whole.policy_version == resumed.policy_version == 4
    wanted, found = weights(whole), weights(resumed)
    assert all(torch.equal(found[name], x) for name, x in wanted.items())
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "cut/metrics.jsonl").read_bytes()
    assert whole._best is not None and resumed._best is not None
    assert whole._best["loss"] == resumed._best["loss"]


def test_a_checkpoint_of_other_heads_or_another_backbone_is_refused(data: Any, tmp_path: Path) -> None:
    run(tmp_path, data(RECORDS[:32]), 1)
    checkpoint = str(tmp_path / "checkpoints/last.ckpt")
    with pytest.raises(RuntimeError, match="Unexpected key"):
        trainer(tmp_path).validate(module(head=LinearHead()), data(), ckpt_path=checkpoint, weights_only=True)
    other = IntelliReward(BackboneConfig(tiny=TINY, dtype="bfloat16"), **DEFAULT)
    with pytest.raises(ValueError, match="were trained on another backbone"):
        trainer(tmp_path).validate(other, data(), ckpt_path=checkpoint, weights_only=True)


def test_the_best_validation_decides(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of the lowest loss of three validations; later steps do not touch them, nor do validations elsewhere."""
    losses = iter([0.7, 0.5, 0.6])
    method, made = module(select="best"), data()
    seen: list[Values] = []

    def log_evaluation(stage: str) -> float:
        seen.append(weights(method))
        return next(losses)

    monkeypatch.setattr(method, "_log_evaluation", log_evaluation)
    running = trainer(tmp_path, max_epochs=3)
    running.fit(method, datamodule=made)
    assert method._best is not None and method._best["loss"] == 0.5
    best = method._best["weights"]
    assert all(torch.equal(x, best[name]) for name, x in seen[1].items())
    assert any(not torch.equal(x, best[name]) for name, x in seen[2].items())
    assert any(not torch.equal(x, best[name]) for name, x in weights(method).items())
    losses = iter([0.1])
    running.validate(method, datamodule=made, verbose=False)
    assert all(torch.equal(x, best[name]) for name, x in seen[3].items())
    assert method._best["loss"] == 0.5  # only what happens in training is chosen among


def test_predictions_are_those_of_the_best_weights(data: Any, tmp_path: Path) -> None:
    method, made = module(select="best"), data()
    running = trainer(tmp_path, max_epochs=1)
    running.fit(method, datamodule=made)
    assert method._best is not None
    for x in weights(method).values():
        assert x.isfinite().all()
    wanted = running.predict(method, datamodule=made)
    assert method.reward_model is not None
    method.reward_model.load_state_dict({name: -x for name, x in method._best["weights"].items()})
    assert running.predict(method, datamodule=made) == wanted


def test_a_sanity_check_chooses_nothing(data: Any, tmp_path: Path) -> None:
    method = module(select="best")
    running = trainer(tmp_path, num_sanity_val_steps=2, limit_train_batches=1, check_val_every_n_epoch=2)
    running.fit(method, datamodule=data())
    assert method._best is None and not any(name.startswith("val/") for name in running.callback_metrics)


def test_the_best_weights_are_exported_and_tested(data: Any, tmp_path: Path) -> None:
    method = module(select="best")
    made = data(test_share=0.2)
    running = trainer(tmp_path, max_epochs=1)
    running.fit(method, datamodule=made)
    assert method._best is not None
    best = method._best["weights"]
    worse = {name: x + 1.0 for name, x in best.items()}
    assert method.reward_model is not None
    method.reward_model.load_state_dict(worse)
    method.export(tmp_path / "model")
    assert all(torch.equal(x, worse[name]) for name, x in weights(method).items())  # training goes on with the last
    saved = SavedRewardModel(str(tmp_path / "model"))._loaded().state_dict()
    assert all(torch.equal(x, best[name]) for name, x in saved.items())
    running.test(method, datamodule=made, verbose=False)
    assert all(torch.equal(x, best[name]) for name, x in weights(method).items())
    assert "test/reward_model/accuracy_turn_1" in running.callback_metrics


# -- what is told ------------------------------------------------------------------------------------------------------


def test_validation_writes_its_figures_and_a_table(data: Any, tmp_path: Path) -> None:
    method = module()
    running = trainer(tmp_path, callbacks=[ValidationFile()])
    running.validate(method, datamodule=data(), verbose=False)
    found = json.loads((tmp_path / "validation_before.json").read_text())["conditions"]
    assert list(found) == ["reward_model", "majority", "source_mix", "by_source"]
    figures = found["reward_model"]
    accuracies = [figures[f"{axis}/accuracy"] for axis in AXES]
    assert figures["accuracy"] == [pytest.approx(sum(accuracies) / 3)]
    assert {"effort/balanced_accuracy", "evidence/kappa", "grounding/f1", "score_error"} <= figures.keys()
    table = method.validation_table(found)
    assert [column.header for column in table.columns] == ["", *AXES, "mean"]
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    assert rows[0] == ("reward_model", *(f"{x:.3f}" for x in (*accuracies, figures["accuracy"][0])))
    assert [row[0].strip() for row in rows[1:4]] == ["better constant", "if sources were equal", "of each source"]


def test_predictions(data: Any, tmp_path: Path) -> None:
    made = data()
    (found,) = [trainer(tmp_path).predict(module(), datamodule=made)]
    assert found is not None
    records = [one for batch in found for one in batch]
    assert [one["question"] for one in records] == [r.question for r in made.records["val"]]
    for one in records:
        assert one["score"] == sum(p > 0.5 for p in one["probabilities"].values())
        assert list(one["labels"]) == list(AXES)


def two_ranks(folder: Path) -> Callable[[int], None]:
    def child(number: int) -> None:
        torch.manual_seed(0)
        method = module(head=LinearHead(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        made = AnnotatedQuestions(RECORDS[:45], cache=str(folder / "cache"), batch_size=16, seed=0)
        running = trainer(folder, strategy="ddp", devices=2, max_epochs=1)
        running.fit(method, datamodule=made)
        figures = {name: float(x) for name, x in running.callback_metrics.items()}
        torch.save({"weights": weights(method), "figures": figures}, folder / f"result{rank()}.pt")

    return child


@pytest.mark.slow
def test_two_ranks_learn_what_one_does(tmp_path: Path) -> None:
    in_ranks(two_ranks(tmp_path), tmp_path)
    ours, theirs = (torch.load(tmp_path / f"result{number}.pt") for number in range(2))
    alone = module(head=LinearHead(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    running = trainer(tmp_path)
    running.fit(alone, datamodule=AnnotatedQuestions(RECORDS[:45], cache=str(tmp_path / "c"), batch_size=16, seed=0))
    for name, x in weights(alone).items():
        assert torch.equal(ours["weights"][name], theirs["weights"][name])
        torch.testing.assert_close(ours["weights"][name], x, atol=1e-6, rtol=1e-5)
    for name in ("train/loss", "val/loss", "val/reward_model/accuracy_turn_1", "val/by_source/effort/accuracy"):
        assert ours["figures"][name] == pytest.approx(float(running.callback_metrics[name]), abs=1e-5), name


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "model.learning_rate is -1.0; it must be at least 0"),
        ({"weight_decay": -1.0}, "model.weight_decay is -1.0"),
        ({"max_grad_norm": 0.0}, "model.max_grad_norm is 0.0; give a number above 0, or null"),
        ({"micro_batch_tokens": 0}, "model.micro_batch_tokens is 0"),
        ({"select": "first"}, "model.select is 'first'; it must be 'last' or 'best'"),
        ({"pool_tokens": 0}, "model.pool_tokens is 0"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_data_it_cannot_learn_from(data: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="learns from annotated questions, and data is NoneType"):
        module().check_data(None)
    with pytest.raises(ValueError, match="model.select is 'best', by validation loss, but data.validation_share is 0"):
        module(select="best").check_data(data(validation_share=0.0))


# -- as a reward -------------------------------------------------------------------------------------------------------


class Papers:
    """Papers to ask about; any reply is an answer."""

    name = "Papers"

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Problem:
        return Problem(id=str(index), domain="papers", prompt=record(8 * index).paper_text, gold="")

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return Attempt("answer", utterance, False)


def test_a_trained_model_pays_completions(data: Any, tmp_path: Path) -> None:
    """Trained here, exported, and the quality of another method's data."""
    method = module()
    trainer(tmp_path, max_epochs=2).fit(method, datamodule=data())
    method.export(tmp_path / "model")
    reward = SavedRewardModel(str(tmp_path / "model"), mode="soft_sum")
    paid = CompletionDataModule(
        Papers(),
        quality=reward,
        num_validation_tasks=2,
        tasks_per_batch=4,
        group_size=2,
        student=SamplingSettings(max_tokens=8),
    )
    learner = SocialMetaLearning(PolicyConfig(tiny=TINY))
    learner.configure_model()
    paid.trainer = type("Attached", (), {"lightning_module": learner, "state": None})()
    batch = next(iter(paid.train_dataloader()))
    prompts = [episode.turns[0].info["prompt"] for episode in batch.episodes]
    wanted = reward.score(prompts, [episode.turns[0].text for episode in batch.episodes])
    assert len(batch) == 8 and bool((batch.rewards > 0).any())
    torch.testing.assert_close(batch.rewards[:, 0], wanted["reward"])
    for axis in AXES:
        torch.testing.assert_close(batch.reward_parts[axis][:, 0], wanted[axis])
