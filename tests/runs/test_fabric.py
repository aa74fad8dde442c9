"""Under Fabric the same module, data and callbacks train what they train under Trainer."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_rl.callbacks import Checkpoints, EpisodeLog, MetricsFile, RunState
from lit_rl.fabric import FabricLoop, fit
from lit_rl.methods import Method, SocialMetaLearning, SupervisedFineTuning
from tests.methods.worlds import in_ranks, learner, loaded, numbers, policy_config, trainer, weights

# A model from random weights hardly ever finds the number: what its turns cost gives it something to learn.
OPTIONS: dict[str, Any] = {"steps_per_batch": 2, "micro_batch_tokens": 200, "length_cost": 0.1}


def writers(**options: Any) -> list[L.Callback]:
    return [Checkpoints(**options), RunState(), MetricsFile(), EpisodeLog()]


def scheduled(**options: Any) -> Method:
    """With a scheduler, or one that is not stepped would go unseen."""
    warmup = {"lr_scheduler": lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=8)}
    return learner(**OPTIONS | warmup | options)


def run(method: Method, root: Path | None = None, fabric: L.Fabric | None = None, **options: Any) -> FabricLoop:
    fabric = fabric or L.Fabric(accelerator="cpu")
    return fit(fabric, method, options.pop("data", None) or numbers(), default_root_dir=root or ".", **options)


def assert_same(ours: Method, theirs: Method) -> None:
    """The same weights, and others than those of a beginning."""
    mine, other, untrained = weights(ours), weights(theirs), weights(loaded(type(ours)(ours.policy_config)))
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    assert not any(torch.equal(mine[name], untrained[name]) for name in mine if "bias" not in name)


# -- one process -------------------------------------------------------------------------------------------------------


def test_a_run_equals_that_of_a_trainer_to_the_byte(tmp_path: Path) -> None:
    ours, theirs = scheduled(), scheduled()
    loop = run(ours, tmp_path / "fabric", max_batches=6, validate_every_n_batches=3, callbacks=writers())
    running = trainer(tmp_path / "trainer", max_epochs=2, limit_val_batches=None, callbacks=writers())
    running.fit(theirs, datamodule=numbers())
    assert_same(ours, theirs)
    assert loop.global_step == running.global_step == ours.policy_version == 12
    for name in ("metrics.jsonl", "episodes.bin"):
        assert (tmp_path / "fabric" / name).read_bytes() == (tmp_path / "trainer" / name).read_bytes()
    assert float(loop.callback_metrics["val/teacher/accuracy_turn_2"]) == float(
        running.callback_metrics["val/teacher/accuracy_turn_2"]
    )


def test_other_data_and_methods(tmp_path: Path) -> None:
    from lit_rl.datamodules import DemonstrationDataModule, RightAnswers
    from lit_rl.environments import NumberSearch

    def data() -> Any:
        return DemonstrationDataModule(RightAnswers(NumberSearch(9)), num_validation=3, batch_size=2)

    ours, theirs = (learner("student", method=SupervisedFineTuning) for _ in range(2))
    loop = run(ours, data=data(), validate_every_n_batches=3)
    running = trainer(limit_val_batches=None)
    running.fit(theirs, datamodule=data())
    assert_same(ours, theirs)
    assert loop.batches == 3 and loop.callback_metrics["val/loss"] == running.callback_metrics["val/loss"]


def test_stopping() -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step >= 4

    assert run(scheduled()).batches == 3  # one epoch
    assert run(scheduled(), max_batches=10, callbacks=[Stop()]).batches == 2
    loop = run(scheduled(), max_batches=10, max_steps=5)  # two steps a batch: it ends within the third
    assert (loop.batches, loop.global_step) == (3, 5)


@pytest.mark.parametrize("killed_after", [2, 4])
def test_a_resumed_run_equals_one_left_alone(killed_after: int, tmp_path: Path) -> None:
    alone, killed, resumed = scheduled(), scheduled(), scheduled()
    known: dict[str, Any] = {"validate_every_n_batches": 3}
    run(alone, tmp_path / "alone", max_batches=6, callbacks=writers(), **known)
    first = writers(every_n_batches=killed_after)

    class Die(L.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.batches == killed_after + 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(killed, tmp_path / "killed", max_batches=6, callbacks=[*first, Die()], **known)
    assert (tmp_path / "killed/checkpoints/emergency.ckpt").exists()
    last = tmp_path / "killed/checkpoints/last.ckpt"
    run(resumed, tmp_path / "killed", max_batches=6, callbacks=writers(), ckpt_path=last, **known)
    assert_same(resumed, alone)
    for name in ("metrics.jsonl", "episodes.bin"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_checkpoints_hold_what_is_trained_and_are_read_by_lightning(tmp_path: Path) -> None:
    method = learner("student", **OPTIONS)
    loop = run(method, tmp_path, callbacks=writers())
    last = tmp_path / "checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"policy.{name}" for name in weights(method)}
    assert (checkpoint["global_step"], checkpoint["policy_version"]) == (6, 6)
    assert (tmp_path / "checkpoints/last-policy/student/adapter_model.safetensors").exists()
    loop.save_checkpoint(tmp_path / "again.ckpt")
    assert torch.load(tmp_path / "again.ckpt", weights_only=True)["policy_version"] == 6
    assert_same(SocialMetaLearning.load_from_checkpoint(last, policy=policy_config("student")), method)
    again = learner("student")
    trainer(limit_val_batches=None, callbacks=[RunState()]).validate(
        again, datamodule=numbers(), ckpt_path=last, weights_only=True, verbose=False
    )
    assert_same(again, method)


def test_a_checkpoint_of_a_trainer_is_refused(tmp_path: Path) -> None:
    running = trainer()
    running.fit(learner(), datamodule=numbers())
    running.save_checkpoint(tmp_path / "it.ckpt")
    with pytest.raises(ValueError, match="ckpt_path was not written under Fabric"):
        run(learner(), ckpt_path=tmp_path / "it.ckpt")


def test_loggers_get_optimizer_steps_as_the_x_axis(tmp_path: Path) -> None:
    logged: list[tuple[int | None, set[str]]] = []

    class Memory(L.pytorch.loggers.CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            logged.append((step, set(metrics)))

    fabric = L.Fabric(accelerator="cpu", loggers=Memory(str(tmp_path)))
    run(scheduled(), fabric=fabric, validate_every_n_batches=3)
    assert [step for step, names in logged if "train/loss" in names] == [2, 4, 6]
    assert [step for step, names in logged if "val/teacher/accuracy_turn_1" in names] == [6]
    assert not any("step" in names for _, names in logged)


def test_after_a_run_module_and_data_are_free_again() -> None:
    method, data = scheduled(), numbers()
    run(method, data=data)
    trainer().fit(method, datamodule=data)  # Lightning would find the wrong optimizers if it were still Fabric's
    assert method.policy_version == 12


@pytest.mark.parametrize("limit", [{"max_batches": 0}, {"max_steps": -2}, {"validate_every_n_batches": -1}])
def test_limits_out_of_range_are_refused(limit: dict[str, int]) -> None:
    ((name, value),) = limit.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least"):
        run(learner(), **limit)


def test_loaders_that_cannot_resume_are_refused() -> None:
    data = numbers()
    data.train_dataloader = lambda: iter([])
    with pytest.raises(ValueError, match="gave a list_iterator, which is not sized or has no state_dict"):
        run(learner(), data=data)


def test_a_callback_that_raises_ends_the_run_and_all_hear_of_it() -> None:
    heard: list[Any] = []

    class Fails(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise OSError("disk")

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            heard.append(exception)

        def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
            heard.append(stage)

    with pytest.raises(OSError, match="disk"):
        run(learner(), callbacks=[Fails()])
    assert isinstance(heard[0], OSError) and heard[1:] == ["fit"]


# -- two ranks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [(), ("student",)], ids=["all weights", "an adapter"])
def test_two_ranks_agree_and_learn_what_one_process_learns(parties: tuple[str, ...], tmp_path: Path) -> None:
    """Their rows differ in number and length, and so do their micro-batches."""
    options = {"max_batches": 3, "validate_every_n_batches": 3}

    def check(rank: int) -> None:
        fabric = L.Fabric(accelerator="cpu", devices=2, strategy="ddp")
        fabric.launch()
        method = learner(*parties, **OPTIONS)
        run(method, tmp_path / "two", fabric=fabric, callbacks=writers(every_n_batches=2), **options)
        torch.save(weights(method), tmp_path / f"rank{rank}.pt")
        resumed = learner(*parties, **OPTIONS)
        last = tmp_path / "two/checkpoints/last.ckpt"
        run(resumed, tmp_path / "more", fabric=fabric, ckpt_path=last, callbacks=[RunState()], max_batches=5)
        torch.save(weights(resumed), tmp_path / f"more{rank}.pt")

    in_ranks(check, tmp_path)
    alone = learner(*parties, **OPTIONS)
    run(alone, tmp_path / "one", callbacks=writers(), **options)
    for name in ("rank", "more"):
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in (0, 1))
        assert all(torch.equal(first[key], second[key]) for key in first)
    first = torch.load(tmp_path / "rank0.pt")
    untrained = weights(loaded(learner(*parties)))
    for name, weight in weights(alone).items():
        torch.testing.assert_close(first[name], weight, atol=1e-5, rtol=0)
        assert "bias" in name or (weight - untrained[name]).abs().max() > 1e-3


def test_a_trainers_ranks_learn_the_same_to_the_bit(tmp_path: Path) -> None:
    def check(rank: int) -> None:
        fabric = L.Fabric(accelerator="cpu", devices=2, strategy="ddp")
        fabric.launch()
        ours, theirs = scheduled(), scheduled()
        run(ours, fabric=fabric)
        trainer(strategy="ddp", devices=2).fit(theirs, datamodule=numbers())
        assert_same(ours, theirs)

    in_ranks(check, tmp_path)
