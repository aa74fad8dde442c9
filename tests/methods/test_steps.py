from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lit_rl.distributed import check_strategy, sync_gradients
from lit_rl.methods import NonFiniteLoss
from lit_rl.methods.figures import StepFigures
from lit_rl.methods.steps import check_finite, clip_gradients, step_batches
from tests.methods.worlds import in_ranks, rollouts

FIVE_GROUPS = [[1, None]] * 5


def groups_of(parts: list[Any]) -> list[list[int]]:
    return [sorted(set(part.group_ids.tolist())) for part in parts]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_every_epoch_deals_every_group_to_one_step(steps: int) -> None:
    batch = rollouts(*FIVE_GROUPS)
    dealt = groups_of(list(step_batches(batch, steps, 3)))
    assert len(dealt) == 3 * steps  # 5 groups make 4 parts too, which torch.chunk would not
    for epoch in range(3):
        epoch_groups = [group for part in dealt[epoch * steps : (epoch + 1) * steps] for group in part]
        assert sorted(epoch_groups) == [0, 1, 2, 3, 4]
    assert dealt == groups_of(list(step_batches(batch, steps, 3)))
    if steps > 1:
        assert dealt[:steps] != dealt[steps : 2 * steps]


def test_fewer_groups_than_steps() -> None:
    with pytest.warns(UserWarning, match="5 groups was learned from in 5 optimizer steps per pass: .* is 7, and every"):
        assert len(list(step_batches(rollouts(*FIVE_GROUPS), 7, 1))) == 5


def groups_with_gradients(*gradients: list[float]) -> list[dict[str, Any]]:
    groups = []
    for values in gradients:
        parameter = nn.Parameter(torch.zeros(len(values)))
        parameter.grad = torch.tensor(values)
        groups.append({"params": [parameter, nn.Parameter(torch.zeros(2))]})  # the second has no gradient
    return groups


@pytest.mark.parametrize(
    ("max_norm", "each", "wanted"),
    [
        (None, False, ([3.0, 4.0], [12.0])),
        (6.5, False, ([1.5, 2.0], [6.0])),  # norms 5 and 12, together 13
        (6.5, True, ([3.0, 4.0], [6.5])),
    ],
)
def test_clipping(max_norm: float | None, each: bool, wanted: tuple[list[float], list[float]]) -> None:
    groups = groups_with_gradients([3.0, 4.0], [12.0])
    assert clip_gradients(groups, max_norm, each=each).item() == pytest.approx(13.0)
    for group, gradient in zip(groups, wanted, strict=True):
        torch.testing.assert_close(group["params"][0].grad, torch.tensor(gradient), atol=1e-5, rtol=0)
        assert group["params"][1].grad is None


def test_clipping_nothing() -> None:
    assert clip_gradients([{"params": [nn.Parameter(torch.zeros(2))]}], 1.0, each=True).item() == 0.0


def test_what_is_not_finite_is_named() -> None:
    ids, losses, fine = torch.arange(12), torch.zeros(12, 3), torch.tensor(1.0)
    check_finite([(ids, losses)], fine, 1)
    losses[3, 1], losses[7, 0] = torch.nan, -torch.inf
    with pytest.raises(NonFiniteLoss, match=r"step 4 is NaN or infinite \(in episodes \[3, 7\]\)"):
        check_finite([(ids, losses), (ids, torch.zeros(12, 3))], fine, 4)
    losses[:] = torch.nan
    with pytest.raises(NonFiniteLoss, match=r"\[0, 1, 2, 3, 4, 5, 6, 7\] and 4 more"):
        check_finite([(ids, losses)], fine, 4)
    with pytest.raises(NonFiniteLoss, match="in no single episode: the gradient overflowed"):
        check_finite([], torch.tensor(torch.inf), 4)


def test_figures() -> None:
    figures = StepFigures()
    assert figures.result() == {}
    for total, count in ((1.0, 2), (5.0, 1)):
        figures.add("entropy", torch.tensor(total), torch.tensor(count))
        figures.add("loss", torch.tensor(total), torch.tensor(1))
        figures.add("nothing", torch.tensor(0.0), torch.tensor(0))
    figures.steps = 2
    assert figures.result() == {"entropy": 2.0, "loss": 3.0}  # a mean; a sum for each of two steps
    figures.add_rollouts(rollouts([1, 2, None, 4]))
    result = figures.result()
    assert result["reward"] == 0.75 and result["turns"] == 2.75
    assert [result[f"accuracy_turn_{k}"] for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.5, 0.75]


def fake(name: str, *bases: type, **attributes: Any) -> Any:
    return type(name, bases, attributes)()


def test_strategies_and_precisions_that_would_train_wrongly_are_refused() -> None:
    check_strategy(fake("DDPStrategy", precision_plugin=SimpleNamespace(precision="bf16-mixed")))
    check_strategy(fake("SingleDeviceStrategy", precision=SimpleNamespace(precision="32-true")))
    with pytest.raises(ValueError, match="The strategy is Own, which shards weights"):
        check_strategy(fake("Own", type("FSDPStrategy", (), {})))
    for attribute in ("precision_plugin", "precision"):
        with pytest.raises(ValueError, match="The precision is '16-mixed'"):
            check_strategy(fake("DDPStrategy", **{attribute: SimpleNamespace(precision="16-mixed")}))


# -- two ranks ---------------------------------------------------------------------------------------------------------


def joined(function: Callable[[int], object]) -> Callable[[int], None]:
    def run(rank: int) -> None:
        dist.init_process_group("gloo")
        function(rank)
        dist.destroy_process_group()

    return run


def test_ranks_sum_gradients_even_those_that_one_of_them_lacks(tmp_path: Path) -> None:
    def check(rank: int) -> None:
        both, one, none = (nn.Parameter(torch.zeros(2)) for _ in range(3))
        half = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
        both.grad = torch.tensor([1.0, 2.0]) * (rank + 1)
        half.grad = torch.ones(3, dtype=torch.bfloat16)
        if rank == 1:
            one.grad = torch.tensor([5.0, 7.0])
        sync_gradients([both, one, none, half])
        torch.testing.assert_close(both.grad, torch.tensor([3.0, 6.0]))
        torch.testing.assert_close(one.grad, torch.tensor([5.0, 7.0]))
        torch.testing.assert_close(half.grad, torch.full((3,), 2.0, dtype=torch.bfloat16))
        assert none.grad is None  # or an optimizer with momentum would move what nobody used

    in_ranks(joined(check), tmp_path)


def test_ranks_take_the_steps_that_one_process_would_take(tmp_path: Path) -> None:
    """Also a rank that has fewer groups than there are steps."""

    def check(rank: int) -> None:
        batch = rollouts(*FIVE_GROUPS)
        mine = batch.select(torch.isin(batch.group_ids, torch.tensor([[0], [1, 2, 3, 4]][rank])))
        parts = list(step_batches(mine, 3, 2))
        assert len(parts) == 6
        torch.save((groups_of(list(step_batches(batch, 3, 2))), groups_of(parts)), tmp_path / f"rank{rank}.pt")

    in_ranks(joined(check), tmp_path)
    (alone, first), (_, second) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == alone


def test_ranks_have_the_same_work_in_every_step() -> None:
    """Each of two ranks with four groups has two in each of two steps."""
    batch = rollouts(*[[1, None]] * 8)
    for part in step_batches(batch, 2, 5):
        groups = part.group_ids.unique()
        assert (groups < 4).sum() == (groups >= 4).sum() == 2


def test_ranks_refuse_the_same_step(tmp_path: Path) -> None:
    def check(rank: int) -> None:
        losses = torch.zeros(2, 3)
        losses[1, 1] = torch.nan if rank == 1 else 0.0
        with pytest.raises(NonFiniteLoss, match=r"\[11\]"):
            check_finite([(torch.tensor([rank * 10, rank * 10 + 1]), losses)], torch.tensor(1.0), 1)

    in_ranks(joined(check), tmp_path)


def test_ranks_add_up_figures_that_only_one_of_them_has(tmp_path: Path) -> None:
    def check(rank: int) -> None:
        figures = StepFigures()
        figures.steps = 1
        figures.add("entropy", torch.tensor(1.0 + rank), torch.tensor(1 + rank))
        if rank == 1:
            figures.add("clip_fraction", torch.tensor(3.0), torch.tensor(4))
            figures.add("loss", torch.tensor(0.5), torch.tensor(1))
            sampled = rollouts([1, None])
            figures.compare(sampled.old_log_probs + 0.25 * sampled.loss_mask, sampled, sampled.loss_mask, first=True)
        result = figures.result()
        assert {n: result[n] for n in ("entropy", "clip_fraction", "loss")} == {
            "entropy": 1.0,
            "clip_fraction": 0.75,
            "loss": 0.5,
        }
        assert result["sampler_log_prob_difference"] == pytest.approx(0.25)

    in_ranks(joined(check), tmp_path)
