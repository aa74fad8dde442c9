"""What service dialogues are rated by, and what learning from them needs beside the rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lit_rl.environments.base import Outcome, Reply
from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.metrics.reply_quality import RatedReply, ReplyRater, gre
from lit_rl.metrics.service import ServiceScoring
from lit_rl.service.dialogue import RESPONDER, ServiceDialogue
from lit_rl.service.facts import scenario_facts, service_facts
from lit_rl.service.rated import rated

Pay = Literal["tse", "tse_compliant", "engagement"]


class RecordedDialogue:
    """A `ServiceDialogue` whose closing turns also say what an expert would have said there: ``info["reference"]``.

    It is left out where the world knows no right reply.  In the flat mode it begins with the label.
    """

    def __init__(self, dialogue: ServiceDialogue):
        self.dialogue = dialogue
        self._references: Mapping[str, str] = {}

    def begin(self) -> Outcome:
        return self.dialogue.begin()

    def act(self, reply: Reply) -> Outcome:
        outcome = self.dialogue.act(reply)
        skill = str(outcome.info.get("skill"))
        if "engagement" in outcome.info and skill in self._references:
            text = self._references[skill]
            if self.dialogue.mode == "flat":
                text = f"{self.dialogue.labels[skill]} {text}"
            outcome = replace(outcome, info={**outcome.info, "reference": text})
        if outcome.ask is not None and outcome.ask.party == RESPONDER:
            self._references = outcome.ask.context.references
        return outcome


def rate_replies(episodes: Sequence[Episode], dialogues: Mapping[int, ServiceDialogue], rater: ReplyRater) -> None:
    """Write ``gre`` into the ``info`` of every closing turn with a skill: its quality in [0, 1], or None if unrated.

    Args:
        episodes: Played; their turns are replaced.
        dialogues: What was played, by the episode's index.
        rater: Who gives points.
    """
    places: list[tuple[Episode, int]] = []
    replies: list[RatedReply] = []
    for episode in episodes:
        dialogue, goal = dialogues[episode.index], scenario_facts(episode).scenario["goal"]
        for number, turn in enumerate(episode.turns):
            if "engagement" in turn.info and turn.info["skill"] is not None:
                places.append((episode, number))
                replies.append(_rated_reply(turn, episode.turns[:number], dialogue, goal))
    for (episode, number), scores in zip(places, rater.rate(replies), strict=True):
        turn = episode.turns[number]
        info = {**turn.info, "gre": None if scores is None else gre(scores)}
        episode.turns[number] = replace(turn, info=info)


def _rated_reply(turn: Turn, before: Sequence[Turn], dialogue: ServiceDialogue, goal: Mapping[str, Any]) -> RatedReply:
    skill = turn.info["skill"]
    rule = dialogue.procedure.replies[skill]
    text = dialogue.labels.read_first(turn.text)[1] if dialogue.mode == "flat" else turn.text
    heard = [spoken.text for spoken in before if "chain" not in spoken.info or "engagement" in spoken.info]
    reference = turn.info.get("reference", "")
    return RatedReply(
        text=text,
        history=tuple(heard),
        skill=skill,
        facts=tuple(value for value in _leaves(goal) if _names(reference, value)),
        required=rule.required,
        forbidden=rule.forbidden,
        max_words=rule.max_len,
    )


def service_parts(rollouts: Rollouts, scoring: ServiceScoring) -> None:
    """Write ``reward_parts`` and ``extras["dialogue_parts"]``, see `lit_rl.datamodules.service.ServiceDataModule`."""
    turns, places = rollouts.rewards.shape[1], {e.index: i for i, e in enumerate(rollouts.episodes)}
    parts = {name: torch.full((len(places), turns), empty) for name, empty in _EMPTY.items()}
    whole = torch.full((len(places), 3), torch.nan)
    for place, episode in enumerate(rollouts.episodes):
        dialogue = rated(episode)
        figures = scoring.figures(dialogue)
        whole[place] = torch.tensor([_or_nan(x) for x in (figures.tse, figures.esndcg, figures.gre)])
        for facts, esndcg, points in zip(
            service_facts(episode), scoring.turn_esndcg(dialogue), dialogue.turns, strict=True
        ):
            found = {
                "engagement": facts.engagement,
                "esndcg": _or_nan(esndcg),
                "gre": _or_nan(points["gre"]),
                "violations": float(len(facts.broken_rules)),
                "followed": float(facts.ok),
            }
            for name, value in found.items():
                parts[name][place, facts.turn - 1] = value
        if figures.turns:
            parts["tse"][place, figures.turns - 1] = figures.tse
            parts["tse_compliant"][place, figures.turns - 1] = figures.tse_compliant
    rows = [places[index] for index in rollouts.episode_ids.tolist()]
    device = rollouts.input_ids.device
    rollouts.reward_parts |= {name: table[rows].to(device) for name, table in parts.items()}
    rollouts.extras["dialogue_parts"] = whole[rows].to(device)


# Reward part -> what stands where no turn was closed.
_EMPTY = {
    "engagement": torch.nan,
    "esndcg": torch.nan,
    "gre": torch.nan,
    "violations": 0.0,
    "followed": 0.0,
    "tse": 0.0,
    "tse_compliant": 0.0,
}


def pay(rollouts: Rollouts, what: Pay) -> None:
    """Let ``rewards`` be one of the ``reward_parts``."""
    rollouts.rewards = rollouts.reward_parts[what].nan_to_num(0.0)


def check_pay(what: str) -> None:
    """Raise ValueError unless dialogues can be paid so."""
    if what not in get_args(Pay):
        raise ValueError(f"data.pay is {what!r}; it must be one of {list(get_args(Pay))}.")


def skill_segments(rollouts: Rollouts) -> dict[str, Tensor]:
    """Extras of rows of single turns for `lit_rl.callbacks.HierarchicalCredit`: a segment is a skill kept on with.

    ``boundary``, bool ``(B,)``: the turn's skill is another one than the turn's before; ``value_high`` and
    ``value_low``, float32 ``(B,)``: zeros, for no value is learned.
    """
    exchanges = rollouts.turn_ids.amax(1).tolist()
    skills = {episode.index: [facts.skill for facts in service_facts(episode)] for episode in rollouts.episodes}
    boundary = []
    for index, exchange in zip(rollouts.episode_ids.tolist(), exchanges, strict=True):
        now, before = skills[index][exchange : exchange + 1], skills[index][: exchange + 1][:-1][-1:]
        boundary.append(exchange == 0 or now != before)
    zeros = torch.zeros(len(rollouts), device=rollouts.input_ids.device)
    found = {"boundary": torch.tensor(boundary, device=zeros.device)}
    return found | {"value_high": zeros, "value_low": zeros.clone()}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _leaves(goal: Any) -> list[str]:
    """The values of nested mappings and lists, as text."""
    if isinstance(goal, Mapping):
        return [leaf for value in goal.values() for leaf in _leaves(value)]
    if isinstance(goal, list | tuple):
        return [leaf for value in goal for leaf in _leaves(value)]
    return [] if goal is None or goal == "" else [str(goal)]


def _names(reference: str, value: str) -> bool:
    """Whether the words of ``value`` stand in ``reference``, whole."""
    return f" {value.casefold()} " in f" {' '.join(reference.casefold().split())} "
