"""Reads a reply of three blocks, keep or switch, subgoal, action (HiPER, arXiv 2602.16165), whatever a model wrote."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

BLOCKS = ("switch", "subgoal", "action")
KEEP, SWITCH = "KEEP", "SWITCH"
# Han, kana and hangul with their punctuation and full-width forms.
_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, slots=True)
class PlanExecute:
    """What a reply decided.

    Attributes:
        switch: The reply says SWITCH; anything else is KEEP.
        subgoal: As written, without space around it; "" if there is none.
        action: Likewise.
        valid: All three blocks are there, none is empty, and the first says KEEP or SWITCH.
        spans: Of each block that is there its characters ``[start, stop)``, tags included; none overlap.
    """

    switch: bool
    subgoal: str
    action: str
    valid: bool
    spans: Mapping[str, tuple[int, int]]


def parse_plan_execute(text: str, *, refuse_cjk: bool = False) -> PlanExecute:
    """The one parser of environment, masks and penalties.

    A block is the first opening tag and the first closing tag after it; tags are case-sensitive, KEEP and SWITCH are
    not.  What is missing or unreadable makes the reply invalid and decides nothing: no action, no subgoal, KEEP.  Text
    around the blocks is ignored.  Our reading of malformed replies (the authors parse twice, by different rules); ours
    too that a block inside another is text of that one, and that an empty block makes a reply invalid.

    Args:
        text: What the model said.
        refuse_cjk: A reply with Chinese, Japanese or Korean characters is invalid, as in the authors' code.

    Example:
        >>> parse_plan_execute("<switch>SWITCH</switch><subgoal>go</subgoal><action>up</action>").subgoal
        'go'
        >>> parse_plan_execute("<switch>SWITCH</switch>").valid
        False
    """
    spans = _spans(text)
    inside = {block: _inside(text, block, spans.get(block)) for block in BLOCKS}
    decision = inside["switch"].upper()
    valid = all(inside.values()) and decision in (KEEP, SWITCH)
    if refuse_cjk and _CJK.search(text):
        valid = False
    return PlanExecute(decision == SWITCH, inside["subgoal"], inside["action"], valid, spans)


def parse_action(text: str, *, refuse_cjk: bool = False) -> tuple[str, bool]:
    """``(action, valid)`` of a reply without a plan: its one action block, by the same rules.

    Example:
        >>> parse_action("so <action> look </action>")
        ('look', True)
    """
    action = _inside(text, "action", _span(text, "action"))
    return action, bool(action) and not (refuse_cjk and _CJK.search(text))


def render_plan_execute(switch: bool, subgoal: str, action: str) -> str:
    r"""The reply in its published form; the inverse of `parse_plan_execute`.

    Example:
        >>> render_plan_execute(False, "find a mug", "go to shelf 1")
        '<switch>KEEP</switch>\n<subgoal>find a mug</subgoal>\n<action>go to shelf 1</action>'
    """
    return "\n".join(
        f"<{block}>{inside}</{block}>"
        for block, inside in zip(BLOCKS, (SWITCH if switch else KEEP, subgoal, action), strict=True)
    )


def _spans(text: str) -> dict[str, tuple[int, int]]:
    found = {block: span for block in BLOCKS if (span := _span(text, block)) is not None}
    free, end = {}, 0
    for block, (start, stop) in sorted(found.items(), key=lambda item: item[1]):
        if start >= end:
            free[block], end = (start, stop), stop
    return free


def _span(text: str, block: str) -> tuple[int, int] | None:
    start = text.find(f"<{block}>")
    close = text.find(f"</{block}>", start + len(block) + 2) if start >= 0 else -1
    return (start, close + len(block) + 3) if close >= 0 else None


def _inside(text: str, block: str, span: tuple[int, int] | None) -> str:
    if span is None:
        return ""
    return text[span[0] + len(block) + 2 : span[1] - len(block) - 3].strip()
