"""One logged dialogue as the page shows it: who said what, each sampled token with its log-prob and advantage."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_rl.reporting.episode_log import LoggedEpisode, LoggedTurn

MAX_CHARACTERS = 24_000  # of one dialogue, heard and said

_SPECIAL = re.compile(r"\s*<[^<>]*>\s*")

Values = list[float | None]  # one per token; None where there is none, or none that is finite


@dataclass(frozen=True, slots=True)
class ShownCredit:
    """What credit on two time scales gave a turn; None where that level decided nothing."""

    begins: bool  # a segment
    subgoal: str  # in force from this turn on
    switch: float | None
    high: float | None
    low: float | None


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """One turn; the lists run over ``tokens``, a single number stands for all of them."""

    party: str
    text: str  # "" where there are tokens
    heard: str  # what no turn before it shows: the problem, a fixed message
    opening: str  # its prefill: words not sampled, before the tokens
    tokens: list[str] | None
    log_probs: Values  # empty where not known
    advantages: Values | float | None
    reward: float | None
    verdict: str  # "right", "wrong" or ""
    remark: str  # the answer if it does not meet the eye, or what it was instead of one
    cut: int | None  # characters left out, if any
    credit: ShownCredit | None = None


@dataclass(frozen=True, slots=True)
class ShownDialogue:
    """One dialogue."""

    task: str
    outcome: str
    solved: bool | None  # None if its turns do not say
    reward: float | None
    turns: list[ShownTurn]


def shown_dialogue(episode: LoggedEpisode) -> ShownDialogue:
    """A logged episode with its text as the page shows it."""
    assert episode.turns is not None
    known, credits = TokenValues(episode), _credits(episode)
    allowance = MAX_CHARACTERS
    turns: list[ShownTurn] = []
    taken = [turn for turn in episode.turns if turn.stop_reason != "epilogue"]
    for number, turn in enumerate(taken):
        heard = "" if number and _shows(taken[number - 1], turn) else turn.heard or ""
        shown = _turn(turn, heard, known, credits.get((turn.party, turn.exchange)), allowance)
        allowance -= len(shown.text) + len(shown.heard) + len("".join(shown.tokens or ()))
        turns.append(shown)
    solved_at = next((turn.exchange for turn in taken if turn.info.get("correct")), None)
    judged = any("correct" in turn.info for turn in taken)
    rewards = episode.rewards[0] if len(episode.rewards) else np.zeros(0)
    return ShownDialogue(
        task=episode.task_id or "",
        outcome=outcome(episode.stop_reason or "", solved_at, 1 + max((t.exchange for t in taken), default=0)),
        solved=solved_at is not None if judged else None,
        reward=_finite(rewards.sum()),
        turns=turns,
    )


def outcome(stop_reason: str, solved_at: int | None, exchanges: int) -> str:
    """How a dialogue ended, in words."""
    if solved_at is not None:
        return f"solved in turn {solved_at + 1}"
    if stop_reason == "max_turns":
        return f"not solved in {exchanges} turn{'s' if exchanges != 1 else ''}"
    return stop_reason.replace("_", " ") or "ended"


def _shows(before: LoggedTurn, turn: LoggedTurn) -> bool:
    """Whether the turn before is what this turn heard."""
    return before.party != turn.party and before.info.get("heard", True) is not False


class TokenValues:
    """Log-probs and advantages of an episode's sampled tokens, handed out turn by turn."""

    def __init__(self, episode: LoggedEpisode):
        self._parties = {name: number for number, name in enumerate(episode.parties)}
        self._tokens: dict[tuple[int, int], list[tuple[float | None, float | None]]] = {}
        for row in episode.rows:
            self._add(row)

    def _add(self, row: Any) -> None:
        learned, advantages = row["loss_mask"], row.get("advantages")
        if not learned.any():
            return
        owner = int(row["party_ids"][learned][0])
        for place in np.flatnonzero(row["party_ids"] == owner).tolist():
            numbers: tuple[float | None, float | None] = (None, None)  # sampled, but credit took it from the loss
            if learned[place]:
                advantage = None if advantages is None else _finite(advantages[place])
                numbers = _finite(row["old_log_probs"][place]), advantage
            self._tokens.setdefault((owner, int(row["turn_ids"][place])), []).append(numbers)

    def take(self, turn: LoggedTurn) -> tuple[Values, Values] | None:
        """Log-probs and advantages of the turn's tokens; None if the rows do not have just these tokens."""
        tokens = self._tokens.get((self._parties.get(turn.party, -1), turn.exchange), [])
        count = len(turn.tokens or ())
        mine, tokens[:count] = tokens[:count], []
        if not count or len(mine) != count:
            return None
        log_probs, advantages = map(list, zip(*mine, strict=True))
        return log_probs, advantages


def _turn(turn: LoggedTurn, heard: str, known: TokenValues, credit: ShownCredit | None, allowance: int) -> ShownTurn:
    tokens, text = turn.tokens, "" if turn.tokens else turn.text.strip()
    opening = opening_of(turn)
    heard = heard.strip().removesuffix(opening).strip()
    whole = len(heard) + len(text) + len("".join(tokens or ()))
    heard = heard[: max(allowance, 0)]
    text = text[: max(allowance - len(heard), 0)]
    kept = _fitting(tokens or (), allowance - len(heard))
    log_probs, advantages = known.take(turn) or ([], [])
    return ShownTurn(
        party=turn.party,
        text=text,
        heard=heard,
        opening=opening,
        tokens=list(tokens[:kept]) if tokens else None,
        log_probs=log_probs[:kept],
        advantages=advantages[0] if len(set(advantages)) == 1 else advantages[:kept],
        credit=credit,
        reward=_finite(turn.reward),
        verdict="" if "correct" not in turn.info else "right" if turn.info["correct"] else "wrong",
        remark=_remark(turn),
        cut=whole - len(heard) - len(text) - len("".join((tokens or ())[:kept])) or None,
    )


def _credits(episode: LoggedEpisode) -> dict[tuple[str, int], ShownCredit]:
    """By party and exchange, where every turn is a row and a callback gave credit on two levels."""
    subgoals = {(turn.party, turn.exchange): turn.info.get("subgoal") for turn in episode.turns or ()}
    found = {}
    for row, extras in zip(episode.rows, episode.row_extras, strict=False):
        learned = row["loss_mask"]
        if "boundary" not in extras or "advantage_low" not in extras or not learned.any():
            continue
        key = episode.parties[int(row["party_ids"][learned][-1])], int(row["turn_ids"][learned][-1])
        begins = bool(extras["boundary"])
        found[key] = ShownCredit(
            begins=begins,
            subgoal=str(subgoals.get(key) or "")[:80],
            switch=_finite(extras["advantage_switch"]) if "advantage_switch" in extras else None,
            high=_finite(extras["advantage_high"]) if begins and "advantage_high" in extras else None,
            low=_finite(extras["advantage_low"]),
        )
    return found


def opening_of(turn: LoggedTurn) -> str:
    """What the text of a turn has before its sampled tokens, special ones at their end aside; "" if it has not that."""
    text, tokens = turn.text.rstrip(), list(turn.tokens or ())
    while tokens:
        said = "".join(tokens).strip()
        if text.endswith(said):
            return text[: len(text) - len(said)].strip()
        if not _SPECIAL.fullmatch(tokens.pop()):
            return ""
    return text if turn.tokens else ""


def _fitting(tokens: Sequence[str], allowance: int) -> int:
    """How many of the tokens fit into ``allowance`` characters."""
    ends = np.cumsum([len(token) for token in tokens])
    return int(np.searchsorted(ends, allowance, side="right")) if tokens else 0


def _remark(turn: LoggedTurn) -> str:
    kind, answer = turn.info.get("kind"), turn.info.get("answer")
    said = "" if answer is None else str(answer)[:80]
    if turn.stop_reason == "length" and len(turn.tokens or ()) > 1:  # a limit of one token is the form of a task
        return (f"{said}, " if said else "") + "cut off at its limit of tokens"
    if said and len(turn.text) < 40 and turn.text.rstrip().endswith(said):
        return ""  # one sees it
    return said or ("" if kind in (None, "answer") else str(kind)[:80])


def _finite(value: Any) -> float | None:
    """A number that JSON has, in three decimals."""
    number = float(value)
    return round(number, 3) if math.isfinite(number) else None
