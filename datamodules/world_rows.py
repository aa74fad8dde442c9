"""What credit and values need beside the rows of turns in a world: masks of streams, boundaries, read positions."""

from typing import Any

import torch
from torch import Tensor

from lit_rl.episodes import Rollouts, Turn
from lit_rl.policy import Policy
from lit_rl.stream_keys import stream_key
from lit_rl.verification.plan_execute import BLOCKS, parse_plan_execute
from lit_rl.verification.plan_tokens import PlanTokens, plan_tokens, token_places


class TurnReader:
    """Finds the tokens of a reply's blocks.

    Args:
        policy: With tokenizer and chat format.
        party: Who replied.
        train_eos: The end-of-turn token, if it was sampled, is a token of the action (our option; the authors' code
            never trains it).
        include_tags: See `plan_tokens`.
    """

    def __init__(self, policy: Policy, party: str, *, train_eos: bool = True, include_tags: bool = True):
        self.chat, self.tokenizer, self.party = policy.chat, policy.tokenizer, party
        self.train_eos, self.include_tags = train_eos, include_tags
        self._pieces: dict[int, str] = {}

    def read(self, turn: Turn) -> PlanTokens:
        """The blocks of a turn, in numbers of its ``completion_ids``."""
        ids = turn.completion_ids
        ended = bool(ids) and ids[-1] in self.chat.stop_ids
        said = ids[:-1] if ended else ids
        places = token_places(
            [self._piece(token) for token in said],
            turn.text,
            lambda count: self.chat.text(self.party, said[:count]),
            start=len(self.chat.prefill.get(self.party, "").strip()),
        )
        found = plan_tokens(parse_plan_execute(turn.text).spans, places, include_tags=self.include_tags)
        if not (ended and self.train_eos):
            return found
        return PlanTokens({**found.blocks, "action": (*found.blocks["action"], len(said))}, found.low_read)

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self.tokenizer.decode([token], skip_special_tokens=True)
        return self._pieces[token]


def act_extras(rollouts: Rollouts, party: str) -> dict[str, Tensor]:
    """Of turns without a plan, ``(B,)``: ``valid`` bool, ``read_switch`` int64 (the prompt's end), ``state`` int64.

    Equal numbers of ``state`` are equal observations.
    """
    turns = row_turns(rollouts, party)
    found: dict[str, Any] = {
        "valid": [bool(turn.info["valid"]) for turn in turns],
        "read_switch": [len(turn.prompt_ids) - 1 for turn in turns],
        "state": [stream_key("state", str(turn.info["observation"])) for turn in turns],
    }
    return {name: torch.tensor(column, device=rollouts.input_ids.device) for name, column in found.items()}


def plan_extras(rollouts: Rollouts, party: str, reader: TurnReader) -> dict[str, Tensor]:
    """As `act_extras`, and of turns with a plan what `lit_rl.callbacks.HierarchicalCredit` reads.

    ``boundary``, ``kept`` (the turn says KEEP, or nothing that can be read) and ``rewritten`` (it says KEEP and another
    subgoal), bool ``(B,)``; ``switch_mask``, ``subgoal_mask`` and ``action_mask``, bool ``(B, T)``; ``read_high`` and
    ``read_low``, int64 ``(B,)``: the last token that the value may see.
    """
    turns, device = row_turns(rollouts, party), rollouts.input_ids.device
    found: dict[str, Any] = {
        "boundary": [bool(turn.info["boundary"]) for turn in turns],
        "kept": [not turn.info["switch"] for turn in turns],
        "rewritten": [bool(turn.info["keep_mismatch"]) for turn in turns],
    }
    extras = {name: torch.tensor(column, device=device) for name, column in found.items()}
    extras |= act_extras(rollouts, party)
    tokens = [reader.read(turn) for turn in turns]
    extras["read_high"] = extras["read_switch"].clone()
    extras["read_low"] = extras["read_switch"] + torch.tensor([read.low_read for read in tokens], device=device)
    for block in BLOCKS:
        mask = torch.zeros(rollouts.loss_mask.shape, dtype=torch.bool)
        for row, (turn, read) in enumerate(zip(turns, tokens, strict=True)):
            mask[row, [len(turn.prompt_ids) + i for i in read.blocks[block]]] = True
        extras[f"{block}_mask"] = mask.to(device)
    return extras


def row_turns(rollouts: Rollouts, party: str) -> list[Turn]:
    """The turn of each row."""
    turns = [turn for episode in rollouts.episodes for turn in episode.turns_of(party)]
    if len(turns) != len(rollouts):
        raise ValueError(
            f"{len(rollouts)} rows of {len(turns)} turns of {party!r}: every turn in a world has a row of its own, so "
            "every Ask of the environment has to say restart=True."
        )
    return turns
