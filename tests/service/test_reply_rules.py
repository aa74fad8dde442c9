"""What replies must and must not say."""

from typing import Any

import pytest

from lit_rl.environments.base import Reply
from lit_rl.service import ReplyRule

RULE = ReplyRule(required=("7 day returns", "hello"), forbidden=("guarantee",), max_len=6)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("hello 7 Day Returns", ()),
        ("7 day returns", ("missing: hello",)),
        ("hello 7 day free returns", ("missing: 7 day returns",)),
        ("hello Guaranteed 7 day returns", ("forbidden: guarantee",)),
        ("hello 7 day returns for you too", ("too long",)),
        ("", ("missing: 7 day returns", "missing: hello")),
    ],
)
def test_faults(text: str, faults: tuple[str, ...]) -> None:
    assert RULE.faults(Reply(text=text)) == faults


def test_a_reply_that_was_cut_off_is_too_long() -> None:
    assert RULE.faults(Reply(text="hello 7 day returns", stop_reason="length")) == ("too long",)
    assert RULE.faults(Reply(text="hello 7 day returns", stop_reason="end")) == ()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"required": (" ",)}, "not blank"),
        ({"required": (7,)}, "phrases are texts"),
        ({"max_len": 0}, "room for at least 1"),
        ({"required": ("no guarantee",), "forbidden": ("Guarantee",)}, "it contains 'Guarantee'"),
        ({"required": ("a b c",), "max_len": 2}, "does not fit into max_len 2"),
    ],
)
def test_what_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ReplyRule(**options)
