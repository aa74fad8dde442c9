"""Metrics: what validation measures, in the style of torchmetrics; nothing else of lit-rl behind them."""
from lit_rl.metrics.accuracy_by_turn import AccuracyByTurn, solve_turns

__all__ = ["AccuracyByTurn", "solve_turns"]
