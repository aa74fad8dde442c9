"""MazeHint: a way through a maze whose inner walls one only learns of by running into them (our world for RL2F)."""

from collections import deque
from functools import lru_cache
from random import Random

from lit_rl.environments.problems import Attempt, Problem
from lit_rl.environments.teachers import PLEASE, TeacherContext
from lit_rl.stream_keys import stream_key
from lit_rl.verification.answers import marked_text

Cell = tuple[int, int]  # row, column; row 0 is at the top
Wall = tuple[int, int, str]  # on this side, "R" or "D", of this row and column

MOVES: dict[str, Cell] = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}


class MazeHint:
    """``maze 4 start 0 0 goal 1 2`` asks for a way such as ``ans R D R``; where the inner walls are is not said.

    Any way of at most ``max_moves`` steps that runs into no wall and ends at the goal is right.  Walls are drawn
    uniformly, then the start, then the goal among all cells that can be reached in time, so every maze can be solved.

    Args:
        size: Number of problems.
        seed: Of the problems.
        width: Cells on each side of the square.
        walls: Inner walls, each between two neighbouring cells.
        max_moves: Longest way.

    Raises:
        ValueError: An option is out of range.
    """

    name = "MazeHint"

    def __init__(self, size: int = 1000, seed: int = 0, width: int = 4, walls: int = 8, max_moves: int = 8):
        for option, value, least in (("size", size, 1), ("width", width, 2), ("max_moves", max_moves, 1)):
            if value < least:
                raise ValueError(f"MazeHint.{option} is {value}; it must be at least {least}.")
        self._sides = _sides(width)
        if not 0 <= walls < len(self._sides):
            raise ValueError(f"MazeHint.walls is {walls}; width {width} has room for 0 .. {len(self._sides) - 1}.")
        self.size, self.seed, self.width, self.walls, self.max_moves = size, seed, width, walls, max_moves

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < self.size:
            raise IndexError(index)
        walls, start, way, goal = self._draw(Random(stream_key(self.seed, self.name, index)))
        return Problem(
            id=f"maze-{self.seed}-{index}",
            domain="maze_hint",
            prompt=f"maze {self.width} start {start[0]} {start[1]} goal {goal[0]} {goal[1]}",
            gold=" ".join(way),
            private={
                "answer": "".join(way),
                "walls": " , ".join(f"{row} {column} {side}" for row, column, side in sorted(walls)),
                "max_moves": str(self.max_moves),
            },
        )

    def verify(self, problem: Problem, utterance: str) -> Attempt:
        def right(answer: str) -> bool:
            moves = answer.split()
            return len(moves) <= self.max_moves and first_fault(problem, moves) is None

        return marked_text(utterance, problem.gold, right)

    def _draw(self, rng: Random) -> tuple[frozenset[Wall], Cell, tuple[str, ...], Cell]:
        while True:
            walls = frozenset(rng.sample(self._sides, self.walls))
            start = (rng.randrange(self.width), rng.randrange(self.width))
            ways = shortest_ways(self.width, walls, start, self.max_moves)
            if goals := sorted(ways.keys() - {start}):
                goal = rng.choice(goals)
                return walls, start, ways[goal], goal


class MazeFeedback:
    """Says which step of a way was the first to run into a wall, ``step 2 blocked``, else ``not at goal``.

    A way that is too long hears ``at most 8 moves``; one with other words than U, D, L and R, and whoever gives none,
    ``please answer or ask``.  It answers no questions.
    """

    def __call__(self, context: TeacherContext, key: int) -> str:
        moves = [] if context.attempt.answer is None else context.attempt.answer.split()
        if not moves or not all(move in MOVES for move in moves):
            return PLEASE
        most = int(context.problem.private["max_moves"])
        if len(moves) > most:
            return f"at most {most} moves"
        return first_fault(context.problem, moves) or PLEASE  # right: only a teacher of another problem gets here


def first_fault(problem: Problem, moves: list[str]) -> str | None:
    """What is wrong with a way: ``step 2 blocked`` (1-based) or ``not at goal``; None if it leads to the goal."""
    _, width, _, row, column, _, goal_row, goal_column = problem.prompt.split()
    walls, cell = _read_walls(problem.private["walls"]), (int(row), int(column))
    for step, move in enumerate(moves, start=1):
        after = moved(cell, move, int(width), walls)
        if after is None:
            return f"step {step} blocked"
        cell = after
    return None if cell == (int(goal_row), int(goal_column)) else "not at goal"


def moved(cell: Cell, move: str, width: int, walls: frozenset[Wall]) -> Cell | None:
    """The cell one step on; None where a wall, inner or outer, is in the way, or ``move`` is none."""
    if move not in MOVES:
        return None
    after = (cell[0] + MOVES[move][0], cell[1] + MOVES[move][1])
    side = "R" if move in "LR" else "D"
    if not (0 <= after[0] < width and 0 <= after[1] < width) or (*min(cell, after), side) in walls:
        return None
    return after


def shortest_ways(width: int, walls: frozenset[Wall], start: Cell, max_moves: int) -> dict[Cell, tuple[str, ...]]:
    """A shortest way to every cell that can be reached in ``max_moves``, the start itself by no move."""
    ways: dict[Cell, tuple[str, ...]] = {start: ()}
    waiting = deque([start])
    while waiting:
        cell = waiting.popleft()
        for move in MOVES:
            after = moved(cell, move, width, walls)
            if after is not None and after not in ways and len(ways[cell]) < max_moves:
                ways[after] = (*ways[cell], move)
                waiting.append(after)
    return ways


def _sides(width: int) -> list[Wall]:
    """Every place an inner wall can stand at."""
    right = [(row, column, "R") for row in range(width) for column in range(width - 1)]
    down = [(row, column, "D") for row in range(width - 1) for column in range(width)]
    return right + down


@lru_cache(maxsize=1024)
def _read_walls(text: str) -> frozenset[Wall]:
    walls = (wall.split() for wall in text.split(" , ") if wall)
    return frozenset((int(row), int(column), side) for row, column, side in walls)
