"""Tasks of reasoning-gym by name, without running what a model wrote.

Some verifiers of reasoning-gym evaluate the answer as code in this process, some raise, some accept nonsense (that of
spell_backward a right answer with any tail).  So only its problems and their answers are used; no text of a model meets
any of its verifiers.
"""

import dataclasses
import difflib
import hashlib
import random
import string
from collections.abc import Mapping, Sequence
from typing import Any

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.environments.reasoning_names import ALLOWED, REFUSED
from lit_rl.verification.answers import AnswerFormat, marked_answer, verify_answer
from lit_rl.verification.extraction import as_number, as_words


class ReasoningGymTasks:
    """Problems of one task of reasoning-gym, the same for the same arguments on every machine.

    Args:
        task: Name in reasoning-gym, of a task with one short right answer.
        size: Number of problems.
        seed: Of the problems; different seeds share none but by chance.  (reasoning-gym's own seeds 0 and 1 share all
            but one problem.)
        options: Of the task's config, such as ``{"max_n": 100}``.
        prompt: What the student reads, with ``{question}`` or fields of the item's metadata filled in; lists are
            joined by spaces: "gcd {numbers}" becomes "gcd 12 18".  ``:spaced`` writes characters apart: with
            "bits {number:spaced}", a tokenizer of words reads a number digit by digit: "bits 1 7 3".
        answer_format: "marked" for ``ans ...``, "boxed" for LaTeX's box.
        distinct: No two problems with the same prompt, so that held-out problems are new; all are then made at once.
            False makes each when it is asked for.

    Raises:
        ValueError: An unknown or refused task, an option or a field that does not exist, or fewer distinct problems
            than ``size``.
        ImportError: reasoning-gym is not installed.
    """

    def __init__(
        self,
        task: str,
        size: int = 1000,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        prompt: str = "{question}",
        *,
        answer_format: AnswerFormat = "marked",
        distinct: bool = True,
    ):
        _check_task(task)
        if size < 1:
            raise ValueError(f"ReasoningGymTasks.size is {size}; it must be at least 1.")
        if answer_format not in ("marked", "boxed"):
            raise ValueError(f"ReasoningGymTasks.answer_format is {answer_format!r}; it must be 'marked' or 'boxed'.")
        self.name, self.task, self.size, self.seed, self.prompt = task, task, size, seed, prompt
        self.answer_format = answer_format
        self._dataset = gym_dataset(task, 20 * size + 20, seed, dict(options or {}))
        self._made: dict[int, Problem] = {}
        check_prompt(prompt, self._dataset)
        self._items: Sequence[int] = self._distinct() if distinct else range(size)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self._problem(self._items[index])

    def _problem(self, number: int) -> Problem:
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        gold = problem.gold
        if self.answer_format == "marked" and gold.removeprefix("-").isdigit():
            return marked_answer(utterance, gold)
        return verify_answer(utterance, gold, self.answer_format, lambda answer: _right(answer, gold))

    def _make(self, number: int) -> Problem:
        item = self._dataset[number]
        gold = str(item["answer"])
        return Problem(
            id=f"{self.task}-{self.seed}-{number}",
            domain=self.task,
            prompt=filled_prompt(self.prompt, item),
            gold=gold,
            private={"answer": gold},
        )

    def _distinct(self) -> list[int]:
        """The first ``size`` items of reasoning-gym whose prompts differ."""
        first: dict[str, int] = {}
        for number in range(len(self._dataset)):
            problem = self._make(number)
            if problem.prompt not in first:
                first[problem.prompt], self._made[number] = number, problem
            if len(first) == self.size:
                return self._mixed(list(first.values()), drawn=number + 1)
        raise ValueError(
            f"ReasoningGymTasks.size is {self.size}, but {len(self._dataset)} problems of {self.task!r} have only "
            f"{len(first)} different prompts; lower it, widen the options, or allow repeats with distinct=False."
        )

    def _mixed(self, items: list[int], drawn: int) -> list[int]:
        """In another order if some were drawn twice: the likely ones come first, and the last are what is held out."""
        if drawn > len(items):
            random.Random(self.seed).shuffle(items)
        return items


def _right(answer: str, gold: str) -> bool:
    """The same words or the same number; a fraction must be as asked for, in lowest terms."""
    if as_words(answer) == as_words(gold):
        return True
    return (
        "/" not in answer
        and "frac" not in answer
        and as_number(gold) is not None
        and as_number(answer) == as_number(gold)
    )


def _check_task(task: str) -> None:
    if task in ALLOWED:
        return
    allowed = f"Allowed are: {', '.join(ALLOWED)}."
    if task in REFUSED:
        raise ValueError(f"ReasoningGymTasks.task {task!r} is refused: {REFUSED[task]}. {allowed}")
    if task in _reasoning_gym().factory.DATASETS:
        reason = "its answers are long, or may be right in several forms"
        raise ValueError(f"ReasoningGymTasks.task {task!r} is refused: {reason}. {allowed}")
    close = difflib.get_close_matches(task, ALLOWED)
    meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ValueError(f"ReasoningGymTasks.task {task!r} is no task of reasoning-gym; {meant}{allowed}")


def _reasoning_gym() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError('ReasoningGymTasks needs reasoning-gym: pip install "lit-rl[reasoning]"') from error
    return reasoning_gym


def gym_dataset(task: str, size: int, seed: int, options: dict[str, Any], owner: str = "ReasoningGymTasks") -> Any:
    """Items of a task of reasoning-gym by number; raises ValueError, in ``owner``'s name, where options do not fit."""
    gym = _reasoning_gym()
    known = {field.name for field in dataclasses.fields(gym.factory.DATASETS[task][1])} - {"size", "seed"}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"{owner}.options: {task!r} has no option {unknown[0]!r}; it has {sorted(known)}.")
    # It makes item i with the random stream seed + i, so seeds must lie far apart.
    far = int.from_bytes(hashlib.blake2b(f"{task} {seed}".encode(), digest_size=4).digest(), "big") >> 1
    try:
        return gym.create_dataset(task, size=size, seed=far, **options)
    except Exception as error:
        raise ValueError(f"{owner}.options {options} do not fit {task!r}: {error!r}.") from error


class _Prompt(string.Formatter):
    """Writes lists without brackets, and with ``:spaced`` the characters of a value apart."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, list | tuple):
            return " ".join(self.format_field(item, format_spec) for item in value)
        if format_spec == "spaced":
            return " ".join(str(value))
        return str(super().format_field(value, format_spec))


def filled_prompt(prompt: str, item: Mapping[str, Any]) -> str:
    """The template with the question and the metadata of an item in it."""
    return _Prompt().vformat(prompt, (), _fields(item))


def _fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """What a prompt may name."""
    return {"question": item["question"], **item["metadata"]}


def check_prompt(prompt: str, dataset: Any, owner: str = "ReasoningGymTasks") -> None:
    """Raise ValueError unless the template can be filled in and does not give the answer away."""
    items = [dataset[i] for i in range(8)]
    known = sorted(set(_fields(items[0])) - {"source_dataset", "source_index", "difficulty"})
    try:
        filled_prompt(prompt, items[0])
        names = [name for _, name, _, _ in string.Formatter().parse(prompt) if name]
    except (KeyError, IndexError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"{owner}.prompt {prompt!r} cannot be filled in ({error!r}); known are {known}.") from error
    if not names:
        raise ValueError(f"{owner}.prompt {prompt!r} is the same for all problems; name some of {known}.")
    golds = [str(item["answer"]) for item in items]
    for name in names:
        if len(set(golds)) > 1 and golds == [filled_prompt(f"{{{name}}}", item) for item in items]:
            raise ValueError(f"{owner}.prompt {prompt!r} gives the answer away: {{{name}}} is it.")
