"""DAPO's optimizer step, from rewards to gradients, beside other libraries' own code on equal tensors."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from lit_rl.episodes import Rollouts
from lit_rl.methods.dapo import DAPO
from tests.methods.worlds import policy_config
from tests.objectives.test_peers import CLIPS, MAX_LENGTH, B, T, tensors, trl, verl

pytestmark = pytest.mark.peer

CONFIGS = Path(__file__).parents[2] / "configs/dapo"
STOP = 2
GROUPS = torch.arange(B) // 3


def batch_of(data: dict[str, Tensor], rewards: Tensor, ended: Tensor) -> Rollouts:
    """Responses of these tensors behind a prompt of one token."""

    def behind(tensor: Tensor, fill: float = 0.0) -> Tensor:
        return torch.nn.functional.pad(tensor, (1, 0), value=fill)

    mask = behind(data["loss_mask"].float()).bool()
    ids = torch.full((B, T + 1), 9)
    last = mask.sum(1)
    ids[torch.arange(B), last] = torch.where(ended, STOP, 9)
    places = torch.where(mask, 0, -1)
    return Rollouts(
        parties=("student",),
        input_ids=ids,
        attention_mask=torch.arange(T + 1) <= last[:, None],
        party_ids=places.to(torch.int8),
        loss_mask=mask,
        turn_ids=places.to(torch.int16),
        old_log_probs=behind(data["old_log_probs"]).float().masked_fill(~mask, 0.0),
        rewards=rewards[:, None],
        turn_valid=torch.ones(B, 1, dtype=torch.bool),
        group_ids=GROUPS,
        episode_ids=torch.arange(B),
        terminated=torch.ones(B, dtype=torch.bool),
        truncated=torch.zeros(B, dtype=torch.bool),
    )


def ours(
    data: dict[str, Tensor], rewards: Tensor, ended: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor, Rollouts]:
    """Loss, its gradient ``(B, T)``, and the batch with what was written into it."""
    method = DAPO(policy_config(), **options)
    method.policy = SimpleNamespace(chat=SimpleNamespace(stop_ids={STOP}))
    batch = batch_of(data, rewards, torch.ones(B, dtype=torch.bool) if ended is None else ended)
    method.shape(batch)
    batch.advantages = method.advantages(batch)
    log_probs = torch.nn.functional.pad(data["log_probs"].float(), (1, 0)).requires_grad_()
    loss = (method.step_weights(batch)(batch) * method.token_loss(batch, log_probs)).sum()
    (grad,) = torch.autograd.grad(loss, log_probs)
    return loss.detach().double(), grad[:, 1:].double(), batch


def rewards_of(seed: int) -> Tensor:
    return torch.rand(B, generator=torch.Generator().manual_seed(100 + seed))


def trl_advantages(rewards: Tensor, scale: bool) -> Tensor:
    """As `GRPOTrainer` makes them of groups, but for our epsilon."""
    from trl.trainer.utils import nanstd

    grouped = rewards.double().view(-1, 3)
    centred = grouped - grouped.mean(1, keepdim=True)
    return (centred / (nanstd(grouped, dim=1)[:, None] + 1e-6) if scale else centred).flatten()


def published(name: str) -> dict[str, Any]:
    """What a config says of the method."""
    options: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["init_args"]
    for elsewhere in ("policy", "learning_rate", "steps_per_batch", "overlong_cache"):
        options.pop(elsewhere, None)
    if "norm_length" in options:
        options["norm_length"] = MAX_LENGTH
    return options | {"clip_high": CLIPS["clip_high"], "dual_clip": None, "max_length": MAX_LENGTH}


@pytest.mark.parametrize(
    ("name", "loss_type"),
    [("tiny", "dapo"), ("tiny", "bnpo"), ("baselines/grpo", "grpo"), ("baselines/dr_grpo", "dr_grpo")],
)
def test_configs_equal_trl(name: str, loss_type: str) -> None:
    """Each config is the loss it says it is; only the upper clip and the limit are those of the fake trainer."""
    from trl.rewards import get_soft_overlong_punishment

    punish = get_soft_overlong_punishment(max_completion_len=MAX_LENGTH, soft_punish_cache=MAX_LENGTH // 5 + 3)
    options = published(name)
    for seed in range(3):
        data, rewards = tensors(seed), rewards_of(seed)
        shaped = rewards
        if options.get("overlong_factor", 1.0):
            options["overlong_cache"] = MAX_LENGTH // 5 + 3
            lengths = data["loss_mask"].sum(1).tolist()
            shaped = rewards + torch.tensor(punish([[0] * length for length in lengths]))
        data["advantages"] = trl_advantages(shaped, scale=options.get("scale") != "none")
        loss, grad, _ = ours(data, rewards, **options)
        theirs, their_grad, _ = trl(data, loss_type, 0.0, None)
        torch.testing.assert_close((loss, grad), (theirs, their_grad), rtol=1e-4, atol=1e-5)


def test_filtering_equals_trl_with_mask_truncated_completions() -> None:
    """TRL empties the mask of such completions before it counts."""
    ended = torch.tensor([True, False, True, True, True, True])
    data, rewards = tensors(0), rewards_of(0)
    data["loss_mask"][1] = True  # of nine tokens, the limit
    options = {"overlong_factor": 0.0, "filter_truncated": True, "max_length": T, "dual_clip": None}
    loss, grad, batch = ours(data, rewards, ended, **options)
    assert batch.loss_mask.any(1).tolist() == ended.tolist()
    data["advantages"] = trl_advantages(rewards, scale=True)
    data["loss_mask"] = data["loss_mask"] & ended[:, None]
    theirs, their_grad, _ = trl(data, "dapo", 0.0, None)
    torch.testing.assert_close((loss, grad), (theirs, their_grad), rtol=1e-4, atol=1e-5)


def test_defaults_equal_verl() -> None:
    """verl's advantages (`compute_grpo_outcome_advantage`), overlong reward, dual clip and token-mean, restated."""
    max_length, cache = 10, 5
    for seed in range(3):
        data, rewards = tensors(seed), rewards_of(seed)
        lengths = data["loss_mask"].sum(1)
        shaped = rewards.double() + torch.minimum(-(lengths - (max_length - cache)) / cache, torch.zeros(B))
        advantages = torch.empty(B, dtype=torch.float64)
        for group in GROUPS.unique():
            scores = shaped[group == GROUPS]
            advantages[group == GROUPS] = (scores - scores.mean()) / (scores.std() + 1e-6)
        data["advantages"] = advantages
        loss, grad, batch = ours(data, rewards, max_length=max_length, overlong_cache=cache)
        theirs, their_grad, _ = verl(data, "token-mean", dual_clip=10.0)
        assert batch.reward_parts["overlong"].any()
        torch.testing.assert_close((loss, grad), (theirs, their_grad), rtol=1e-4, atol=1e-5)
