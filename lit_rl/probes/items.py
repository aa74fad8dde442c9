"""What a probe takes up: one reply of a speaker, in its parts, and how answers to its prompt are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_rl.environments.problems import Problem, TaskSource
from lit_rl.episodes import Episode, Turn
from lit_rl.stream_keys import stream_key
from lit_rl.verification.labels import canonical_label, extract_label
from lit_rl.verification.traces import DEFAULT_TAGS, ThinkTags, Unit, join_units, split_trace, split_units

Known = Mapping[str, tuple[TaskSource, Problem]]  # by prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeItem:
    """One untouched reply.

    Its white space is kept where a changed reply is put together, so that it looks like the speaker's own.
    """

    prompt: str
    prompt_ids: tuple[int, ...]
    text: str  # the whole reply, what opens every reply of the speaker included
    prefill: str = ""  # that opening; it stands in ``prompt_ids``, so nothing that is put together repeats it
    reply_tokens: int
    tags: ThinkTags
    gold: str | None
    info: Mapping[str, Any] = field(default_factory=dict)  # of the turn
    source: TaskSource | None = None
    problem: Problem | None = None
    stream: tuple[int | str, ...] = ()  # names of the episode's random streams
    reasoning: str = field(init=False)  # without white space around it; empty if there is none, or if it is not closed
    head: str = field(init=False)  # of the reply, before the reasoning
    tail: str = field(init=False)  # white space between the reasoning and the closing tag
    gap: str = field(init=False)  # between the closing tag and the answer section
    answer: str | None = field(init=False)

    def __post_init__(self) -> None:
        trace = split_trace(own := self.own, self.tags)
        before, inner, behind = own, "", trace.answer_section
        if trace.closed:
            inner = trace.reasoning
            before = own[: len(own) - len(inner) - len(self.tags.close) - len(behind)]
        reasoning = inner.strip()
        parts = {
            "reasoning": reasoning,
            "head": before + inner[: len(inner) - len(inner.lstrip())],
            "tail": inner[len(inner.rstrip()) :] or "\n",
            "gap": behind[: len(behind) - len(behind.lstrip())] or "\n",
            "answer": self.read(behind) if trace.closed else None,
        }
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    @property
    def own(self) -> str:
        """The reply behind what opens every reply."""
        whole = self.text.startswith(self.prefill)
        return self.text.removeprefix(self.prefill if whole else self.prefill.strip())

    def key(self, *parts: int | str) -> int:
        """Of a random stream of this item."""
        return stream_key(*self.stream, *parts)

    def units(self, unit: Unit) -> list[str]:
        """The reasoning in units."""
        return split_units(self.reasoning, unit)

    def reopened(self, units: Sequence[str], unit: Unit) -> str:
        """The reply up to these units of reasoning, so that it can go on with the next."""
        return self.head + join_units(units, unit) + ("\n" if units and unit == "line" else "")

    def concluded(self, units: Sequence[str], unit: Unit, cue: str) -> str:
        """The reply with these units as all its reasoning, closed, and the words before an answer."""
        return self.head + join_units(units, unit) + self.tail + self.tags.close + self.gap + cue

    def unreasoned(self) -> str:
        """How a reply without reasoning begins; empty for a speaker that does not use the tags."""
        if self.tags.close not in self.own:
            return ""
        return (self.tags.open if self.tags.open in self.own else "") + self.tail + self.tags.close + self.gap

    def read(self, section: str) -> str | None:
        """The answer an answer section gives, as a canonical label: by the labels, or else by the task's verifier."""
        if "labels" in self.info:
            return extract_label(section, *_of_labels(self.info))
        assert self.source is not None and self.problem is not None
        attempt = self.source.verify(self.problem, section)
        return self.gold if attempt.correct else attempt.answer

    def read_reply(self, text: str) -> str | None:
        """The answer of a whole reply; None if its reasoning is not closed."""
        trace = split_trace(text, self.tags)
        return self.read(trace.answer_section) if trace.closed else None


def probe_items(
    episodes: Sequence[Episode],
    party: str,
    *,
    tags: ThinkTags = DEFAULT_TAGS,
    prefill: str = "",
    known: Known | None = None,
) -> list[ProbeItem]:
    """The replies of a party that can be probed: each is its first, to the prompt its ``info`` tells.

    Args:
        episodes: Played with `lit_rl.environments.completion.Completion`, or with ``prompt``, ``gold`` and ``labels``
            in the ``info`` of the party's turns by other means.
        party: The speaker.
        tags: Around its reasoning.
        prefill: What opens its replies without being sampled.
        known: Problems by prompt; needed to read answers of turns without ``labels``.

    Raises:
        ValueError: A turn does not tell its prompt, or how its answer is read.
    """
    return [
        _item(episode, turn, tags, prefill, known or {}) for episode in episodes for turn in episode.turns_of(party)[:1]
    ]


def _item(episode: Episode, turn: Turn, tags: ThinkTags, prefill: str, known: Known) -> ProbeItem:
    info, prompt = turn.info, turn.info.get("prompt")
    source, problem = known.get(str(prompt), (None, None))
    if prompt is None or ("labels" not in info and problem is None):
        raise ValueError(
            f"Task {episode.task_id}: the turn of {turn.party!r} tells {sorted(info)} in its info; a probe needs "
            "'prompt' and 'labels' there, or tasks of the DataModule that hold the prompt."
        )
    return ProbeItem(
        prompt=prompt,
        prompt_ids=tuple(turn.prompt_ids),
        text=turn.text,
        prefill=prefill,
        reply_tokens=len(turn.completion_ids),
        tags=tags,
        gold=_gold(info),
        info=info,
        source=source,
        problem=problem,
        stream=(episode.seed, "probe", episode.index),
    )


def _gold(info: Mapping[str, Any]) -> str | None:
    gold = info.get("gold")
    if gold is None or "labels" not in info:
        return gold
    return canonical_label(str(gold), *_of_labels(info))


def _of_labels(info: Mapping[str, Any]) -> tuple[Sequence[str], Mapping[str, str] | None, Mapping[str, str] | None]:
    return info["labels"], info.get("aliases"), info.get("options")
