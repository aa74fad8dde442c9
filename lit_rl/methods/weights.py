"""Which weights a checkpoint holds, and whether one holds all of them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_rl.policy import Policy

FROZEN = "policy.frozen_fingerprint"


def saved_weights(state_dict: Mapping[str, Tensor], policy: Policy) -> dict[str, Tensor]:
    """Of a module with ``policy`` in its attribute of that name: what is trained, and all that lies beside the policy.

    Chosen by name: ``requires_grad`` of the moment would drop whole parties.  Of tied weights one name is kept, of a
    frozen adapter its fingerprint.
    """
    kept = {f"policy.{name}" for name in policy.trainable_names()} | {FROZEN}
    return {name: weight for name, weight in state_dict.items() if name in kept or not name.startswith("policy.")}


def check_checkpoint(checkpoint: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless ``checkpoint["state_dict"]`` has exactly the names and shapes of ``wanted``."""
    if "policy_version" not in checkpoint:
        raise ValueError("The checkpoint has no policy_version: no method of lit-rl wrote it. Load it another way.")
    found, remedy = checkpoint["state_dict"], "load it with the policy.* options it was trained with"
    _check_frozen_adapter(found, wanted)
    if missing := sorted(wanted.keys() - found.keys()):
        raise ValueError(f"The checkpoint lacks {len(missing)} trained weights, the first is {missing[0]!r}; {remedy}.")
    if strange := sorted(found.keys() - wanted.keys()):
        raise ValueError(
            f"The checkpoint has {len(strange)} weights that are not trained here, the first is {strange[0]!r}; "
            f"{remedy}."
        )
    for name in sorted(wanted):
        if found[name].shape != wanted[name].shape:
            raise ValueError(
                f"{name!r} has shape {tuple(found[name].shape)} in the checkpoint and {tuple(wanted[name].shape)} "
                f"here; {remedy}."
            )


def _check_frozen_adapter(found: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> None:
    if FROZEN in found and FROZEN not in wanted:
        raise ValueError(
            "What the checkpoint holds was trained on a frozen adapter; set policy.frozen_adapter to its folder."
        )
    if FROZEN in wanted and FROZEN not in found:
        raise ValueError("What the checkpoint holds was trained without policy.frozen_adapter; leave it out.")
    if FROZEN in wanted and found[FROZEN].tolist() != wanted[FROZEN].tolist():
        raise ValueError(
            "What the checkpoint holds was trained on another frozen adapter than policy.frozen_adapter is; give the "
            "folder of that one."
        )
