"""Objectives: pure functions from tensors to tensors, with nothing else of lit-rl behind them."""

from lit_rl.objectives.advantages import (
    TurnNormalization,
    group_advantages,
    leave_one_out_advantages,
    token_advantages,
    turn_advantages,
)
from lit_rl.objectives.aggregation import (
    AggregationMode,
    AggregationTotals,
    aggregate,
    aggregation_totals,
    token_weights,
)
from lit_rl.objectives.entropy import categorical_entropy
from lit_rl.objectives.kl import KLEstimator, kl_estimate
from lit_rl.objectives.log_probs import chunked_log_probs, log_probs_from_logits
from lit_rl.objectives.policy_gradient import ClipCounts, clip_fractions, clipped_policy_loss
from lit_rl.objectives.returns import trajectory_returns, turn_returns
from lit_rl.objectives.supervised import masked_cross_entropy, target_total

__all__ = [
    "AggregationMode",
    "AggregationTotals",
    "ClipCounts",
    "KLEstimator",
    "TurnNormalization",
    "aggregate",
    "aggregation_totals",
    "categorical_entropy",
    "chunked_log_probs",
    "clip_fractions",
    "clipped_policy_loss",
    "group_advantages",
    "kl_estimate",
    "leave_one_out_advantages",
    "log_probs_from_logits",
    "masked_cross_entropy",
    "target_total",
    "token_advantages",
    "token_weights",
    "trajectory_returns",
    "turn_advantages",
    "turn_returns",
]
