"""A tiny policy that knows ToyShop's words, and its procedure."""

from collections.abc import Callable

import pytest
import torch

from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.service import LABELS, Procedure, SkillLabels, toy_shop_procedure, toy_shop_words
from lit_rl.tiny import TinyModel


@pytest.fixture(scope="session")
def procedure() -> Procedure:
    return toy_shop_procedure()


@pytest.fixture(scope="session")
def labels() -> SkillLabels:
    return SkillLabels(LABELS)


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., Policy]:
    """Random, with an adapter each for planner and responder; they differ from the base and from each other."""

    def make(**options: object) -> Policy:
        tiny = TinyModel(words=toy_shop_words(), hidden_size=32, layers=2, heads=4, max_length=512)
        adapters = {party: LoRA(rank=4, alpha=8.0) for party in ("planner", "responder")}
        policy = Policy(PolicyConfig(**({"tiny": tiny, "adapters": adapters} | options)))
        generator = torch.Generator().manual_seed(1)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        return policy

    return make
