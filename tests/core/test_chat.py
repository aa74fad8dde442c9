"""Rows built turn by turn against what chat templates render for the whole dialogue."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from lit_rl.chat import ChatFormat, TemplateMismatch
from lit_rl.environments.base import Message
from lit_rl.episodes import Episode, Heard, Rollouts, Turn

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|header|>{{ m.role }}<|/header|>\n\n"
    "{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SPACED = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '</think>' in m.content and not loop.last %}"
    "{{ m.content.split('</think>')[-1].strip() }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|header|>", "<|/header|>", "<|eot|>", "<start_of_turn>", "<end_of_turn>"]
SPECIAL += ["<bos>", "</s>"]
ENDS = {CHATML: "<|im_end|>", LLAMA: "<|eot|>", GEMMA: "<end_of_turn>", SPACED: "</s>", THINKING: "<|im_end|>"}
WORDS = ["is", "the", "answer", "higher", "lower", "than", "four", "Ünicode", "x=3;", "no"]


def byte_level(template: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE that has learned a few words, so that tokens carry the space before them."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    core.train_from_iterator([" ".join(WORDS), "user assistant model system"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="</s>", additional_special_tokens=SPECIAL[:-2]
    )
    tokenizer.chat_template = template
    return tokenizer


TOKENIZERS = {template: byte_level(template) for template in ENDS}
PLAIN = [CHATML, LLAMA, GEMMA, SPACED]


def whole(chat: ChatFormat, messages: Sequence[Message], header: bool) -> list[int]:
    """What the template itself makes of the dialogue."""
    rendered = [{"role": m.role, "content": m.content} for m in messages]
    text = chat.tokenizer.apply_chat_template(rendered, tokenize=False, add_generation_prompt=header)
    ids: list[int] = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join)


@pytest.mark.parametrize("template", PLAIN, ids=["chatml", "llama", "gemma", "spaced"])
@given(said=st.lists(st.tuples(sentences, sentences), min_size=1, max_size=4), sampled_end=st.booleans())
def test_turn_by_turn_equals_the_template(template: str, said: list[tuple[str, str]], sampled_end: bool) -> None:
    chat = ChatFormat(TOKENIZERS[template])
    if template == SPACED:  # no space behind its header: replies begin with one
        said = [(question, f" {reply}") for question, reply in said]
    row: list[int] = []
    dialogue: list[Message] = []
    for question, reply in said:
        message = Message("user", question)
        row += (chat.continuation("a", [message], sampled_end) if row else chat.opening("a", [message])).ids
        dialogue.append(message)
        assert row == whole(chat, dialogue, header=True)
        row += chat.reply_ids("a", reply) + ([chat.end_id] if sampled_end else [])
        dialogue.append(Message("assistant", reply.strip()))
    row += chat.closing("a", [], sampled_end).ids
    assert row == whole(chat, dialogue, header=False)


@pytest.mark.parametrize("template", PLAIN, ids=["chatml", "llama", "gemma", "spaced"])
def test_end_of_turn_and_start_check(template: str) -> None:
    chat = ChatFormat(TOKENIZERS[template])
    end, eos = chat.tokenizer.convert_tokens_to_ids([ENDS[template], "</s>"])
    assert chat.end_id == end
    assert chat.stop_ids == {end, eos}
    if template == SPACED:  # "[assistant]" + "one" is not " one", which the template would have
        with pytest.raises(TemplateMismatch, match=r"is 'one' in the row and|in the row and 'Ġ"):
            chat.check()
    else:
        chat.check()


@pytest.mark.parametrize("template", PLAIN, ids=["chatml", "llama", "gemma", "spaced"])
@given(content=sentences, later=sentences)
def test_heard_spans_hold_what_was_said(template: str, content: str, later: str) -> None:
    """The tokens of the span decode to the words and the end of turn, header and context apart."""
    chat = ChatFormat(TOKENIZERS[template])
    messages = [Message("user", content, "teacher", 0), Message("user", later), Message("user", content, "judge", 1)]
    for ended in (True, False):
        rendered = chat.continuation("student", messages, ended)
        assert [(h.party, h.exchange) for h in rendered.heard] == [("teacher", 0), ("judge", 1)]
        for span in rendered.heard:
            text = chat.tokenizer.decode(rendered.ids[span.start : span.stop])
            assert text.strip() == content + ENDS[template]
    assert chat.opening("student", messages[1:2]).heard == ()


def test_dropped_thinking_is_found_at_start() -> None:
    chat = ChatFormat(TOKENIZERS[THINKING])
    with pytest.raises(TemplateMismatch, match=r"token \d+ is '.*' in the row and '.*' in the template.*rows='turn'"):
        chat.check()
    place = 0
    try:
        chat.check()
    except TemplateMismatch as mismatch:
        place = int(str(mismatch).split("token ")[1].split(" ")[0])
    user = len(whole(chat, [Message("user", "a b")], header=True))
    assert place == user  # the first token of the reply, "<" of its thinking


def test_opening_drops_what_the_template_drops() -> None:
    """With a row per turn the prompt is the template's own: earlier thinking is gone, the words around it stay."""
    chat = ChatFormat(TOKENIZERS[THINKING])
    dialogue = [
        Message("user", "is four higher"),
        Message("assistant", "<think>\nno\n</think>\n\nlower", "student", 0),
        Message("user", "no", "teacher", 0),
    ]
    rendered = chat.opening("student", dialogue)
    assert list(rendered.ids) == whole(chat, dialogue, header=True)
    (heard,) = rendered.heard
    assert chat.tokenizer.decode(rendered.ids[heard.start : heard.stop]) == "no<|im_end|>"
    assert heard.party == "teacher"


def test_own_earlier_replies_are_marked_where_nothing_is_dropped() -> None:
    chat = ChatFormat(TOKENIZERS[CHATML])
    dialogue = [Message("user", "is four"), Message("assistant", "higher", "student", 0), Message("user", "no")]
    rendered = chat.opening("student", dialogue)
    (heard,) = rendered.heard
    assert (heard.party, heard.exchange) == ("student", 0)
    assert chat.tokenizer.decode(rendered.ids[heard.start : heard.stop]) == "higher<|im_end|>"


def test_prefill_opens_every_reply_of_its_party() -> None:
    chat = ChatFormat(TOKENIZERS[CHATML], {"student": "the answer"})
    question = [Message("user", "four")]
    own, other = chat.opening("student", question), chat.opening("teacher", question)
    assert chat.tokenizer.decode(own.ids) == chat.tokenizer.decode(other.ids) + "the answer"
    assert chat.continuation("student", question, True).ids[-1] == own.ids[-1]
    assert chat.text("student", chat.reply_ids("student", "the answer is four")) == "the answer is four"
    with pytest.raises(ValueError, match="does not begin with its prefill 'the answer'"):
        chat.reply_ids("student", "four")


def test_text_leaves_special_tokens_out() -> None:
    chat = ChatFormat(TOKENIZERS[CHATML])
    assert chat.text("a", [*chat.reply_ids("a", "is the answer"), chat.end_id]) == "is the answer"


# -- the row of sml, by hand -----------------------------------------------------------------------------------

GOLDEN_TEMPLATE = (
    "<bos>{% for m in messages %}{{ ' <s> ' if m.role == 'assistant' else ' <t> ' }}{{ m.content }} <e>{% endfor %}"
    "{% if add_generation_prompt %} <s>{% endif %}"
)


def word_level() -> PreTrainedTokenizerFast:
    """Ids 0 pad, 1 bos, 2 teacher header, 3 student header, 4 end of turn, 5 unknown, w10 to w39 as numbered."""
    names = ["<pad>", "<bos>", "<t>", "<s>", "<e>", "<unk>", *(f"w{i}" for i in range(6, 40))]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<e>",
        additional_special_tokens=["<t>", "<s>"],
    )
    tokenizer.chat_template = GOLDEN_TEMPLATE
    return tokenizer


def golden_row(said: list[list[int]]) -> dict[str, Any]:
    """A dialogue about "10 11 12" in which the teacher says "30 31", through the chat format and `from_episodes`."""
    chat = ChatFormat(word_level())
    chat.check()
    problem = chat.opening("student", [Message("user", "w10 w11 w12")])
    feedback = chat.continuation("student", [Message("user", "w30 w31", "teacher", 0)], ended=said[0][-1] == 4)
    turns = [
        Turn(
            party="student",
            exchange=i,
            text="",
            prompt_ids=list(rendered.ids),
            heard=rendered.heard,
            completion_ids=ids,
            log_probs=[-1.0] * len(ids),
            new_row=i == 0,
        )
        for i, (rendered, ids) in enumerate(zip((problem, feedback), said, strict=True))
    ]
    turns.insert(1, Turn(party="teacher", exchange=0, text="w30 w31"))
    episode = Episode(index=0, task_id="t", group=0, seed=0, turns=turns)
    rollouts = Rollouts.from_episodes([episode], trained=["student"], parties=["student", "teacher"])
    critique = rollouts.party_ids == 1
    return {
        "input_ids": rollouts.input_ids[0].tolist(),
        "student": rollouts.loss_mask[0].int().tolist(),
        "critique": critique[0].int().tolist(),
        "turn_ids": rollouts.turn_ids[0].tolist(),
        "own": (rollouts.party_ids == 0)[0].int().tolist(),
    }


def test_golden_row() -> None:
    """The golden row of the trajectory representation: header, feedback with its end of turn, sampled tokens."""
    row = golden_row([[20, 4], [21, 22, 4]])
    assert row["input_ids"] == [1, 2, 10, 11, 12, 4, 3, 20, 4, 2, 30, 31, 4, 3, 21, 22, 4]
    assert row["student"] == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1]
    assert row["critique"] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert row["turn_ids"] == [-1, -1, -1, -1, -1, -1, -1, 0, 0, -1, 0, 0, 0, -1, 1, 1, 1]
    assert row["own"] == row["student"]


def test_an_appended_end_of_turn_is_not_learned() -> None:
    """A reply cut by its limit: the environment ends the turn, and that token is nobody's."""
    row = golden_row([[20, 23], [21]])
    assert row["input_ids"] == [1, 2, 10, 11, 12, 4, 3, 20, 23, 4, 2, 30, 31, 4, 3, 21]
    assert row["student"] == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert row["critique"] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert row["turn_ids"] == [-1, -1, -1, -1, -1, -1, -1, 0, 0, -1, -1, 0, 0, 0, -1, 1]


def test_closing_ends_a_row_without_a_header() -> None:
    chat = ChatFormat(word_level())
    closing = chat.closing("student", [Message("user", "w30", "teacher", 1)], ended=True)
    assert closing.ids == (2, 30, 4)
    assert closing.heard == (Heard("teacher", 1, 1, 3),)
    assert chat.closing("student", [Message("user", "w30", "teacher", 1)], ended=False).ids == (4, 2, 30, 4)


# -- bad input -------------------------------------------------------------------------------------------------


def test_unknown_words_are_refused() -> None:
    chat = ChatFormat(word_level())
    with pytest.raises(ValueError, match="has no token for 'hello' in"):
        chat.opening("student", [Message("user", "w10 hello")])
    with pytest.raises(ValueError, match="cannot spell the reply 'w10 hello'"):
        chat.reply_ids("student", "w10 hello")


def test_a_tokenizer_without_template_is_refused() -> None:
    tokenizer = word_level()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        ChatFormat(tokenizer)


def test_a_template_without_an_end_of_turn_is_refused() -> None:
    tokenizer = word_level()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} w10 {% endfor %}"
    with pytest.raises(ValueError, match="not with a special token"):
        ChatFormat(tokenizer)


def test_a_mismatch_names_both_tokens() -> None:
    """A template that numbers turns from the end shifts every header once the dialogue grows."""
    tokenizer = word_level()
    tokenizer.chat_template = GOLDEN_TEMPLATE.replace("<bos>", "<bos>{{ ' w1' ~ messages | length }}")
    with pytest.raises(TemplateMismatch, match="token 1 is 'w11' in the row and 'w14' in the template"):
        ChatFormat(tokenizer).check()


# -- speaking under the header of another ----------------------------------------------------------------------


@pytest.mark.parametrize("template", [CHATML, LLAMA, GEMMA], ids=["chatml", "llama", "gemma"])
@given(said=st.lists(st.tuples(sentences, sentences), min_size=1, max_size=3), sampled_end=st.booleans())
def test_a_row_of_attempts_and_own_critiques_is_the_template(
    template: str, said: list[tuple[str, str]], sampled_end: bool
) -> None:
    chat = ChatFormat(TOKENIZERS[template], {"student": ""})
    dialogue = [Message("user", "is four")]
    row = list(chat.opening("student", dialogue).ids)
    for attempt, critique in said:
        row += chat.reply_ids("student", attempt) + ([chat.end_id] if sampled_end else [])
        row += chat.continuation("student", [], sampled_end, role="user").ids
        dialogue.append(Message("assistant", attempt))
        heard = whole(chat, [*dialogue, Message("user", critique)], header=False)
        assert row == heard[: len(row)]  # the header stands where it stands before what a teacher says
        spoken = heard[len(row) : len(heard) - heard[::-1].index(chat.end_id) - 1]
        assert chat.text("student", spoken, "user") == critique
        row += spoken + ([chat.end_id] if sampled_end else [])
        row += chat.continuation("student", [], sampled_end, after="user").ids
        dialogue.append(Message("user", critique))
        assert row == whole(chat, dialogue, header=True)


def test_an_opening_under_the_header_of_user() -> None:
    """Another critic reads problem and attempt; its critique begins where a teacher's would, without a prefill."""
    chat = ChatFormat(TOKENIZERS[CHATML], {"critic": "so"})
    read = [Message("user", "is four"), Message("assistant", "the answer", "student", 0)]
    rendered = chat.opening("critic", read, "user")
    assert chat.tokenizer.decode(rendered.ids) == (
        "<|im_start|>user\nis four<|im_end|>\n<|im_start|>assistant\nthe answer<|im_end|>\n<|im_start|>user\n"
    )
    assert chat.text("critic", chat.reply_ids("student", "no"), "user") == "no"


def test_golden_row_of_a_student_that_accepts_its_own_attempt() -> None:
    chat = ChatFormat(word_level())
    assert chat.continuation("student", [], True, role="user").ids == (2,)
    assert chat.continuation("student", [], False, role="user").ids == (4, 2)
    assert chat.continuation("student", [], True, after="user").ids == (3,)
    assert chat.continuation("student", [], False, after="user").ids == (4, 3)


def test_a_template_whose_users_end_otherwise_is_refused() -> None:
    """As in templates that close a user's words with a marker of their own."""
    tokenizer = word_level()
    tokenizer.chat_template = (
        "<bos>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} <e>{% else %}"
        " <t> {{ m.content }} <s>{% endif %}{% endfor %}"
    )
    chat = ChatFormat(tokenizer)
    with pytest.raises(TemplateMismatch, match="A student cannot be its own critic with it"):
        chat.continuation("student", [], True, role="user")
