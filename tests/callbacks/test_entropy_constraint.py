"""The entropy coefficient follows its constraint, also for a module that knows nothing of lit-rl."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from lit_rl.callbacks.entropy_constraint import EntropyConstraint, rlhf_qualities
from lit_rl.datamodules import RolloutStream
from lit_rl.episodes import Rollouts
from lit_rl.methods.qempo import QEMPO
from tests.methods.worlds import in_ranks, learn, learner, loaded, rollouts, trainer

QUALITY = torch.tensor([1.0, 0.9, 0.8, 0.3, 0.1, 0.0])  # qempo.md 10.1
MATCHED, MULTIPLIER, ENTROPY = 0.896234, 4.174165, 1.214877


class Tabular(L.LightningModule):
    """One logit for each of six responses, a policy gradient of its own, batches that are dicts."""

    def __init__(self, batches: int, rows: int = 500):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(6))
        self.batches, self.rows = batches, rows
        self.coefficients: list[float] = []

    def draws(self) -> Iterator[dict[str, Tensor]]:
        """As many of each response as its probability says: almost no noise."""
        grid = (torch.arange(self.rows) + 0.5) / self.rows
        for _ in range(self.batches):
            log_probs = self.logits.detach().log_softmax(0)
            drawn = torch.searchsorted(log_probs.exp().cumsum(0), grid).clamp(max=5)
            yield {
                "drawn": drawn,
                "rewards": QUALITY[drawn],
                "old_log_probs": log_probs[drawn][:, None],
                "loss_mask": torch.ones(self.rows, 1, dtype=torch.bool),
            }

    def train_dataloader(self) -> Any:
        module = self

        class Stream:
            def __len__(self) -> int:
                return module.batches

            def __iter__(self) -> Iterator[dict[str, Tensor]]:
                return module.draws()

        return Stream()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        coefficient = batch["entropy_coefficient"]
        assert coefficient.shape == (self.rows,) and coefficient.dtype == torch.float32
        self.coefficients.append(float(coefficient[0]))
        shaped = batch["rewards"] - coefficient * batch["old_log_probs"].sum(1)
        return -((shaped - shaped.mean()) * self.logits.log_softmax(0)[batch["drawn"]]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=2.0)


@pytest.mark.parametrize("constraint", [{"quality_floor": MATCHED}, {"target_entropy": ENTROPY}])
def test_a_foreign_module_is_led_to_its_constraint(constraint: dict[str, float]) -> None:
    """qempo.md 11.8: the multiplier whose optimum has the quality, and there the entropy, of the table of 10.1."""
    module, callback = Tabular(600), EntropyConstraint(**constraint, initial=1.0)
    running = trainer(callbacks=[callback])
    running.fit(module)
    policy = module.logits.detach().softmax(0)
    assert float((policy * QUALITY).sum()) == pytest.approx(MATCHED, abs=2e-3)
    assert -float((policy * policy.log()).sum()) == pytest.approx(ENTROPY, abs=5e-3)
    assert 1 / module.coefficients[-1] == pytest.approx(MULTIPLIER, rel=0.02)
    assert module.coefficients[0] == pytest.approx(1.0)
    logged = {name: float(value) for name, value in running.callback_metrics.items()}
    assert logged["train/entropy_coefficient"] == pytest.approx(module.coefficients[-1])
    running_mean = logged.get("train/running_quality", logged.get("train/running_entropy"))
    assert running_mean == pytest.approx(next(iter(constraint.values())), abs=5e-3)


# -- single steps ------------------------------------------------------------------------------------------------------


def after(callback: EntropyConstraint, *rewards: list[float], step: int = 0) -> list[float]:
    """Coefficients written into batches with these rewards, and the one that would come next."""
    module = SimpleNamespace(log=lambda *_, **__: None, entropy=0.5)
    found = []
    for numbers in [*rewards, [0.0]]:
        batch = {"rewards": torch.tensor(numbers), "group_ids": torch.zeros(len(numbers), dtype=torch.int64)}
        callback.on_train_batch_start(SimpleNamespace(global_step=step), module, batch, 0)
        found.append(float(batch["entropy_coefficient"][0]))
    return found


def test_steps_by_hand() -> None:
    """Means 0.5 and, with half the weight of the first batch, 0.75 * 2/3 + 0.5 / 3; deviations 0.5 and so on."""
    callback = EntropyConstraint(quality_floor=0.4, step_size=0.1, momentum=0.5)
    first, second, third = after(callback, [1.0, 0.0], [1.0, 0.5])
    assert first == pytest.approx(0.5)  # the module's own
    assert second == pytest.approx(0.5 * math.exp(0.1 * 0.1 / 0.5))
    mean, square = (0.5 * 1.0 + 1.5) / 3, (0.5 * 1.0 + 1.25) / 3
    step = 0.1 * (mean - 0.4) / math.sqrt(square - mean**2)
    assert third == pytest.approx(second * math.exp(step), rel=1e-5)


def test_a_step_is_bounded_and_so_is_the_coefficient() -> None:
    """Rewards that are all alike have no deviation to measure by."""
    falling = after(EntropyConstraint(quality_floor=0.9, step_size=0.1, low=0.3), *[[0.2, 0.2]] * 3)
    assert falling == pytest.approx([0.5, 0.5 * math.exp(-0.3), 0.3, 0.3])
    rising = after(EntropyConstraint(quality_floor=0.1, step_size=0.1, high=0.7), *[[0.2, 0.2]] * 3)
    assert rising == pytest.approx([0.5, 0.5 * math.exp(0.3), 0.7, 0.7])
    still = after(EntropyConstraint(quality_floor=0.2), [0.2, 0.2])
    assert still == pytest.approx([0.5, 0.5], rel=1e-3)  # 0.2 is no float32


def test_a_batch_without_rows_moves_nothing() -> None:
    """As dynamic sampling leaves it where no group is worth learning from."""
    with_it, without = (EntropyConstraint(quality_floor="match_rlhf", rlhf_beta=0.3) for _ in range(2))
    assert len(after(with_it, [1.0, 0.0], [1.0, 0.5])) == 3
    module = SimpleNamespace(log=lambda *_, **__: None, entropy=0.5)
    empty = {"rewards": torch.zeros(0, 2), "group_ids": torch.zeros(0, dtype=torch.int64)}
    without.on_train_batch_start(SimpleNamespace(global_step=0), module, empty, 0)
    assert empty["entropy_coefficient"].shape == (0,) and without.matched_floor is None
    after(without, [1.0, 0.0], [1.0, 0.5])
    assert with_it.state_dict() == without.state_dict()


def test_rewards_of_several_turns_are_added_up() -> None:
    batches = [torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.tensor([1.0, 0.0])]
    sums = []
    for rewards in batches:
        callback = EntropyConstraint(quality_floor=0.4, initial=0.2)
        module = SimpleNamespace(log=lambda *_, **__: None)
        callback.on_train_batch_start(SimpleNamespace(global_step=0), module, {"rewards": rewards}, 0)
        sums.append(callback.sums)
    assert sums[0] == sums[1] == [2.0, 1.0, 1.0]


def test_quality_of_rlhf_from_samples_of_the_reference() -> None:
    """qempo.md 10.1: 100 samples of the reference give what RLHF at temperature 0.5 has, 0.896234."""
    samples = QUALITY.repeat_interleave(torch.tensor([50, 5, 15, 20, 8, 2]))
    one = rlhf_qualities(samples, torch.zeros(100, dtype=torch.int64), beta=0.5)
    assert one.tolist() == pytest.approx([MATCHED], abs=1e-5)
    # Every prompt on its own; a constant added to its rewards changes its weights nothing.
    both = rlhf_qualities(torch.cat([samples, samples + 7]), torch.arange(2).repeat_interleave(100), beta=0.5)
    assert both.tolist() == pytest.approx([MATCHED, MATCHED + 7], abs=1e-5)
    callback = EntropyConstraint(quality_floor="match_rlhf", rlhf_beta=0.5, initial=0.2)
    after(callback, samples.tolist(), [0.0, 0.0])
    assert callback.matched_floor == pytest.approx(MATCHED, abs=1e-5)  # of the first batch alone
    late = EntropyConstraint(quality_floor="match_rlhf", rlhf_beta=0.5)
    with pytest.raises(ValueError, match="needs a first batch of the reference, but the policy has taken 5"):
        after(late, samples.tolist(), step=5)


# -- with the method ---------------------------------------------------------------------------------------------------


class Seen(L.Callback):
    def __init__(self) -> None:
        self.coefficients: list[float] = []
        self.batch: Any = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.batch = batch
        self.coefficients += batch.extras["entropy_coefficient"][:1].tolist()


def responses(shift: float = 0.0) -> Rollouts:
    batch = rollouts([1, None, 1, 1], [None, 1, 1, None], turns=1)
    batch.rewards = batch.rewards + shift
    batch.ref_log_probs = (0.5 * batch.old_log_probs).masked_fill(~batch.loss_mask, 0.0)
    return batch


def test_qempo_shapes_with_the_coefficient_of_the_batch() -> None:
    method, seen = loaded(learner("student", method=QEMPO, entropy=0.2, reference=0.1, norm_length=3)), Seen()
    learn(method, [responses()] * 3, callbacks=[EntropyConstraint(quality_floor=0.2, step_size=1.0), seen])
    assert seen.coefficients[0] == pytest.approx(0.2) and len(set(seen.coefficients)) == 3
    last = seen.coefficients[-1]
    constant = learner("student", method=QEMPO, entropy=last, reference=last / 2, norm_length=3)
    torch.testing.assert_close(seen.batch.advantages, constant.advantages(responses()))


class SaveAfter(L.Callback):
    def __init__(self, path: Path, batches: int):
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
        if index + 1 == self.batches:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_goes_on_with_the_state(tmp_path: Path) -> None:
    """Four batches are two batches, a checkpoint that loads with weights_only, and two more."""

    def build() -> tuple[Any, EntropyConstraint, Seen]:
        callback = EntropyConstraint(quality_floor="match_rlhf", rlhf_beta=0.3)
        return learner(method=QEMPO, entropy=0.2, norm_length=3), callback, Seen()

    batches, path = [responses(0.1 * n) for n in range(4)], tmp_path / "two.ckpt"
    method, whole, seen = build()
    learn(method, batches, callbacks=[whole, seen, SaveAfter(path, 2)])
    method, resumed, rest = build()

    def stamped(number: int) -> Rollouts:
        batch = batches[number].select(torch.arange(8))
        batch.policy_version = method.policy_version
        return batch

    running = trainer(callbacks=[resumed, rest])
    running.fit(method, train_dataloaders=RolloutStream(stamped, 4), ckpt_path=path, weights_only=True)
    assert rest.coefficients == seen.coefficients[2:] and len(rest.coefficients) == 2
    assert resumed.state_dict() == whole.state_dict()
    # Rewards 1, 0, 1, 1 and 0, 1, 1, 0, with weights e^(1/0.3) and 1.
    weight = math.exp(1 / 0.3)
    assert resumed.matched_floor == pytest.approx((3 * weight / (3 * weight + 1) + weight / (weight + 1)) / 2)


@pytest.mark.parametrize("rows", [4, 8], ids=["half each", "all with one"])
def test_ranks_agree(rows: int, tmp_path: Path) -> None:
    """Each has another group, or one has none; both take the step of the union."""

    def check(rank: int) -> None:
        seen, callback = Seen(), EntropyConstraint(quality_floor="match_rlhf", rlhf_beta=0.3)
        place = torch.arange(rows, 8) if rank else torch.arange(rows)
        mine = responses().select(place) if len(place) else responses().without_rows()
        method = learner(method=QEMPO, entropy=0.2, norm_length=3)
        learn(method, [mine] * 3, callbacks=[callback, seen], strategy="ddp", devices=2)
        torch.save((seen.coefficients, callback.state_dict()), tmp_path / f"rank{rank}.pt")

    in_ranks(check, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first[1] == second[1] and second[0] == (first[0] if rows < 8 else [])
    seen, alone = Seen(), EntropyConstraint(quality_floor="match_rlhf", rlhf_beta=0.3)
    learn(learner(method=QEMPO, entropy=0.2, norm_length=3), [responses()] * 3, callbacks=[alone, seen])
    assert first[0] == pytest.approx(seen.coefficients)
    assert first[1]["matched_floor"] == pytest.approx(alone.matched_floor)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "quality_floor is None and target_entropy None; give exactly one of them"),
        ({"quality_floor": 0.5, "target_entropy": 1.0}, "give exactly one of them"),
        ({"quality_floor": "match_rlhf"}, "rlhf_beta is None; quality_floor='match_rlhf' needs it"),
        ({"quality_floor": "match_rlhf", "rlhf_beta": 0.0}, "rlhf_beta is 0.0"),
        ({"quality_floor": 0.5, "rlhf_beta": 0.1}, "rlhf_beta is 0.1"),
        ({"quality_floor": "high"}, "quality_floor is 'high'; give a number or 'match_rlhf'"),
        ({"quality_floor": 0.5, "momentum": 1.0}, "momentum is 1.0"),
        ({"quality_floor": 0.5, "low": 0.0}, "low is 0.0"),
        ({"quality_floor": 0.5, "initial": 20.0}, "initial 20.0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EntropyConstraint(**options)


def test_wrong_batches_and_modules_are_refused() -> None:
    module, start = SimpleNamespace(log=lambda *_, **__: None, entropy=0.5), SimpleNamespace(global_step=0)

    def write(batch: Any, module: Any = module, **options: Any) -> None:
        callback = EntropyConstraint(**{"quality_floor": 0.5} | options)
        callback.on_train_batch_start(start, module, batch, 0)

    rewards = {"rewards": torch.ones(2)}
    with pytest.raises(ValueError, match="needs batches with rewards; this dict has none"):
        write({"reward": torch.ones(2)})
    with pytest.raises(ValueError, match="needs batches with old_log_probs"):
        write(rewards, quality_floor=None, target_entropy=1.0)
    with pytest.raises(ValueError, match="this SimpleNamespace is no dict and has no extras"):
        write(SimpleNamespace(**rewards))
    with pytest.raises(ValueError, match="starts from None, which SimpleNamespace has for `entropy`; give `initial`"):
        write(rewards, SimpleNamespace())
