"""The sampler against a plain loop that runs the whole row again for every token."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.constraints import ConstraintTable, TokenConstraint
from lit_rl.noise import uniform
from lit_rl.prefixes import Shared, common_prefix, share_prefixes
from lit_rl.reply_constraints import ReplyConstraint
from lit_rl.sampler_rows import rows_work
from lit_rl.sampling import Sampled, Sampler, SampleRequest, SamplingSettings, keep_likely
from lit_rl.stream_keys import stream_key

ATTENTION = ["qwen2", "qwen3", "llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "mistral", "cohere", "granite"]
STOP = frozenset({2})
V = 48


def sampler_of(
    model: Any, *, cached: bool = True, max_rows: int = 64, constraints: Any = None, **options: Any
) -> Sampler:
    chosen = SamplingSettings(**options)
    return Sampler(model, chosen, stop_ids=STOP, max_rows=max_rows, constraints=constraints, cached=cached)


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(3, V, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def ask(row: int, new_ids: list[int], **options: Any) -> SampleRequest:
    arguments: dict[str, Any] = {"key": stream_key("test", row), "max_tokens": 12} | options
    return SampleRequest(row=row, new_ids=new_ids, **arguments)


def answers(sampler: Sampler, requests: list[SampleRequest]) -> dict[int, Sampled]:
    for request in requests:
        sampler.submit(request)
    found: dict[int, Sampled] = {}
    while sampler.busy:
        for said in sampler.run():
            assert said.row not in found, "a row answered twice"
            found[said.row] = said
    return found


@torch.no_grad()
def plain_turn(
    model: Any, row: list[int], key: int, max_tokens: int, *, temperature: float = 1.0, allowed: Any = None
) -> tuple[list[int], list[float]]:
    """One turn the slow way: the whole row through the model for each token, the inverse CDF in a Python loop."""
    row, said, log_probs = list(row), list[int](), list[float]()
    while len(said) < max_tokens and not (said and said[-1] in STOP):
        logits = model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1].double()
        if temperature > 0:
            logits = logits / temperature
        if allowed is not None:
            forbidden = [token for token in range(V) if token not in allowed(said)]
            logits[forbidden] = -torch.inf
        probs = logits.softmax(0)
        if temperature == 0:
            token = int(probs.argmax())
        else:
            noise = float(uniform(torch.tensor([key]), torch.tensor([len(row)])))
            token = next(t for t, mass in enumerate(itertools.accumulate(probs.tolist())) if mass > noise)
        said.append(token)
        row.append(token)
        log_probs.append(float(probs[token].log()))
    return said, log_probs


def assert_same(said: Sampled, plain: tuple[list[int], list[float]]) -> None:
    assert said.ids == plain[0]
    torch.testing.assert_close(torch.tensor(said.log_probs), torch.tensor(plain[1]), atol=1e-5, rtol=0)
    assert said.ended == (said.ids[-1] in STOP)


@pytest.mark.parametrize("architecture", [*ATTENTION, "bloom", "mamba"])
def test_ragged_dialogues_equal_plain_recomputation(architecture: str, make_model: Callable[..., Any]) -> None:
    """Three turns of five rows, every insertion of another length; bloom and mamba through the fall-back."""
    model = make_model(architecture)
    cached = architecture in ATTENTION
    assert rows_work(model) == cached
    sampler = sampler_of(model, cached=cached)
    rows: dict[int, list[int]] = {row: [] for row in range(5)}
    for turn in range(3):
        requests = [
            ask(row, tokens(3 + 4 * ((row + turn) % 3), seed=10 * row + turn), max_tokens=5 + row) for row in rows
        ]
        found = answers(sampler, requests)
        for request in requests:
            row = rows[request.row]
            row += request.new_ids
            assert_same(found[request.row], plain_turn(model, row, request.key, request.max_tokens))
            row += found[request.row].ids


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.7])
def test_temperature(temperature: float, make_model: Callable[..., Any]) -> None:
    model = make_model("qwen2")
    requests = [ask(row, tokens(4 + row, seed=row)) for row in range(6)]
    found = answers(sampler_of(model, temperature=temperature), requests)
    for request in requests:
        plain = plain_turn(model, list(request.new_ids), request.key, 12, temperature=temperature)
        if temperature == 0:
            assert found[request.row].ids == plain[0]
        else:
            assert_same(found[request.row], plain)


def test_more_rows_than_slots(make_model: Callable[..., Any]) -> None:
    """Fifteen rows through four slots: each is answered once, with the tokens it would have had alone."""
    model = make_model("llama")
    sampler = sampler_of(model, max_rows=4)
    requests = {row: ask(row, tokens(2 + row % 5, seed=row), max_tokens=3 + row % 7) for row in range(15)}
    for request in requests.values():
        sampler.submit(request)
    found: dict[int, Sampled] = {}
    while sampler.busy:
        done = sampler.run()
        found |= {said.row: said for said in done}
        assert len(sampler.slots) <= 4
        sampler.release([said.row for said in done])
    assert sorted(found) == list(range(15)) and not sampler.slots and not sampler.place
    for row, request in requests.items():
        assert_same(found[row], plain_turn(model, list(request.new_ids), request.key, request.max_tokens))


def test_a_released_slot_leaks_nothing(make_model: Callable[..., Any]) -> None:
    """Whoever was in the slot before, and however long its row, an episode says the same."""
    model = make_model("qwen3")
    request = ask(7, tokens(5, seed=7), max_tokens=20)
    clean = answers(sampler_of(model), [request])[7]
    for length in (1, 5, 60):
        sampler = sampler_of(model, max_rows=1)
        answers(sampler, [ask(0, tokens(length, seed=99), max_tokens=30)])
        sampler.release([0])
        again = answers(sampler, [request])[7]
        assert again.ids == clean.ids
        torch.testing.assert_close(torch.tensor(again.log_probs), torch.tensor(clean.log_probs), atol=1e-5, rtol=0)


def test_neighbours_do_not_change_an_episode(make_model: Callable[..., Any]) -> None:
    """Noise belongs to the episode: alone, in company, or late through few slots, it says the same."""
    model = make_model("gpt2")
    requests = [ask(row, tokens(3 + row % 4, seed=row), max_tokens=10) for row in range(9)]
    together = answers(sampler_of(model), requests)
    for request in requests:
        alone = answers(sampler_of(model), [request])[request.row]
        assert alone.ids == together[request.row].ids
    backwards = answers(sampler_of(model), requests[::-1])
    assert {row: said.ids for row, said in backwards.items()} == {row: said.ids for row, said in together.items()}


def test_another_key_says_something_else(make_model: Callable[..., Any]) -> None:
    sampler = sampler_of(make_model("qwen2"))
    prompt = tokens(6, seed=1)
    found = answers(sampler, [ask(row, prompt, max_tokens=16) for row in range(8)])
    assert len({tuple(said.ids) for said in found.values()}) == 8


def test_group_prompts_run_once(make_model: Callable[..., Any]) -> None:
    """Eight rows of one prompt: 30 tokens run, 7 x 30 copied, and as many decoding steps as the tokens want."""
    model = make_model("qwen2")
    sampler = sampler_of(model)
    prompt = tokens(30, seed=3)
    found = answers(sampler, [ask(row, prompt) for row in range(8)])
    assert sampler.work.prefilled == 30
    assert sampler.work.shared == 7 * 30
    assert sampler.work.decoded == sum(len(said.ids) - 1 for said in found.values())  # the first comes of the prompt
    for row, said in found.items():
        assert_same(said, plain_turn(model, prompt, stream_key("test", row), 12))


def test_prompts_of_several_groups_run_side_by_side(make_model: Callable[..., Any]) -> None:
    """Three prompts of other lengths, four rows each, in any order: one forward runs all three."""
    model = make_model("qwen2")
    prompts = [tokens(30 + 5 * group, seed=group) for group in range(3)]
    passes = []
    hook = model.register_forward_hook(lambda *_: passes.append(1))
    requests = [ask(row, prompts[row % 3], max_tokens=1) for row in range(12)]
    found = answers(sampler_of(model), requests)
    hook.remove()
    assert len(passes) == 1
    for row, said in found.items():
        assert_same(said, plain_turn(model, prompts[row % 3], stream_key("test", row), 1))


def test_long_turns_use_noise_of_their_positions(make_model: Callable[..., Any]) -> None:
    """Noise is drawn ahead in stretches; turns longer than one, and turns behind them, get what each position says."""
    model = make_model("llama")
    sampler = sampler_of(model)
    row = tokens(5, seed=1)
    for key in (1, 2):
        said = answers(sampler, [ask(0, row if key == 1 else [7], key=key, max_tokens=40)])[0]
        row = row if key == 1 else [*row, 7]
        assert_same(said, plain_turn(model, row, key, 40))
        row += said.ids


def test_truncated_traces_share_the_longest(make_model: Callable[..., Any]) -> None:
    """Listeners of one trace cut at several places run the trace once, and hear what they would hear alone."""
    model = make_model("mistral")
    trace = tokens(60, seed=5)
    prompts = [trace + tokens(4, seed=70)] + [trace[:cut] + tokens(4, seed=70 + cut) for cut in (20, 35, 50)]
    assert all(prompt[cut] != trace[cut] for cut, prompt in zip((20, 35, 50), prompts[1:], strict=True))
    sampler = sampler_of(model)
    found = answers(sampler, [ask(row, prompt) for row, prompt in enumerate(prompts)])
    assert sampler.work.shared == 20 + 35 + 50
    assert sampler.work.prefilled == 64 + 3 * 4
    for row, prompt in enumerate(prompts):
        assert_same(found[row], plain_turn(model, prompt, stream_key("test", row), 12))


def test_short_common_beginnings_are_not_worth_a_copy(make_model: Callable[..., Any]) -> None:
    sampler = sampler_of(make_model("qwen2"))
    header = tokens(15, seed=1)
    answers(sampler, [ask(row, header + tokens(3, seed=row)) for row in range(3)])
    assert sampler.work.shared == 0 and sampler.work.prefilled == 3 * 18


def test_restart_runs_only_what_differs(make_model: Callable[..., Any]) -> None:
    model = make_model("qwen2")
    sampler = sampler_of(model)
    first = answers(sampler, [ask(0, tokens(20, seed=1))])[0]
    before = sampler.work.prefilled
    anew = tokens(20, seed=1)[:14] + [tokens(20, seed=1)[14] ^ 1] + tokens(9, seed=2)
    said = answers(sampler, [ask(0, anew, restart=True, key=99)])[0]
    assert sampler.work.shared == 14
    assert sampler.work.prefilled - before == len(anew) - 14
    assert_same(said, plain_turn(model, anew, 99, 12))
    # The same prompt once more: all but its last token is there, whose logits are wanted.
    said = answers(sampler, [ask(0, tokens(20, seed=1), restart=True)])[0]
    assert said.ids == first.ids


def test_moved_out_rows_go_on_where_they_were(make_model: Callable[..., Any]) -> None:
    """Rows that gave their slot to others are run again at their next turn, and say what they would have said."""
    model = make_model("qwen2")
    sampler = sampler_of(model, max_rows=2)
    rows = {row: tokens(5 + row, seed=row) for row in range(4)}
    for row, said in answers(sampler, [ask(row, rows[row]) for row in (0, 1)]).items():
        rows[row] += said.ids
    sampler.submit(ask(2, rows[2]))
    assert sampler.run() == [] and sampler.busy, "no slot is free"
    sampler.make_room()
    for said in [said for _ in range(12) for said in sampler.run()]:
        rows[said.row] += said.ids
    assert len(sampler.moved_out) == 1
    moved = next(iter(sampler.moved_out))
    sampler.release([2])
    new = tokens(3, seed=9)
    said = answers(sampler, [ask(moved, new, key=5)])[moved]
    assert_same(said, plain_turn(model, rows[moved] + new, 5, 12))
    sampler.release([0, 1, 77])
    assert not sampler.slots and not sampler.moved_out


@pytest.mark.parametrize("cached", [True, False])
def test_waiting_rows_survive_the_comings_and_goings_of_others(cached: bool, make_model: Callable[..., Any]) -> None:
    """Rows wait while others enter, speak, leave and are swapped around them; then they go on where they were."""
    model = make_model("gemma3")
    sampler = sampler_of(model, cached=cached, max_rows=12)
    rows = {row: tokens(5 + row, seed=row) for row in range(6)}
    for row, said in answers(sampler, [ask(row, ids) for row, ids in rows.items()]).items():
        rows[row] += said.ids
    sampler.release([1, 4])
    visitors = answers(sampler, [ask(row, tokens(9, seed=row), max_tokens=20) for row in range(10, 16)])
    sampler.release(visitors)
    for row in (0, 2, 3, 5):
        new = tokens(4, seed=50 + row)
        said = answers(sampler, [ask(row, new, key=row)])[row]
        assert_same(said, plain_turn(model, rows[row] + new, row, 12))


def test_the_fallback_gives_the_same_tokens(make_model: Callable[..., Any]) -> None:
    model = make_model("llama")
    requests = [ask(row, tokens(20, seed=row // 2)[: 20 - row % 3]) for row in range(6)]
    kept = answers(sampler_of(model), requests)
    recomputed = answers(sampler_of(model, cached=False), requests)
    for row, said in kept.items():
        assert_same(said, (recomputed[row].ids, recomputed[row].log_probs))


def test_a_wrong_window_is_noticed(make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-check probes beyond the window: rows masked without it do not pass."""
    import lit_rl.sampler_rows

    model = make_model("mistral")
    assert rows_work(model)

    def no_window(config: Any, positions: Any, width: int, dtype: Any) -> Any:
        return (torch.arange(width) <= positions[:, :, None])[:, None]

    monkeypatch.setattr(lit_rl.sampler_rows, "attention_mask", no_window)
    assert not rows_work(model)


@pytest.mark.parametrize("shift", [0, 1, -1])
def test_half_precision_hides_no_wrong_mask(
    shift: int, make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token too many or too few in sight is told from rounding."""
    import lit_rl.sampler_rows

    right = lit_rl.sampler_rows.attention_mask

    def shifted(config: Any, positions: Any, width: int, dtype: Any) -> Any:
        return right(config, (positions + shift).clamp(min=0), width, dtype)

    monkeypatch.setattr(lit_rl.sampler_rows, "attention_mask", shifted)
    model = copy.deepcopy(make_model("llama")).to(torch.bfloat16)
    assert rows_work(model) == (shift == 0)


# -- what may be drawn -----------------------------------------------------------------------------------------


def test_keep_likely_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = lambda top_k, top_p: keep_likely(logits, top_k, top_p).isfinite()[0].tolist()  # noqa: E731
    assert kept(2, 1.0) == [True, True, False, False]
    assert kept(0, 0.75) == [True, True, False, False]  # .5 < .75 <= .8
    assert kept(0, 0.85) == [True, True, True, False]
    assert kept(0, 0.01) == [True, False, False, False]
    assert kept(9, 1.0) == [True, True, True, True]


def test_top_k_and_top_p_restrict_and_renormalise(make_model: Callable[..., Any]) -> None:
    model = make_model("qwen2")
    prompt = tokens(6, seed=2)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    for top_k, top_p in ((3, 1.0), (0, 0.6)):
        sampler = sampler_of(model, top_k=top_k, top_p=top_p)
        found = answers(sampler, [ask(row, prompt, max_tokens=1) for row in range(60)])
        likely = keep_likely(logits[None], top_k, top_p)[0].log_softmax(0)
        assert {said.ids[0] for said in found.values()} == set(likely.isfinite().nonzero().flatten().tolist())
        for said in found.values():
            assert said.log_probs[0] == pytest.approx(float(likely[said.ids[0]]), abs=1e-5)


def alternating() -> ConstraintTable:
    """Low tokens, then high ones, in turn; the stop token only after a high one.  A second table allows 5 alone."""
    allowed = torch.zeros(2, V, dtype=torch.bool)
    allowed[0, 3:20] = True
    allowed[1, 20:40] = True
    allowed[0, 2] = True
    transitions = torch.tensor([[1] * V, [0] * V])
    only = torch.zeros(1, V, dtype=torch.bool)
    only[0, 5] = True
    table = {"only": TokenConstraint(only, torch.zeros(1, V, dtype=torch.int64))}
    return ConstraintTable(table | {"alternating": TokenConstraint(allowed, transitions)})


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_constraints_hold_and_their_log_probs_are_restricted(architecture: str, make_model: Callable[..., Any]) -> None:
    model = make_model(architecture)
    kinds = {0: "alternating", 1: None, 2: "only", 3: "alternating"}
    requests = [ask(row, tokens(4 + row, seed=row), constraint=kind) for row, kind in kinds.items()]
    found = answers(sampler_of(model, constraints=alternating(), temperature=1.3), requests)

    def alternate(said: list[int]) -> list[int]:
        return [*range(20, 40)] if len(said) % 2 else [2, *range(3, 20)]

    for request in requests:
        kind = kinds[request.row]
        rule = {"alternating": alternate, "only": lambda said: [5], None: None}[kind]
        plain = plain_turn(model, list(request.new_ids), request.key, 12, temperature=1.3, allowed=rule)
        said = found[request.row]
        assert_same(said, plain)
        start = {"only": [0] * 12, "alternating": [1, 2] * 6, None: [-1] * 12}[kind]
        assert said.states == start[: len(said.ids)]
    assert found[2].ids == [5] * 12 and found[2].log_probs == pytest.approx([0.0] * 12)


def test_a_second_turn_starts_its_constraint_anew(make_model: Callable[..., Any]) -> None:
    sampler = sampler_of(make_model("qwen2"), constraints=alternating())
    answers(sampler, [ask(0, tokens(4, seed=0), constraint="alternating", max_tokens=3)])
    free = answers(sampler, [ask(0, tokens(4, seed=1), max_tokens=3)])[0]
    assert free.states == [-1] * len(free.ids)
    bound = answers(sampler, [ask(0, tokens(4, seed=1), constraint="alternating", max_tokens=3)])[0]
    assert bound.states[0] == 1


def test_replies_that_would_be_cut_off_are_refused(make_model: Callable[..., Any]) -> None:
    """A constraint that promises how a reply ends needs room for the end."""
    pieces = [None] * 3 + [b"x", b"y"] + [b"z"] * (V - 5)
    reply = ReplyConstraint(pieces, required=["xyx"], max_tokens=4, end_id=2)
    sampler = sampler_of(make_model("qwen2"), constraints=ConstraintTable({"reply": reply}))
    said = answers(sampler, [ask(row, tokens(4, seed=row), constraint="reply", max_tokens=5) for row in range(8)])
    assert all("xyx" in "".join("..!xy"[min(i, 4)] if i < 5 else "z" for i in one.ids) for one in said.values())
    sampler.submit(ask(9, tokens(4, seed=9), constraint="reply", max_tokens=4))
    with pytest.raises(ValueError, match=r"Row 9: a reply under constraint 'reply' may take 5 tokens.*max_tokens to 5"):
        sampler.run()


# -- bad input and small parts ---------------------------------------------------------------------------------


def test_bad_requests_are_refused(make_model: Callable[..., Any]) -> None:
    sampler = sampler_of(make_model("qwen2"))
    with pytest.raises(ValueError, match="row 3: new_ids is empty"):
        sampler.submit(ask(3, []))
    sampler.submit(ask(4, [5], constraint="only"))
    with pytest.raises(ValueError, match="asks for constraint 'only', but none were given"):
        sampler.run()
    other = sampler_of(make_model("qwen2"), constraints=alternating())
    other.submit(ask(4, [5], constraint="ony"))
    with pytest.raises(ValueError, match=r"No token constraint is called 'ony'; known: \['alternating', 'only'\]"):
        other.run()


def test_a_row_being_sampled_cannot_be_released(make_model: Callable[..., Any]) -> None:
    sampler = sampler_of(make_model("qwen2"))
    for row in range(3):
        sampler.submit(ask(row, tokens(4, seed=row), max_tokens=1 if row == 0 else 60))
    done = [said.row for said in sampler.run()]
    unfinished = next(row for row in range(3) if row not in done)
    with pytest.raises(RuntimeError, match=f"Row {unfinished} is being sampled"):
        sampler.release([unfinished])


def test_constraints_of_other_shapes_are_refused(make_model: Callable[..., Any]) -> None:
    """Over another vocabulary than the model's; or with a lag where nothing could be kept."""

    class Early(TokenConstraint):
        lags = True

        def lag(self, states: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(states)

    everything = torch.ones(1, V, dtype=torch.bool), torch.zeros(1, V, dtype=torch.int64)
    narrow = TokenConstraint(everything[0][:, 1:], everything[1][:, 1:])
    for constraint, message in (
        (narrow, "constraints are over 47 tokens, the model's logits over 48"),
        (Early(*everything), "Row 0: its constraint has lag 1 where no position had lag 0 yet"),
    ):
        sampler = sampler_of(make_model("qwen2"), constraints=ConstraintTable({"it": constraint}))
        sampler.submit(ask(0, [5], constraint="it"))
        with pytest.raises(ValueError, match=message):
            sampler.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_k": -1}, "top_k -1"),
        ({"max_tokens": 0}, "max_tokens 0"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**options)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 5}])
def test_settings_the_trainer_cannot_score_again(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be scored again by the trainer"):
        SamplingSettings(**options).check_trainable()
    SamplingSettings(temperature=0.7).check_trainable()


ids = st.lists(st.integers(0, 2), max_size=30)


@given(a=ids, b=ids)
def test_common_prefix(a: list[int], b: list[int]) -> None:
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=24).map(tuple), min_size=1, max_size=8))
def test_shared_prefixes_are_really_shared(prompts: list[tuple[int, ...]]) -> None:
    plan = share_prefixes(prompts)
    assert len(plan) == len(prompts)
    for prompt, shared in zip(prompts, plan, strict=True):
        leader = prompts[shared.leader]
        assert prompt[: shared.length] == leader[: shared.length]
        assert plan[shared.leader].stage < shared.stage or shared.stage == 0
        assert shared.length < len(prompt) or prompt == leader


def test_share_prefixes_by_hand() -> None:
    beginning = tuple(range(20))
    prompts = [(*beginning, 1), (7, 8), (*beginning, 2, 3), (*beginning, 1), beginning]
    assert share_prefixes(prompts) == [
        Shared(1, 2, 20),
        Shared(0, 1, 0),
        Shared(0, 2, 0),
        Shared(2, 0, 21),
        Shared(1, 2, 19),
    ]
