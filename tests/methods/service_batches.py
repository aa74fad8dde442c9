"""Small service dialogues for tests: ToyShop played by a tiny policy with two adapters, and batches made by hand."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch

from lit_rl.datamodules.service import ServiceDataModule
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.episodes import Rollouts
from lit_rl.methods.gopo import GOPO
from lit_rl.metrics.service import ServiceScoring
from lit_rl.policy import LoRA, PolicyConfig
from lit_rl.sampling import SamplingSettings
from lit_rl.service import LABELS, ServicePrompts, ServiceScenarios, toy_shop_procedure, toy_shop_words
from lit_rl.tiny import TinyModel
from tests.methods.worlds import loaded, trainer

TINY = TinyModel(words=toy_shop_words(), hidden_size=16, layers=1, heads=2, max_length=512, initializer_range=0.1)
BOTH = ("planner", "responder")


def policy_config(*parties: str, **options: Any) -> PolicyConfig:
    adapters = {party: LoRA(rank=2, alpha=4.0) for party in parties or BOTH}
    return PolicyConfig(**{"tiny": TINY, "adapters": adapters} | options)


def gopo(*parties: str, policy: Any = None, **options: Any) -> GOPO:
    """Without KL, and steps large enough to be seen."""
    return GOPO(policy or policy_config(*parties), **{"kl_coef": 0.0, "learning_rate": 1e-2} | options)


def shop(**options: Any) -> ServiceDataModule:
    known: dict[str, Any] = {
        "labels": LABELS,
        "prompts": ServicePrompts(style="short"),
        "num_validation_tasks": 4,
        "tasks_per_batch": 2,
        "group_size": 3,
        "batches_per_epoch": 2,
        "student": SamplingSettings(max_tokens=12),
        "seed": 0,
    }
    return ServiceDataModule(ServiceScenarios(24), **known | options)


def attached(data: ServiceDataModule, method: Any) -> ServiceDataModule:
    """A DataModule that plays with the method's policy without a Trainer."""
    data.trainer = SimpleNamespace(lightning_module=loaded(method))
    return data


def collected(method: Any, **options: Any) -> Rollouts:
    """The first batch of a run."""
    return attached(shop(**options), method)._collect_training(0)


class Given(L.LightningDataModule):
    """Hands out these batches, stamped as just sampled."""

    def __init__(self, method: GOPO, batches: Sequence[Rollouts]):
        super().__init__()
        self.method, self.batches = method, batches
        self.skills, self.scoring = toy_shop_procedure().skills, ServiceScoring()

    def train_dataloader(self) -> RolloutStream:
        return RolloutStream(self._stamped, len(self.batches))

    def _stamped(self, number: int) -> Rollouts:
        batch = self.batches[number].select(torch.arange(len(self.batches[number])))
        batch.policy_version = self.method.policy_version
        return batch


def learn(method: GOPO, *batches: Rollouts, **options: Any) -> dict[str, float]:
    """Fit on given batches; what is logged."""
    running, policy = trainer(**options), loaded(method).policy
    assert policy is not None
    if policy.constraints is None:
        shop().constrain(policy)
    running.fit(method, datamodule=Given(method, batches))
    return {name: float(value) for name, value in running.callback_metrics.items()}
