"""What planner, responder and customer read in a service dialogue; all wording is ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lit_rl.environments.base import Message
from lit_rl.service.customers import CUSTOMER_INSTRUCTION
from lit_rl.service.labels import SkillLabels
from lit_rl.service.sop import Procedure
from lit_rl.service.world import CustomerCue

PromptStyle = Literal["full", "short"]

_PLANNER = """You plan what a customer service does next. The skills and their labels:
{skills}
Reply with the labels of the next {chain_length} skills, best first, and nothing else. The first is carried out; then \
you plan anew."""
_RESPONDER = (
    "You are the customer service. Each message shows what the customer said and which skill you carry out now. Reply "
    "in one short sentence. Say what must be said word for word, and never what must not be said."
)
_FLAT = """You are the customer service. The skills, their labels, and what their replies must say:
{rules}
Reply with the label of the skill you choose, and then with one short sentence that carries it out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServicePrompts:
    """How messages are written.

    Args:
        style: "full" says what an instruction-tuned model has to know; "short" is bare words for a tiny model.
        show_state: Whoever plans reads which skills count as done, of those that the procedure watches.

    Raises:
        ValueError: An unknown style.
    """

    style: PromptStyle = "full"
    show_state: bool = True

    def __post_init__(self) -> None:
        if self.style not in get_args(PromptStyle):
            raise ValueError(f"ServicePrompts.style is {self.style!r}; use one of {list(get_args(PromptStyle))}.")

    # -- once, at the beginning --------------------------------------------------------------------------------

    def planner_briefing(self, procedure: Procedure, labels: SkillLabels, chain_length: int) -> tuple[Message, ...]:
        skills = "\n".join(f"{labels[skill]} : {_words(skill)}" for skill in procedure.skills)
        return self._system(_PLANNER.format(skills=skills, chain_length=chain_length))

    def responder_briefing(self) -> tuple[Message, ...]:
        return self._system(_RESPONDER)

    def flat_briefing(self, procedure: Procedure, labels: SkillLabels) -> tuple[Message, ...]:
        rules = "\n".join(
            " ".join(filter(None, [f"{labels[skill]} : {_words(skill)} ;", procedure.replies[skill].in_words()]))
            for skill in procedure.skills
        )
        return self._system(_FLAT.format(rules=rules))

    def customer_briefing(self) -> tuple[Message, ...]:
        return self._system(CUSTOMER_INSTRUCTION)

    # -- every turn --------------------------------------------------------------------------------------------

    def to_planner(self, reply: str, line: str, done: Sequence[str]) -> str:
        """The shop's last reply ("" at first), the customer's words, and labels of the skills done."""
        shown = " ".join(done) if self.show_state else ""
        return self._joined({"Shop": reply, "Customer": line, "Done": shown})

    def to_responder(self, lines: Sequence[str], skill: str, label: str, constraint: str) -> str:
        """What the customer said since the last reply, the skill and its constraint in words."""
        named = _words(skill) if self.style == "full" else label
        return self._joined({"Customer": "\n".join(lines), "Skill": " ".join(filter(None, [named, constraint]))})

    def to_flat(self, lines: Sequence[str], done: Sequence[str]) -> str:
        """What the customer said since the last reply, and labels of the skills done."""
        return self.to_planner("", "\n".join(lines), done)

    def to_customer(self, reply: str, cue: CustomerCue) -> str:
        """The shop's last reply ("" at first) and what is to be said to it."""
        return self._joined({"Shop": reply, "You": cue.lines[0]})

    def _system(self, text: str) -> tuple[Message, ...]:
        return (Message("system", text),) if self.style == "full" else ()

    def _joined(self, parts: dict[str, str]) -> str:
        full = self.style == "full"
        return "\n".join(f"{name} : {text}" if full else text for name, text in parts.items() if text)


def _words(skill: str) -> str:
    return skill.replace("_", " ")
