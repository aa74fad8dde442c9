"""Where data sets of questions with options keep what is needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LayoutName = Literal["bbh", "bbh_yes_no", "bbeh", "musr", "zebra_logic", "folio"]

CHOOSE = "Answer the question by choosing one of the options."


@dataclass(frozen=True, kw_only=True)
class ChoiceLayout:
    """Names of columns, and what all rows have in common.

    Args:
        answer: Column with the right answer: a letter, ``(A)``, or the text of an option.
        question: Column with the question.
        context: Column with what stands before it (a puzzle, a story, premises), as text or a list of texts.
        options: Column with the options, a list or one written out (``['Ana', 'Bo']``).
        fixed: Options of every row, instead of a column; their texts are read as answers wherever they stand as whole
            words.  With neither, the options are those at the end of the question, ``(A) one (B) two``.
        id: Column that names problems; None takes the number of the row, counted from 1.
        task: Column that names the task a row belongs to, which becomes the domain.
        instruction: First sentence of the prompt.
    """

    answer: str
    question: str
    context: str | None = None
    options: str | None = None
    fixed: Mapping[str, str] | None = None
    id: str | None = None
    task: str | None = None
    instruction: str = CHOOSE

    def __post_init__(self) -> None:
        if self.options is not None and self.fixed is not None:
            raise ValueError("ChoiceLayout has both options and fixed; give one of them, or neither.")

    @property
    def columns(self) -> list[str]:
        """All columns it names."""
        named = (self.answer, self.question, self.context, self.options, self.id, self.task)
        return list(dict.fromkeys(name for name in named if name is not None))


LAYOUTS: dict[LayoutName, ChoiceLayout] = {
    "bbh": ChoiceLayout(answer="target", question="input"),
    "bbh_yes_no": ChoiceLayout(answer="target", question="input", fixed={"A": "Yes", "B": "No"}),
    "bbeh": ChoiceLayout(answer="target", question="input", task="task"),
    "musr": ChoiceLayout(answer="answer_choice", question="question", context="narrative", options="choices"),
    "zebra_logic": ChoiceLayout(answer="answer", question="question", context="puzzle", options="choices", id="id"),
    "folio": ChoiceLayout(
        answer="label",
        question="conclusion",
        context="premises",
        fixed={"A": "True", "B": "Uncertain", "C": "False"},
        id="example_id",
        instruction="By the premises alone, is the statement after them true, false, or uncertain?",
    ),
}
