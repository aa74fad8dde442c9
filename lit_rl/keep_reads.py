"""What the paper's switch estimator compares with: keeping the subgoal, in turns that took a new one (HiPER)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_rl.episodes import Rollouts, Turn
from lit_rl.policy import Policy
from lit_rl.value_reads import prompt_values
from lit_rl.verification.plan_execute import KEEP, SWITCH, parse_plan_execute, render_plan_execute


def fill_keep_reads(
    rollouts: Rollouts, turns: Sequence[Turn], policy: Policy, *, party: str, value_party: str, token_budget: int
) -> None:
    """Write ``extras["value_keep"]`` and ``extras["switch_prob"]``, float32 ``(B,)``, NaN in first turns.

    The value is ``V_low(s_t, o_{t-1})`` (arXiv 2602.16165; "gain" in hiper.md 4.4).  Of a turn that kept its subgoal it
    is ``value_low``; of one that switched, what the head says of the same prompt, answered by keeping, in the published
    form of a reply.  The probability is that of SWITCH against KEEP, after what the turn says before that word.

    Args:
        rollouts: With ``value_low``; a row a turn.
        turns: Of each row.
        policy: With a value head "low".
        party: Who acts.
        value_party: On whose hidden states the heads sit.
        token_budget: Most padded tokens of one forward.
    """
    before = _subgoals_before(rollouts, turns)
    later = [row for row, subgoal in enumerate(before) if subgoal is not None]
    parts = [_parts(turns[row], before[row] or "", policy, party) for row in later]
    device, nothing = rollouts.input_ids.device, torch.nan
    keep_values, switch_probs = (torch.full((len(rollouts),), nothing, device=device) for _ in range(2))
    if later:
        switch_probs[later] = _switch_probs(policy, parts, party, rollouts.temperature, token_budget)
        keep_values[later] = rollouts.extras["value_low"][later]
        switched = [i for i, row in enumerate(later) if turns[row].info["boundary"]]
        prompts = [parts[i].kept for i in switched]
        if prompts:
            values = prompt_values(policy, prompts, party=value_party, head="low", token_budget=token_budget)
            keep_values[[later[i] for i in switched]] = values
    rollouts.extras |= {"value_keep": keep_values, "switch_prob": switch_probs}


class _Parts(NamedTuple):
    """Token ids of what might have been said."""

    kept: list[int]  # the prompt and a reply that keeps, up to its action
    before: list[int]  # the prompt and all that comes before the first token in which KEEP and SWITCH differ
    keep: int
    switch: int


def _subgoals_before(rollouts: Rollouts, turns: Sequence[Turn]) -> list[str | None]:
    """The subgoal that each turn could have kept; None in an episode's first turn."""
    found: list[str | None] = []
    last: dict[int, str] = {}
    for episode, turn in zip(rollouts.episode_ids.tolist(), turns, strict=True):
        found.append(last.get(episode))
        last[episode] = str(turn.info["subgoal"])
    return found


def _parts(turn: Turn, subgoal: str, policy: Policy, party: str) -> _Parts:
    opening = policy.chat.prefill.get(party, "").strip()
    start, _ = parse_plan_execute(turn.text).spans.get("switch", (len(opening), 0))
    said = turn.text[: max(start, len(opening))]

    def encoded(text: str) -> list[int]:
        ids: list[int] = policy.tokenizer((said + text).removeprefix(opening), add_special_tokens=False)["input_ids"]
        return ids

    keeping = render_plan_execute(False, subgoal, "")
    kept = encoded(keeping[: keeping.index("</subgoal>") + len("</subgoal>")])
    keep, switch = encoded(f"<switch>{KEEP}</switch>"), encoded(f"<switch>{SWITCH}</switch>")
    same = next(i for i, (a, b) in enumerate(zip(keep, switch, strict=False)) if a != b)
    prompt = list(turn.prompt_ids)
    return _Parts(prompt + kept, prompt + keep[:same], keep[same], switch[same])


@torch.no_grad()
def _switch_probs(policy: Policy, parts: Sequence[_Parts], party: str, temperature: float, token_budget: int) -> Tensor:
    """The probability of SWITCH among the two, float32 ``(P,)``."""
    order = sorted(range(len(parts)), key=lambda i: len(parts[i].before))
    logits = torch.zeros(len(parts), device=policy.device)
    with policy.acting_as(party):
        while order:
            chunk = [order.pop()]
            longest = len(parts[chunk[0]].before) + 1
            while order and 2 * (len(chunk) + 1) * longest <= token_budget:
                chunk.append(order.pop())
            rows = [[*parts[i].before, parts[i].switch] for i in chunk]
            rows += [[*parts[i].before, parts[i].keep] for i in chunk]
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=policy.device)
            mask = torch.zeros(ids.shape, dtype=torch.bool, device=policy.device)
            mask[torch.arange(len(rows)), [len(row) - 1 for row in rows]] = True
            log_probs, _ = policy.log_probs(ids, mask, temperature=temperature)
            switch, keep = log_probs.sum(1).split(len(chunk))
            logits[chunk] = switch - keep
    return logits.sigmoid()
