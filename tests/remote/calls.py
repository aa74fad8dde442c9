"""A call of a party that has spoken once."""

from lit_rl.environments.base import Message
from lit_rl.parties import Call


def call(episode: int = 0, key: int | None = None, text: str = "2 + 2 = 5") -> Call:
    messages = (
        Message("system", "Teach."),
        Message("user", "2 + 2 = 3", "student", 0),
        Message("assistant", "higher", "teacher", 0),
        Message("user", text, "student", 1),
    )
    return Call(
        messages=messages, context=None, key=episode + 1000 if key is None else key, episode=episode, exchange=1
    )
