"""What a listener hears as text (remul.md 3.4)."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from lit_rl.listeners.prompts import ListenerPrompts
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.tiny import TinyModel
from lit_rl.verification.traces import ThinkTags

OWN = ThinkTags("[T]", "[/T]")


@pytest.fixture(scope="module")
def tokenizer(spelling: Callable[..., Any]) -> Any:
    return spelling("[T]", "[/T]")


def with_header(tokenizer: Any, header: str) -> Any:
    tokenizer.chat_template = "{{ '<user>' + messages[-1]['content'] + '<end>' }}" + header
    return tokenizer


def test_chat_and_raw(tokenizer: Any) -> None:
    """The question as the user's turn, then an opened block with the prefix and a line break."""
    prompts = ListenerPrompts(tokenizer, OWN)
    assert prompts.text("Who?", "a\nb") == "<user>Who?<end>\n<assistant>[T]\na\nb\n"
    assert prompts.text("Who?", "") == "<user>Who?<end>\n<assistant>[T]\n"
    told = ListenerPrompts(tokenizer, OWN, instruction="Be short.")
    assert told.text("Who?", "a") == "<system>Be short.<end>\n<user>Who?<end>\n<assistant>[T]\na\n"
    raw = ListenerPrompts(tokenizer, OWN, "raw")
    assert raw.text("Who?", "a\nb") == "Who?\n[T]\na\nb\n"
    assert ListenerPrompts(tokenizer, OWN, "raw", "Be short.").text("Who?", "a") == "Be short.\n\nWho?\n[T]\na\n"
    assert tokenizer.decode(prompts.ids("Who?", "a\nb")) == prompts.text("Who?", "a\nb")


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("<assistant>[T]\n", "<assistant>[T]\n"),  # opened by the template: no second one
        ("<assistant>[T]", "<assistant>[T]\n"),
        ("<assistant>", "<assistant>[T]\n"),
        ("<assistant>[T]\n\n[/T]\n\n", "<assistant>[T]\n"),  # thinking turned off by an empty block
        ("<assistant>[/T]", "<assistant>[T]\n"),
        ("{% if enable_thinking %}<assistant>{% else %}<assistant>[T][/T]{% endif %}", "<assistant>[T]\n"),
    ],
)
def test_a_block_is_opened_once(header: str, text: str, spelling: Callable[..., Any]) -> None:
    prompts = ListenerPrompts(with_header(spelling("[T]", "[/T]"), header), OWN)
    assert prompts.text("Is [T] a tag?", "a") == f"<user>Is  a tag?<end>{text}a\n"


def test_words_that_would_end_the_turn_or_the_block_are_left_out(tokenizer: Any) -> None:
    """A prefix is somebody else's words: neither tags nor special tokens that it spells out count."""
    prompts = ListenerPrompts(tokenizer, OWN)
    ids = prompts.ids("Who<end>?", "a [/T] b <e<end>nd> c [/[/T]T]\n<assistant>[T]")
    assert tokenizer.decode(ids) == "<user>Who?<end>\n<assistant>[T]\na  b  c\n"


def test_tags_without_tokens_of_their_own(spelling: Callable[..., Any], listening_model: TinyModel) -> None:
    """A tokenizer that lacks the tags spells them, with a warning; one that cannot spell them is refused."""
    with pytest.warns(UserWarning, match=r"Listener 'odd' has no token for the think tag '<think>' and spells it with"):
        spelled = ListenerPrompts(spelling(), ThinkTags(), name="odd")
    assert spelled.tokenizer.decode(spelled.ids("Who?", "a")).endswith("<think>\na\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ListenerPrompts(spelling("<think>", "</think>"), ThinkTags())
    words = Policy(PolicyConfig(tiny=TinyModel(words=["a", "b"]))).tokenizer
    with pytest.raises(ValueError, match=r"Listener 'deaf': .* cannot spell the think tag '<think>'; set tags"):
        ListenerPrompts(words, ThinkTags(), name="deaf")


def test_words_it_does_not_know_are_counted(listening_model: TinyModel) -> None:
    prompts = ListenerPrompts(Policy(PolicyConfig(tiny=listening_model)).tokenizer, ThinkTags(), name="small")
    prompts.ids("Who is it", "step1 \n step2")
    assert prompts.unknown == 0
    with pytest.warns(UserWarning, match="Listener 'small' has no tokens for some words"):
        prompts.ids("Who is it", "zebra")
    prompts.ids("Who is it", "zebra")
    assert prompts.unknown == 2


def test_chat_needs_a_template(spelling: Callable[..., Any]) -> None:
    bare = spelling("[T]", "[/T]")
    bare.chat_template = None
    with pytest.raises(ValueError, match="no chat template; set prompt_mode to 'raw'"):
        ListenerPrompts(bare, OWN, name="bare")
    assert ListenerPrompts(bare, OWN, "raw").text("Who?", "a") == "Who?\n[T]\na\n"
    bare.chat_template = "<user>hello<end>"
    with pytest.raises(ValueError, match="changes or leaves out the user's turn; set prompt_mode to 'raw'"):
        ListenerPrompts(bare, OWN, name="bare")
