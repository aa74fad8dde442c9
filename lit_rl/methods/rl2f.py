"""RL with language feedback, and critique prediction for self-correction (arXiv 2602.16066)."""

from typing import Any, Literal

from torch import Tensor

from lit_rl.episodes import Rollouts
from lit_rl.methods.sml import SocialMetaLearning
from lit_rl.policy import PolicyConfig


class RL2F(SocialMetaLearning):
    """`SocialMetaLearning` that also learns to predict its teacher, so that it can correct itself without one.

    As published: multi-turn RL on dialogues with a teacher who has privileged information, reward 1 for the correct
    attempt; the student is also trained to predict the teacher's critiques without that information.  Our reading,
    where the paper is silent: advantages by turn without discount (a late recovery is a success here), critiques as a
    further cross-entropy on the same rollouts with weight 0.1 (as in arXiv 2602.02482), everything else.

    ``critique_coef`` needs `lit_rl.callbacks.TeacherCritiquePrediction` among the trainer's callbacks.  Variants:

    * critiques beside RL: the defaults;
    * RL, then critiques with RL kept at a small weight: a second run from the first one's checkpoint with, say,
      ``policy_coef=0.1`` and ``critique_coef=1``;
    * imitation of whole dialogues that ended solved, then RL: `SupervisedFineTuning` on
      `lit_rl.datamodules.collected.CollectedDialogues` with ``train_feedback=True``, then this.

    Args:
        policy: The student.
        gamma: Discount per turn.
        return_mode: See `SocialMetaLearning`.
        critique_coef: Weight of predicting critiques; 0 is RL alone.
        policy_coef: Weight of the policy's loss.
        kwargs: Of `SocialMetaLearning` and `Method`.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        *,
        gamma: float = 1.0,
        return_mode: Literal["trajectory", "turn"] = "turn",
        critique_coef: float = 0.1,
        policy_coef: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(policy, gamma=gamma, return_mode=return_mode, critique_coef=critique_coef, **kwargs)
        if policy_coef < 0 or not (policy_coef or critique_coef):
            raise ValueError(
                f"model.policy_coef is {policy_coef} and model.critique_coef {critique_coef}; they are weights of "
                "losses, of which one at least must be above 0."
            )
        self.policy_coef = policy_coef

    def token_loss(self, rollouts: Rollouts, log_probs: Tensor) -> Tensor:
        return self.policy_coef * super().token_loss(rollouts, log_probs)
