"""The same loss and gradient as other libraries, on random tensors."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rl.objectives import (
    AggregationMode,
    aggregate,
    clip_fractions,
    clipped_policy_loss,
    group_advantages,
    kl_estimate,
)

pytestmark = pytest.mark.peer

B, T, MAX_LENGTH = 6, 9, 12
CLIPS = {"clip_low": 0.2, "clip_high": 0.28}


def tensors(seed: int) -> dict[str, Tensor]:
    """Random rows, each with at least one token: the libraries differ on empty rows."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    log_probs = -normal(B, T).abs()
    return {
        "log_probs": log_probs,
        "old_log_probs": log_probs + 0.6 * normal(B, T),
        "ref_log_probs": log_probs + 0.3 * normal(B, T),
        "advantages": normal(B),
        "loss_mask": torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=generator),
    }


def ours(
    data: dict[str, Tensor], mode: AggregationMode, *, kl_coef: float = 0.0, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    log_probs, mask = data["log_probs"].clone().requires_grad_(), data["loss_mask"]
    token_loss = clipped_policy_loss(
        log_probs, data["old_log_probs"], data["advantages"][:, None], mask, dual_clip=dual_clip, **CLIPS
    )
    if kl_coef:
        token_loss = token_loss + kl_coef * kl_estimate(
            log_probs, data["ref_log_probs"], estimator="k3", loss_mask=mask
        )
    loss = aggregate(token_loss, mask, mode=mode, max_length=MAX_LENGTH)
    (grad,) = torch.autograd.grad(loss, log_probs)
    return loss.detach(), grad


def trl(data: dict[str, Tensor], loss_type: str, kl_coef: float, delta: float | None) -> tuple[Tensor, Tensor, Any]:
    """TRL's own loss code on a trainer that has everything but a model."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    log_probs = data["log_probs"].clone().requires_grad_()
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (log_probs, torch.zeros(B, T), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=kl_coef,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=delta, steps_per_generation=1),
        loss_type=loss_type,
        epsilon_low=CLIPS["clip_low"],
        epsilon_high=CLIPS["clip_high"],
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=MAX_LENGTH,
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        model=SimpleNamespace(training=True),
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    mask = data["loss_mask"].long()
    batch = {
        "prompt_ids": torch.zeros(B, 1, dtype=torch.int64),
        "prompt_mask": torch.ones(B, 1, dtype=torch.int64),
        "completion_ids": torch.zeros(B, T, dtype=torch.int64),
        "completion_mask": mask,
        "advantages": data["advantages"],
        "old_per_token_logps": data["old_log_probs"],
        "ref_per_token_logps": data["ref_log_probs"],
        "num_items_in_batch": mask.sum(),
    }
    compute_loss: Any = GRPOTrainer._compute_loss
    loss = compute_loss(trainer, None, batch)
    (grad,) = torch.autograd.grad(loss, log_probs)
    return loss.detach(), grad, trainer._metrics["train"]


@pytest.mark.parametrize("dual_clip", [None, 2.0])
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
@pytest.mark.parametrize(
    ("loss_type", "mode"),
    [
        ("grpo", "seq_mean_token_mean"),
        ("bnpo", "token_mean"),
        ("dapo", "token_mean"),
        ("dr_grpo", "seq_mean_token_sum_norm"),
        ("luspo", "seq_mean_token_sum"),
    ],
)
def test_trl_loss_and_gradient(loss_type: str, mode: AggregationMode, kl_coef: float, dual_clip: float | None) -> None:
    for seed in range(3):
        data = tensors(seed)
        loss, grad, metrics = trl(data, loss_type, kl_coef, dual_clip)
        # Our weights are float32.
        torch.testing.assert_close(
            ours(data, mode, kl_coef=kl_coef, dual_clip=dual_clip), (loss, grad), rtol=1e-6, atol=1e-7
        )
        counts = clip_fractions(
            data["log_probs"], data["old_log_probs"], data["advantages"][:, None], data["loss_mask"], **CLIPS
        )
        assert metrics["clip_ratio/high_mean"] == [pytest.approx(int(counts.high) / int(counts.tokens))]
        assert metrics["clip_ratio/low_mean"] == [pytest.approx(int(counts.low) / int(counts.tokens))]


def test_trl_group_advantages() -> None:
    from trl.trainer.utils import nanstd

    rewards = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    theirs = (rewards - rewards.mean(1, keepdim=True)) / (nanstd(rewards, dim=1)[:, None] + 1e-4)
    got = group_advantages(rewards.flatten(), torch.arange(4).repeat_interleave(8), ddof=1, epsilon=1e-4)
    torch.testing.assert_close(got, theirs.flatten())


def verl(data: dict[str, Tensor], agg_mode: str, dual_clip: float) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """The policy loss of verl, restated from what its code computes.

    `compute_policy_loss_vanilla` and `agg_loss` in verl/trainer/ppo/core_algos.py of volcengine/verl at commit
    012be9d9dcb7c38499f23616142870d2682757fc: the pessimistic of two surrogates, bounded by the dual clip (always on)
    for negative advantages; two clip shares over tokens; four ways to aggregate.
    """
    log_probs = data["log_probs"].clone().requires_grad_()
    mask, advantage = data["loss_mask"].double(), data["advantages"][:, None].expand(B, T)
    ratio = (log_probs - data["old_log_probs"]).clip(-20, 20).exp()
    free, bounded = -advantage * ratio, -advantage * ratio.clip(1 - CLIPS["clip_low"], 1 + CLIPS["clip_high"])
    worst, bound = torch.max(free, bounded), -advantage * dual_clip
    per_token = torch.where(advantage < 0, torch.min(bound, worst), worst)
    row_sums = (per_token * mask).sum(1)
    loss = {
        "token-mean": row_sums.sum() / mask.sum(),
        "seq-mean-token-sum": row_sums.mean(),
        "seq-mean-token-mean": (row_sums / mask.sum(1)).mean(),
        "seq-mean-token-sum-norm": row_sums.sum() / T,
    }[agg_mode]
    (grad,) = torch.autograd.grad(loss, log_probs)
    clipped = ((bounded > free) * mask).sum() / mask.sum()
    dual = ((worst > bound) * (advantage < 0) * mask).sum() / mask.sum()
    return loss.detach(), grad, (clipped.item(), dual.item())


@pytest.mark.parametrize(
    ("agg_mode", "mode", "factor"),
    [
        ("token-mean", "token_mean", 1.0),
        ("seq-mean-token-sum", "seq_mean_token_sum", 1.0),
        ("seq-mean-token-mean", "seq_mean_token_mean", 1.0),
        # verl divides by the padded length and not by the rows: B * max_length / T times ours.
        ("seq-mean-token-sum-norm", "seq_mean_token_sum_norm", B * MAX_LENGTH / T),
    ],
)
@pytest.mark.parametrize("dual_clip", [1.5, 3.0])
def test_verl_loss_and_gradient(agg_mode: str, mode: AggregationMode, factor: float, dual_clip: float) -> None:
    for seed in range(3):
        data = tensors(seed)
        theirs, their_grad, (clipped, dual) = verl(data, agg_mode, dual_clip)
        loss, grad = ours(data, mode, dual_clip=dual_clip)
        torch.testing.assert_close((loss * factor, grad * factor), (theirs, their_grad), rtol=1e-6, atol=1e-7)
        counts = clip_fractions(
            data["log_probs"],
            data["old_log_probs"],
            data["advantages"][:, None],
            data["loss_mask"],
            dual_clip=dual_clip,
            **CLIPS,
        )
        assert math.isclose(int(counts.high + counts.low) / int(counts.tokens), clipped)
        assert math.isclose(int(counts.dual) / int(counts.tokens), dual)
