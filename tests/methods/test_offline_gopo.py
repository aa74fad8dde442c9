"""Offline GOPO: the specification's pair, what is learned by whom, and properties of the loss (gopo.md 5, 11, 12)."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rl.datamodules.service_dialogues import ScriptedDialogues
from lit_rl.datamodules.trajectory_preferences import TrajectoryPreferenceDataModule
from lit_rl.episodes import Rollouts
from lit_rl.methods.offline_gopo import OfflineGOPO
from lit_rl.methods.pairs import pair_rows
from lit_rl.policy import Policy
from lit_rl.service import ServiceScenarios
from tests.datamodules.shop import PARTIES, attach, form, shop_config
from tests.methods.worlds import learn, loaded, moved, trainer, weights


def preferences(**options: Any) -> TrajectoryPreferenceDataModule:
    source = ScriptedDialogues(ServiceScenarios(3), random_share=0.4, per_scenario=4)
    return TrajectoryPreferenceDataModule(source, **{"form": form(), "batch_size": 3, "seed": 0} | options)


def offline(**options: Any) -> OfflineGOPO:
    method = loaded(OfflineGOPO(shop_config(*PARTIES), **{"learning_rate": 1e-2} | options))
    assert isinstance(method, OfflineGOPO)
    return method


def policy_of(method: OfflineGOPO) -> Policy:
    assert method.policy is not None
    return method.policy


@cache
def told() -> Rollouts:
    """Three pairs, with the reference's log-probs."""
    policy = Policy(shop_config(*PARTIES))
    return next(iter(attach(preferences(), policy, needs_reference=True).train_dataloader()))


def batch_for(method: OfflineGOPO) -> Rollouts:
    """The same pairs, for a policy that is to know their constraints."""
    data = attach(preferences(), policy_of(method), needs_reference=True)
    data.teller.form.constrain(policy_of(method), data.dialogues.procedure)
    return told().select(torch.arange(len(told())))


def side(batch: Rollouts, party: str) -> Rollouts:
    number = batch.parties.index(party)
    assert batch.target_mask is not None
    return batch.select(((batch.party_ids == number) & batch.target_mask).any(1))


def spread(sums: list[float], mask: Tensor) -> Tensor:
    """Token log-probs with these sums over the rows, and something else outside the mask."""
    return torch.where(mask, torch.tensor(sums)[:, None] / mask.sum(1, keepdim=True), -77.0)


def one_pair() -> Rollouts:
    """The planner's rows of a pair, the chosen one first."""
    planned = side(told(), "planner")
    return planned.select(torch.stack(pair_rows(planned), 1)[0])


# -- the loss of a pair ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("coef", "margin", "loss"), [(0.1, 0.06, 0.663597), (0.5, 0.30, 0.554355)])
def test_the_loss_of_the_specification(coef: float, margin: float, loss: float) -> None:
    """gopo.md 11: plans at (-.2, -.5, -.3) against (-.4, -.6, -.5), and (-.9, -.4) against (-.7, -.5)."""
    method, batch = offline(pair_kl_coef=coef), one_pair()
    mask = method.learned_mask(batch)
    batch.ref_log_probs = spread([-1.5, -1.2], mask)
    log_probs = spread([-1.0, -1.3], mask).requires_grad_(True)
    found = (method.step_weights(batch)(batch) * method.token_loss(batch, log_probs)).sum()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert float(method.step_figures(batch, log_probs)["margin"][0]) == pytest.approx(margin, abs=1e-6)
    found.backward()
    # d loss / d s+ = -b sigmoid(-m), of every label alike.
    gradient = -coef / (1 + math.exp(margin))
    assert log_probs.grad is not None and not log_probs.grad[~mask].any()
    assert log_probs.grad[0][mask[0]].tolist() == pytest.approx([gradient] * int(mask[0].sum()), abs=1e-6)
    assert log_probs.grad[1][mask[1]].tolist() == pytest.approx([-gradient] * int(mask[1].sum()), abs=1e-6)


def test_more_is_demanded_of_pairs_that_are_further_apart() -> None:
    batch = one_pair()
    mask = offline().learned_mask(batch)
    batch.ref_log_probs, log_probs = spread([-1.5, -1.2], mask), spread([-1.0, -1.3], mask)
    better, worse = batch.extras["dialogue_return"].tolist()
    found = offline(return_margin=2.0).step_figures(batch, log_probs)["margin"][0]
    assert float(found) == pytest.approx(0.06 - 2.0 * (better - worse), abs=1e-5)


def test_a_swapped_pair_has_the_opposite_margin_and_equal_dialogues_none() -> None:
    """gopo.md 12, property 6."""
    method, batch = offline(), one_pair()
    mask = method.learned_mask(batch)
    batch.ref_log_probs, log_probs = spread([-1.5, -1.2], mask), spread([-1.0, -1.3], mask)
    batch.extras["chosen"] = ~batch.extras["chosen"]
    assert float(method.step_figures(batch, log_probs)["margin"][0]) == pytest.approx(-0.06, abs=1e-6)
    equal = spread([-1.0, -0.7], mask)  # both gain 0.5 on the reference
    assert float(method.token_loss(batch, equal).sum()) == pytest.approx(math.log(2), abs=1e-6)


def test_a_policy_that_is_its_reference_has_log_two_for_every_pair() -> None:
    method = offline()
    batch = batch_for(method)
    running = learn(method, [batch])
    nll = float(running.callback_metrics["train/nll"])
    assert float(running.callback_metrics["train/loss"]) == pytest.approx(math.log(2) + nll, abs=1e-5)
    assert float(running.callback_metrics["train/margin"]) == pytest.approx(0.0, abs=1e-6)


# -- who learns what ---------------------------------------------------------------------------------------------------


def test_the_responder_learns_replies_by_what_they_are_worth() -> None:
    """Negative log-probs weighed by GRE, over all weights."""
    method = offline()
    batch = side(batch_for(method), "responder")
    assert batch.target_weights is not None and batch.target_mask is not None
    batch.target_weights = batch.target_weights * torch.linspace(0.2, 1.0, len(batch))[:, None]
    log_probs = -torch.rand(batch.input_ids.shape, generator=torch.Generator().manual_seed(0))
    found = (method.step_weights(batch)(batch) * method.token_loss(batch, log_probs)).sum()
    wanted = -(log_probs * batch.target_weights).sum() / batch.target_weights.sum()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("party", PARTIES)
def test_rows_of_one_party_move_its_adapter_alone(party: str) -> None:
    """Replies are not scored by the planner's loss, and labels not by the responder's."""
    method = offline()
    batch = side(batch_for(method), party)
    before = weights(method)
    learn(method, [batch, batch])
    change = moved(before, weights(method))
    assert any(bool(delta.any()) for name, delta in change.items() if f".{party}." in name)
    assert not any(bool(delta.any()) for name, delta in change.items() if f".{party}." not in name)


def test_micro_batches_change_nothing() -> None:
    """And hold whole pairs of the planner."""
    changes, sizes = [], []
    for budget in (400, 10**6):
        method = offline(micro_batch_tokens=budget, max_grad_norm=None)
        method.optimizer = lambda groups: torch.optim.SGD(groups, lr=1.0)
        batch = batch_for(method)
        parts = [(party, part) for party, part in method._micro_batches(batch)]
        sizes.append(sum(party == "planner" for party, _ in parts))
        assert all(len(part) % 2 == 0 for party, part in parts if party == "planner")
        before = weights(method)
        learn(method, [batch])
        changes.append(moved(before, weights(method)))
    assert sizes == [3, 1]
    for name, delta in changes[0].items():
        torch.testing.assert_close(delta, changes[1][name], atol=1e-5, rtol=1e-3)


def test_it_learns_to_tell_pairs_apart() -> None:
    """With held-out pairs scored under their masks."""
    data = preferences(batch_size=6, batches_per_epoch=15, num_validation_scenarios=1)
    method = OfflineGOPO(shop_config(*PARTIES), learning_rate=1e-2, pair_kl_coef=0.5)
    running = trainer(limit_val_batches=1.0)
    running.validate(method, data, verbose=False)
    assert float(running.callback_metrics["val/loss"]) == pytest.approx(math.log(2), abs=1e-5)
    nll = float(running.callback_metrics["val/nll"])
    running.fit(method, data)
    assert float(running.callback_metrics["train/accuracy"]) > 0.9
    assert float(running.callback_metrics["train/loss"]) < 0.8 * math.log(2) + nll
    assert float(running.callback_metrics["val/nll"]) < 0.8 * nll


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair_kl_coef": 0.0}, "model.pair_kl_coef is 0.0"),
        ({"return_margin": -1.0}, "return_margin -1.0; the first must be above 0, the second at least 0"),
        ({"critique_coef": 1.0}, "model.critique_coef has no use here"),
        ({"policy": shop_config("planner")}, "name 'responder' in policy.adapters"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    given = {"policy": shop_config(*PARTIES), **options}
    with pytest.raises(ValueError, match=message):
        OfflineGOPO(**given)


def test_bad_data() -> None:
    with pytest.raises(ValueError, match="model.steps_per_batch is 4, but data.batch_size is 3"):
        OfflineGOPO(shop_config(*PARTIES), steps_per_batch=4).check_data(preferences())
    method, batch = offline(), one_pair()
    batch.ref_log_probs = None
    with pytest.raises(ValueError, match="the rollouts have no ref_log_probs"):
        method.token_loss(batch, torch.zeros(batch.input_ids.shape))
    del batch.extras["dialogue_return"]
    with pytest.raises(ValueError, match="needs pairs of dialogues; use TrajectoryPreferenceDataModule"):
        method.learned_mask(batch)
