"""Toys with a known, finite set of answers and a graded quality, so that a trained policy can be compared with the
closed form of its objective (section 10 of the QEMPO specification; the numbers there are derived, not the paper's).
"""

import math
from collections.abc import Sequence

from lit_rl.environments.problems import Attempt, Problem

ACCEPTABLE = 0.8


class AnswerSet:
    """One problem for each prompt, all with the same answers: each is worth its reward, any other text ``invalid``.

    An answer is right if its reward is at least ``acceptable``.  Give `graded_quality` to a DataModule as its quality.

    Sample with ``max_tokens`` as many as an answer has words.  With more, one answer is several completions: decoding
    drops special tokens, so that "a <pad>" and "a <end>" read as "a", and the closed form is that of another set.

    Attributes:
        answers: All of them, words with single spaces; what a policy is compared on.
        rewards: Of each.
        reference: Probability of each under the reference policy of the specification.

    Args:
        name: Of the task source.
        answers: At least two, all different.
        rewards: One each, finite.
        reference: One each, positive; sums to 1.
        prompts: What the student reads; all different.
        acceptable: Reward from which on an answer counts as right.
        invalid: Reward of a text that is no answer.  A policy that can say anything also spreads over such texts: let
            it be clearly below the lowest reward, in units of the entropy coefficient.

    Raises:
        ValueError: Counts differ, an answer or a prompt occurs twice or is empty, ``reference`` is no distribution, a
            reward is not finite, or no answer is right.
    """

    def __init__(
        self,
        name: str,
        answers: Sequence[str],
        rewards: Sequence[float],
        reference: Sequence[float],
        *,
        prompts: Sequence[str],
        acceptable: float = ACCEPTABLE,
        invalid: float = -1.0,
    ):
        self.name, self.prompts = name, tuple(prompts)
        self.answers = tuple(" ".join(answer.split()) for answer in answers)
        self.rewards, self.reference = tuple(map(float, rewards)), tuple(map(float, reference))
        self.acceptable, self.invalid = acceptable, invalid
        _check_distinct(f"{name}.answers", self.answers, 2)
        _check_distinct(f"{name}.prompts", self.prompts, 1)
        self._check_numbers()
        self._worth = dict(zip(self.answers, self.rewards, strict=True))

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self):
            raise IndexError(index)
        gold = max(self.answers, key=self._worth.__getitem__)
        return Problem(
            id=f"{self.name}-{index}",
            domain=self.name,
            prompt=self.prompts[index],
            gold=gold,
            private={"answer": gold},
            meta={"worth": self._worth, "invalid": self.invalid},
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        answer = " ".join(utterance.split())
        if answer not in self._worth:
            return Attempt("malformed" if answer else "empty")
        return Attempt("answer", answer, self._worth[answer] >= self.acceptable)

    def quality(self, problem: Problem, completion: str) -> float:
        """`graded_quality`."""
        return graded_quality(problem, completion)

    def _check_numbers(self) -> None:
        name, count = self.name, len(self.answers)
        for what, values in (("rewards", self.rewards), ("reference", self.reference)):
            if len(values) != count:
                raise ValueError(f"{name}.{what} has {len(values)} numbers for {count} answers; give one each.")
        if not all(map(math.isfinite, (*self.rewards, self.invalid))):
            raise ValueError(f"{name}: rewards {self.rewards} and invalid {self.invalid} must be finite.")
        if min(self.reference) <= 0 or not math.isclose(math.fsum(self.reference), 1.0, abs_tol=1e-6):
            raise ValueError(f"{name}.reference is {self.reference}; probabilities must be positive and sum to 1.")
        if max(self.rewards) < self.acceptable:
            raise ValueError(
                f"{name}.acceptable is {self.acceptable}; no reward exceeds {max(self.rewards)}: no answer is right."
            )


class CategoricalToy(AnswerSet):
    """One word of a few, each with its reward; the defaults are section 10.1 of the QEMPO specification.

    Args:
        rewards: Of each word.
        reference: Its probability under the reference policy.
        words: The answers; None takes a, b, c, ...
        prompts: As `AnswerSet`, and so are the others.

    Example:
        >>> toy = CategoricalToy()
        >>> [(toy.verify(toy[0], word).correct, toy.quality(toy[0], word)) for word in ("c", "d", "c d")]
        [(True, 0.8), (False, 0.3), (False, -1.0)]
    """

    def __init__(
        self,
        rewards: Sequence[float] = (1.0, 0.9, 0.8, 0.3, 0.1, 0.0),
        reference: Sequence[float] = (0.50, 0.05, 0.15, 0.20, 0.08, 0.02),
        words: Sequence[str] | None = None,
        *,
        prompts: Sequence[str] = ("pick",),
        acceptable: float = ACCEPTABLE,
        invalid: float = -1.0,
    ):
        if words is None:
            if len(rewards) > 26:
                raise ValueError(f"CategoricalToy.words is missing: {len(rewards)} rewards are more than 26 letters.")
            words = [chr(ord("a") + i) for i in range(len(rewards))]
        super().__init__(
            "CategoricalToy", words, rewards, reference, prompts=prompts, acceptable=acceptable, invalid=invalid
        )


class AutoregressiveToy(AnswerSet):
    """Two words in turn, each a number from 0 on; the defaults are section 10.3 of the QEMPO specification.

    Answers stand in the order 0 0, 0 1, ..., 1 0, ...

    Args:
        rewards: Of each pair, by first and second word.
        first: Probability of each first word under the reference policy.
        second: Probability of each second word, by first word.
        prompts: As `AnswerSet`, and so are the others.

    Example:
        >>> toy = AutoregressiveToy()
        >>> toy.answers, toy.quality(toy[0], "1 1"), [round(p, 2) for p in toy.reference]
        (('0 0', '0 1', '1 0', '1 1'), 0.9, [0.63, 0.07, 0.12, 0.18])
    """

    def __init__(
        self,
        rewards: Sequence[Sequence[float]] = ((1.0, 0.8), (0.0, 0.9)),
        first: Sequence[float] = (0.7, 0.3),
        second: Sequence[Sequence[float]] = ((0.9, 0.1), (0.4, 0.6)),
        *,
        prompts: Sequence[str] = ("pick two",),
        acceptable: float = ACCEPTABLE,
        invalid: float = -1.0,
    ):
        shapes = [(len(rows), *map(len, table)) for rows, table in ((rewards, rewards), (first, second))]
        if shapes[0] != shapes[1] or len(set(map(len, rewards))) != 1:
            raise ValueError(
                "AutoregressiveToy: rewards and second need one row for each first word, all of one length, and first "
                "one number for each; they do not agree."
            )
        pairs = [(i, k) for i in range(len(first)) for k in range(len(rewards[0]))]
        super().__init__(
            "AutoregressiveToy",
            [f"{i} {k}" for i, k in pairs],
            [rewards[i][k] for i, k in pairs],
            [first[i] * second[i][k] for i, k in pairs],
            prompts=prompts,
            acceptable=acceptable,
            invalid=invalid,
        )


def graded_quality(problem: Problem, completion: str) -> float:
    """What a completion is worth by the ``worth`` of its problem's `meta`, and ``invalid`` where it is no answer."""
    worth: float = problem.meta["worth"].get(" ".join(completion.split()), problem.meta["invalid"])
    return worth


def _check_distinct(name: str, texts: Sequence[str], least: int) -> None:
    if len(texts) < least or len(set(texts)) < len(texts) or not all(text.strip() for text in texts):
        raise ValueError(f"{name} is {list(texts)}; give at least {least}, all different and none empty.")
