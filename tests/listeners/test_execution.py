"""Cutting, listening and matching without a model: remul.md 11.1 and properties 4, 7, 8, 9 and 11."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.listeners import Continuation, ListenerPool, ListenRequest, ScriptedListener
from lit_rl.listeners.credit import Credit
from lit_rl.listeners.execution import Execution, ExecutionRules, execute
from lit_rl.listeners.figures import added, execution_sums, means
from lit_rl.listeners.spoken import Spoken
from lit_rl.stream_keys import stream_key
from lit_rl.verification.traces import ThinkTags
from tests.listeners.worlds import (
    LABELS,
    MATCHES,
    Recording,
    lines,
    matrix_listeners,
    matrix_replies,
    reply,
    said,
    spoken_of,
)

RULES = ExecutionRules()


def rewards_of(executions: Sequence[Execution], **credit: Any) -> list[float]:
    return [Credit(**credit).of(execution) for execution in executions]


def listened(replies: Sequence[str], pool: ListenerPool, rules: ExecutionRules = RULES, **more: Any) -> list[Execution]:
    return execute(spoken_of(replies, **more), pool, rules, seed=0)


# -- golden values -----------------------------------------------------------------------------------------------------


def test_the_match_matrix() -> None:
    """remul.md 11.1: r_match 7, 3, 8, 1, 0 of at most 9, and matches by fraction."""
    executions = listened(matrix_replies(), ListenerPool(listeners=[*matrix_listeners()]))
    assert rewards_of(executions) == [7, 3, 8, 1, 0]
    assert rewards_of(executions, reward_scale="mean") == pytest.approx([7 / 9, 3 / 9, 8 / 9, 1 / 9, 0])
    for execution, by_fraction in zip(executions, MATCHES, strict=True):
        got = [sum(c.match for c in execution.cells if c.place.fraction == f) for f in (0.25, 0.5, 0.75)]
        assert tuple(got) == by_fraction
    assert [execution.answer for execution in executions] == ["B", "B", "C", "A", None]


def test_figures_of_the_match_matrix() -> None:
    """Shares are of all five rollouts; the one without an answer is not listened to."""
    executions = listened(matrix_replies(), ListenerPool(listeners=[*matrix_listeners()]))
    figures = means(execution_sums(executions, rewards_of(executions)))
    assert figures["listener_match"] == pytest.approx((7 + 3 + 8 + 1) / 45)
    assert figures["listener_match/listener1/0.25"] == pytest.approx(2 / 5)  # rollouts 1 and 3
    assert figures["listener_match/listener3/0.75"] == pytest.approx(3 / 5)  # rollouts 1, 3 and 4
    assert figures["none_share/speaker"] == pytest.approx(1 / 5)
    assert figures["none_share/listener3"] == pytest.approx(1 / 12)
    assert figures["none_share/listener1"] == 0
    # Alone all say B, as two of the four that were listened to do; with a beginning listener 1 agrees in 7 of 12.
    assert figures["empty_prefix_match/listener1"] == pytest.approx(2 / 4)
    assert figures["prefix_lift/listener1"] == pytest.approx(7 / 12 - 2 / 4)
    assert figures["zero_variance_groups"] == 0 and figures["trace_lines"] == 4
    assert "held_out_match" not in figures and figures["early_answer_share/0.75"] == 0


# -- what listeners hear -----------------------------------------------------------------------------------------------

_NOISE = st.text("abc .!?<>/[]T\n", max_size=12)


@settings(max_examples=150, deadline=None)
@given(noise=st.lists(_NOISE, min_size=4, max_size=9), unit=st.sampled_from(["line", "sentence", "token"]))
def test_listeners_hear_nothing_behind_the_cut(noise: list[str], unit: Any) -> None:
    """Property 4: no closing tag, answer section, gold label or anything of the suffix, which has markers."""
    own = ThinkTags("[T]", "[/T]")
    pieces = [f"M{i} {words} [/T] <think> [/[/T]T]." for i, words in enumerate(noise)]
    text = "<think>" + "\n".join([*pieces, "LAST"]) + "</think>SECTION Answer: C"
    listeners = [Recording("plain"), Recording("other", tags=own)]
    pool = ListenerPool(listeners=[*listeners], fractions={"other": [0.1, 0.9]})
    (execution,) = listened([text], pool, ExecutionRules(unit=unit, short_trace="as_is"))
    assert execution.answer == "C"
    for listener in listeners:
        assert listener.heard[0].prefix.startswith("M0")
        for request in listener.heard:
            assert request.question == "Who is it?"
            assert not any(word in request.prefix for word in ("think>", "SECTION", "Answer", "LAST"))
    assert not any(tag in request.prefix for request in listeners[1].heard for tag in ("[T]", "[/T]"))
    if unit == "line":
        units = [line for line in "\n".join(pieces).split("\n") if line.strip()]
        for request, fraction in zip(listeners[0].heard, (0.25, 0.5, 0.75), strict=False):
            kept = units[: max(1, int((len(units) + 1) * fraction))]
            hidden = [i for i in range(len(noise)) if not any(f"M{i} " in line for line in kept)]
            assert not any(f"M{i} " in request.prefix for i in hidden)


def test_every_listener_is_asked_once_for_all() -> None:
    """Three traces, three fractions and one question without a beginning: ten requests in a single batch."""
    listeners = [Recording("one"), Recording("two")]
    listened([reply(lines(f"t{i}"), "B") for i in range(3)], ListenerPool(listeners=[*listeners]))
    assert [listener.batches for listener in listeners] == [[10], [10]]
    assert [request.prefix for request in listeners[0].heard[:4]] == [
        "t0 step1",
        "t0 step1\nt0 step2",
        "t0 step1\nt0 step2\nt0 step3",
        "",
    ]
    assert len({request.key for request in listeners[0].heard}) == 10
    assert not {r.key for r in listeners[0].heard} & {r.key for r in listeners[1].heard}


def test_listeners_have_tags_of_their_own() -> None:
    """Property 5: an answer counts behind the listener's own closing tag."""
    own = ThinkTags("[T]", "[/T]")
    pool = ListenerPool(
        listeners=[
            Recording("own", lambda r: "hm [/T] Answer: B", own),
            Recording("foreign", lambda r: "hm </think> Answer: B", own),
        ]
    )
    (execution,) = listened([reply(lines("t"), "B")], pool)
    assert {c.place.listener for c in execution.cells if c.match} == {"own"}


# -- the reward --------------------------------------------------------------------------------------------------------


def noisy(name: str) -> ScriptedListener:
    """Its answer depends on what it hears and its noise."""
    return ScriptedListener(name, lambda question, prefix, key: said(LABELS[stream_key(prefix, key) % 3]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_rewards_are_bounded_and_know_no_order_and_no_gold(seed: int) -> None:
    """Property 7: 0 <= r <= m k, equal exactly where all agree; the order of listeners and fractions is nothing."""
    chance = random.Random(seed)
    replies = [reply(lines(f"t{i}", chance.randint(4, 9)), chance.choice("ABC")) for i in range(4)]
    listeners = [noisy("one"), noisy("two"), ScriptedListener("echo", lambda *_: said("A"))]
    pool = ListenerPool(listeners=[*listeners])
    executions = listened(replies, pool)
    rewards = rewards_of(executions)
    for execution, reward in zip(executions, rewards, strict=True):
        answers = {cell.answer for cell in execution.cells if cell.place.rewarded}
        assert 0 <= reward <= 9 and (reward == 9) == (answers == {execution.answer})
    shuffled = ExecutionRules(fractions=chance.sample([0.25, 0.5, 0.75], 3))
    again = listened(replies, ListenerPool(listeners=chance.sample(listeners, 3)), shuffled)
    assert rewards_of(again) == rewards


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 5), mode=st.sampled_from(["all", "random_one"]))
def test_rewards_do_not_depend_on_the_split_of_a_batch(seed: int, cut: int, mode: Any) -> None:
    """Property 11."""
    chance = random.Random(seed)
    spoken = [s for group in (0, 1) for s in spoken_of([reply(lines("t"), chance.choice("ABC"))] * 3, group)]
    pool = ListenerPool(listeners=[noisy("one"), noisy("two")], mode=mode)

    def rewards(part: Sequence[Spoken], seed: int = 3) -> list[float]:
        return rewards_of(execute(part, pool, RULES, seed))

    assert rewards(spoken[:cut]) + rewards(spoken[cut:]) == rewards(spoken)
    assert rewards(spoken[::-1])[::-1] == rewards(spoken)


def test_another_seed_is_other_noise() -> None:
    spoken = spoken_of([reply(lines("t"), "A")] * 8)
    pool = ListenerPool(listeners=[noisy("one"), noisy("two")])
    assert len({tuple(rewards_of(execute(spoken, pool, RULES, seed))) for seed in range(4)}) == 4


@pytest.mark.parametrize(
    "text",
    [
        "<think>\na\nb\nc\nd\n",  # never closed
        reply(lines("t"), "?"),
        reply("", "B"),
        reply("\n \n", "B"),
        reply("one two three", "B"),  # too short for any unit
        "",
    ],
)
def test_none_and_empty_match_nothing(text: str) -> None:
    """Property 8, and empty traces: reward 0, and nobody is asked in vain."""
    listener = Recording("quiet", lambda request: said("-"))
    (execution,) = listened([text], ListenerPool(listeners=[listener]))
    assert rewards_of([execution]) == [0] and not listener.heard
    figures = means(execution_sums([execution], [0.0]))
    assert figures["listener_match"] == 0
    assert figures["none_share/speaker"] == float("B" not in text)
    assert figures["empty_trace_share"] == float(not execution.trace.reasoning.strip())
    assert figures["short_trace_share"] == float("three" in text)


def test_listeners_that_never_answer_are_counted() -> None:
    """All-None listeners: no match, also not with each other; every group is paid alike."""
    pool = ListenerPool(listeners=[Recording("mute", lambda r: "I do not know"), Recording("cut", lambda r: said("-"))])
    executions = listened([reply(lines("t"), "B"), reply(lines("t"), "C")], pool)
    rewards = rewards_of(executions)
    figures = means(execution_sums(executions, rewards))
    assert rewards == [0, 0] and figures["zero_variance_groups"] == 1
    assert figures["none_share/mute"] == figures["none_share/cut"] == 1
    assert figures["listener_match"] == figures["prefix_lift/mute"] == 0


def test_zero_variance_groups_are_those_of_several_replies_paid_alike() -> None:
    groups = [spoken_of([reply(lines("t"), a) for a in answers], g) for g, answers in enumerate(("BB", "BC", "C"))]
    executions = execute([s for group in groups for s in group], ListenerPool(listeners=[Recording()]), RULES, 0)
    rewards = rewards_of(executions)
    assert rewards == [3, 3, 3, 0, 0]
    assert execution_sums(executions, rewards)["zero_variance_groups"] == (1, 2)


@pytest.mark.parametrize(("unclosed", "reward"), [("none", 0), ("parse", 3)])
def test_unclosed_continuations(unclosed: Any, reward: float) -> None:
    pool = ListenerPool(listeners=[Recording("open", lambda r: "Answer: B")])
    assert rewards_of(listened([reply(lines("t"), "B")], pool, ExecutionRules(unclosed=unclosed))) == [reward]


@pytest.mark.parametrize(("short_trace", "reward", "heard"), [("as_is", 3, {"one. two."}), ("refine", 0, set())])
def test_short_traces(short_trace: Any, reward: float, heard: set[str]) -> None:
    """A single line is the whole trace under "as_is"; under "refine" two words are too short for anything."""
    listener = Recording()
    rules = ExecutionRules(short_trace=short_trace, empty_prefix=False)
    assert rewards_of(listened([reply("one. two.", "B")], ListenerPool(listeners=[listener]), rules)) == [reward]
    assert {request.prefix for request in listener.heard} == heard


def test_a_continuation_without_room_is_none_and_counted() -> None:
    def answer(request: ListenRequest) -> str | Continuation:
        return Continuation(stop_reason="no_room") if "step3" in request.prefix else said("B")

    executions = listened([reply(lines("t"), "B")], ListenerPool(listeners=[Recording("small", answer)]))
    figures = means(execution_sums(executions, rewards_of(executions)))
    assert rewards_of(executions) == [2]
    assert figures["no_room_share/small"] == figures["none_share/small"] == pytest.approx(1 / 3)


def test_what_a_listener_gave_up_is_left_out_for_the_whole_group() -> None:
    """Nobody is paid less for a server's failure: of the group, that fraction of that listener does not count."""

    def answer(request: ListenRequest) -> str | Continuation:
        return Continuation(stop_reason="failed") if request.prefix == "bad step1" else said("B")

    pool = ListenerPool(listeners=[Recording("weak", answer), Recording("strong")])
    spoken = spoken_of([reply(lines("bad"), "B"), reply(lines("good"), "B")]) + spoken_of([reply(lines("x"), "B")], 1)
    executions = execute(spoken, pool, RULES, 0)
    assert rewards_of(executions) == [5, 5, 6]
    assert rewards_of(executions, reward_scale="mean") == [1, 1, 1]
    figures = means(execution_sums(executions, rewards_of(executions)))
    assert figures["listener_match"] == 1 and figures["zero_variance_groups"] == 1
    assert figures["failed_share/weak"] == pytest.approx(1 / 11) and figures["failed_share/strong"] == 0


# -- held out, drawn, copied -------------------------------------------------------------------------------------------


def test_a_held_out_listener_is_measured_and_never_paid_for() -> None:
    replies = [reply(lines("t"), "B"), reply(lines("t"), "C")]
    without = listened(replies, ListenerPool(listeners=[Recording("in")]))
    pool = ListenerPool(listeners=[Recording("in")], held_out=[Recording("out", lambda r: said("C"))])
    executions = listened(replies, pool)
    rewards = rewards_of(executions, leak_policy="penalise")
    assert rewards == rewards_of(without) == [3, 0]
    figures = means(execution_sums(executions, rewards))
    assert figures["listener_match"] == figures["held_out_match"] == 0.5
    assert figures["listener_match/out/0.5"] == 0.5
    assert rewards_of(executions, reward_scale="mean") == [1, 0]


def test_one_listener_is_drawn_for_each_group() -> None:
    listeners = [Recording("always"), Recording("never", lambda r: said("C"))]
    pool = ListenerPool(listeners=[*listeners], mode="random_one", held_out=[Recording("out")])
    assert pool.size == 1
    spoken = [s for g in range(30) for s in spoken_of([reply(lines("t"), "B")] * 2, g)]
    executions = execute(spoken, pool, RULES, seed=1)
    rewards = rewards_of(executions)
    assert rewards[::2] == rewards[1::2], "a group has one listener"
    assert set(rewards) == {0, 3} and 5 < sum(reward > 0 for reward in rewards[::2]) < 25
    assert all({c.place.listener for c in e.cells if c.place.held_out} == {"out"} for e in executions)
    turned = ListenerPool(listeners=listeners[::-1], mode="random_one")
    assert rewards_of(execute(spoken, turned, RULES, seed=1)) == rewards
    assert rewards_of(execute(spoken, pool, RULES, seed=2)) != rewards


def test_copies_of_one_listener_have_noise_of_their_own() -> None:
    listener = Recording("base", lambda r: said(LABELS[r.key % 3]))
    pool = ListenerPool(listeners=[listener], mode="same", copies=3)
    assert pool.size == 3
    (execution,) = listened([reply(lines("t"), "B")], pool)
    assert listener.batches == [12] and len({request.key for request in listener.heard}) == 12
    assert sum(place.rewarded for place in execution.places) == 9


def test_a_listener_may_hear_other_fractions() -> None:
    listeners = [Recording("usual"), Recording("late")]
    pool = ListenerPool(listeners=[*listeners], fractions={"late": [0.9]})
    (execution,) = listened([reply(lines("t", 10), "B")], pool)
    assert rewards_of([execution]) == [4] and rewards_of([execution], reward_scale="mean") == [1]
    assert [request.prefix.count("step") for request in listeners[1].heard] == [9, 0]


# -- leaks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leak_policy", "penalty", "reward"),
    [(None, 1.0, 6), ("mask", 1.0, 0), ("penalise", 1.0, -3), ("penalise", 0.5, 1.5)],
)
def test_leaking_beginnings(leak_policy: Any, penalty: float, reward: float) -> None:
    """All nine beginnings leak; two of three listeners agree in all theirs: 6 - 9 x penalty."""
    pool = ListenerPool(listeners=[Recording("a"), Recording("b"), Recording("c", lambda r: said("C"))])
    executions = listened([reply("The answer is B.\n" + lines("t"), "B")], pool)
    assert rewards_of(executions, leak_policy=leak_policy, leak_penalty=penalty) == [reward]
    figures = means(execution_sums(executions, [0.0]))
    assert [figures[f"early_answer_share/{f}"] for f in (0.25, 0.5, 0.75)] == [1, 1, 1]


@pytest.mark.parametrize(("search", "shares"), [("parser", [0, 0, 1]), ("mention", [0, 1, 1])])
def test_how_beginnings_are_searched(search: Any, shares: list[float]) -> None:
    """A mention of the option's text is a leak only for the search that looks for words."""
    spoken = spoken_of([reply("a cat\nso Bob, perhaps\nfinal answer: B\nyes", "B")], options={"A": "Ann", "B": "Bob"})
    executions = execute(spoken, ListenerPool(listeners=[Recording()]), ExecutionRules(leak_search=search), 0)
    figures = means(execution_sums(executions, [0.0]))
    assert [figures[f"early_answer_share/{f}"] for f in (0.25, 0.5, 0.75)] == shares


# -- figures and bad input ---------------------------------------------------------------------------------------------


def test_sums_of_parts_add_up() -> None:
    pool = ListenerPool(listeners=[*matrix_listeners()])
    executions = listened(matrix_replies(), pool)
    rewards = rewards_of(executions)
    parts = [execution_sums([e], [r]) for e, r in zip(executions, rewards, strict=True)]
    whole = execution_sums(executions, rewards)
    whole.pop("zero_variance_groups")
    assert means(added(parts)) == pytest.approx(means(whole))
    assert all(math.isfinite(value) for value in means(whole).values())
    assert means({"nothing": (0.0, 0.0)}) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": [0.5, 1.0]}, "strictly between 0 and 1"),
        ({"fractions": [0.5, 0.5]}, r"fractions are \[0.5, 0.5\]; give each once"),
        ({"unit": "paragraph"}, "unit is 'paragraph'; use one of"),
        ({"short_trace": "drop"}, "short_trace is 'drop'"),
        ({"unclosed": "maybe"}, "unclosed is 'maybe'"),
        ({"leak_search": "judge"}, "leak_search is 'judge'"),
    ],
)
def test_bad_rules_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExecutionRules(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leak_policy": "drop"}, "leak_policy is 'drop'; use one of"),
        ({"leak_penalty": -1.0}, "leak_penalty is -1.0; it must be 0 or more"),
        ({"reward_scale": "max"}, "reward_scale is 'max'"),
    ],
)
def test_bad_credit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Credit(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"listeners": []}, "pool.listeners is empty"),
        ({"mode": "some"}, "pool.mode is 'some'"),
        ({"mode": "same", "listeners": [Recording("a"), Recording("b")]}, "copies of one listener; .* has 2"),
        ({"copies": 0}, "pool.copies is 0"),
        ({"held_out": [Recording("a")]}, "two listeners are called 'a'"),
        ({"held_out": [Recording("a/b")]}, "'a/b' is no name for a listener"),
        ({"held_out": [Recording("speaker")]}, "'speaker' is no name for a listener"),
        ({"fractions": {"z": [0.5]}}, r"pool.fractions names 'z'; the listeners are \['a'\]"),
        ({"fractions": {"a": [1.5]}}, "strictly between 0 and 1"),
    ],
)
def test_bad_pools_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ListenerPool(**{"listeners": [Recording("a")]} | options)


def test_a_listener_that_miscounts_is_told_so() -> None:
    listener = Recording("short")
    listener.continue_ = lambda requests: []
    with pytest.raises(ValueError, match="Listener 'short' gave 0 continuations of 4 prefixes"):
        listened([reply(lines("t"), "B")], ListenerPool(listeners=[listener]))
