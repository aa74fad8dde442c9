"""Dialogues as they are scored, with the quality of their replies."""

from lit_rl.episodes import Episode
from lit_rl.metrics.service import ServedDialogue
from lit_rl.service.facts import served


def rated(episode: Episode) -> ServedDialogue:
    """As `served`, with the ``gre`` of each reply where a DataModule wrote it into the ``info`` of its turn.

    Raises:
        ValueError: As `served`.
    """
    dialogue = served(episode)
    points = [turn.info.get("gre") for turn in episode.turns if "engagement" in turn.info]
    turns = [{**facts, "gre": gre} for facts, gre in zip(dialogue.turns, points, strict=True)]
    return ServedDialogue(turns=turns, milestones=dialogue.milestones, ordered=dialogue.ordered)
