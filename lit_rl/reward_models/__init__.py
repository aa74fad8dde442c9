"""Reward models that are trained from labels: a frozen language model and one small head per axis."""

from lit_rl.reward_models.backbone import Backbone, BackboneConfig
from lit_rl.reward_models.batch import QuestionBatch
from lit_rl.reward_models.cache import RepresentationCache
from lit_rl.reward_models.chunk_head import ChunkTransformer, ChunkTransformerHead
from lit_rl.reward_models.heads import HeadConfig, LinearHead, MLPHead
from lit_rl.reward_models.model import MultiObjectiveRewardModel, RewardModelConfig
from lit_rl.reward_models.prompts import RUBRIC, QuestionPrompts, QuestionTooLong
from lit_rl.reward_models.saved import SavedRewardModel, load_reward_model, question_in, save_reward_model
from lit_rl.reward_models.scores import ScoreMode, Scoring, predictions, reward_model_loss

__all__ = [
    "RUBRIC",
    "Backbone",
    "BackboneConfig",
    "ChunkTransformer",
    "ChunkTransformerHead",
    "HeadConfig",
    "LinearHead",
    "MLPHead",
    "MultiObjectiveRewardModel",
    "QuestionBatch",
    "QuestionPrompts",
    "QuestionTooLong",
    "RepresentationCache",
    "RewardModelConfig",
    "SavedRewardModel",
    "ScoreMode",
    "Scoring",
    "load_reward_model",
    "predictions",
    "question_in",
    "reward_model_loss",
    "save_reward_model",
]
