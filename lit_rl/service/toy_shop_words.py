"""What ToyShop's customers and its service say: few and simple words, so that a tiny model can learn all of them."""

import re

from lit_rl.service.sop import Procedure
from lit_rl.service.toy_shop import (
    ANSWER_POLICY,
    ASK_NEED,
    CLOSE,
    GREET,
    HANDLE_TRUST,
    HANDOFF,
    OFFER_COUPON,
    RECOMMEND,
    ShopState,
    toy_shop_procedure,
)
from lit_rl.service.world import CustomerCue

# What the customer wants it for -> the item that is right, by the number of the need.
USES = ("tea", "bread", "light", "music")
ITEMS = ("kettle", "toaster", "lamp", "radio")

# Skill -> a reply that keeps to the procedure's constraint; the item is for the responder to choose.
REPLIES = {
    GREET: "hello and welcome",
    ASK_NEED: "what do you need it for",
    RECOMMEND: "i recommend the {item}",
    ANSWER_POLICY: "we have 7 day returns",
    HANDLE_TRUST: "we are a real shop",
    OFFER_COUPON: "take 10 percent off",
    CLOSE: "i place your order",
    HANDOFF: "my colleague will help you",
}

LABELS = {
    GREET: "<greet>",
    ASK_NEED: "<ask>",
    RECOMMEND: "<recommend>",
    ANSWER_POLICY: "<policy>",
    HANDLE_TRUST: "<trust>",
    OFFER_COUPON: "<coupon>",
    CLOSE: "<close>",
    HANDOFF: "<handoff>",
}

_USE_LINES = ("it is for {use}", "i want it for {use}")
_LINES = {
    "opening": ("hi i want to buy", "hi can you help me"),
    "greeted": ("thank you", "good day"),
    "likes": ("i like it", "that is what i want"),
    "price": ("it costs too much", "that is too much for me"),
    "trust": ("can i trust you", "how can i trust this"),
    "trusting": ("ok now i trust you", "ok you are a real shop"),
    "affordable": ("ok that is a good price", "ok for that price i like it"),
    "coupon": ("a coupon is very good", "i like the coupon"),
    "policy": ("good to know the policy", "that policy is ok"),
    "wrong_item": ("that is not what i want", "no i do not want that"),
    "unclear": ("what do you mean", "i do not know what you mean"),
    "not_ready": ("no i do not order now", "i can not order now"),
    "again": ("you said that", "no need for that"),
}


def opening_cue() -> CustomerCue:
    """How a dialogue begins."""
    return _cue("opening")


def cue_after(
    skill: str | None, before: ShopState, after: ShopState, need: int, *, effect: bool, reply_ok: bool
) -> CustomerCue:
    """What the customer says after a turn that did not end the dialogue."""
    if skill is None or not reply_ok:
        return _cue("unclear")
    if effect and skill == ASK_NEED:
        return CustomerCue(event="need", lines=tuple(line.format(use=USES[need]) for line in _USE_LINES))
    return _cue(_effect(skill, before, after) if effect else _vain(skill, before))


def _effect(skill: str, before: ShopState, after: ShopState) -> str:
    if skill == OFFER_COUPON:
        return "affordable" if after.resolved and not before.resolved else "coupon"
    if skill == RECOMMEND:
        return "likes" if after.objection_seen == "none" else str(after.objection_seen)
    return {GREET: "greeted", ANSWER_POLICY: "policy", HANDLE_TRUST: "trusting"}[skill]


def _vain(skill: str, before: ShopState) -> str:
    if skill == CLOSE:
        return "not_ready"
    return "wrong_item" if skill == RECOMMEND and not before.recommended else "again"


def _cue(event: str) -> CustomerCue:
    return CustomerCue(event=event, lines=_LINES[event])


def item_named(reply: str) -> int | None:
    """Number of the item that a reply names; None if it names none, or several.

    Example:
        >>> item_named("i recommend the Lamp"), item_named("a lamp or a radio")
        (2, None)
    """
    words = re.findall(r"\w+", reply.lower())
    named = [number for number, item in enumerate(ITEMS) if item in words]
    return named[0] if len(named) == 1 else None


def toy_shop_words(procedure: Procedure | None = None) -> list[str]:
    """All words of customers, replies and constraints, and the labels, for the vocabulary of a tiny model.

    Args:
        procedure: Whose constraints replies keep to; None takes the shop's own.
    """
    replies = [text.format(item=item) for text in REPLIES.values() for item in ITEMS]
    uses = [line.format(use=use) for line in _USE_LINES for use in USES]
    lines = [line for wordings in _LINES.values() for line in wordings]
    constraints = [rule.in_words() for rule in (procedure or toy_shop_procedure()).replies.values()]
    words = " ".join([*replies, *uses, *lines, *constraints]).split()
    return list(dict.fromkeys([*LABELS.values(), *words]))
