"""From finished episodes to the batch that is learned from or validated on."""

import time
import warnings
from collections.abc import Sequence
from typing import Any

from lit_rl.episodes import Rollouts
from lit_rl.policy import Policy
from lit_rl.rollout import Played
from lit_rl.sampling import SamplingSettings


def attached_module(trainer: Any) -> Any:
    """The module a DataModule plays with; raises RuntimeError unless its ``policy`` is loaded."""
    module = getattr(trainer, "lightning_module", None)
    if module is None or getattr(module, "policy", None) is None:
        raise RuntimeError("Rollouts need a policy: attach a module with a loaded `policy` before collecting.")
    return module


def played_rollouts(
    played: Played,
    module: Any,
    settings: SamplingSettings,
    *,
    trained: Sequence[str],
    parties: Sequence[str],
    label: str,
    turns: int,
) -> Rollouts:
    """Rows of what was played, on the policy's device, with what sampling cost among the figures.

    Args:
        played: What `lit_rl.rollout.play` returned; warns of dialogues it gave up.
        module: With ``policy`` and ``policy_version``.
        settings: The trained parties' sampling.
        trained: Whose tokens are learned.
        parties: All who speak, in the order of their numbers.
        label: "train" or the name of a condition.
        turns: Exchanges every row has columns for.

    Raises:
        RuntimeError: Every dialogue was given up.
    """
    _tell_of_dropped(played)
    start, policy = time.perf_counter(), module.policy
    assert isinstance(policy, Policy)
    rollouts = Rollouts.from_episodes(
        played.episodes,
        trained=trained,
        parties=parties,
        pad_id=policy.tokenizer.pad_token_id or 0,
        policy_version=module.policy_version,
        label=label,
        temperature=settings.temperature,
        min_exchanges=turns,
        constraint_offsets=policy.constraints.offsets if policy.constraints else None,
    ).to(policy.device)
    seconds = played.seconds + time.perf_counter() - start
    sampled = sum(len(turn.completion_ids) for episode in played.episodes for turn in episode.turns)
    rollouts.figures |= {
        f"{label}/dropped_episodes": float(len(played.dropped)),
        "time/sampling_seconds": seconds,
        "time/sampling_tokens_per_second": sampled / seconds,
    }
    return rollouts


def _tell_of_dropped(played: Played) -> None:
    if not played.dropped:
        return
    sentence = f"{len(played.dropped)} dialogues of this batch were dropped; the first: {played.dropped[0]}"
    if not played.episodes:
        raise RuntimeError(f"All {sentence}")
    warnings.warn(sentence, stacklevel=3)
