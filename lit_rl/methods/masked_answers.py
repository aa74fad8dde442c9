"""REMUL, second stage: right answers behind the speaker's own reasoning (arXiv 2602.16154, section 2.4)."""

from typing import Any, Literal

from lit_rl.methods.remul import REMUL
from lit_rl.methods.supervised import SupervisedFineTuning
from lit_rl.policy import PolicyConfig
from lit_rl.weight_files import check_signed

Start = Literal["stage_1", "any"]


class MaskedAnswerFineTuning(SupervisedFineTuning):
    """Cross-entropy on the answers of `lit_rl.datamodules.MaskedAnswers` alone, validated by answering held-out tasks.

    As published: after the first stage and apart from it, the weights it left frozen, an adapter of rank 32 and alpha
    128 on top, learning rate 1e-5.  Where the first stage trained all weights, give its export as ``policy.path``;
    where it trained an adapter, as ``policy.frozen_adapter``.  `lit_rl.merging.merge_adapters` makes one model of both.

    The sum over answer tokens is divided by their number in the whole optimizer step, so that micro-batches change
    nothing; the authors' code divides by that of each micro-batch and averages these (not provided).  Dropout is off:
    the paper's adapter has 0.05.

    Args:
        policy: The speaker as the first stage left it.
        start: "stage_1" refuses weights that no first stage wrote, such as the original ones; "any" takes them.
        learning_rate: Of the default optimizer.
        kwargs: Of `SupervisedFineTuning`.
    """

    trained_parties = ("speaker",)

    def __init__(self, policy: PolicyConfig, *, start: Start = "stage_1", learning_rate: float = 1e-5, **kwargs: Any):
        super().__init__(policy, learning_rate=learning_rate, **kwargs)
        if start not in ("stage_1", "any"):
            raise ValueError(f"model.start is {start!r}; it must be 'stage_1' or 'any'.")
        self.start = start
        if start == "stage_1":
            _check_start(policy)


def _check_start(policy: PolicyConfig) -> None:
    option = "policy.frozen_adapter" if policy.frozen_adapter is not None else "policy.path"
    folder = policy.frozen_adapter or policy.path
    remedy = (
        "Set policy.path (if it trained all weights) or policy.frozen_adapter (if it trained an adapter) to what the "
        "first stage exported in checkpoints/last-policy, or model.start to 'any'."
    )
    if folder is None:
        raise ValueError(f"A tiny model with random weights has been through no first stage. {remedy}")
    try:
        check_signed(folder, method=REMUL.__name__)
    except ValueError as error:
        raise ValueError(f"{option} is not what the first stage left: {error} {remedy}") from error
