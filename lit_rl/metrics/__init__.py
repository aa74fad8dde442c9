"""Metrics: what validation measures, in the style of torchmetrics; nothing else of lit-rl behind them."""
