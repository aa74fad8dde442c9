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
from lit_rl.objectives.dialogue_credit import centred_in_group, leave_one_out_by_turn, one_row_per_dialogue
from lit_rl.objectives.entropy import categorical_entropy
from lit_rl.objectives.gae import Gae, gae
from lit_rl.objectives.hierarchical import (
    EndValues,
    HierarchicalAdvantages,
    ValueTargets,
    hierarchical_advantages,
    lambda_targets,
    stale_end_values,
    td_targets,
)
from lit_rl.objectives.joint_reward import (
    AnnealedWeights,
    FixedWeights,
    GapWeights,
    WeightSchedule,
    joint_reward,
    part_sums,
)
from lit_rl.objectives.kl import KLEstimator, kl_estimate
from lit_rl.objectives.log_probs import chunked_log_probs, log_probs_from_logits
from lit_rl.objectives.overlong import is_truncated, soft_overlong
from lit_rl.objectives.plackett_luce import plackett_luce_log_probs
from lit_rl.objectives.plan_penalties import KeepMode, PlanPenalties, shape_rewards
from lit_rl.objectives.policy_gradient import ClipCounts, clip_fractions, clipped_policy_loss
from lit_rl.objectives.pooling import pool_last_k
from lit_rl.objectives.returns import trajectory_returns, turn_returns
from lit_rl.objectives.step_groups import group_in_group_advantages, step_group_advantages
from lit_rl.objectives.streams import stream_advantages, whiten
from lit_rl.objectives.supervised import masked_cross_entropy, target_total
from lit_rl.objectives.switch_advantages import (
    critic_switch_advantages,
    gain_switch_advantages,
    return_switch_advantages,
)
from lit_rl.objectives.trajectory_preference import (
    dialogue_log_ratios,
    preference_pairs,
    trajectory_margin,
)
from lit_rl.objectives.turn_grid import TurnGrid
from lit_rl.objectives.turn_sums import first_tokens, turn_sums
from lit_rl.objectives.turns import backward_scan, turn_mask

__all__ = [
    "AggregationMode",
    "AggregationTotals",
    "AnnealedWeights",
    "ClipCounts",
    "EndValues",
    "FixedWeights",
    "Gae",
    "GapWeights",
    "HierarchicalAdvantages",
    "KLEstimator",
    "KeepMode",
    "PlanPenalties",
    "TurnGrid",
    "TurnNormalization",
    "ValueTargets",
    "WeightSchedule",
    "aggregate",
    "aggregation_totals",
    "backward_scan",
    "categorical_entropy",
    "centred_in_group",
    "chunked_log_probs",
    "clip_fractions",
    "clipped_policy_loss",
    "critic_switch_advantages",
    "dialogue_log_ratios",
    "first_tokens",
    "gae",
    "gain_switch_advantages",
    "group_advantages",
    "group_in_group_advantages",
    "hierarchical_advantages",
    "is_truncated",
    "joint_reward",
    "kl_estimate",
    "lambda_targets",
    "leave_one_out_advantages",
    "leave_one_out_by_turn",
    "log_probs_from_logits",
    "masked_cross_entropy",
    "one_row_per_dialogue",
    "part_sums",
    "plackett_luce_log_probs",
    "pool_last_k",
    "preference_pairs",
    "return_switch_advantages",
    "shape_rewards",
    "soft_overlong",
    "stale_end_values",
    "step_group_advantages",
    "stream_advantages",
    "target_total",
    "td_targets",
    "token_advantages",
    "token_weights",
    "trajectory_margin",
    "trajectory_returns",
    "turn_advantages",
    "turn_mask",
    "turn_returns",
    "turn_sums",
    "whiten",
]
