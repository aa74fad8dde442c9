"""Token constraints: what an automaton may be, and how several stand in one table."""

from typing import Any

import pytest
import torch
from torch import Tensor

import lit_rl.token_automata
from lit_rl.constraints import ConstraintTable, OneOf, TokenAutomaton, TokenConstraint
from lit_rl.objectives import chunked_log_probs, log_probs_from_logits
from lit_rl.reply_constraints import ReplyConstraint
from lit_rl.skill_chains import SkillChain

V = 6
PIECES = [None, b"a", b"b", b"c", b"ab", None]


def constraint(allowed: list[list[int]], transitions: list[list[int]]) -> TokenConstraint:
    return TokenConstraint(torch.tensor(allowed, dtype=torch.bool), torch.tensor(transitions))


def reply(**options: Any) -> ReplyConstraint:
    return ReplyConstraint(PIECES, **{"max_tokens": 2, "end_id": 0} | options)


def chain(length: int = 2) -> SkillChain:
    return SkillChain([1, 2, 3], admissible=[True] * 3, length=length, end_id=0, vocabulary=V)


def ids(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def test_tables_shift_states() -> None:
    one = constraint([[1, 0, 0]], [[0, 0, 0]])
    two = constraint([[1, 1, 0], [0, 0, 1]], [[0, 1, 9], [9, 9, 0]])  # what is not allowed leads nowhere
    table = ConstraintTable({"one": one, "two": two})
    assert (table.start("one"), table.start("two"), table.start(None)) == (0, 1, -1)
    assert table.allowed(torch.tensor([2, 0, -1, 1])).int().tolist() == [[0, 0, 1], [1, 0, 0], [1, 1, 1], [1, 1, 0]]
    assert table.after(torch.tensor([1, 1, 2, -1]), torch.tensor([0, 1, 2, 0])).tolist() == [1, 2, 1, -1]
    assert table.to("cpu") is table


def test_adding_changes_nothing_for_those_present() -> None:
    first, second = reply(required=["ab"]), chain()
    table = ConstraintTable({"reply": first})
    before = table.allowed(torch.arange(first.num_states))
    assert not table.lags and "chain" not in table
    table.add("chain", second)
    table.add("chain", second)
    assert table.lags and "chain" in table
    assert table.offsets == {"reply": 0, "chain": first.num_states}
    assert torch.equal(table.allowed(torch.arange(first.num_states)), before)
    assert (table.longest("reply"), table.longest("chain")) == (3, 3)
    with pytest.raises(ValueError, match="'chain' is the name of another automaton already; choose a new one"):
        table.add("chain", chain())
    with pytest.raises(ValueError, match="'wide' is over 3 tokens, those before it over 6"):
        table.add("wide", constraint([[1, 0, 0]], [[0, 0, 0]]))
    table.add("the same reply", first)
    assert table.start("the same reply") == 0 and table.longest("the same reply") == 3
    assert "wide" not in table and table.start("chain") == first.num_states


def test_a_table_asks_each_automaton_for_its_rows() -> None:
    """States of all kinds in one lookup, in any order, against each automaton asked alone."""
    kinds: dict[str, TokenAutomaton] = {
        "dense": constraint([[1] * V, [0, 1, 1, 0, 0, 0]], [[1] * V, [0] * V]),
        "chain": chain(),
        "reply": reply(required=["c"], forbidden=["ab"]),
        "either": OneOf({5: chain(), 4: reply(required=["a"])}),
    }
    table = ConstraintTable(kinds)
    wanted: dict[int, tuple[list[bool], list[int], int, bool]] = {-1: ([True] * V, [-1] * V, 0, False)}
    met = {name: [0] for name in kinds}
    for name, automaton in kinds.items():
        for state in met[name]:  # grows while it is read
            here = torch.tensor([state])
            allowed = automaton.allowed(here)[0]
            after = [int(automaton.after(here, torch.tensor([t]))) if allowed[t] else -9 for t in range(V)]
            met[name] += [s for s in dict.fromkeys(after) if s != -9 and s not in met[name]]
            start = table.offsets[name]
            shifted = [s if s == -9 else start + s for s in after]
            wanted[start + state] = (allowed.tolist(), shifted, int(automaton.lag(here)), automaton.lags)
    assert len(wanted) > 20
    states = torch.tensor(list(wanted))[torch.randperm(len(wanted), generator=torch.Generator().manual_seed(0))]
    allowed, lag, may_lag = table.allowed(states), table.lag(states), table.may_lag(states)
    assert allowed.any(1).all()
    for row, state in enumerate(states.tolist()):
        want = wanted[state]
        assert (allowed[row].tolist(), int(lag[row]), bool(may_lag[row])) == (want[0], want[2], want[3])
    for token in range(V):
        can = states[allowed[:, token]]
        assert table.after(can, torch.full_like(can, token)).tolist() == [wanted[s][1][token] for s in can.tolist()]


@pytest.mark.parametrize("most", [0, 2000, 2**26])
def test_what_is_looked_up_again_is_the_same(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is kept of it: asked three times, in other company, after another constraint came."""
    monkeypatch.setattr(lit_rl.token_automata, "_KEPT_BYTES", most)
    automaton = reply(required=["c"], forbidden=["ab"])
    table = ConstraintTable({"reply": automaton})
    states = torch.tensor([0, 1, 0, 3])
    wanted, token = automaton.allowed(states), torch.tensor([1, 3, 3, 2])
    behind = automaton.after(states, token)
    for turn in range(3):
        assert torch.equal(table.allowed(states), wanted)
        assert torch.equal(table.after(states, token), behind)
        assert torch.equal(table.allowed(torch.tensor([1, -1]))[0], wanted[1])
        assert table.allowed(states[:0]).shape == (0, V) and table.lag(states).tolist() == [0] * 4
        table.add(f"chain {turn}", chain())


def test_one_of_by_hand() -> None:
    """Token 5 is followed by a chain of one, token 4 by a reply that says "c"."""
    either = OneOf({5: chain(length=1), 4: reply(required=["c"], max_tokens=1)})

    def path(*tokens: int) -> tuple[list[int], int]:
        state = torch.tensor([0])
        for token in tokens:
            state = either.after(state, torch.tensor([token]))
        assert 0 <= int(state) < either.num_states
        return ids(either.allowed(state)[0]), int(either.lag(state))

    assert path() == ([4, 5], 0)
    assert path(5) == ([1, 2, 3], 0) and path(5, 2) == ([0], 1)
    assert path(4) == ([3], 0) and path(4, 3) == ([0], 0)
    assert either.longest == 3 and either.lags
    assert OneOf({4: constraint([[1] * V], [[0] * V]), 5: chain()}).longest is None


@pytest.mark.parametrize("hidden", [True, False])
def test_log_probs_ask_for_a_chunk_at_a_time(hidden: bool) -> None:
    """A function of states gives the values and gradients of the table written out, and never sees all positions."""
    table = ConstraintTable({"reply": reply(required=["c"], forbidden=["ab"]), "chain": chain()})
    generator = torch.Generator().manual_seed(0)
    states = torch.randint(-1, 2, (40,), generator=generator) * table.offsets["chain"]
    states[states < 0] = -1
    dense = table.allowed(torch.arange(int(states.max()) + 1))
    targets = torch.multinomial(table.allowed(states).float(), 1, generator=generator)[:, 0]
    vectors, weight = torch.randn(40, 5, generator=generator), torch.randn(V, 5, generator=generator)
    asked: list[int] = []

    def allowed(states: Tensor) -> Tensor:
        asked.append(len(states))
        return table.allowed(states)

    results = []
    for rule in (dense, allowed):
        leaf = vectors.clone().requires_grad_()
        options: dict[str, Any] = {"allowed": rule, "allowed_index": states, "temperature": 0.7}
        if hidden:
            log_probs, entropy = chunked_log_probs(
                leaf, weight, targets, with_entropy=True, chunk_elements=7 * V, **options
            )
        else:
            log_probs, entropy = log_probs_from_logits(leaf @ weight.T, targets, **options)
        assert entropy is not None
        (log_probs.sum() + entropy.square().sum()).backward()
        results.append((log_probs.detach(), entropy.detach(), leaf.grad))
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want)
    assert max(asked) == (7 if hidden else 40) and bool(results[0][0].isfinite().all())


def test_bad_automata_are_refused() -> None:
    with pytest.raises(ValueError, match=r"allowed \(1, 2\) and transitions \(1, 3\) must both be"):
        constraint([[1, 1]], [[0, 0, 0]])
    with pytest.raises(ValueError, match="state 1 allows no token"):
        constraint([[1, 1], [0, 0]], [[0, 0], [0, 0]])
    with pytest.raises(ValueError, match="a transition leads outside the 1 states"):
        constraint([[1, 1]], [[0, 1]])
    with pytest.raises(ValueError, match="no constraints were given"):
        ConstraintTable({})
    with pytest.raises(ValueError, match=r"No token constraint is called 'b'; known: \['a'\]"):
        ConstraintTable({"a": constraint([[1]], [[0]])}).start("b")
    with pytest.raises(ValueError, match="OneOf: no automata were given"):
        OneOf({})
    with pytest.raises(ValueError, match="OneOf: token 6 lies outside the vocabulary of 6"):
        OneOf({6: chain()})
    with pytest.raises(ValueError, match="token 5 is over 3 tokens, those before it over 6"):
        OneOf({4: chain(), 5: constraint([[1, 0, 0]], [[0, 0, 0]])})


def test_states_fit_into_int32() -> None:
    large = SkillChain(range(1, 65), admissible=[True] * 64, length=5, end_id=0, vocabulary=65)
    with pytest.raises(ValueError, match="With the 1160290625 states of 'b' the token constraints have 2.31 or more"):
        ConstraintTable(
            {"a": large, "b": SkillChain(range(1, 65), admissible=[True] * 64, length=5, end_id=0, vocabulary=65)}
        )
