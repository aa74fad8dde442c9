"""What the reward model reads: the rubric, the paper, and last the question (arXiv 2602.15849, section 5.2)."""

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError

from lit_rl.papers.texts import cut_middle

RUBRIC = (
    "You judge a reviewer's question about a paper on three points, and answer each with true or false. "
    "Effort: it cannot be answered at a glance or by quoting the paper, but takes connecting sections or seeing what "
    "is only implied. "
    "Evidence: it rests on definite results, assumptions or arguments of the paper and not on speculation. "
    "Grounding: it is about this paper's own methods, experiments or claims and would not suit any other paper. "
    "First comes the text of the paper, then the question."
)


class QuestionTooLong(ValueError):
    """A question and the rubric leave no room for the paper."""


class QuestionPrompts:
    """Renders three turns, the rubric as system and paper and question as two users, without a header for a reply.

    The question comes last, so that the last states are about it.  A paper that is too long loses its middle before
    anything is rendered: cutting the rendered prompt would take the question away, or the rubric and the first page.

    Args:
        tokenizer: With a chat template.
        max_length: Longest prompt in tokens.
        rubric: The system turn.
        template_options: Further arguments of the chat template.

    Raises:
        ValueError: There is no chat template, or it refuses two user turns in a row, or a system turn.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        rubric: str = RUBRIC,
        template_options: Mapping[str, Any] | None = None,
    ):
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"The tokenizer of the backbone {tokenizer.name_or_path!r} has no chat template; use an "
                "instruction-tuned model."
            )
        self.tokenizer, self.max_length, self.rubric = tokenizer, max_length, rubric
        self.template_options = dict(template_options or {})
        try:
            text = self._text("the paper", "the question")
        except TemplateError as error:
            raise ValueError(
                f"The chat template of the backbone {tokenizer.name_or_path!r} cannot render a system turn and two "
                f"user turns ({error}); use another backbone."
            ) from error
        if not 0 <= text.find("the paper") < text.find("the question"):
            raise ValueError(
                f"The chat template of the backbone {tokenizer.name_or_path!r} drops the paper or the question of two "
                "user turns; use another backbone."
            )

    def ids(self, paper: str, question: str) -> tuple[int, ...]:
        """Token ids of the prompt, at most ``max_length``; the whole question is always in it.

        Raises:
            QuestionTooLong: There is no room for a single token of the paper.
        """
        whole = self._ids(paper, question)
        room = self.max_length - len(self._ids("", question))
        while len(whole) > self.max_length:
            try:
                whole = self._ids(cut_middle(paper, self.tokenizer, room), question)
            except ValueError as error:
                raise QuestionTooLong(
                    f"The question {question[:60]!r} and the rubric leave {max(room, 0)} of {self.max_length} tokens, "
                    "too few for a paper; raise backbone.max_length, or shorten the rubric."
                ) from error
            room -= max(1, len(whole) - self.max_length)  # what was cut may be spelled in more tokens
        return whole

    def _text(self, paper: str, question: str) -> str:
        turns = [
            {"role": "system", "content": self.rubric},
            {"role": "user", "content": paper},
            {"role": "user", "content": question},
        ]
        text: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=False, **self.template_options
        )
        return text

    def _ids(self, paper: str, question: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(self._text(paper, question), add_special_tokens=False)["input_ids"])
