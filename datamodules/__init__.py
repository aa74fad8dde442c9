"""DataModules: imported as ``lit_rl.datamodules``, for online rollouts and for demonstrations."""

from lit_rl.datamodules.demonstrations import (
    DemonstrationDataModule,
    DemonstrationSource,
    RightAnswers,
    StoredDialogues,
)
from lit_rl.datamodules.didactic import Dialogue, DidacticDataModule
from lit_rl.datamodules.stream import RolloutStream

__all__ = [
    "DemonstrationDataModule",
    "DemonstrationSource",
    "Dialogue",
    "DidacticDataModule",
    "RightAnswers",
    "RolloutStream",
    "StoredDialogues",
]
