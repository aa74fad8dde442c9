"""What an agent reads before each of its turns in a world (HiPER, arXiv 2602.16165); all wording is ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

PromptStyle = Literal["full", "short"]

_ROLE = "You are an expert agent who acts in a world that is told in text."
_SUBGOAL = (
    "You work towards subgoals. A subgoal is a short-term objective that a few actions can reach: not the whole task, "
    "and not a single primitive action. Reconsider your subgoal in every turn."
)
_PLAN_RULES = """Reply with exactly these three blocks and nothing else:
<switch>KEEP or SWITCH</switch>
<subgoal>your subgoal</subgoal>
<action>your action</action>
KEEP means that you go on with the current subgoal: copy it exactly. SWITCH means that you write a new one."""
_ACT_RULES = "Reply with your action in tags and nothing else: <action>your action</action>"
_COPY = "The action must be copied word for word from the list of admissible actions."


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldView:
    """What a prompt is made of."""

    task: str
    observation: str
    admissible: Sequence[str] = ()
    history: Sequence[tuple[str, str]] = ()  # what was seen and what was done, from the first turn on
    subgoal: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldPrompts:
    """How a prompt is written; each turn has one of its own, which does not grow with the episode.

    Args:
        style: "full" says what an instruction-tuned model has to know; "short" is some words for a tiny model, who
            has to know "taken" and as many numbers as there are turns.
        history_length: Pairs of observation and action that are shown, the last ones; subgoals are not among them.
        list_actions: Show the admissible actions.
        max_chars: A prompt that would be longer is written without history; None for no limit.

    Raises:
        ValueError: An unknown style, or a number out of range.
    """

    style: PromptStyle = "full"
    history_length: int = 2
    list_actions: bool = True
    max_chars: int | None = 13000

    def __post_init__(self) -> None:
        if self.style not in get_args(PromptStyle):
            raise ValueError(f"WorldPrompts.style is {self.style!r}; use one of {list(get_args(PromptStyle))}.")
        if self.history_length < 0:
            raise ValueError(f"WorldPrompts.history_length is {self.history_length}; it must be 0 or more.")
        if self.max_chars is not None and self.max_chars < 1:
            raise ValueError(f"WorldPrompts.max_chars is {self.max_chars}; it must be at least 1, or None.")

    def render(self, view: WorldView, *, plan: bool) -> str:
        """The prompt; with ``plan`` it shows the current subgoal, ``None`` before there is one, and asks for one."""
        write = _full if self.style == "full" else _short
        shown = view.history[len(view.history) - min(self.history_length, len(view.history)) :]
        text = write(view, shown, self.list_actions, plan)
        if self.max_chars is not None and len(text) > self.max_chars:
            text = write(view, (), self.list_actions, plan)
        return text


def _full(view: WorldView, shown: Sequence[tuple[str, str]], list_actions: bool, plan: bool) -> str:
    parts = [f"{_ROLE}\nYour task: {view.task}" if view.task else _ROLE]
    if plan:
        parts.append(_SUBGOAL)
    if view.history:
        parts.append(_past(len(view.history), shown))
    parts.append(f"You now see: {view.observation}")
    if plan:
        parts.append(f"Your current subgoal: {view.subgoal}")
    if list_actions and view.admissible:
        parts.append("Admissible actions:\n" + "\n".join(f"- {action}" for action in view.admissible))
    rules = _PLAN_RULES if plan else _ACT_RULES
    parts.append(f"{rules}\n{_COPY}" if list_actions and view.admissible else rules)
    return "\n\n".join(parts)


def _past(taken: int, shown: Sequence[tuple[str, str]]) -> str:
    lines = [f"You have taken {taken} steps." if taken > 1 else "You have taken 1 step."]
    if shown:
        lines.append("The last ones, with what you saw before each:")
        first = taken - len(shown) + 1
        lines += [f"{first + i}. saw: {seen}\n   did: {done}" for i, (seen, done) in enumerate(shown)]
    return "\n".join(lines)


def _short(view: WorldView, shown: Sequence[tuple[str, str]], list_actions: bool, plan: bool) -> str:
    parts = [f"task {view.task}"] if view.task else []
    # As in the full style: where time is limited, what a state is worth depends on how much of it is left.
    parts += [f"taken {len(view.history)}"] if view.history else []
    parts += [f"saw {seen} did {done}" for seen, done in shown]
    parts.append(f"now {view.observation}")
    if list_actions and view.admissible:
        parts.append("can " + " , ".join(view.admissible))
    if plan:
        parts.append(f"subgoal {view.subgoal}")
    return " ".join(parts)
