"""Probes: what a policy says once its own reasoning, or its prompt, has been changed."""

from lit_rl.probes.corruptors import Corruptor, ExactCorruptor, Mistake, NegationCorruptor, PromptedCorruptor
from lit_rl.probes.items import ProbeItem, probe_items
from lit_rl.probes.judges import PartyJudge
from lit_rl.probes.replies import Replier, ReplyRequest

__all__ = [
    "Corruptor",
    "ExactCorruptor",
    "Mistake",
    "NegationCorruptor",
    "PartyJudge",
    "ProbeItem",
    "PromptedCorruptor",
    "Replier",
    "ReplyRequest",
    "probe_items",
]
