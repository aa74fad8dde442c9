"""Metrics: what validation measures, in the style of torchmetrics; nothing else of lit-rl behind them."""

from lit_rl.metrics.accuracy_by_turn import AccuracyByTurn, AttemptShares, TurnSummary
from lit_rl.metrics.conversation import (
    ConversationSummary,
    conversation_counts,
    conversation_score,
    conversation_shares,
    percentile,
    sharded_performance,
)
from lit_rl.metrics.diversity import (
    AnswerDiversity,
    LexicalDiversity,
    SemanticDiversity,
    SequenceEntropy,
    SyntacticDiversity,
)
from lit_rl.metrics.functional import (
    accuracy_by_turn,
    area_under_turns,
    attempt_counts,
    attempt_shares,
    conditional_success,
    first_jump,
    gain,
    mean_turns_to_solve,
    normalized_gain,
    solve_counts,
    solve_turns,
)
from lit_rl.metrics.interval import Interval, seed_interval

__all__ = [
    "AccuracyByTurn",
    "AnswerDiversity",
    "AttemptShares",
    "ConversationSummary",
    "Interval",
    "LexicalDiversity",
    "SemanticDiversity",
    "SequenceEntropy",
    "SyntacticDiversity",
    "TurnSummary",
    "accuracy_by_turn",
    "area_under_turns",
    "attempt_counts",
    "attempt_shares",
    "conditional_success",
    "conversation_counts",
    "conversation_score",
    "conversation_shares",
    "first_jump",
    "gain",
    "mean_turns_to_solve",
    "normalized_gain",
    "percentile",
    "seed_interval",
    "sharded_performance",
    "solve_counts",
    "solve_turns",
]
