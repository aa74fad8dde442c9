"""Callbacks: imported as ``lit_rl.callbacks``, each useful alone in any Lightning project."""

from lit_rl.callbacks.episode_log import EpisodeLog
from lit_rl.callbacks.metrics_file import MetricsFile

__all__ = ["EpisodeLog", "MetricsFile"]
