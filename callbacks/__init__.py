"""Callbacks: imported as ``lit_rl.callbacks``, each useful alone in any Lightning project."""

from lit_rl.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lit_rl.callbacks.diversity import Diversity
from lit_rl.callbacks.entropy_constraint import EntropyConstraint
from lit_rl.callbacks.episode_log import EpisodeLog
from lit_rl.callbacks.faithfulness import FaithfulnessProbe
from lit_rl.callbacks.flat_credit import FlatCredit
from lit_rl.callbacks.group_credit import GroupCredit
from lit_rl.callbacks.hierarchical_credit import HierarchicalCredit
from lit_rl.callbacks.hint_usage import HintUsageReward
from lit_rl.callbacks.listener_execution import ListenerExecution
from lit_rl.callbacks.metrics_file import MetricsFile
from lit_rl.callbacks.prediction_file import PredictionFile
from lit_rl.callbacks.question_quality import QuestionQuality
from lit_rl.callbacks.run_state import RunState
from lit_rl.callbacks.teacher_critique import TeacherCritiquePrediction
from lit_rl.callbacks.validation_file import ValidationFile

__all__ = [
    "AtomicCheckpointIO",
    "Checkpoints",
    "Diversity",
    "EntropyConstraint",
    "EpisodeLog",
    "FaithfulnessProbe",
    "FlatCredit",
    "GroupCredit",
    "HierarchicalCredit",
    "HintUsageReward",
    "ListenerExecution",
    "MetricsFile",
    "PredictionFile",
    "QuestionQuality",
    "RunState",
    "TeacherCritiquePrediction",
    "ValidationFile",
]
