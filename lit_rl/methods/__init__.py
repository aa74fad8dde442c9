"""One LightningModule per paper, and the base they share."""

from lit_rl.methods.base import Method
from lit_rl.methods.dapo import DAPO
from lit_rl.methods.gopo import GOPO
from lit_rl.methods.gopo_options import PartyTraining
from lit_rl.methods.hiper import HiPER
from lit_rl.methods.intelli_reward import IntelliReward
from lit_rl.methods.masked_answers import MaskedAnswerFineTuning
from lit_rl.methods.offline_gopo import OfflineGOPO
from lit_rl.methods.offline_qempo import OfflineQEMPO
from lit_rl.methods.offline_sml import OfflineSocialMetaLearning
from lit_rl.methods.qempo import QEMPO
from lit_rl.methods.remul import REMUL
from lit_rl.methods.rl2f import RL2F
from lit_rl.methods.sml import SocialMetaLearning
from lit_rl.methods.steps import NonFiniteLoss, StaleRollouts
from lit_rl.methods.supervised import SupervisedFineTuning

__all__ = [
    "DAPO",
    "GOPO",
    "QEMPO",
    "REMUL",
    "RL2F",
    "HiPER",
    "IntelliReward",
    "MaskedAnswerFineTuning",
    "Method",
    "NonFiniteLoss",
    "OfflineGOPO",
    "OfflineQEMPO",
    "OfflineSocialMetaLearning",
    "PartyTraining",
    "SocialMetaLearning",
    "StaleRollouts",
    "SupervisedFineTuning",
]
