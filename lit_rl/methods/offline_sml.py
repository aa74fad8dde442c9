"""Offline social meta-learning: finetuning on the student's own solved dialogues (arXiv 2602.16488, section 4.3)."""

from typing import Any

from lit_rl.methods.supervised import SupervisedFineTuning
from lit_rl.objectives import AggregationMode
from lit_rl.policy import PolicyConfig


class OfflineSocialMetaLearning(SupervisedFineTuning):
    """Cross-entropy on the student's turns of solved dialogues, validated by playing dialogues.

    As published: finetuning on the student's turns of successful dialogues, one pass.  Our reading: the mean over the
    tokens of a dialogue, then over dialogues.

    Args:
        policy: The student.
        aggregation: How token losses become one number.
        kwargs: Of `Method`.
    """

    def __init__(self, policy: PolicyConfig, *, aggregation: AggregationMode = "seq_mean_token_mean", **kwargs: Any):
        super().__init__(policy, aggregation=aggregation, **kwargs)
