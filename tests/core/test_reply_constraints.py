"""Replies under constraints say what they must and never what they must not, judged by their decoded text."""

import itertools
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.constraints import ConstraintTable
from lit_rl.phrase_automaton import PhraseAutomaton
from lit_rl.policy import Policy
from lit_rl.reply_constraints import ReplyConstraint, says
from lit_rl.sampling import SampleRequest, SamplingSettings
from lit_rl.stream_keys import stream_key
from lit_rl.token_pieces import TokenPieces
from tests.core.tokenizers_of_ours import SENTENCES, byte_level_tokenizer, sentence_piece_tokenizer

END = 0
SHOP = [None, b" item_a", b" item_b", b" policy_7d", b" please", b" guarantee"]
LETTERS = [None, b"a", b"b", b"c", b"ab", b"ba", b"bc", b"abc", b"cab", b" ", b"B"]


def sampled(
    constraint: ReplyConstraint, generator: torch.Generator, rows: int = 1, spread: float = 3.0
) -> list[list[int]]:
    """Replies drawn with random logits, step by step; what comes behind the end is cut off."""
    states, said = torch.zeros(rows, dtype=torch.int64), []
    for _ in range(constraint.longest):
        allowed = constraint.allowed(states)
        assert allowed.any(1).all(), "every state met allows a token"
        logits = spread * torch.randn(allowed.shape, generator=generator)
        tokens = torch.multinomial(logits.masked_fill(~allowed, -torch.inf).softmax(-1), 1, generator=generator)[:, 0]
        said.append(tokens)
        states = constraint.after(states, tokens)
        assert bool(((states >= 0) & (states < constraint.num_states)).all())
    replies = torch.stack(said, 1).tolist()
    return [reply[: reply.index(constraint.end_id) + 1] for reply in replies]  # ValueError: it never ended


def text_of(pieces: Sequence[bytes | None], reply: Sequence[int]) -> str:
    return b"".join(pieces[token] or b"" for token in reply).decode(errors="replace").strip()


def assert_obeyed(text: str, required: Sequence[str], forbidden: Sequence[str]) -> None:
    folded = text.encode().lower()  # of bytes: A to Z alone
    assert all(phrase.encode().lower() in folded for phrase in required), (text, required)
    assert not any(phrase.encode().lower() in folded for phrase in forbidden), (text, forbidden)


# -- by hand ---------------------------------------------------------------------------------------------------


def test_golden_values() -> None:
    """gopo.md 11, constrained decoding: please item_a item_b policy_7d and the end."""
    constraint = ReplyConstraint(
        SHOP, required=["item_a", "policy_7d"], forbidden=["guarantee"], max_tokens=4, end_id=END
    )
    logits, states, log_probs = torch.tensor([2.0, 0.0, 1.0, 0.0, 0.5, 3.0]), torch.tensor([0]), []
    for token in (4, 1, 2, 3, END):
        restricted = logits.masked_fill(~constraint.allowed(states)[0], -torch.inf).log_softmax(0)
        log_probs.append(float(restricted[token]))
        states = constraint.after(states, torch.tensor([token]))
    assert log_probs == pytest.approx([-1.351129, -1.851129, -0.851129, 0.0, 0.0], abs=1e-6)
    assert sum(log_probs) == pytest.approx(-4.053387, abs=1e-6)


def test_rules_by_hand() -> None:
    """Forbidden off; the end off while something is required; only progress when all that is left is needed."""
    constraint = ReplyConstraint(
        LETTERS, required=["abc"], forbidden=["cc"], max_tokens=2, end_id=END, ignore_case=False
    )

    def allowed(*said: int) -> list[bytes | None]:
        states = torch.tensor([0])
        for token in said:
            states = constraint.after(states, torch.tensor([token]))
        return [LETTERS[i] for i in constraint.allowed(states)[0].nonzero().flatten().tolist()]

    a, b, c, ab, abc = (LETTERS.index(piece) for piece in (b"a", b"b", b"c", b"ab", b"abc"))
    # Whatever comes first, "abc" fits behind it; behind a "c", where "cab" would complete "cc", not that one.
    assert allowed() == [b"a", b"b", b"c", b"ab", b"ba", b"bc", b"abc", b"cab", b" ", b"B"]
    assert allowed(ab) == [b"c", b"abc", b"cab"], "'c' completes it, also as the beginning of more"
    assert allowed(a) == [b"bc", b"abc"]
    assert allowed(abc) == [None, b"a", b"b", b"ab", b"ba", b"bc", b"abc", b" ", b"B"], "said: anything but 'cc'"
    assert allowed(b, abc) == [None], "nothing is left"
    assert allowed(c) == [b"abc"]


def test_a_state_says_how_many_tokens_were_used() -> None:
    constraint = ReplyConstraint(LETTERS, max_tokens=3, end_id=END)
    states = torch.tensor([0])
    for _ in range(3):
        assert constraint.allowed(states)[0].tolist() == [True] * len(LETTERS)
        states = constraint.after(states, torch.tensor([1]))
    assert constraint.allowed(states)[0].nonzero().flatten().tolist() == [END]
    assert constraint.num_states == 4 and constraint.longest == 4
    assert not constraint.lags and constraint.lag(torch.arange(4)).tolist() == [0] * 4


def test_case_and_prefill() -> None:
    big = ReplyConstraint(LETTERS, forbidden=["ab"], max_tokens=4, end_id=END)
    exact = ReplyConstraint(LETTERS, forbidden=["ab"], max_tokens=4, end_id=END, ignore_case=False)
    a, big_b = torch.tensor([1]), LETTERS.index(b"B")
    start = torch.tensor([0])
    assert not big.allowed(big.after(start, a))[0, big_b] and exact.allowed(exact.after(start, a))[0, big_b]
    opened = ReplyConstraint(LETTERS, required=["bc"], forbidden=["xa"], max_tokens=1, end_id=END, prefill="we say x")
    assert [LETTERS[i] for i in opened.allowed(start)[0].nonzero().flatten().tolist()] == [b"bc"]
    opened = ReplyConstraint(LETTERS, required=["xbc"], forbidden=["xa"], max_tokens=1, end_id=END, prefill="we say x")
    assert [LETTERS[i] for i in opened.allowed(start)[0].nonzero().flatten().tolist()] == [b"bc"]
    done = ReplyConstraint(LETTERS, required=["say"], max_tokens=0, end_id=END, prefill="We SAY x")
    assert done.allowed(start)[0].nonzero().flatten().tolist() == [END]
    assert says("We SAY x", "say") and not says("We SAY x", "say", ignore_case=False) and not says("sa y", "say")


def test_overlapping_phrases_share_their_tokens() -> None:
    """ "abc" and "bca" fit into four letters, not into three."""
    single = [None, b"a", b"b", b"c"]
    constraint = ReplyConstraint(single, required=["abc", "bca"], max_tokens=4, end_id=END)
    replies = {tuple(reply) for reply in sampled(constraint, torch.Generator().manual_seed(0), rows=20)}
    assert replies == {(1, 2, 3, 1, END)}
    with pytest.raises(ValueError, match="takes 4 tokens before its end, and max_tokens is 3"):
        ReplyConstraint(single, required=["abc", "bca"], max_tokens=3, end_id=END)


def test_a_phrase_said_on_the_way_to_another_counts() -> None:
    """Behind "ab", the beginning of the forbidden "abc", the required "b" was said."""
    constraint = ReplyConstraint([None, b"a", b"b", b"c"], required=["b"], forbidden=["abc"], max_tokens=3, end_id=END)
    behind = constraint.after(constraint.after(torch.tensor([0]), torch.tensor([1])), torch.tensor([2]))
    assert constraint.allowed(behind)[0].tolist() == [True, True, True, False]


def test_a_large_vocabulary_stays_small_in_memory() -> None:
    """150,000 tokens, two phrases of 60 bytes: tokens that do the same share a column."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 7))).encode() for _ in range(150_000)]
    phrases = ["".join(rng.choices("etaoinshrdlu", k=60)) for _ in range(2)]
    singles = [bytes([byte]) for byte in range(256)]
    constraint = ReplyConstraint(
        [None, *singles, *words], required=phrases[:1], forbidden=phrases[1:], max_tokens=80, end_id=END
    )
    tensors = [value for value in vars(constraint).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 10e6
    assert constraint.allowed(torch.tensor([0])).shape == (1, 150_257)


# -- the least number of tokens --------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    required=st.lists(st.text("abc", min_size=1, max_size=4), max_size=2),
    forbidden=st.lists(st.text("abc", min_size=1, max_size=3), max_size=2),
    pieces=st.lists(st.text("abc", min_size=1, max_size=3).map(str.encode), min_size=1, max_size=4, unique=True),
    budget=st.integers(0, 4),
)
def test_exactly_the_replies_that_obey(
    required: list[str], forbidden: list[str], pieces: list[bytes], budget: int
) -> None:
    """All replies of up to ``budget`` tokens, tried one by one: those that obey are those that can be said."""
    vocabulary = [None, *pieces]
    wanted = set()
    for length in range(budget + 1):
        for reply in itertools.product(range(1, len(vocabulary)), repeat=length):
            text = text_of(vocabulary, reply)
            if all(phrase in text for phrase in required) and not any(phrase in text for phrase in forbidden):
                wanted.add((*reply, END))
    if not wanted:
        with pytest.raises(ValueError, match="^ReplyConstraint: "):
            ReplyConstraint(vocabulary, required=required, forbidden=forbidden, max_tokens=budget, end_id=END)
        return
    constraint = ReplyConstraint(vocabulary, required=required, forbidden=forbidden, max_tokens=budget, end_id=END)
    found, open_replies = set(), [((), 0)]
    while open_replies:
        said, state = open_replies.pop()
        for token in constraint.allowed(torch.tensor([state]))[0].nonzero().flatten().tolist():
            if token == END:
                found.add((*said, END))
            else:
                after = constraint.after(torch.tensor([state]), torch.tensor([token]))
                open_replies.append(((*said, token), int(after)))
    assert found == wanted


# -- random constraints ----------------------------------------------------------------------------------------


def random_rules(rng: random.Random, phrases: Callable[[], str]) -> tuple[list[str], list[str]]:
    required = [phrases() for _ in range(rng.randint(0, 3))]
    return required, [phrases() for _ in range(rng.randint(0, 3))]


def random_constraint(
    rng: random.Random, pieces: Sequence[bytes | None], end_id: int, phrases: Callable[[], str], spare: int
) -> tuple[ReplyConstraint, list[str], list[str]]:
    """A satisfiable constraint, often with no token to spare."""
    while True:
        required, forbidden = random_rules(rng, phrases)
        try:
            tight = ReplyConstraint(pieces, required=required, forbidden=forbidden, max_tokens=200, end_id=end_id)
        except ValueError:
            continue
        most = int(tight._need[0, 0]) + rng.choice([0, 0, 1, spare])
        constraint = ReplyConstraint(pieces, required=required, forbidden=forbidden, max_tokens=most, end_id=end_id)
        return constraint, required, forbidden


def letter_phrases(rng: random.Random) -> Callable[[], str]:
    return lambda: "".join(rng.choices("abcd", k=rng.randint(1, 6)))


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_constraints_of_letters(count: int) -> None:
    """Vocabularies of random strings, so that phrases fall into tokens in many ways and across their borders."""
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    for _ in range(count):
        strings = {"".join(rng.choices("abcdABCD", k=rng.randint(1, 4))).encode() for _ in range(rng.randint(4, 20))}
        pieces = [None, b"a", b"b", b"c", b"d", b" ", b"e", *sorted(strings)]
        constraint, required, forbidden = random_constraint(rng, pieces, END, letter_phrases(rng), spare=6)
        for reply in sampled(constraint, generator, rows=3):
            assert len(reply) <= constraint.max_tokens + 1
            assert_obeyed(text_of(pieces, reply), required, forbidden)


@lru_cache
def text_phrases() -> tuple[str, ...]:
    """Stretches of one to four words of the sentences, and of parts of words."""
    rng, found = random.Random(5), []
    for sentence in SENTENCES:
        words = sentence.split()
        for start, length in itertools.product(range(len(words)), (1, 2, 4)):
            found.append(" ".join(words[start : start + length]))
            cut = rng.randint(0, 2)
            found.append(found[-1][cut : len(found[-1]) - cut].strip() or words[start])
    return tuple(found)


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [byte_level_tokenizer, sentence_piece_tokenizer])
def test_random_constraints_of_real_tokenizers(make: Callable[[], Any], count: int) -> None:
    """Phrases of several tokens, capital letters and accents too; what counts is what the tokenizer decodes."""
    tokenizer, rng, generator = make(), random.Random(1), torch.Generator().manual_seed(1)
    pieces = TokenPieces(tokenizer)
    for _ in range(count):
        constraint, required, forbidden = random_constraint(
            rng, pieces, tokenizer.eos_token_id, lambda: rng.choice(text_phrases()), spare=12
        )
        for reply in sampled(constraint, generator, rows=2):
            assert_obeyed(tokenizer.decode(reply, skip_special_tokens=True).strip(), required, forbidden)
            assert not set(reply[:-1]) & set(tokenizer.all_special_ids)


def test_a_phrase_counts_in_whatever_tokens() -> None:
    """The three tokens that training made of it, a token for each letter, and a mixture."""
    tokenizer, phrase = byte_level_tokenizer(), "free returns"
    constraint = ReplyConstraint(
        TokenPieces(tokenizer), required=[phrase], max_tokens=20, end_id=tokenizer.eos_token_id
    )
    whole = tokenizer(phrase)["input_ids"]
    letters = [tokenizer.convert_tokens_to_ids("Ġ" if letter == " " else letter) for letter in phrase]
    mixed = letters[:5] + tokenizer("returns")["input_ids"]
    assert len({len(whole), len(letters), len(mixed)}) == 3
    for spelling in (whole, letters, mixed):
        assert tokenizer.decode(spelling) == phrase
        states = torch.tensor([0])
        for token in spelling:
            allowed = constraint.allowed(states)[0]
            assert allowed[token] and not allowed[constraint.end_id]
            states = constraint.after(states, torch.tensor([token]))
        assert constraint.allowed(states)[0, constraint.end_id]


@pytest.mark.parametrize("count", [60, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_the_sampler_obeys(count: int, temperature: float, make_policy: Callable[..., Policy]) -> None:
    """A row under each constraint, through the real sampler and a tiny model, judged as the environment hears it."""
    policy, rng = make_policy("student"), random.Random(2)
    words = ["one", "two", "think", "so", "yes", "no", "a", "b", ".", "7"]
    pieces = TokenPieces(policy.tokenizer, vocabulary=policy.lm.config.vocab_size)

    def phrases() -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, 3)))

    rules = [random_constraint(rng, pieces, policy.chat.end_id, phrases, spare=5) for _ in range(count)]
    policy.constraints = ConstraintTable({str(i): constraint for i, (constraint, _, _) in enumerate(rules)})
    with policy.acting_as("student"):
        sampler = policy.sampler(SamplingSettings(temperature=temperature, repetition_penalty=1.2), max_rows=32)
        for row, (constraint, _, _) in enumerate(rules):
            ids = torch.randint(6, 30, (4 + row % 5,), generator=torch.Generator().manual_seed(row)).tolist()
            request = {"key": stream_key(row), "max_tokens": constraint.longest, "constraint": str(row)}
            sampler.submit(SampleRequest(row=row, new_ids=ids, **request))
        answered = 0
        while sampler.busy:
            done = sampler.run()
            answered += len(done)
            for said in done:
                _, required, forbidden = rules[said.row]
                assert said.ended
                assert_obeyed(policy.chat.text("student", said.ids), required, forbidden)
            sampler.release([said.row for said in done])
    assert answered == count


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"required": ["abc"], "max_tokens": 0}, "'abc'] takes 1 tokens before its end, and max_tokens is 0; raise"),
        ({"required": ["cab"], "forbidden": ["ca"]}, "the required 'cab' says the forbidden 'ca'; drop one"),
        ({"required": ["xyz"]}, "the required 'xyz' cannot be spelled with the tokens that may be said"),
        ({"required": ["a", "b"], "forbidden": ["A b"], "prefill": "a B"}, "prefill 'a B' says the forbidden 'A b'"),
        ({"forbidden": [" no"]}, "forbidden phrase ' no' is empty or has spaces around it"),
        ({"required": [""]}, "required phrase '' is empty"),
        ({"required": "abc"}, "required is the string 'abc'; give a list"),
        ({"required": list("abcdefghi")}, "9 phrases are required; at most 8"),
        ({"max_tokens": -1}, "max_tokens -1 must be 0 or more"),
        ({"end_id": 11}, "end_id 11 a token of the 11"),
    ],
)
def test_bad_constraints_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("]", r"\]")):
        ReplyConstraint(LETTERS, **{"max_tokens": 3, "end_id": END} | options)


def test_why_phrases_cannot_be_said() -> None:
    pieces = [None, b"ax", b"b"]
    with pytest.raises(ValueError, match="the required 'a' cannot be said without one of the forbidden"):
        ReplyConstraint(pieces, required=["a"], forbidden=["x"], max_tokens=3, end_id=END)
    pieces = [None, b"a", b"b"]
    with pytest.raises(ValueError, match="cannot all be said without one of the forbidden"):
        ReplyConstraint(pieces, required=["a", "b"], forbidden=["ab", "ba"], max_tokens=3, end_id=END)


def test_phrases_that_others_say_are_implied() -> None:
    """Nine phrases, of which eight stand in the ninth."""
    nested = ["abcabcab"[:length] for length in range(1, 9)] + ["Cab"]
    constraint = ReplyConstraint(LETTERS, required=nested, max_tokens=8, end_id=END)
    for reply in sampled(constraint, torch.Generator().manual_seed(0), rows=5):
        assert "abcabcab" in text_of(LETTERS, reply).lower()


def test_steps_of_tokens_by_hand() -> None:
    """Nodes of "ab": 0 nothing, 1 behind "a", 2 said."""
    steps = PhraseAutomaton(["ab"], ["c"], ignore_case=True).over([b"ab", b"b", b"A", b"xc", None, b"", b"xyz"])
    of = {
        token: (steps.target[:3, kind].tolist(), steps.said[:3, kind].tolist()) for token, kind in enumerate(steps.kind)
    }
    dead = len(steps.target)
    assert of[0] == ([2, 2, 2], [1, 1, 1]) and of[1] == ([0, 2, 0], [0, 1, 0]) and of[2] == ([1, 1, 1], [0, 0, 0])
    assert of[3][0] == of[4][0] == [dead] * 3
    assert of[5] == ([0, 1, 2], [0, 0, 0]) and of[6] == ([0, 0, 0], [0, 0, 0])
