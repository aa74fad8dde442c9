"""Speakers' replies, listeners that are scripts, and batches of both for the tests of listeners."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.listeners import Continuation, ListenRequest, ScriptedListener
from lit_rl.listeners.spoken import Spoken
from lit_rl.verification.traces import ThinkTags

LABELS = tuple("ABCDEF")
Answers = tuple[str, str, str]  # at a quarter, at half, at three quarters; "-" is none

# remul.md 11.1: of five rollouts the speaker's answer and those of three listeners, from three fractions.
MATRIX: list[tuple[str, tuple[Answers, Answers, Answers]]] = [
    ("B", (("B", "B", "B"), ("C", "B", "B"), ("A", "B", "B"))),
    ("B", (("A", "C", "B"), ("C", "C", "B"), ("B", "A", "A"))),
    ("C", (("C", "C", "C"), ("C", "C", "C"), ("A", "C", "C"))),
    ("A", (("B", "B", "B"), ("B", "C", "B"), ("-", "B", "A"))),
    ("-", (("B", "B", "B"), ("B", "B", "B"), ("B", "B", "B"))),
]
MATCHES = [(1, 3, 3), (1, 0, 2), (2, 3, 3), (0, 0, 1), (0, 0, 0)]  # by fraction


def reply(reasoning: str, answer: str) -> str:
    return f"<think>\n{reasoning}\n</think>\nAnswer: {answer}"


def lines(name: str, count: int = 4) -> str:
    return "\n".join(f"{name} step{n}" for n in range(1, count + 1))


def said(answer: str) -> str:
    return f"so it goes </think> {'who knows' if answer == '-' else f'The answer is ({answer})'}"


def of_matrix(name: str, row: int) -> ScriptedListener:
    """Listener ``row`` of the matrix: it knows from the prefix whose trace it is and how much of it."""

    def script(question: str, prefix: str, key: int) -> str:
        if not prefix:
            return said("B")
        rollout = int(re.findall(r"rollout(\d)", prefix)[-1])
        return said(MATRIX[rollout][1][row][len(prefix.split("\n")) - 1])

    return ScriptedListener(name, script)


def matrix_listeners() -> list[ScriptedListener]:
    return [of_matrix(f"listener{row + 1}", row) for row in range(3)]


def matrix_replies() -> list[str]:
    return [reply(lines(f"rollout{i}"), answer.replace("-", "?")) for i, (answer, _) in enumerate(MATRIX)]


def spoken_of(replies: Sequence[str], group: int = 0, **more: Any) -> list[Spoken]:
    return [
        Spoken(question="Who is it?", reply=text, labels=LABELS, identity=("train", 10 * group + i),
               group=("train", group), rows=(i,), **more)
        for i, text in enumerate(replies)
    ]  # fmt: skip


def rollouts_of(replies: Mapping[int, Sequence[str]], label: str = "train", gold: str = "B", **info: Any) -> Rollouts:
    """Replies by group, one exchange each."""
    episodes = []
    for group, texts in replies.items():
        for i, text in enumerate(texts):
            facts = {"prompt": f"Who is it in {group}?", "labels": list(LABELS), "gold": gold} | info
            turn = Turn(party="speaker", exchange=0, text=text, prompt_ids=[1, 2], completion_ids=[3 + i, 4],
                        log_probs=[-1.0, -1.0], new_row=True, info=facts)  # fmt: skip
            episodes.append(
                Episode(index=100 * group + i, task_id=f"task {group}", group=group, seed=0, turns=[turn],
                        stop_reason="answered", terminated=True)
            )  # fmt: skip
    return Rollouts.from_episodes(episodes, trained=["speaker"], parties=["speaker"], label=label)


class Recording:
    """A listener that keeps what it heard and answers as it is told."""

    def __init__(
        self,
        name: str = "recording",
        answer: Callable[[ListenRequest], str | Continuation] = lambda request: said("B"),
        tags: ThinkTags | None = None,
    ):
        self.name, self.answer, self.tags = name, answer, tags or ThinkTags()
        self.heard: list[ListenRequest] = []
        self.batches: list[int] = []
        self.attached: Any = None

    def attach(self, module: Any) -> None:
        self.attached = module

    def continue_(self, requests: Sequence[ListenRequest]) -> list[Continuation]:
        self.heard += requests
        self.batches.append(len(requests))
        replies = [self.answer(request) for request in requests]
        return [text if isinstance(text, Continuation) else Continuation(text=text) for text in replies]
