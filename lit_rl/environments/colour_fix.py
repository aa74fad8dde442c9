"""ColourFix: colour a graph, and hear which edge clashes: a critique that the problem alone lets one learn.

Our small world for RL2F.  Under "edge" the teacher says nothing that could not be computed from the problem and the
attempt, so a student can learn to be its own critic; under "vertex" it uses what only it knows.
"""

import re
from collections.abc import Sequence
from itertools import combinations
from random import Random
from typing import Literal

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.environments.teachers import PLEASE, TeacherContext
from lit_rl.stream_keys import stream_key
from lit_rl.verification.answers import marked_text

Edge = tuple[int, int]
_EDGE = re.compile(r"(\d+) (\d+)")


class ColourFix:
    """``edges 0 1 , 0 3 , 2 4`` is solved by ``ans 0 1 0 1 2``, or by any colouring without two equal neighbours.

    Each problem hides a colouring that is uniform over all, and its edges are a uniform draw from the pairs it colours
    differently; a colouring with too few such pairs is drawn again.  Problems are drawn independently, so that one
    graph may come up more than once: five vertices and six edges have only 210 graphs.

    Args:
        size: Number of problems.
        seed: Of the problems.
        vertices: Called 0 .. vertices - 1; at least 3, or the two vertices a teacher names could be a whole answer.
        edges: In each problem.
        colours: Called 0 .. colours - 1.

    Raises:
        ValueError: An option is out of range, or no graph of so many edges can be coloured.
    """

    name = "ColourFix"

    def __init__(self, size: int = 1000, seed: int = 0, vertices: int = 5, edges: int = 6, colours: int = 3):
        for option, value, least in (("size", size, 1), ("vertices", vertices, 3), ("colours", colours, 2)):
            if value < least:
                raise ValueError(f"ColourFix.{option} is {value}; it must be at least {least}.")
        most = _most_edges(vertices, colours)
        if not 1 <= edges <= most:
            raise ValueError(
                f"ColourFix.edges is {edges}; {vertices} vertices in {colours} colours allow 1 .. {most} edges."
            )
        self.size, self.seed = size, seed
        self.vertices, self.edges, self.colours = vertices, edges, colours

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        colouring, edges = self._draw(Random(stream_key(self.seed, self.name, index)))
        digits = [str(colour) for colour in colouring]
        return Problem(
            id=f"colour-{self.seed}-{index}",
            domain="colour_fix",
            prompt="edges " + " , ".join(f"{a} {b}" for a, b in edges),
            gold=" ".join(digits),
            private={"answer": "".join(digits)},
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        return marked_text(utterance, problem.gold, lambda answer: self._proper(problem, answer))

    def _proper(self, problem: Problem, answer: str) -> bool:
        colouring = read_colouring(answer, self.vertices, self.colours)
        return colouring is not None and first_clash(edges_of(problem.prompt), colouring) is None

    def _draw(self, rng: Random) -> tuple[list[int], list[Edge]]:
        while True:
            colouring = [rng.randrange(self.colours) for _ in range(self.vertices)]
            pairs = [(a, b) for a, b in combinations(range(self.vertices), 2) if colouring[a] != colouring[b]]
            if len(pairs) >= self.edges:
                return colouring, sorted(rng.sample(pairs, self.edges))


class ColourHint:
    """Names what to change of a colouring that clashes; answers no questions.

    Args:
        kind: "edge" names the first edge whose ends have one colour, ``clash 0 3``.  "vertex" names the first end of
            that edge whose colour differs from the hidden colouring, ``change 3``, which only the teacher can know.

    A colouring of too many or too few vertices hears ``need 5 colours``, a colour that is no whole number
    ``please answer or ask``.
    """

    def __init__(self, kind: Literal["edge", "vertex"] = "edge"):
        if kind not in ("edge", "vertex"):
            raise ValueError(f"ColourHint.kind is {kind!r}; it must be 'edge' or 'vertex'.")
        self.kind = kind

    def __call__(self, context: TeacherContext, key: int) -> str:
        if context.attempt.answer is None:
            return PLEASE
        hidden = [int(colour) for colour in context.problem.gold.split()]
        words = context.attempt.answer.split()
        if len(words) != len(hidden):
            return f"need {len(hidden)} colours"
        given = read_colouring(context.attempt.answer, len(hidden))
        clash = None if given is None else first_clash(edges_of(context.problem.prompt), given)
        if given is None or clash is None:
            return PLEASE  # no colours, none that exist, or right: only a teacher of another problem hears the last
        if self.kind == "edge":
            return f"clash {clash[0]} {clash[1]}"
        return f"change {next(end for end in clash if given[end] != hidden[end])}"


def edges_of(prompt: str) -> list[Edge]:
    """The edges a problem lists, in its order."""
    return [(int(a), int(b)) for a, b in _EDGE.findall(prompt)]


def read_colouring(answer: str, vertices: int, colours: int | None = None) -> list[int] | None:
    """One colour for each vertex; None if they are too many or too few, no whole numbers, or not below ``colours``."""
    words = answer.split()
    if len(words) != vertices or not all(len(word) < 10 and word.isdecimal() for word in words):
        return None
    colouring = [int(word) for word in words]
    return None if colours is not None and max(colouring) >= colours else colouring


def first_clash(edges: Sequence[Edge], colouring: Sequence[int]) -> Edge | None:
    """The first of ``edges`` whose ends have one colour; None where the colouring is proper."""
    return next(((a, b) for a, b in edges if colouring[a] == colouring[b]), None)


def _most_edges(vertices: int, colours: int) -> int:
    """Pairs that a balanced colouring colours differently, the most any does."""
    small, larger = divmod(vertices, colours)
    sizes = [small + (i < larger) for i in range(colours)]
    return sum(a * b for a, b in combinations(sizes, 2))
