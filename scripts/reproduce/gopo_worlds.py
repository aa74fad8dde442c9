"""How `scripts/reproduce/gopo.py` measures a policy: by dialogues with ToyShop's customers, greedy and sampled."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L

from lit_rl.datamodules.service_dialogues import ServiceForm
from lit_rl.datamodules.service_rows import RecordedDialogue, rate_replies
from lit_rl.episodes import Episode
from lit_rl.metrics.reply_quality import RuleRater
from lit_rl.metrics.service import ServiceSummary
from lit_rl.parties import Party, PolicyParty, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from lit_rl.service import CUSTOMER, LABELS, ServicePrompts, ServiceScenarios, scripted_customer
from lit_rl.service.rated import rated

FILE = "service.json"
SETTINGS = {
    "greedy": SamplingSettings(temperature=0.0, max_tokens=12),
    "sampled": SamplingSettings(temperature=1.0, max_tokens=12),
}
CUSTOMERS = 96  # each of the 12 goals 8 times, in other words
NEW = 12345  # seed of customers whom nobody has met in training


def shop_form(**options: Any) -> ServiceForm:
    """How ToyShop's dialogues are worded for a tiny model; ``options`` are those of `ServiceForm`."""
    return ServiceForm(labels=LABELS, prompts=ServicePrompts(style="short"), **options)


def serve(
    parties: Mapping[str, Party | PolicyParty], policy: Policy, form: ServiceForm, *, count: int, seed: int
) -> list[Episode]:
    """Dialogues with ``count`` customers, whose replies are rated by rules."""
    shop = ServiceScenarios(count, seed=seed)
    worlds = [RecordedDialogue(form.dialogue(shop[index])) for index in range(count)]
    planned = [Planned(environment=w, index=i, task_id=str(i), group=i) for i, w in enumerate(worlds)]
    customer = ScriptedParty(scripted_customer, CUSTOMER)
    episodes = play(planned, {CUSTOMER: customer, **parties}, policy, seed=seed).episodes
    rate_replies(episodes, {index: world.dialogue for index, world in enumerate(worlds)}, RuleRater())
    return episodes


def summary(episodes: Sequence[Episode]) -> dict[str, float]:
    """Figures of `ServiceSummary`."""
    found = ServiceSummary(list(LABELS))
    found.update([rated(episode) for episode in episodes])
    return {name: float(value) for name, value in found.compute().items()}


class ServiceFile(L.Callback):
    """When a training is over writes ``service.json``: what dialogues with new customers come to, by masks.

    Args:
        mode: Of the dialogues.
        masks: The policy serves under each of these, whatever it learned under.
        count: Customers.
    """

    def __init__(self, mode: str = "two_level", masks: Sequence[str] = ("hard",), count: int = CUSTOMERS):
        self.forms = {name: shop_form(mode=mode, masks=name) for name in masks}
        self.count = count

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        policy = pl_module.policy
        assert isinstance(policy, Policy)
        found = {}
        for masks, form in self.forms.items():
            policy.constraints = None  # those it learned under
            form.constrain(policy, ServiceScenarios(1).procedure)
            found[masks] = {name: self._served(policy, form, settings) for name, settings in SETTINGS.items()}
        write(Path(trainer.default_root_dir), found)

    def _served(self, policy: Policy, form: ServiceForm, settings: SamplingSettings) -> dict[str, float]:
        parties = {party: PolicyParty(adapter=party, settings=settings) for party in form.trained}
        return summary(serve(parties, policy, form, count=self.count, seed=NEW))


def write(folder: Path, found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Figures by masks and by how skills and tokens are chosen."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(found))
