"""The text a listener hears: a question and an opened, not closed, think block that holds the prefix."""

import re
import warnings
from typing import Any, Literal

from lit_rl.verification.traces import ThinkTags

PromptMode = Literal["raw", "chat"]
_MARK = "\u2402question\u2403"  # control pictures: no template strips or escapes them


class ListenerPrompts:
    """Renders requests for one tokenizer.

    In the question and the prefix, tags and special tokens that are written out are left out: the prefix is somebody
    else's words, and must neither close the think block nor end the turn.

    Args:
        tokenizer: Of transformers.
        tags: Of the listener.
        mode: "chat" is the listener's chat template with the question as the user's turn; "raw" the question, a line
            break and the think block, without a template (as in the authors' code; the line break is ours).
        instruction: What the listener is told first: a system message, or in raw mode a paragraph.
        name: Of the listener, for messages.

    Raises:
        ValueError: There is no chat template, or the tokenizer cannot spell a tag.
    """

    def __init__(
        self, tokenizer: Any, tags: ThinkTags, mode: PromptMode = "chat", instruction: str | None = None, name: str = ""
    ):
        self.tokenizer, self.mode, self.name = tokenizer, mode, name
        self.unknown = 0  # prompts with a piece the tokenizer has no token for
        for tag in (tags.open, tags.close):
            self._check_tag(tag)
        written = sorted({*tokenizer.all_special_tokens, tags.open, tags.close}, key=len, reverse=True)
        self._written_out = re.compile("|".join(map(re.escape, written)))
        before, after = self._chat_frame(instruction) if mode == "chat" else _raw_frame(instruction)
        self.before, self.after = before, _opened(after, tags)

    def text(self, question: str, prefix: str) -> str:
        """The whole prompt; the first token sampled goes on with the reasoning."""
        prefix = self._plain(prefix)
        return f"{self.before}{self._plain(question)}{self.after}" + (f"{prefix}\n" if prefix else "")

    def ids(self, question: str, prefix: str) -> tuple[int, ...]:
        """Tokens of the prompt."""
        # A template writes its own first token.
        encoded = self.tokenizer(self.text(question, prefix), add_special_tokens=self.mode == "raw")["input_ids"]
        if self.tokenizer.unk_token_id is not None and self.tokenizer.unk_token_id in encoded:
            if not self.unknown:
                warnings.warn(f"Listener {self.name!r} has no tokens for some words it hears.", stacklevel=2)
            self.unknown += 1
        return tuple(encoded)

    def _plain(self, text: str) -> str:
        text = text.strip()
        while self._written_out.search(text):  # what is left may make another one
            text = self._written_out.sub("", text).strip()
        return text

    def _chat_frame(self, instruction: str | None) -> tuple[str, str]:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                f"Listener {self.name!r}: the tokenizer of {self.tokenizer.name_or_path!r} has no chat template; set "
                "prompt_mode to 'raw' or take another model."
            )
        system = [{"role": "system", "content": instruction}] if instruction else []
        # Templates that know no such option ignore it.
        text = self.tokenizer.apply_chat_template(
            [*system, {"role": "user", "content": _MARK}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=True,
        )
        before, mark, after = text.partition(_MARK)
        if not mark:
            raise ValueError(
                f"Listener {self.name!r}: the chat template of {self.tokenizer.name_or_path!r} changes or leaves out "
                "the user's turn; set prompt_mode to 'raw'."
            )
        return before, after

    def _check_tag(self, tag: str) -> None:
        ids = self.tokenizer(tag, add_special_tokens=False)["input_ids"]
        if self.tokenizer.unk_token_id in ids or self.tokenizer.decode(ids).strip() != tag.strip():
            raise ValueError(
                f"Listener {self.name!r}: the tokenizer of {self.tokenizer.name_or_path!r} cannot spell the think tag "
                f"{tag!r}; set tags to those the model knows."
            )
        if len(ids) > 1:
            warnings.warn(
                f"Listener {self.name!r} has no token for the think tag {tag!r} and spells it with {len(ids)}; if the "
                "model knows other tags, set them.",
                stacklevel=4,
            )


def _raw_frame(instruction: str | None) -> tuple[str, str]:
    return (f"{instruction}\n\n" if instruction else ""), "\n"


def _opened(after: str, tags: ThinkTags) -> str:
    """What follows the question, with a think block opened once: by the template, or by us."""
    opens, closes = after.rfind(tags.open), after.rfind(tags.close)
    if opens < closes:  # a template that closes the block at once, which turns thinking off
        after = after[: opens if opens >= 0 else closes]
    if opens <= closes:
        after += tags.open
    return after if after.endswith("\n") else f"{after}\n"
