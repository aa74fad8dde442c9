"""A tiny policy in ToyShop, and a trainer that only knows it, for tests of service data."""

from types import SimpleNamespace
from typing import Any

from lit_rl.datamodules.service_dialogues import ServiceForm
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.service import LABELS, ServicePrompts, toy_shop_words
from lit_rl.tiny import TinyModel

PARTIES = ("planner", "responder")


def shop_config(*parties: str, **options: Any) -> PolicyConfig:
    """All weights without parties, one adapter each with."""
    tiny = TinyModel(words=toy_shop_words(), hidden_size=32, layers=1, heads=2, max_length=320, initializer_range=0.1)
    adapters = {party: LoRA(rank=4, alpha=8.0) for party in parties} or None
    return PolicyConfig(**{"tiny": tiny, "adapters": adapters} | options)


def form(**options: Any) -> ServiceForm:
    """ToyShop's labels, in few words."""
    return ServiceForm(**{"labels": LABELS, "prompts": ServicePrompts(style="short")} | options)


def attach(data: Any, policy: Policy | None = None, **facts: Any) -> Any:
    """Let a DataModule see a policy as if a Trainer had loaded it."""
    policy = policy or Policy(shop_config(*PARTIES))
    policy.constraints = None  # those of another test
    module = {"policy": policy, "policy_version": 0, "needs_reference": False, "micro_batch_tokens": 4096} | facts
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(**module))
    return data
