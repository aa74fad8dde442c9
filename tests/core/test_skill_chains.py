"""Chains of skill labels: chosen without replacement from one row of logits, by sampler and trainer alike."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_rl.constraints import ConstraintTable
from lit_rl.objectives.plackett_luce import plackett_luce_log_probs
from lit_rl.policy import Policy
from lit_rl.sampling import Sampled, SampleRequest, SamplingSettings
from lit_rl.skill_chains import SkillChain
from lit_rl.stream_keys import stream_key

LABELS, END, V = [4, 7, 2, 5], 1, 9


def chain_of(admissible: list[int], length: int, later: list[int] | None = None) -> SkillChain:
    return SkillChain(
        LABELS,
        admissible=[z in admissible for z in range(4)],
        length=length,
        end_id=END,
        vocabulary=V,
        later=None if later is None else [z in later for z in range(4)],
    )


def allowed(chain: SkillChain, *tokens: int) -> list[int]:
    state = torch.tensor([0])
    for count, token in enumerate(tokens):
        assert int(chain.lag(state)) == count
        state = chain.after(state, torch.tensor([token]))
    return sorted(chain.allowed(state)[0].nonzero().flatten().tolist())


# -- the automaton ---------------------------------------------------------------------------------------------


def test_labels_come_once_and_the_end_behind_the_last() -> None:
    chain = chain_of([0, 1, 3], length=2)
    assert allowed(chain) == [4, 5, 7]
    assert allowed(chain, 7) == [4, 5]
    assert allowed(chain, 7, 5) == allowed(chain, 7, 5, END) == [END]
    assert chain.longest == 3 and chain.num_states == 5**2 and chain.lags


def test_later_skills_have_their_own_mask() -> None:
    chain = chain_of([0], length=3, later=[0, 2, 3])
    assert allowed(chain) == [4]
    assert allowed(chain, 4) == [2, 5]
    assert allowed(chain, 4, 2) == [5]


def test_chains_are_shorter_where_nothing_is_left() -> None:
    assert allowed(chain_of([2], length=3), 2) == [END]
    assert allowed(chain_of([2], length=3, later=[]), 2) == [END]


def test_states_of_all_chains_differ() -> None:
    chain = chain_of([0, 1, 2, 3], length=3)
    states = set()
    for length in range(4):
        for labels in itertools.permutations(LABELS, length):
            state = torch.tensor([0])
            for label in labels:
                state = chain.after(state, torch.tensor([label]))
            assert 0 <= int(state) < chain.num_states and int(chain.lag(state)) == length
            states.add(int(state))
    assert len(states) == 1 + 4 + 12 + 24


@settings(max_examples=20, deadline=None)
@given(
    logits=st.lists(st.floats(-4, 4), min_size=V, max_size=V),
    admissible=st.sets(st.integers(0, 3), min_size=1),
    later=st.sets(st.integers(0, 3)),
    length=st.integers(1, 4),
)
def test_log_probs_are_those_of_plackett_and_luce(
    logits: list[float], admissible: set[int], later: set[int], length: int
) -> None:
    """Every chain the automaton allows: its restricted log-probs from one row, and all of them together 1."""
    chain, row = chain_of(sorted(admissible), length, sorted(later)), torch.tensor(logits, dtype=torch.float64)
    total, waiting = 0.0, [(0, (), 0.0)]
    masks = torch.tensor([[z in mask for z in range(4)] for mask in (admissible, later)])
    while waiting:
        state, skills, log_prob = waiting.pop()
        mask = chain.allowed(torch.tensor([state]))[0]
        restricted = row.masked_fill(~mask, -torch.inf).log_softmax(0)
        for token in mask.nonzero().flatten().tolist():
            if token == END:
                assert restricted[END] == 0
                got = plackett_luce_log_probs(row[None, LABELS], torch.tensor([skills]), masks[:1], later=masks[1:])
                assert float(got.sum()) == pytest.approx(log_prob, abs=1e-9)
                total += float(got.sum().exp())
            else:
                after = int(chain.after(torch.tensor([state]), torch.tensor([token])))
                waiting.append((after, (*skills, LABELS.index(token)), log_prob + float(restricted[token])))
    assert total == pytest.approx(1.0)


# -- sampler and trainer ---------------------------------------------------------------------------------------


@pytest.fixture
def planner(make_policy: Callable[..., Policy]) -> Policy:
    """Five skills are letters of the tiny model; three may come first."""
    policy = make_policy("planner")
    labels = policy.tokenizer.convert_tokens_to_ids(list("abcde"))
    options: dict[str, Any] = {"end_id": policy.chat.end_id, "vocabulary": policy.lm.config.vocab_size}
    three = SkillChain(labels, admissible=[True, True, False, True, False], later=[True] * 5, length=3, **options)
    policy.constraints = ConstraintTable({"one": SkillChain(labels, admissible=[True] * 5, length=1, **options)})
    policy.constraints.add("three", three)
    return policy


def dialogue(
    policy: Policy, kinds: list[str | None], rows: int, party: str | None = "planner", **settings: Any
) -> tuple[dict[str, Tensor], list[list[Sampled]], list[list[list[int]]]]:
    """As many turns as ``kinds``, each row's cache kept; the batch, what each row said, and what stood before."""
    columns: dict[str, Any] = {"ids": 0, "mask": False, "log_probs": 0.0, "states": -1}
    batch: list[dict[str, Any]] = [{name: [] for name in columns} for _ in range(rows)]
    said: list[list[Sampled]] = [[] for _ in range(rows)]
    before: list[list[list[int]]] = [[] for _ in range(rows)]
    generator = torch.Generator().manual_seed(7)
    with policy.acting_as(party):
        sampler = policy.sampler(SamplingSettings(**settings), max_rows=rows)
        for turn, kind in enumerate(kinds):
            for row, kept in enumerate(batch):
                new = torch.randint(6, 30, (3 + (row + turn) % 3,), generator=generator).tolist()
                for name, values in zip(columns, (new, *([pad] * len(new) for pad in (False, 0.0, -1))), strict=True):
                    kept[name] += values
                before[row].append(list(kept["ids"]))
                key = stream_key(row, turn)
                sampler.submit(SampleRequest(row=row, new_ids=new, key=key, max_tokens=4 + row % 3, constraint=kind))
            while sampler.busy:
                for reply in sampler.run():
                    kept = batch[reply.row]
                    kept["ids"] += reply.ids
                    kept["mask"] += [True] * len(reply.ids)
                    kept["log_probs"] += reply.log_probs
                    kept["states"] += reply.states
                    said[reply.row].append(reply)
    length = max(len(kept["ids"]) for kept in batch)
    tensors = {
        name: torch.tensor([kept[name] + [pad] * (length - len(kept[name])) for kept in batch])
        for name, pad in columns.items()
    }
    return tensors, said, before


@pytest.mark.parametrize("exact", [True, False])
def test_trainer_and_sampler_agree(exact: bool, planner: Policy) -> None:
    """Chains, free turns and chains again in one dialogue; the temperature is the trainer's too."""
    planner.head_is_exact = exact
    batch, said, _ = dialogue(planner, ["three", None, "one", "three"], rows=6, temperature=1.6)
    states = batch["states"].int()
    with planner.acting_as("planner"):
        got, entropy = planner.log_probs(
            batch["ids"], batch["mask"], temperature=1.6, constraint_states=states, with_entropy=True
        )
    torch.testing.assert_close(got, batch["log_probs"], atol=1e-5, rtol=0)
    assert entropy is not None and entropy.isfinite().all()
    ends = (batch["ids"] == planner.chat.end_id) & (batch["states"] >= 0)
    assert int(ends.sum()) == 3 * 6 and not got[ends].any(), "the end of a chain was sure"
    assert got.min() < -0.5
    assert all(len(turn.ids) == 4 for row in said for turn in (row[0], row[3]))


def test_chains_come_from_their_first_position(planner: Policy) -> None:
    """A second implementation: logits of the whole row anew at the chain's beginning, and the pure function."""
    _, said, before = dialogue(planner, ["three", "three"], rows=4, temperature=0.7)
    labels = planner.tokenizer.convert_tokens_to_ids(list("abcde"))
    first, later = torch.tensor([[True, True, False, True, False]]), torch.ones(1, 5, dtype=torch.bool)
    for row, turns in enumerate(said):
        for turn, prompt in zip(turns, before[row], strict=True):
            with planner.acting_as("planner"), torch.no_grad():
                logits = planner.lm(input_ids=torch.tensor([prompt])).logits[:, -1, labels] / 0.7
            skills = torch.tensor([[labels.index(token) for token in turn.ids[:-1]]])
            wanted = plackett_luce_log_probs(logits, skills, first, later=later)
            torch.testing.assert_close(torch.tensor([turn.log_probs[:-1]]), wanted, atol=1e-5, rtol=0)


def test_gradients_are_those_of_plackett_and_luce(planner: Policy) -> None:
    """Through the policy's chunked log-probs, from the first position alone."""
    batch, said, before = dialogue(planner, ["three"], rows=3)
    labels = planner.tokenizer.convert_tokens_to_ids(list("abcde"))
    first, later = torch.tensor([[True, True, False, True, False]]), torch.ones(1, 5, dtype=torch.bool)

    def gradients(loss: Callable[[], Tensor]) -> dict[str, Tensor]:
        planner.zero_grad()
        with planner.acting_as("planner"):
            loss().backward()
        return {n: p.grad.clone() for n, p in planner.named_parameters() if p.grad is not None}

    def chunked() -> Tensor:
        return planner.log_probs(batch["ids"], batch["mask"], constraint_states=batch["states"].int())[0].sum()

    def plain() -> Tensor:
        terms = []
        for row, (turn,) in enumerate(said):
            logits = planner.lm(input_ids=torch.tensor([before[row][0]])).logits[:, -1, labels]
            skills = torch.tensor([[labels.index(token) for token in turn.ids[:-1]]])
            terms.append(plackett_luce_log_probs(logits, skills, first, later=later).sum())
        return torch.stack(terms).sum()

    got, wanted = gradients(chunked), gradients(plain)
    assert got.keys() == wanted.keys() and any(grad.abs().max() > 1e-3 for grad in wanted.values())
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], atol=1e-5, rtol=1e-3)


def test_sampled_chains_have_their_probabilities(planner: Policy) -> None:
    """2,000 chains of one prompt against the exact distribution over all 36 of two or three skills."""
    labels, prompt, count = planner.tokenizer.convert_tokens_to_ids(list("abcde")), [8, 12, 20, 9], 2000
    with planner.acting_as("planner"), torch.no_grad():
        logits = planner.lm(input_ids=torch.tensor([prompt])).logits[:, -1, labels]
        sampler = planner.sampler(SamplingSettings(), max_rows=count)
        for row in range(count):
            sampler.submit(
                SampleRequest(row=row, new_ids=prompt, key=stream_key("x", row), max_tokens=4, constraint="three")
            )
        seen: Counter[tuple[int, ...]] = Counter()
        while sampler.busy:
            seen.update(tuple(labels.index(token) for token in said.ids[:-1]) for said in sampler.run())
    chains = [chain for chain in itertools.permutations(range(5), 3) if chain[0] in (0, 1, 3)]
    first = torch.tensor([[True, True, False, True, False]]).expand(len(chains), 5)
    probs = (
        plackett_luce_log_probs(
            logits.expand(len(chains), 5), torch.tensor(chains), first, later=torch.ones_like(first)
        )
        .sum(1)
        .exp()
    )
    assert set(seen) <= set(chains) and float(probs.sum()) == pytest.approx(1.0, abs=1e-5)
    expected = probs * count
    chi_square = float(((torch.tensor([seen[chain] for chain in chains]) - expected).square() / expected).sum())
    assert chi_square < 66.6, "35 degrees of freedom: above 66.6 once in a thousand"


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0.0, "repetition_penalty": 1.3}]
)
def test_greedy_and_truncated_chains(options: dict[str, float], planner: Policy) -> None:
    """The likeliest skill, then the likeliest of those left, all from the first position."""
    _, said, before = dialogue(planner, ["three", "three"], rows=4, **options)
    labels = planner.tokenizer.convert_tokens_to_ids(list("abcde"))
    for row, turns in enumerate(said):
        for turn, prompt in zip(turns, before[row], strict=True):
            with planner.acting_as("planner"), torch.no_grad():
                logits = planner.lm(input_ids=torch.tensor([prompt])).logits[0, -1, labels]
            penalty = options.get("repetition_penalty", 1.0)
            seen = torch.tensor([label in prompt for label in labels])
            logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
            best = max((0, 1, 3), key=lambda z: float(logits[z]))
            rest = sorted((z for z in range(5) if z != best), key=lambda z: -float(logits[z]))
            assert [labels.index(token) for token in turn.ids[:-1]] == [best, *rest[:2]]


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"admissible": [True] * 3}, r"admissible has shape \(3,\); wanted one bool for each of 4"),
        ({"later": [True] * 5}, r"later has shape \(5,\)"),
        ({"admissible": [False] * 4}, "admissible allows no skill"),
        ({"labels": [4, 7, 4, 5]}, "must all be different tokens"),
        ({"end_id": 7}, "must all be different tokens"),
        ({"vocabulary": 7}, "token 7 lies outside the vocabulary of 7"),
        ({"length": 5}, "length is 5; with 4 labels it must be 1 to 4"),
        ({"length": 0}, "length is 0"),
    ],
)
def test_bad_chains_are_refused(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"labels": LABELS, "admissible": [True] * 4, "length": 2, "end_id": END}
    arguments |= {"vocabulary": V} | options
    with pytest.raises(ValueError, match=message):
        SkillChain(arguments.pop("labels"), **arguments)


def test_too_many_chains_are_refused() -> None:
    with pytest.raises(ValueError, match=r"chains of 6 of 64 skills are 2\^31 or more"):
        SkillChain(range(1, 65), admissible=[True] * 64, length=6, end_id=0, vocabulary=65)
