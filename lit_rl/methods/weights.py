"""Which weights a checkpoint holds, and whether one holds all of them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_rl.policy import Policy


def saved_weights(state_dict: Mapping[str, Tensor], policy: Policy) -> dict[str, Tensor]:
    """Of a module with ``policy`` in its attribute of that name: what is trained, and all that lies beside the policy.

    Chosen by name: ``requires_grad`` of the moment would drop whole parties.  Of tied weights one name is kept.
    """
    trained = {f"policy.{name}" for name in policy.trainable_names()}
    return {name: weight for name, weight in state_dict.items() if name in trained or not name.startswith("policy.")}


def check_checkpoint(checkpoint: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless ``checkpoint["state_dict"]`` has exactly the names and shapes of ``wanted``."""
    if "policy_version" not in checkpoint:
        raise ValueError("The checkpoint has no policy_version: no method of lit-rl wrote it. Load it another way.")
    found, remedy = checkpoint["state_dict"], "load it with the policy.* options it was trained with"
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
