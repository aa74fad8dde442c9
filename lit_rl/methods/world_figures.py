"""What is logged about episodes in worlds: success by family of task, turns, and how plans go."""

from collections import defaultdict

import torch

from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.methods.figures import StepFigures


def add_world_figures(figures: StepFigures, batch: Rollouts, party: str, prefix: str = "") -> None:
    """Add the episodes of a batch, as the sums and counts of means over episodes, or turns where named so.

    ``success``, also by family of task (an episode of several counts in each), ``return`` without penalties, ``score``
    where worlds give one, ``turns``, ``valid`` and ``admissible`` as shares of turns; of episodes with a plan
    ``switches_per_episode``, which counts segments begun after the first turn, and ``keep_ratio``, the share of such
    turns that say KEEP or nothing that can be read.

    Args:
        figures: To add to.
        batch: With its episodes.
        party: Who acts.
        prefix: Of the names.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for episode in batch.episodes:
        turns = episode.turns_of(party)
        for name, values in (_outcome(episode, turns) | _plan(turns)).items():
            sums[name][0] += sum(values)
            sums[name][1] += len(values)
    for name, pair in sums.items():
        total, count = torch.tensor(pair, dtype=torch.float64).unbind()
        figures.add(prefix + name, total, count)


def _outcome(episode: Episode, turns: list[Turn]) -> dict[str, list[float]]:
    solved = float(episode.stop_reason == "solved")
    found = {"success": [solved], "turns": [float(len(turns))], "return": [sum(turn.reward for turn in turns)]}
    last = turns[-1].info
    for family in dict.fromkeys(str(last.get("family", "")).split("+")):
        if family:
            found[f"success_{family}"] = [solved]
    if "score" in last:
        found["score"] = [float(last["score"])]
    for fact in ("valid", "admissible"):
        found[fact] = [float(turn.info[fact]) for turn in turns if fact in turn.info]
    return found


def _plan(turns: list[Turn]) -> dict[str, list[float]]:
    if "boundary" not in turns[0].info:
        return {}
    later = turns[1:]
    return {
        "switches_per_episode": [float(sum(turn.info["boundary"] for turn in later))],
        "keep_ratio": [float(not turn.info["switch"]) for turn in later],
    }
