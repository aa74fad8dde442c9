"""One LightningModule per paper, and the base they share."""

from lit_rl.methods.base import Method
from lit_rl.methods.sml import SocialMetaLearning
from lit_rl.methods.steps import NonFiniteLoss, StaleRollouts
from lit_rl.methods.supervised import SupervisedFineTuning

__all__ = ["Method", "NonFiniteLoss", "SocialMetaLearning", "StaleRollouts", "SupervisedFineTuning"]
