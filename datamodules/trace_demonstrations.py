"""Demonstrations of reasoning in a mixture of styles, to warm speakers and listeners up."""

import math
from collections.abc import Mapping
from itertools import accumulate
from random import Random

from lit_rl.demonstrations import Demonstration
from lit_rl.environments.base import Message
from lit_rl.environments.problems import TaskSource
from lit_rl.environments.trace_styles import STYLES, TraceStyle, trace
from lit_rl.stream_keys import stream_key
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags


class TraceDemonstrations:
    r"""Problems of trace tasks, each with right reasoning in a style and the right answer behind it.

    The reply is ``<think> \n 1 left = D \n ... \n </think> Answer : B``.  A listener learns from the same: it goes on
    in an opened think block.

    Args:
        tasks: Trace tasks, or a `lit_rl.environments.Mixture` of some.
        styles: Share of each style, up to a common factor; each demonstration's style is drawn from them.
        answer_format: What stands behind the think block, with ``{answer}`` in it.
        instruction: System message before the prompt.
        tags: Of the think block.
        repeats: Demonstrations of each problem.
        seed: Of the styles, and of what a style leaves open.

    Raises:
        ValueError: No style or one that does not exist, a share below zero, or an answer the tasks do not read.
    """

    def __init__(
        self,
        tasks: TaskSource,
        styles: Mapping[TraceStyle, float],
        *,
        answer_format: str = "Answer : {answer}",
        instruction: str | None = None,
        tags: ThinkTags = DEFAULT_TAGS,
        repeats: int = 1,
        seed: int = 0,
    ):
        _check_styles(styles)
        if "{answer}" not in answer_format:
            raise ValueError(f"TraceDemonstrations.answer_format is {answer_format!r}; it must contain {{answer}}.")
        if repeats < 1:
            raise ValueError(f"TraceDemonstrations.repeats is {repeats}; it must be at least 1.")
        self.tasks, self.styles, self.answer_format, self.instruction = tasks, dict(styles), answer_format, instruction
        self.tags, self.repeats, self.seed = tags, repeats, seed
        if not tasks.verify(tasks[0], (reply := self[0].messages[-1].content)).correct:
            raise ValueError(f"TraceDemonstrations: {tasks.name} reads no right answer in {reply!r}; check the tags.")

    def __len__(self) -> int:
        return len(self.tasks) * self.repeats

    def __getitem__(self, index: int) -> Demonstration:
        if not 0 <= index < len(self):
            raise IndexError(index)
        problem = self.tasks[index % len(self.tasks)]
        lines = trace(problem, self.style(index), Random(stream_key(self.seed, index, "trace")))
        thought = " \n ".join([self.tags.open, *lines, self.tags.close])
        reply = f"{thought} {self.answer_format.format(answer=problem.gold)}"
        system = (Message("system", self.instruction),) if self.instruction else ()
        return Demonstration(problem.id, (*system, Message("user", problem.prompt), Message("assistant", reply)))

    def style(self, index: int) -> TraceStyle:
        """The style of a demonstration."""
        place = Random(stream_key(self.seed, index, "style")).random() * sum(self.styles.values())
        ends = zip(self.styles, accumulate(self.styles.values()), strict=True)
        return next(style for style, end in ends if place < end)


def _check_styles(styles: Mapping[TraceStyle, float]) -> None:
    if unknown := [style for style in styles if style not in STYLES]:
        raise ValueError(f"TraceDemonstrations.styles has {unknown[0]!r}; known are {list(STYLES)}.")
    shares = list(styles.values())
    if not all(math.isfinite(share) and share >= 0 for share in shares) or sum(shares) <= 0:
        raise ValueError(f"TraceDemonstrations.styles is {dict(styles)}; give shares of 0 or more, one above 0.")
