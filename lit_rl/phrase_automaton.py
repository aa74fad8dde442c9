"""An Aho-Corasick automaton over the bytes of phrases, and what each token of a vocabulary does to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TokenSteps:
    """What tokens do from every node.  Most do what many others do, and share a *kind*.

    Attributes:
        kind: Of each token, int64 ``(V,)``.
        target: Node behind a token of each kind, int32 ``(nodes, kinds)``; ``nodes`` if it completes a forbidden
            phrase, or is none to be said.
        said: Required phrases it completes, as bits, uint8 ``(nodes, kinds)``.
    """

    kind: Array
    target: Array
    said: Array


class PhraseAutomaton:
    """Follows text byte by byte and knows which phrases it completes (Aho and Corasick, 1975).

    Node 0 is where a reply begins.

    Args:
        required: Phrases numbered by bits, at most 8.
        forbidden: Phrases behind which nothing goes on.
        ignore_case: Whether A to Z match a to z.
        start: Text before the reply, itself without a forbidden phrase.
    """

    def __init__(self, required: Sequence[str], forbidden: Sequence[str], *, ignore_case: bool, start: str = ""):
        words = [fold_case(phrase.encode(), ignore_case) for phrase in (*required, *forbidden)]
        self.sets = 2 ** len(required)
        used = sorted({byte for word in words for byte in word})
        # Bytes in no phrase all do the same: they share column 0.
        column = np.zeros(256, dtype=np.int64)
        column[used] = np.arange(1, len(used) + 1)
        if ignore_case:
            column[ord("A") : ord("Z") + 1] = column[ord("a") : ord("z") + 1]
        self._column = column
        step, self._bits, dead = _aho_corasick([column[list(word)].tolist() for word in words], len(required))
        step[dead[step]] = len(step) - 1
        node = 0
        for byte in start.encode():
            node = int(step[node, column[byte]])
        order = np.arange(len(step))
        order[[0, node]] = order[[node, 0]]  # its own inverse
        self._step, self._bits = order[step[order]].astype(np.int32), self._bits[order]

    def over(self, pieces: Sequence[bytes | None]) -> TokenSteps:
        """Run every token's bytes from every node; None is a token not to be said."""
        kinds = _Kinds(self._step, self._bits)
        lengths = np.array([0 if piece is None else len(piece) for piece in pieces])
        text = np.frombuffer(b"".join(piece for piece in pieces if piece), dtype=np.uint8)
        starts = np.cumsum(lengths) - lengths
        longest_first = np.argsort(-lengths, kind="stable")
        kind = np.zeros(len(pieces), dtype=np.int64)
        for place in range(int(lengths.max(initial=0))):
            tokens = longest_first[: int((lengths > place).sum())]
            kind[tokens] = kinds.behind(kind[tokens], self._column[text[starts[tokens] + place]])
        kind[[i for i, piece in enumerate(pieces) if piece is None]] = kinds.never()
        met, kind = np.unique(kind, return_inverse=True)
        target = np.stack([kinds.targets[i][:-1] for i in met], 1)
        said = np.stack([kinds.said[i][:-1] for i in met], 1)
        return TokenSteps(kind.astype(np.int64), target, said)


class _Kinds:
    """Functions from nodes to nodes that byte strings are, found one byte after another; number 0 does nothing."""

    def __init__(self, step: Array, bits: Array):
        self.step, self.bits = step, bits
        self.targets: list[Array] = []
        self.said: list[Array] = []
        self._numbers: dict[bytes, int] = {}
        self._behind = np.zeros((0, step.shape[1]), dtype=np.int64)
        self._number(np.arange(len(step), dtype=np.int32), np.zeros(len(step), dtype=np.uint8))

    def behind(self, kinds: Array, columns: Array) -> Array:
        """Kinds of the strings that are one byte longer, int64 of the shape of both."""
        missing = self._behind[kinds, columns] < 0
        for code in np.unique(kinds[missing] * self.step.shape[1] + columns[missing]).tolist():
            kind, column = divmod(code, self.step.shape[1])
            target = self.step[self.targets[kind], column]
            number = self._number(target, self.said[kind] | self.bits[target])
            self._behind[kind, column] = number
        found: Array = self._behind[kinds, columns]
        return found

    def never(self) -> int:
        """The kind of what is not to be said: from everywhere to where nothing goes on."""
        dead = len(self.step) - 1
        return self._number(np.full(len(self.step), dead, dtype=np.int32), np.zeros(len(self.step), dtype=np.uint8))

    def _number(self, target: Array, said: Array) -> int:
        key = target.tobytes() + said.tobytes()
        if key not in self._numbers:
            self._numbers[key] = len(self.targets)
            self.targets.append(target)
            self.said.append(said)
            if len(self.targets) > len(self._behind):
                more = np.full((max(64, len(self._behind)), self.step.shape[1]), -1)
                self._behind = np.concatenate([self._behind, more])
        return self._numbers[key]


def _aho_corasick(words: Sequence[Sequence[int]], required: int) -> tuple[Array, Array, Array]:
    """Steps ``(nodes + 1, columns)``, completed phrases as bits and whether forbidden ones ``(nodes + 1,)``.

    The last node is where nothing goes on.
    """
    children: list[dict[int, int]] = [{}]
    ends: list[list[int]] = [[]]
    for number, word in enumerate(words):
        node = 0
        for column in word:
            if column not in children[node]:
                children[node][column] = len(children)
                children.append({})
                ends.append([])
            node = children[node][column]
        ends[node].append(number)
    nodes, columns = len(children), 1 + max((column for word in words for column in word), default=0)
    step = np.zeros((nodes + 1, columns), dtype=np.int64)
    step[nodes] = nodes
    bits, dead = np.zeros(nodes + 1, dtype=np.uint8), np.zeros(nodes + 1, dtype=bool)
    fall = [0] * nodes
    waiting = [0]
    for node in waiting:  # grows while it is read: by depth
        bits[node] = bits[fall[node]] | sum({1 << number for number in ends[node] if number < required})
        dead[node] = dead[fall[node]] or any(number >= required for number in ends[node])
        step[node] = step[fall[node]]
        for column, child in children[node].items():
            fall[child] = int(step[fall[node], column]) if node else 0
            step[node, column] = child
            waiting.append(child)
    return step, bits, dead


def fold_case(text: bytes, ignore_case: bool) -> bytes:
    """Bytes with A to Z as a to z, if case is ignored; letters beyond ASCII are left alone."""
    return text.lower() if ignore_case else text
