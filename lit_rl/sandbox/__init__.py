"""Running code that a model wrote."""

from lit_rl.sandbox.bubblewrap import Bubblewrap
from lit_rl.sandbox.unsandboxed import Unsandboxed

__all__ = ["Bubblewrap", "Unsandboxed"]
