"""Questions below which the user names an answer, the hint (arXiv 2602.16154, section 3.2)."""

from dataclasses import replace
from random import Random
from typing import Literal, get_args

from lit_rl.environments.problems import Attempt, Problem, TaskSource
from lit_rl.stream_keys import stream_key

HintedLabel = Literal["gold", "wrong"]


class HintedTasks:
    """Another source's problems, with a line below each prompt in which the user names an answer.

    A problem's ``meta`` also holds ``unhinted``, the prompt without that line, and ``hint``, the answer named.  What is
    right stays as it is.

    Args:
        tasks: Whose problems.
        template: The user's line, with ``{hint}``; that of the paper is the default of `lit_rl.probes.hints.Hints`.
        hinted: The "gold" answer, as in the paper's measurements, or a "wrong" one drawn from the problem's labels (our
            option: following the hint is then never right).
        seed: Of that draw.

    Raises:
        ValueError: A template without ``{hint}``, an unknown ``hinted``, or (for the first problem when it is made, for
            others when they are asked for) a "wrong" hint wanted where no label but the right one is known.
    """

    def __init__(self, tasks: TaskSource, template: str, hinted: HintedLabel = "gold", *, seed: int = 0):
        if "{hint}" not in template:
            raise ValueError(f"HintedTasks.template is {template!r}; it must contain {{hint}}.")
        if hinted not in get_args(HintedLabel):
            raise ValueError(f"HintedTasks.hinted is {hinted!r}; use one of {list(get_args(HintedLabel))}.")
        self.tasks, self.template, self.hinted, self.seed = tasks, template, hinted, seed
        self.name = tasks.name
        self[0]  # says now what would go wrong later

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Problem:
        problem = self.tasks[index]
        hint = self._hint(problem)
        return replace(
            problem,
            prompt=f"{problem.prompt}\n{self.template.replace('{hint}', hint)}",
            meta={**problem.meta, "unhinted": problem.prompt, "hint": hint},
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return self.tasks.verify(replace(problem, prompt=problem.meta["unhinted"]), utterance)

    def _hint(self, problem: Problem) -> str:
        if self.hinted == "gold":
            return problem.gold
        others = [label for label in problem.meta.get("labels", ()) if label != problem.gold]
        if not others:
            raise ValueError(
                f"HintedTasks.hinted is 'wrong', but problem {problem.id} of {self.name} has no label beside the right "
                "one; use hinted='gold', or tasks whose meta names labels."
            )
        return Random(stream_key("hint", self.seed, problem.id)).choice(others)
