"""Options of HiPER that depend on each other: adapters, value heads, and which of them a credit callback reads."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from lit_rl.policy import PolicyConfig

AGENT, CRITIC = "agent", "critic"
HEADS = ("low", "high", "switch")
ValueBackbone = Literal["critic", "actor"]


def backbone_of(policy: PolicyConfig, wanted: ValueBackbone | None, stop_gradient: bool) -> ValueBackbone | None:
    """Where the heads sit, None without heads; raises ValueError if adapters, heads and wishes contradict."""
    adapters = policy.adapters
    if adapters is not None and AGENT not in adapters:
        raise ValueError(f"policy.adapters names {sorted(adapters)}; HiPER trains a party {AGENT!r}, name one.")
    if wanted not in (None, *get_args(ValueBackbone)):
        raise ValueError(f"model.value_backbone is {wanted!r}; use one of {list(get_args(ValueBackbone))}, or null.")
    if not policy.value_heads:
        if wanted or stop_gradient or CRITIC in (adapters or {}):
            raise ValueError(
                "There are no policy.value_heads, so leave out model.value_backbone, model.stop_value_gradient and the "
                "adapter 'critic'; or name the heads that the credit callback reads."
            )
        return None
    backbone = wanted or ("actor" if adapters is None else "critic")
    if backbone == "critic" and CRITIC not in (adapters or {}):
        raise ValueError(
            "Value heads on a critic of their own need an adapter 'critic' in policy.adapters; name one, or set "
            "model.value_backbone to 'actor'."
        )
    if backbone == "actor" and CRITIC in (adapters or {}):
        raise ValueError("model.value_backbone is 'actor', so nobody is the adapter 'critic'; leave one of them out.")
    if stop_gradient and backbone != "actor":
        raise ValueError("model.stop_value_gradient goes with value_backbone='actor': a critic has its own weights.")
    return backbone


def check_critic_warmup(steps: int, backbone: ValueBackbone | None, stop_gradient: bool) -> None:
    """Raise ValueError if values cannot learn for so many steps while the actor stays as it is."""
    if steps < 0:
        raise ValueError(f"model.critic_warmup_steps is {steps}; it must be at least 0.")
    if steps and backbone is None:
        raise ValueError("model.critic_warmup_steps trains values, and there are no policy.value_heads; leave it out.")
    if steps and backbone == "actor" and not stop_gradient:
        raise ValueError(
            "model.critic_warmup_steps leaves the actor as it is, whose backbone values would train; set "
            "model.stop_value_gradient too."
        )


def coefs_of(policy: PolicyConfig, given: Mapping[str, float]) -> dict[str, float]:
    """The weight of each head's loss, 1 where none is given; raises ValueError if a head or a weight makes no sense."""
    if unknown := sorted(set(policy.value_heads) - set(HEADS)):
        raise ValueError(f"policy.value_heads has {unknown[0]!r}; HiPER knows {list(HEADS)}.")
    for head, coef in given.items():
        if head not in policy.value_heads or not coef >= 0:
            raise ValueError(
                f"model.value_coefs has {head!r}: {coef}; give numbers of at least 0 for heads in policy.value_heads, "
                f"which are {policy.value_heads}."
            )
    return {head: given.get(head, 1.0) for head in policy.value_heads}


def heads_read_by(callback: Any) -> set[str]:
    """Which values a credit callback asks for: one head, or one for each level of its streams."""
    if hasattr(callback, "head"):
        return {callback.head}
    unread = {"switch"} if getattr(callback, "switch", None) == "gain" else set()
    return set(getattr(callback, "streams", ())) - unread
