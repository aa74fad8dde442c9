"""Real papers and questions from files: prompts for a generator, and the questions of people to warm it up on."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lit_rl.demonstrations import Demonstration
from lit_rl.environments.base import Message
from lit_rl.environments.parts import check_part, part_of
from lit_rl.environments.problems import Attempt, Problem, ProblemList
from lit_rl.papers.prompts import GENERATION_SYSTEM, generation_prompt
from lit_rl.papers.question_filter import QuestionFilter
from lit_rl.papers.records import LayoutName, QuestionLayout, QuestionRecord, read_questions
from lit_rl.papers.texts import cut_middle, read_papers


class PaperTasks(ProblemList):
    """One paper each: the prompt is `generation_prompt`, any question is an answer, and none is right.

    What a question is worth is for a reward model to say; `GENERATION_SYSTEM` is meant as ``data.instruction``.  Each
    problem's ``meta`` has the ``pages`` of the whole paper, for first-page bias.  As YAML::

        class_path: lit_rl.papers.PaperTasks
        init_args: {path: papers.jsonl, max_paper_tokens: 12000, tokenizer: Qwen/Qwen2.5-7B-Instruct}

    Args:
        path: As `read_papers`.
        text: Column with the text.
        paper_id: Column that names papers.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        max_paper_tokens: A longer paper loses its middle; None keeps all.
        tokenizer: Folder or hub id of the model whose tokens are counted.
        shuffle_seed: Of a fixed order of all papers; None keeps theirs.
        skip: Papers of that order that are left out at its beginning.
        take: Papers that are taken then; None takes all.

    Raises:
        ValueError: As `read_papers`; one of ``max_paper_tokens`` and ``tokenizer`` without the other; or fewer papers
            than ``skip`` and ``take`` need.
    """

    def __init__(
        self,
        path: str | Path,
        text: str = "text",
        paper_id: str = "paper_id",
        *,
        split: str = "train",
        subset: str | None = None,
        max_paper_tokens: int | None = None,
        tokenizer: str | None = None,
        shuffle_seed: int | None = None,
        skip: int = 0,
        take: int | None = None,
    ):
        check_part("PaperTasks", skip, take)
        fit = _fit("PaperTasks", max_paper_tokens, tokenizer)
        papers = read_papers(path, text, paper_id, split=split, subset=subset)
        self.name = str(path)
        chosen = part_of(self.name, len(papers), shuffle_seed, skip, take)
        self._problems = [
            Problem(
                id=papers[place].paper_id,
                domain="questions",
                prompt=generation_prompt(fit(papers[place].text)),
                gold="",
                meta={"pages": tuple(papers[place].pages)},
            )
            for place in chosen
        ]

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        question = utterance.strip()
        return Attempt("answer", question) if question else Attempt("empty")


class StoredQuestions:
    """Demonstrations: papers, and a question that somebody asked about each (the SFT baseline of intelli.md).

    Args:
        path: As `read_questions`.
        layout: As `read_questions`; one without ``labels`` reads questions that nobody annotated.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
        max_paper_tokens: A longer paper loses its middle; None keeps all.
        tokenizer: Folder or hub id of the model whose tokens are counted.
        question_filter: Leaves questions out; None takes all.
        instruction: System message before the paper.

    Raises:
        ValueError: As `read_questions`; one of ``max_paper_tokens`` and ``tokenizer`` without the other; or no question
            passes the filter.
    """

    def __init__(
        self,
        path: str | Path,
        layout: LayoutName | QuestionLayout = "released",
        *,
        split: str = "train",
        subset: str | None = None,
        max_paper_tokens: int | None = None,
        tokenizer: str | None = None,
        question_filter: QuestionFilter | None = None,
        instruction: str | None = GENERATION_SYSTEM,
    ):
        self._fit = _fit("StoredQuestions", max_paper_tokens, tokenizer)
        self.instruction = instruction
        records = read_questions(path, layout, split=split, subset=subset)
        self.records: Sequence[QuestionRecord] = records
        if question_filter is not None:
            kept = question_filter.kept({str(place): record.question for place, record in enumerate(records)})
            self.records = [records[int(place)] for place in kept]
        if not self.records:
            raise ValueError(f"StoredQuestions: none of the {len(records)} questions of {path} passes the filter.")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Demonstration:
        record = self.records[index]
        system = (Message("system", self.instruction),) if self.instruction else ()
        paper = Message("user", generation_prompt(self._fit(record.paper_text)))
        return Demonstration(record.paper_id, (*system, paper, Message("assistant", record.question)))


def _fit(owner: str, max_tokens: int | None, tokenizer: str | None) -> Callable[[str], str]:
    """Cuts what is too long; the tokenizer is loaded with the first paper."""
    if (max_tokens is None) != (tokenizer is None):
        raise ValueError(
            f"{owner}: max_paper_tokens is {max_tokens} and tokenizer {tokenizer!r}; give both, or neither to keep "
            "papers whole."
        )
    if max_tokens is None or tokenizer is None:
        return lambda text: text
    if max_tokens < 1:
        raise ValueError(f"{owner}.max_paper_tokens is {max_tokens}; it must be at least 1.")
    return _Cutter(tokenizer, max_tokens)


class _Cutter:
    def __init__(self, name: str, max_tokens: int):
        self.name, self.max_tokens, self._tokenizer = name, max_tokens, None

    def __call__(self, text: str) -> str:
        from lit_rl.loading import load_tokenizer

        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.name)
        assert self._tokenizer is not None
        return cut_middle(text, self._tokenizer, self.max_tokens)
