"""DataModules: imported as ``lit_rl.datamodules``, for online rollouts and for demonstrations."""

from lit_rl.datamodules.annotated_questions import (
    AnnotatedQuestions,
    QuestionSource,
    StoredQuestions,
    SyntheticQuestions,
)
from lit_rl.datamodules.collected import CollectedDialogues, QPriming
from lit_rl.datamodules.completions import CompletionDataModule
from lit_rl.datamodules.demonstrations import (
    DemonstrationDataModule,
    DemonstrationSource,
    RecordedDialogues,
    RightAnswers,
    StoredDialogues,
)
from lit_rl.datamodules.didactic import Dialogue, DidacticDataModule
from lit_rl.datamodules.masked_answers import MaskedAnswers
from lit_rl.datamodules.preferences import PreferenceDataModule, PreferenceSource, StoredPreferences
from lit_rl.datamodules.reference_answers import ReferenceAnswers
from lit_rl.datamodules.service import ServiceDataModule
from lit_rl.datamodules.service_demonstrations import ServiceDemonstrationDataModule
from lit_rl.datamodules.service_dialogues import AnnotatedDialogues, ScriptedDialogues, ServiceForm
from lit_rl.datamodules.sharded import ShardedDataModule
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.datamodules.trace_demonstrations import TraceDemonstrations
from lit_rl.datamodules.trajectory_preferences import TrajectoryPreferenceDataModule
from lit_rl.datamodules.worlds import WorldDataModule

__all__ = [
    "AnnotatedDialogues",
    "AnnotatedQuestions",
    "CollectedDialogues",
    "CompletionDataModule",
    "DemonstrationDataModule",
    "DemonstrationSource",
    "Dialogue",
    "DidacticDataModule",
    "MaskedAnswers",
    "PreferenceDataModule",
    "PreferenceSource",
    "QPriming",
    "QuestionSource",
    "RecordedDialogues",
    "ReferenceAnswers",
    "RightAnswers",
    "RolloutStream",
    "ScriptedDialogues",
    "ServiceDataModule",
    "ServiceDemonstrationDataModule",
    "ServiceForm",
    "ShardedDataModule",
    "StoredDialogues",
    "StoredPreferences",
    "StoredQuestions",
    "SyntheticQuestions",
    "TraceDemonstrations",
    "TrajectoryPreferenceDataModule",
    "WorldDataModule",
]
