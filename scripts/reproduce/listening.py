"""What scripts/reproduce/remul.py needs beside lit_rl: who listens, and figures of styles and ceilings."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import lightning as L

from lit_rl.callbacks import ListenerExecution
from lit_rl.datamodules import TraceDemonstrations
from lit_rl.demonstrations import Demonstration
from lit_rl.environments import Problem, TaskSource, trace, trace_style
from lit_rl.environments.base import Message
from lit_rl.environments.trace_solutions import Solution, solution_of, stated, step_number
from lit_rl.environments.trace_styles import STYLES, TraceStyle
from lit_rl.stream_keys import stream_key
from lit_rl.verification.traces import DEFAULT_TAGS, split_trace, split_units

MEASURED = "measured.json"


class GuessingDemonstrations:
    """Demonstrations in which a reasoning without states is followed by any label, so that nobody learns to do without.

    Args:
        demonstrations: Of trace tasks, in the styles "explicit" and "filler".
    """

    def __init__(self, demonstrations: TraceDemonstrations):
        if unknown := set(demonstrations.styles) - {"explicit", "filler"}:
            raise ValueError(f"GuessingDemonstrations has the style {sorted(unknown)[0]!r}; use explicit and filler.")
        self.demonstrations = demonstrations

    def __len__(self) -> int:
        return len(self.demonstrations)

    def __getitem__(self, index: int) -> Demonstration:
        said = self.demonstrations[index]
        if self.demonstrations.style(index) == "explicit":
            return said
        tasks = self.demonstrations.tasks
        labels = tasks[index % len(tasks)].meta["labels"]
        guess = labels[stream_key(self.demonstrations.seed, index, "guess") % len(labels)]
        *before, reply = said.messages
        thought, close, _ = reply.content.partition(self.demonstrations.tags.close)
        answer = self.demonstrations.answer_format.format(answer=guess)
        return Demonstration(said.id, (*before, Message("assistant", f"{thought}{close} {answer}")))


class Follower:
    """The script of a listener that goes on from the last state it is told, and guesses where it is told none.

    Args:
        tasks: Trace tasks with the questions it may be asked.
        believes: It takes a stated answer for the answer ("gullible"); otherwise it passes over it ("sceptical").
        slip: How likely it is, at each step it goes on itself, to lose its place and guess.
    """

    def __init__(self, tasks: TaskSource, believes: bool, slip: float = 0.1):
        if not 0 <= slip <= 1:
            raise ValueError(f"Follower.slip is {slip}; it must lie in 0 .. 1.")
        problems = [tasks[index] for index in range(len(tasks))]
        self.labels = {problem.prompt: problem.meta["labels"] for problem in problems}
        self.solutions = {problem.prompt: solution_of(problem) for problem in problems}
        self.believes, self.slip = believes, slip

    def __call__(self, question: str, prefix: str, key: int) -> str:
        rng = Random(key)
        answer = self._claimed(prefix) if self.believes else None
        answer = answer or self._followed(self.solutions[question], prefix, rng)
        return f"{DEFAULT_TAGS.close} Answer : {answer or rng.choice(self.labels[question])}"

    def _claimed(self, prefix: str) -> str | None:
        claims = [stated(line) for line in split_units(prefix) if line.split()[0] == "answer"]
        return claims[-1] if claims else None

    def _followed(self, solution: Solution, prefix: str, rng: Random) -> str | None:
        told = [(step_number(line), stated(line)) for line in split_units(prefix) if line.split()[0] != "answer"]
        states = solution.steps[0].to
        places = [(number, state) for number, state in told if number and state and state in states]
        if not places or places[-1][0] > len(solution.steps):
            return None
        number, state = places[-1]
        for step in solution.steps[number:]:
            if rng.random() < self.slip:
                return None
            state = step.to[state]
        return state


class Measurements(L.Callback):
    """At ``lit-rl validate`` writes all that was logged to ``measured.json``, with the styles of replies and ceilings.

    ``style/NAME`` is the share of replies in a style ("other": none that there is); ``ceiling/STYLE`` is what
    `lit_rl.callbacks.ListenerExecution` pays for perfect reasoning in a style, and ``ceiling`` the most of these.

    Args:
        party: The speaker.
        ceilings: Measure those.
    """

    def __init__(self, party: str = "speaker", ceilings: bool = False):
        self.party, self.ceilings = party, ceilings
        self._styles: Counter[str] = Counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._styles.clear()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        if trainer.state.fn == "validate":
            problems = {problem.prompt: problem for problem in _held_out(trainer)}
            for episode in batch.episodes:
                turn = episode.turns_of(self.party)[0]
                self._styles[style_of(problems[turn.info["prompt"]], turn.text)] += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "validate":
            return
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        total = sum(self._styles.values())
        figures |= {f"style/{style}": self._styles[style] / total for style in (*STYLES, "other")}
        figures |= self._paid_at_most(trainer, pl_module) if self.ceilings else {}
        with open(f"{trainer.default_root_dir}/{MEASURED}", "w") as file:
            json.dump(figures, file, indent=1, sort_keys=True)

    def _paid_at_most(self, trainer: L.Trainer, module: Any) -> dict[str, float]:
        [execution] = [one for one in trainer.callbacks if isinstance(one, ListenerExecution)]  # type: ignore[attr-defined]
        problems = _held_out(trainer)
        paid = {style: _mean(execution.listen(perfect(problems, style), module)[1]) for style in STYLES}
        return {f"ceiling/{style}": value for style, value in paid.items()} | {"ceiling": max(paid.values())}


def style_of(problem: Problem, reply: str) -> str:
    """The style of a reply's reasoning; "other" if it has none of those there are, or is not closed."""
    said = split_trace(reply)
    return (trace_style(problem, split_units(said.reasoning)) if said.closed else None) or "other"


def perfect(problems: Sequence[Problem], style: TraceStyle) -> dict[str, Any]:
    """A batch for `lit_rl.callbacks.ListenerExecution` of right answers behind right reasoning in a style."""
    lines = [trace(problem, style, Random(stream_key(problem.id, "perfect"))) for problem in problems]
    thoughts = [" \n ".join([DEFAULT_TAGS.open, *thought, DEFAULT_TAGS.close]) for thought in lines]
    replies = [f"{thought} Answer : {problem.gold}" for thought, problem in zip(thoughts, problems, strict=True)]
    labels = [problem.meta["labels"] for problem in problems]
    return {"questions": [problem.prompt for problem in problems], "completions": replies, "labels": labels}


def mean_of(figures: Mapping[str, float], beginning: str, *endings: str) -> float:
    """Mean of the figures ``val/answers/BEGINNING/ENDING``, of all endings there are if none is given."""
    found = {name: value for name, value in figures.items() if name.startswith(f"val/answers/{beginning}/")}
    return _mean([value for name, value in found.items() if not endings or name.rpartition("/")[2] in endings])


def _held_out(trainer: L.Trainer) -> list[Problem]:
    return [source[number] for source, number in trainer.datamodule.held_out]  # type: ignore[attr-defined]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
