"""Which sampled tokens are the switch, the subgoal and the action, and where values may be read (HiPER)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lit_rl.verification.plan_execute import BLOCKS

Place = tuple[int, int]  # characters [start, stop)


@dataclass(frozen=True, slots=True)
class PlanTokens:
    """Tokens of a reply, by number.

    Attributes:
        blocks: Of "switch", "subgoal" and "action" their tokens in rising order; no token is in two.
        low_read: The first token that the low-level value must not have seen: what comes before it tells switch and
            subgoal, and nothing of the action.
    """

    blocks: Mapping[str, tuple[int, ...]]
    low_read: int


def plan_tokens(spans: Mapping[str, Place], places: Sequence[Place], *, include_tags: bool = True) -> PlanTokens:
    r"""Tokens of each block (hiper.md 4.7) and the position of the low-level value (hiper.md 5.1).

    A token that two blocks share is the earlier one's; the authors' code gives it to both.  Without an action block the
    action is all outside the other two.  ``low_read`` is the token behind the subgoal block, or behind the switch block
    where there is no subgoal, or 0; never beyond the first token of the action.

    Args:
        spans: Of `parse_plan_execute`, tags included.
        places: Characters of each token, from `token_places`.
        include_tags: Tags are tokens of their block; False leaves them out of all blocks.

    Example:
        >>> text = "<switch>KEEP</switch>\n<action>up</action>"
        >>> found = plan_tokens({"switch": (0, 21), "action": (22, 41)}, [(i, i + 1) for i in range(len(text))])
        >>> found.blocks["action"][0], found.low_read
        (22, 21)
    """
    owners = [_owner(place, spans) for place in places]
    inner = spans if include_tags else {block: _inside(block, span) for block, span in spans.items()}
    blocks = {
        block: tuple(i for i, owner in enumerate(owners) if owner == block and _touches(places[i], inner[block]))
        for block in BLOCKS
        if block in spans
    }
    if "action" not in spans:
        blocks["action"] = tuple(i for i, owner in enumerate(owners) if owner is None)
    action = [i for i, owner in enumerate(owners) if owner == ("action" if "action" in spans else None)]
    behind = next((_behind(places, spans[block]) for block in ("subgoal", "switch") if block in spans), 0)
    return PlanTokens({block: blocks.get(block, ()) for block in BLOCKS}, min([behind, *action[:1]]))


def token_places(pieces: Sequence[str], text: str, beginning: Callable[[int], str], *, start: int = 0) -> list[Place]:
    """Characters of ``text`` that each token stands for; an empty range where it stands for none.

    Args:
        pieces: Each token decoded alone.
        text: All of them decoded together, perhaps stripped; word-level tokenizers put spaces between words.
        beginning: The text of the first n tokens, for where pieces do not make up the text, as those of a character
            that is split into bytes.
        start: Where in ``text`` the first token begins.

    Example:
        >>> token_places(["<action>", "go", "</action>", ""], "<action> go </action>", lambda n: "")
        [(0, 8), (9, 11), (12, 21), (21, 21)]
    """
    places, end = [], start
    for piece in pieces:
        place = _next(piece, text, end)
        if place is None:
            return _by_beginnings(len(pieces), text, beginning, start)
        places.append(place)
        end = place[1]
    return places


def _next(piece: str, text: str, end: int) -> Place | None:
    """The place of the next piece, from ``end`` on, whatever space stands between; None if it is not there."""
    if text.startswith(piece, end):
        return end, end + len(piece)
    bare = piece.strip()
    if not bare:
        return end, end
    begin = end + len(text[end:]) - len(text[end:].lstrip())
    return (begin, begin + len(bare)) if text.startswith(bare, begin) else None


def _by_beginnings(count: int, text: str, beginning: Callable[[int], str], start: int) -> list[Place]:
    places, end = [], start
    for n in range(1, count + 1):
        stop = min(max(end, len(beginning(n))), len(text))
        places.append((end, stop))
        end = stop
    return places


def _owner(place: Place, spans: Mapping[str, Place]) -> str | None:
    touched = [(span, block) for block, span in spans.items() if _touches(place, span)]
    return min(touched)[1] if touched else None


def _touches(place: Place, span: Place) -> bool:
    """A token that stands for no character is inside a span or outside, never on its edge."""
    return place[0] < span[1] and place[1] > span[0]


def _inside(block: str, span: Place) -> Place:
    return span[0] + len(block) + 2, span[1] - len(block) - 3


def _behind(places: Sequence[Place], span: Place) -> int:
    return 1 + max((i for i, place in enumerate(places) if _touches(place, span)), default=-1)
