"""A tiny policy that can read a teacher's briefing, and dialogues driven by hand."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lit_rl.environments import TEACHER_INSTRUCTION, DidacticDialogue
from lit_rl.environments.base import Message, Outcome, Reply
from lit_rl.environments.teacher_words import CANNOT_SAY, RETRY
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.tiny import TinyModel

SMALL_WORLD = "find n in ans ask higher lower please answer or so answer : secret"


@pytest.fixture(scope="session")
def policy() -> Policy:
    """Random, with one adapter for the student; its vocabulary spells all that is said in a small world."""
    words = re.findall(r"\w+|[^\w\s]+", f"{TEACHER_INSTRUCTION} {RETRY} {CANNOT_SAY} {SMALL_WORLD}")
    tiny = TinyModel(words=words, numbers=20, hidden_size=32, layers=2, heads=4, max_length=512)
    return Policy(PolicyConfig(tiny=tiny, adapters={"student": LoRA(rank=4, alpha=8.0)}))


Talk = list[tuple[str, str]]


class Game:
    """Plays a dialogue as `lit_rl.rollout` would, and keeps what each party has before its eyes.

    Args:
        dialogue: To be played.
        teacher: ``(context, messages) -> reply`` or text.
    """

    def __init__(self, dialogue: DidacticDialogue, teacher: Callable[[Any, Sequence[Message]], Reply | str]):
        self.dialogue, self.teacher = dialogue, teacher
        self.views: dict[str, list[Message]] = {}
        self.said: Talk = []
        self.outcomes: list[Outcome] = []

    def play(self, utterances: Sequence[str]) -> "Game":
        remaining = iter(utterances)
        outcome = self.dialogue.begin()
        while (ask := outcome.ask) is not None:
            if ask.restart:
                self.views.pop(ask.party, None)
            view = self.views.setdefault(ask.party, [])
            view += ask.messages
            if ask.party == "student":
                reply: Reply | str = Reply(text=next(remaining), stop_reason="end")
            else:
                reply = self.teacher(ask.context, tuple(view))
            reply = Reply(text=reply) if isinstance(reply, str) else reply
            view.append(Message("assistant", reply.text, ask.party, ask.exchange))
            self.said.append((ask.party, reply.text))
            outcome = self.dialogue.act(reply)
            self.outcomes.append(outcome)
        return self

    @property
    def rewards(self) -> list[float]:
        """Of the student's turns."""
        turns = zip(self.said, self.outcomes, strict=True)
        return [outcome.rewards.get("student", 0.0) for (party, _), outcome in turns if party == "student"]

    @property
    def infos(self) -> list[dict[str, Any]]:
        """Of the teacher's turns."""
        turns = zip(self.said, self.outcomes, strict=True)
        return [dict(outcome.info) for (party, _), outcome in turns if party == "teacher"]

    def heard(self) -> list[str]:
        """What the student was told after the problem."""
        return [message.content for message in self.views["student"][1:] if message.role == "user"]
