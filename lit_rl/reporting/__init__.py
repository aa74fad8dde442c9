"""Reporting: the episode log and the HTML report made from it."""

from lit_rl.reporting.episode_log import LoggedEpisode, LoggedTurn, read_episodes
from lit_rl.reporting.run_files import AppendOnlyFile, read_json_lines

__all__ = ["AppendOnlyFile", "LoggedEpisode", "LoggedTurn", "read_episodes", "read_json_lines"]
