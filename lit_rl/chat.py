"""From messages to token ids, turn by turn, with the model's own chat template.

A dialogue's row is built of what was sampled and of what was inserted between; text is never tokenised again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lit_rl.environments.base import Message, Role
from lit_rl.episodes import Heard

_MARK = "\u2402{}\u2403"  # control pictures: in no sane message, and no template strips them
_BEFORE: dict[Role, tuple[Message, ...]] = {
    "assistant": (Message("user", "-"), Message("assistant", _MARK.format("said"))),
    "user": (Message("user", "-"), Message("assistant", "-"), Message("user", _MARK.format("said"))),
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids to insert, and which spans of them other parties said."""

    ids: tuple[int, ...]
    heard: tuple[Heard, ...]


class TemplateMismatch(ValueError):
    """Rows built turn by turn differ from what the chat template renders for the whole dialogue."""


class ChatFormat:
    """Renders what a party hears, for one tokenizer with a chat template.

    Args:
        tokenizer: A fast tokenizer of transformers with a ``chat_template``.
        prefill: Text that opens every reply of a party, by party name; inserted, never sampled.

    Raises:
        ValueError: No chat template, a slow tokenizer, or a template without an end-of-turn token.
    """

    def __init__(self, tokenizer: Any, prefill: Mapping[str, str] | None = None):
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"The tokenizer of {tokenizer.name_or_path!r} has no chat template; use an instruction-tuned model or "
                "set tokenizer.chat_template."
            )
        if not tokenizer.is_fast:
            raise ValueError(f"The tokenizer of {tokenizer.name_or_path!r} is a slow one; a fast one is needed.")
        self.tokenizer = tokenizer
        self.prefill = dict(prefill or {})
        self._prefill_ids = {party: tuple(self._ids(text)) for party, text in self.prefill.items()}
        self.end_id = self._end_of_turn()
        eos = tokenizer.eos_token_id
        self.stop_ids = frozenset({self.end_id} | ({eos} if eos is not None else set()))
        self._both_roles_fit = False  # until checked
        self._rendered: dict[tuple[Any, ...], Rendered] = {}
        self._decoded: dict[tuple[int, ...], str] = {}

    # -- rendering ---------------------------------------------------------------------------------------------

    def opening(self, party: str, messages: Sequence[Message], role: Role = "assistant") -> Rendered:
        """All a party's row begins with: ``messages`` and the header it speaks under."""
        return self._cached(("open", party, role, *messages), (), messages, party, role)

    def continuation(
        self,
        party: str,
        messages: Sequence[Message],
        ended: bool,
        *,
        role: Role = "assistant",
        after: Role = "assistant",
    ) -> Rendered:
        """What follows the party's own reply: its end of turn (if it was not sampled), ``messages``, the next header.

        Args:
            party: Whose row it is.
            messages: Heard since its last reply.
            ended: Whether the reply's last sampled token was the end-of-turn token.
            role: Under whose header it speaks next.
            after: Under whose header it spoke last.

        Raises:
            TemplateMismatch: It speaks under both headers, and the template has turns that cannot be told apart.
        """
        if "user" in (role, after) and not self._both_roles_fit:
            self._check_both_roles()
        rendered = self._cached(("go on", party, role, after, *messages), _BEFORE[after], messages, party, role)
        return Rendered(rendered.ids[1:], _shifted(rendered.heard, -1)) if ended else rendered

    def closing(self, party: str, messages: Sequence[Message], ended: bool) -> Rendered:
        """Like `continuation`, without a header for a next reply: the end of a training row."""
        rendered = self._cached(("close", party, *messages), _BEFORE["assistant"], messages, None)
        return Rendered(rendered.ids[1:], _shifted(rendered.heard, -1)) if ended else rendered

    def text(self, party: str, completion_ids: Sequence[int], role: Role = "assistant") -> str:
        """What the party said, its prefill included, without special tokens."""
        prefill = self._prefill_ids.get(party, ()) if role == "assistant" else ()
        key = (*prefill, *completion_ids)
        if key not in self._decoded:
            if len(self._decoded) > 100_000:
                self._decoded.clear()
            self._decoded[key] = self.tokenizer.decode(list(key), skip_special_tokens=True).strip()
        return self._decoded[key]

    def reply_ids(self, party: str, text: str) -> list[int]:
        """Ids of a reply that was written, not sampled, behind the party's prefill and without its end of turn.

        Raises:
            ValueError: The text does not begin with the prefill, or the tokenizer cannot spell it.
        """
        prefill = self.prefill.get(party, "")
        if not text.startswith(prefill):
            raise ValueError(f"The reply {text!r} of {party!r} does not begin with its prefill {prefill!r}.")
        ids = self._ids(text[len(prefill) :])
        if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in ids:
            raise ValueError(f"The tokenizer cannot spell the reply {text!r}; add its words to the vocabulary.")
        return ids

    # -- the check at start ------------------------------------------------------------------------------------

    def check(self, reply: str = "one two") -> None:
        """Raise `TemplateMismatch` unless turn-by-turn rows equal the template's rendering of the whole dialogue.

        Templates that drop earlier thinking, date their headers or trim replies do not; then one row per turn is right.
        """
        first, second = [Message("user", "a b")], [Message("user", "b a")]
        replies = [reply]
        if "think" in self.tokenizer.chat_template:
            replies.append(f"<think>\n{reply}\n</think>\n\n{reply}")
        for said in replies:
            spoken = tuple(self._ids(said)) + (self.end_id,)
            built = self._plain(self._text(first, True)) + spoken
            built += self._render(_BEFORE["assistant"], second, "", strict=False).ids[1:] + spoken
            answered = Message("assistant", said)
            whole = self._plain(self._text([*first, answered, *second, answered], False))[: len(built)]
            self._compare(built, whole, "Set rows='turn' (one row per turn).")

    def _check_both_roles(self) -> None:
        """Raise `TemplateMismatch` unless a row in which its party speaks under both headers is the template's."""
        question, reply, critique = (
            Message("user", "a b"),
            Message("assistant", "one two"),
            Message("user", "b a", "", 0),
        )
        (heard,) = (rendered := self._render(_BEFORE["assistant"], [critique], None, strict=False)).heard
        spoken = (*self._ids(reply.content), self.end_id)
        built = self._plain(self._text([question], True)) + spoken
        built += self._user_header(_BEFORE["assistant"], []).ids[1:]
        built += (*(i for i in rendered.ids[heard.start : heard.stop] if i != self.end_id), self.end_id)
        built += self._render(_BEFORE["user"], [], "", strict=False).ids[1:] + spoken
        whole = self._plain(self._text([question, reply, critique, reply], False))[: len(built)]
        self._compare(built, whole, "A student cannot be its own critic with it.")
        self._both_roles_fit = True

    def _compare(self, built: Sequence[int], whole: Sequence[int], remedy: str) -> None:
        for place, (ours, theirs) in enumerate(zip_longest(built, whole, fillvalue=self.end_id)):
            if ours != theirs:
                names = self.tokenizer.convert_ids_to_tokens([ours, theirs])
                raise TemplateMismatch(
                    f"The chat template does not extend a dialogue turn by turn: token {place} is {names[0]!r} in "
                    f"the row and {names[1]!r} in the template. {remedy}"
                )

    # -- inner workings ----------------------------------------------------------------------------------------

    def _cached(
        self,
        key: tuple[Any, ...],
        before: Sequence[Message],
        messages: Sequence[Message],
        party: str | None,
        role: Role = "assistant",
    ) -> Rendered:
        if key not in self._rendered:
            if len(self._rendered) > 20_000:
                self._rendered.clear()
            user = role == "user"
            rendered = self._user_header(before, messages) if user else self._render(before, messages, party)
            self._rendered[key] = rendered
        return self._rendered[key]

    def _user_header(self, before: Sequence[Message], messages: Sequence[Message]) -> Rendered:
        """``messages`` and all that stands before the first token of a further message of "user"."""
        rendered = self._render(before, [*messages, Message("user", "a", "", 0)], None, strict=False)
        *heard, further = rendered.heard
        return Rendered(rendered.ids[: further.start], tuple(heard))

    def _render(
        self, before: Sequence[Message], messages: Sequence[Message], party: str | None, strict: bool = True
    ) -> Rendered:
        """Render with marks for contents, so that each content's place in the text is known whatever it says."""
        text, marked = self._marked(before, messages, party)
        spans, pieces, length = [], [], 0
        for message, mark in marked:
            literal, text = text.split(mark, 1)
            content = message.content.strip()
            start = length + len(literal)
            spans.append((message, start, start + len(content)))
            pieces += [literal, content]
            length = start + len(content)
        if party is not None:
            text += self.prefill.get(party, "")
        whole = "".join([*pieces, text])
        encoded = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        unknown = self.tokenizer.unk_token_id
        if strict and unknown is not None and unknown in ids:
            a, b = offsets[ids.index(unknown)]
            raise ValueError(f"The tokenizer has no token for {whole[a:b]!r} in {whole!r}; add it to the vocabulary.")
        heard = [self._heard(ids, offsets, *span) for span in spans if span[0].party is not None]
        return Rendered(tuple(ids), tuple(span for span in heard if span is not None))

    def _marked(
        self, before: Sequence[Message], messages: Sequence[Message], party: str | None
    ) -> tuple[str, list[tuple[Message, str]]]:
        """The template's text with a mark in place of each content, and the messages that have one.

        A reply that the template rewrites (its thinking dropped, say) stands there rewritten, without a mark.
        """
        marks = [_MARK.format(i) for i in range(len(messages))]
        marked = [Message(m.role, mark) for m, mark in zip(messages, marks, strict=True)]
        text, kept = self._text([*before, *marked], party is not None), list(zip(messages, marks, strict=True))
        replies = [(i, m) for i, m in enumerate(messages) if m.role == "assistant"]
        if replies:
            for i, message in replies:
                marked[i] = Message("assistant", message.content.strip())
            true, pasted = self._text([*before, *marked], party is not None), text
            for i, message in replies:
                pasted = pasted.replace(marks[i], message.content.strip())
            if pasted != true:
                text, kept = true, [(m, mark) for m, mark in kept if m.role != "assistant"]
        return (text.split(_MARK.format("said"), 1)[1] if before else text), kept

    def _heard(
        self, ids: Sequence[int], offsets: Sequence[tuple[int, int]], message: Message, start: int, stop: int
    ) -> Heard | None:
        """The tokens that touch characters ``start:stop`` (one may carry the space before), and their end of turn."""
        inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start]
        if not inside or message.party is None:
            return None
        last = inside[-1] + 1
        ends = last < len(ids) and ids[last] == self.end_id
        return Heard(message.party, message.exchange, inside[0], last + int(ends))

    def _text(self, messages: Sequence[Message], header: bool) -> str:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        text: str = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=header)
        return text

    def _plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._ids(text))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _end_of_turn(self) -> int:
        mark = _MARK.format("said")
        rest = self._text([Message("user", "-"), Message("assistant", mark)], False).split(mark, 1)[-1]
        ids = self._ids(rest)
        if not ids or ids[0] not in self.tokenizer.all_special_ids:
            raise ValueError(
                f"The chat template of {self.tokenizer.name_or_path!r} ends an assistant turn with {rest!r}, not with "
                "a special token; replies could not be told to stop."
            )
        return ids[0]


def _shifted(heard: tuple[Heard, ...], by: int) -> tuple[Heard, ...]:
    return tuple(Heard(h.party, h.exchange, h.start + by, h.stop + by) for h in heard)
