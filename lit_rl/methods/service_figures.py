"""What is measured of service dialogues, by the condition they were played under."""

from collections.abc import Sequence

import torch

from lit_rl.episodes import Episode
from lit_rl.metrics.bleu import CorpusBLEU
from lit_rl.metrics.service import ServiceScoring, ServiceSummary
from lit_rl.service.rated import rated


class ServiceEvaluation:
    """Means over dialogues, accumulated over batches and ranks: `ServiceSummary`, and BLEU where references are known.

    Args:
        skills: All of the procedure.
        scoring: How dialogues are scored.
        device: Where sums are kept; that of the process group under distributed strategies.
    """

    def __init__(self, skills: Sequence[str], scoring: ServiceScoring, device: torch.device):
        self.skills, self.scoring, self.device = tuple(skills), scoring, device
        self._summaries: dict[str, ServiceSummary] = {}
        self._bleu: dict[str, CorpusBLEU] = {}

    def update(self, condition: str, episodes: Sequence[Episode]) -> None:
        """Add dialogues; ``reference`` in the ``info`` of a turn is what an expert would have said there."""
        if condition not in self._summaries:
            self._summaries[condition] = ServiceSummary(self.skills, self.scoring).to(self.device)
            self._bleu[condition] = CorpusBLEU().to(self.device)
        self._summaries[condition].update([rated(episode) for episode in episodes])
        said = [turn for episode in episodes for turn in episode.turns if turn.info.get("reference") is not None]
        self._bleu[condition].update([turn.text for turn in said], [[turn.info["reference"]] for turn in said])

    def compute(self) -> dict[str, float]:
        """``CONDITION/tse`` and so on, without what is undefined; then start anew.  Every rank has to call it."""
        found: dict[str, float] = {}
        for condition, summary in self._summaries.items():
            figures = {**summary.compute(), "bleu": self._bleu[condition].compute()}
            values = {f"{condition}/{name}": float(value) for name, value in figures.items()}
            found |= {name: value for name, value in values.items() if value == value}
        self._summaries.clear()
        self._bleu.clear()
        return found
