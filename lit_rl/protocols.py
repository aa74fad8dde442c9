"""What further parties of a run have to be able to do; any class with these methods fits, ours or not.

Parties that speak in an episode, remote ones among them, are `lit_rl.parties.Party`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:  # verification imports this, and needs no torch
    from torch import Tensor


@runtime_checkable
class RewardModel(Protocol):
    """Judges completions by numbers, one per named dimension."""

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> "dict[str, Tensor]":
        """Rewards by dimension, float32 ``(B,)`` each, in the order of ``prompts``; "reward" is their total."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a judge decided, and the text it gave for it."""

    accepted: bool
    reason: str = ""


@runtime_checkable
class Judge(Protocol):
    """Answers a yes-or-no question about texts; equal ``keys`` must give equal verdicts, so that runs can resume."""

    def judge(self, questions: Sequence[Mapping[str, str]], keys: Sequence[int]) -> list[Verdict]:
        """One verdict per question, in order; a question is named pieces of text (problem, reference, message)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """How a program in a sandbox ended."""

    returncode: int
    stdout: str
    stderr: str
    timed_out: bool = False


@runtime_checkable
class Sandbox(Protocol):
    """Runs code that a model wrote: no network, no file of the host writable, bounded time, memory and output."""

    def run(self, code: str, *, stdin: str = "", seconds: float = 5.0, megabytes: int = 512) -> Execution:
        """Run one Python program to its end or its limits; raises only if no sandbox can be had at all."""
        ...


@runtime_checkable
class AdapterExporter(Protocol):
    """Writes one party of a policy in a form another tool serves (merged weights, GGUF, ...)."""

    def export(self, policy: Any, party: str, folder: Path) -> None:
        """Write ``party`` of a `lit_rl.policy.Policy` into ``folder``, which does not exist yet."""
        ...
