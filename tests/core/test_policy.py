"""The policy: its log-probs are the sampler's, its parties do not touch each other, what it saves others load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_rl.constraints import ConstraintTable, OneOf, TokenConstraint
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.reply_constraints import ReplyConstraint
from lit_rl.sampling import SampleRequest, SamplingSettings
from lit_rl.stream_keys import stream_key
from lit_rl.tiny import TinyModel
from lit_rl.token_pieces import TokenPieces

ATTENTION = ["qwen2", "qwen3", "llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "mistral", "cohere", "granite"]
IDS = torch.tensor([[3, 9, 14, 6, 7, 20, 11, 8], [3, 10, 5, 12, 30, 0, 0, 0]])
MASK = torch.tensor([[False] * 4 + [True] * 4, [False, False, True, True, True, False, False, False]])


def talk(
    policy: Policy, party: str | None, *, temperature: float = 1.0, constraint: str | None = None
) -> dict[str, Any]:
    """Two ragged turns of four rows as one training batch: ids, mask, sampler log-probs, states."""
    columns: dict[str, Any] = {"ids": 0, "mask": False, "log_probs": 0.0, "states": -1}  # with their pads
    rows: list[dict[str, Any]] = [{name: [] for name in columns} for _ in range(4)]
    generator = torch.Generator().manual_seed(3)
    with policy.acting_as(party):
        sampler = policy.sampler(SamplingSettings(temperature=temperature), max_rows=4)
        for turn in range(2):
            for row, kept in enumerate(rows):
                new = torch.randint(6, 30, (3 + (row + turn) % 3,), generator=generator).tolist()
                add(kept, new, [False] * len(new), [0.0] * len(new), [-1] * len(new))
                key = stream_key(row, turn)
                sampler.submit(SampleRequest(row=row, new_ids=new, key=key, max_tokens=7 + row, constraint=constraint))
            while sampler.busy:
                for said in sampler.run():
                    add(rows[said.row], said.ids, [True] * len(said.ids), said.log_probs, said.states)
    length = max(len(kept["ids"]) for kept in rows)
    return {
        name: torch.tensor([kept[name] + [pad] * (length - len(kept[name])) for kept in rows])
        for name, pad in columns.items()
    }


def add(row: dict[str, list[Any]], *columns: list[Any]) -> None:
    for kept, new in zip(row.values(), columns, strict=True):
        kept += new


@pytest.fixture(params=ATTENTION)
def policy_of(
    request: pytest.FixtureRequest, make_model: Callable[..., Any], model_folder: Path, tmp_path: Path
) -> Policy:
    """A policy whose model is random, of each architecture, saved and loaded from a folder."""
    make_model(request.param).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path)
    attention = "eager" if request.param == "gemma2" else None
    return Policy(PolicyConfig(path=str(tmp_path), attn_implementation=attention))


def test_trainer_and_sampler_agree(policy_of: Policy) -> None:
    """float32 log-probs of a right-padded batch equal those at sampling time, from hidden states and from logits."""
    said = talk(policy_of, "any", temperature=0.8)
    assert policy_of.head_is_exact and policy_of._rows_work
    for exact in (True, False):
        policy_of.head_is_exact = exact
        log_probs, _ = policy_of.log_probs(said["ids"], said["mask"], temperature=0.8)
        assert log_probs.dtype == torch.float32
        torch.testing.assert_close(log_probs, said["log_probs"], atol=1e-5, rtol=0)
        assert said["log_probs"].min() < -0.1


def no_repeats(vocabulary: int) -> ConstraintTable:
    """Even and odd ids in turn; the end token (5) counts as odd."""
    allowed = torch.zeros(2, vocabulary, dtype=torch.bool)
    allowed[0, 6::2], allowed[1, 5::2] = True, True
    unused = TokenConstraint(torch.ones(1, vocabulary, dtype=torch.bool), torch.zeros(1, vocabulary, dtype=torch.int64))
    transitions = torch.tensor([[1] * vocabulary, [0] * vocabulary])
    return ConstraintTable({"free": unused, "even_odd": TokenConstraint(allowed, transitions)})


@pytest.mark.parametrize("exact", [True, False])
def test_constrained_log_probs_agree(exact: bool, make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student")
    policy.constraints = no_repeats(policy.lm.config.vocab_size)
    policy.head_is_exact = exact
    said = talk(policy, "student", temperature=1.4, constraint="even_odd")
    with policy.acting_as("student"):
        bound, _ = policy.log_probs(said["ids"], said["mask"], temperature=1.4, constraint_states=said["states"].int())
        free, _ = policy.log_probs(said["ids"], said["mask"], temperature=1.4)
    torch.testing.assert_close(bound, said["log_probs"], atol=1e-5, rtol=0)
    assert (bound - free)[said["mask"]].min() > 0.1, "the restricted distribution gives each drawn token more"


@pytest.mark.parametrize("exact", [True, False])
def test_log_probs_agree_under_phrases(exact: bool, make_policy: Callable[..., Policy]) -> None:
    """Replies that must say some words and not others, and a first word that chooses which."""
    policy = make_policy("student")
    words = TokenPieces(policy.tokenizer, vocabulary=policy.lm.config.vocab_size)
    polite = ReplyConstraint(words, required=["yes so"], forbidden=["no"], max_tokens=5, end_id=policy.chat.end_id)
    curt = ReplyConstraint(words, forbidden=["yes", "one"], max_tokens=2, end_id=policy.chat.end_id)
    one, two = policy.tokenizer.convert_tokens_to_ids(["one", "two"])
    policy.constraints = ConstraintTable({"polite": polite, "either": OneOf({one: polite, two: curt})})
    policy.head_is_exact = exact
    for name in ("polite", "either"):
        said = talk(policy, "student", temperature=0.7, constraint=name)
        states = said["states"].int()
        with policy.acting_as("student"):
            bound, _ = policy.log_probs(said["ids"], said["mask"], temperature=0.7, constraint_states=states)
        torch.testing.assert_close(bound, said["log_probs"], atol=1e-5, rtol=0)
        assert bound.min() < -0.5 and bound.isfinite().all()


def test_constrained_rows_need_their_table(make_policy: Callable[..., Policy]) -> None:
    states = torch.zeros_like(IDS, dtype=torch.int32)
    with pytest.raises(ValueError, match="sampled under constraints, and policy.constraints is None"):
        make_policy("student").log_probs(IDS, MASK, constraint_states=states)


def test_every_party_has_its_own_distribution(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", "teacher")
    seen = []
    for party in ("student", "teacher", None):
        said = talk(policy, party)
        with policy.acting_as(party), torch.no_grad():
            log_probs, _ = policy.log_probs(said["ids"], said["mask"])
            other, _ = policy.log_probs(IDS, MASK)
        torch.testing.assert_close(log_probs, said["log_probs"], atol=1e-5, rtol=0)
        seen.append(other)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (seen[a] - seen[b]).abs().max() > 1e-3


def test_entropy(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student")
    with policy.acting_as("student"), torch.no_grad():
        _, entropy = policy.log_probs(IDS, MASK, temperature=2.0, with_entropy=True)
        logits = policy.lm(input_ids=IDS).logits / 2.0
    wanted = torch.distributions.Categorical(logits=logits).entropy()[:, :-1]
    assert entropy is not None
    torch.testing.assert_close(entropy[:, 1:], wanted.masked_fill(~MASK[:, 1:], 0.0), atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student")
    with policy.acting_as("student"), torch.no_grad():
        both, _ = policy.log_probs(IDS, MASK)
        junk = IDS.clone()
        junk[1, 5:] = 17
        assert torch.equal(policy.log_probs(junk, MASK)[0], both)
        alone, _ = policy.log_probs(IDS[1:, :5], MASK[1:, :5])
    torch.testing.assert_close(alone, both[1:, :5], atol=1e-6, rtol=0)


def test_the_first_token_has_no_log_prob(make_policy: Callable[..., Policy]) -> None:
    mask = MASK.clone()
    mask[0, 0] = True
    with pytest.raises(ValueError, match="mask is True at position 0"):
        make_policy("student").log_probs(IDS, mask)


def test_an_empty_mask_gives_zeros(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student")
    with policy.acting_as("student"):
        log_probs, entropy = policy.log_probs(IDS, torch.zeros_like(MASK), with_entropy=True)
    assert not log_probs.any() and entropy is not None and not entropy.any()


# -- parties ---------------------------------------------------------------------------------------------------


def gradients(policy: Policy, party: str | None) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    with policy.acting_as(party):
        log_probs, _ = policy.log_probs(IDS, MASK)
        log_probs.sum().backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None and p.grad.any()}


def test_gradients_reach_the_acting_party_alone(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", "teacher")
    for party, other in (("student", "teacher"), ("teacher", "student"), ("student", "teacher")):
        touched = gradients(policy, party)
        assert touched and all(f".{party}." in name for name in touched)
        assert not any(f".{other}." in name for name in touched)


def test_everything_stays_trainable_whoever_acted_last(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", "teacher", value_heads=["critic"])
    wanted = set(policy.trainable_names())

    def required() -> set[str]:
        return {name for name, parameter in policy.named_parameters() if parameter.requires_grad}

    assert required() == wanted
    for party in ("teacher", None, "student", None):
        with policy.acting_as(party), torch.no_grad():
            policy.log_probs(IDS, MASK)
        assert required() == wanted
    with pytest.raises(KeyError), policy.acting_as(None):
        raise KeyError
    assert required() == wanted
    assert gradients(policy, "student")


def test_the_reference_is_the_base(make_policy: Callable[..., Policy], model_folder: Path) -> None:
    policy = make_policy("student", "teacher")
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    with policy.acting_as(None), torch.no_grad():
        assert torch.equal(policy.lm(input_ids=IDS).logits, base(input_ids=IDS).logits)
    with policy.acting_as("student"), torch.no_grad():
        assert (policy.lm(input_ids=IDS).logits - base(input_ids=IDS).logits).abs().max() > 1e-3


def test_a_fresh_adapter_is_the_base(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", fresh=True)
    with torch.no_grad():
        with policy.acting_as("student"):
            own, _ = policy.log_probs(IDS, MASK)
        with policy.acting_as(None):
            base, _ = policy.log_probs(IDS, MASK)
    assert torch.equal(own, base)


def test_acting_refuses_nesting_and_strangers(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", "teacher")
    with policy.acting_as("student"):
        with policy.acting_as("student"):
            pass
        for other in ("teacher", None):
            with pytest.raises(RuntimeError, match="finish backward before switching party"), policy.acting_as(other):
                pass
    with pytest.raises(ValueError, match=r"no party 'judge'; its adapters are \['student', 'teacher'\]"):
        policy.acting_as("judge").__enter__()
    with policy.acting_as("teacher"):  # the failures above left nothing behind
        pass
    with pytest.raises(ValueError, match="There is no reference policy"), make_policy().acting_as(None):
        pass


def test_trainable_names_and_groups(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", "teacher", value_heads=["critic"])
    groups = policy.parameter_groups()
    assert set(groups) == {"student", "teacher", "value_heads"}
    assert len(groups["student"]) == len(groups["teacher"]) == 2 * 7 * 2  # A and B of seven layers in two blocks
    assert sum(len(group) for group in groups.values()) == len(policy.trainable_names()) == 28 + 28 + 2
    assert not any("base_layer" in name or "embed" in name for name in policy.trainable_names())
    full = make_policy(value_heads=["critic"])
    assert set(full.parameter_groups()) == {"all", "value_heads"}
    assert set(full.trainable_names()) == {name for name, _ in full.named_parameters()}


def test_party_names_that_occur_in_module_names(make_policy: Callable[..., Policy]) -> None:
    """A party called "model" or "layers" is told apart from the modules of that name."""
    policy = make_policy("model", "layers")
    assert {name: len(group) for name, group in policy.parameter_groups().items()} == {"model": 28, "layers": 28}
    touched = gradients(policy, "layers")
    assert len(touched) == 28 and all(".layers.weight" in name for name in touched)


def test_dropout_is_off(make_policy: Callable[..., Policy], model_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, attention_dropout=0.5)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path)
    policy = Policy(PolicyConfig(path=str(tmp_path), adapters={"student": LoRA(rank=2)}))
    assert policy.lm.model.layers[0].self_attn.attention_dropout == 0.5
    policy.train()
    assert policy.training
    with policy.acting_as("student"):
        assert torch.equal(policy.log_probs(IDS, MASK)[0], policy.log_probs(IDS, MASK)[0])


@pytest.mark.parametrize("parties", [(), ("student", "teacher")], ids=["full", "lora"])
def test_checkpointing_changes_no_gradient(parties: tuple[str, ...], make_policy: Callable[..., Policy]) -> None:
    plain = make_policy(*parties, seed=4)
    checkpointed = make_policy(*parties, seed=4, gradient_checkpointing=True)
    party = "student" if parties else "any"
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    checkpointed.lm.model.layers[0].mlp.register_forward_pre_hook(count)
    checkpointed.train()
    with checkpointed.acting_as(None if parties else party), torch.no_grad():
        checkpointed.log_probs(IDS, MASK)  # a reference pass that ends before the backward is harmless
    calls = 0
    wanted, got = gradients(plain, party), gradients(checkpointed, party)
    assert calls == 2, "the layer runs once forward and once more in backward"
    assert wanted.keys() == got.keys()
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], atol=1e-6, rtol=1e-5)
    checkpointed.zero_grad()
    with checkpointed.acting_as(party):
        assert checkpointed.sampler(SamplingSettings(), max_rows=2).rows.__class__.__name__ == "CachedRows"
    assert checkpointed._rows_work, "sampling keeps its cache"


# -- value heads -----------------------------------------------------------------------------------------------


def test_values(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", value_heads=["critic", "high"])
    with policy.acting_as("student"):
        values = policy.values(IDS, "critic")
        assert values.shape == IDS.shape and values.dtype == torch.float32
        assert not torch.equal(values, policy.values(IDS, "high"))
        hidden = policy.lm(input_ids=IDS, output_hidden_states=True).hidden_states[-1]
        head: Any = policy.value_heads["critic"]
        torch.testing.assert_close(values, hidden @ head.weight[0] + head.bias, atol=1e-5, rtol=1e-5)
        values.sum().backward()
    assert head.weight.grad is not None and head.bias.grad is not None
    assert float(head.bias.grad) == IDS.numel()
    assert policy.value_heads["high"].weight.grad is None
    assert any(p.grad is not None and p.grad.any() for p in policy.parameter_groups()["student"])


def test_seeds_fix_adapters_and_heads(make_policy: Callable[..., Policy]) -> None:
    state = torch.get_rng_state()
    policies = [make_policy("student", fresh=True, value_heads=["critic"]) for _ in range(2)]
    other = Policy(PolicyConfig(tiny=policies[0].config.tiny, adapters={"student": LoRA(rank=4)}, seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    a, b = (dict(policy.named_parameters()) for policy in policies)
    assert all(torch.equal(a[name], b[name]) for name in a)
    changed = {name for name, parameter in other.named_parameters() if not torch.equal(parameter, a[name])}
    assert changed and all("lora_A" in name for name in changed)


# -- saving ----------------------------------------------------------------------------------------------------


def test_peft_loads_what_save_writes(make_policy: Callable[..., Policy], model_folder: Path, tmp_path: Path) -> None:
    policy = make_policy("student", "teacher", value_heads=["critic"])
    policy.save(tmp_path)
    for party in ("student", "teacher"):
        fresh = AutoModelForCausalLM.from_pretrained(model_folder)
        loaded = PeftModel.from_pretrained(fresh, tmp_path / party).eval()
        with policy.acting_as(party), torch.no_grad():
            assert torch.equal(loaded(input_ids=IDS).logits, policy.lm(input_ids=IDS).logits)
    heads = load_file(tmp_path / "heads.safetensors")
    critic: Any = policy.value_heads["critic"]
    assert torch.equal(heads["critic.weight"], critic.weight)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == policy.tokenizer.chat_template


def test_a_whole_model_is_saved_and_loaded(make_policy: Callable[..., Policy], tmp_path: Path) -> None:
    policy = make_policy()
    policy.save(tmp_path)
    again = Policy(PolicyConfig(path=str(tmp_path)))
    with torch.no_grad():
        assert torch.equal(again.lm(input_ids=IDS).logits, policy.lm(input_ids=IDS).logits)
    assert again.chat.stop_ids == policy.chat.stop_ids


# -- bad input -------------------------------------------------------------------------------------------------


def test_bad_configs_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    both: dict[str, Any] = {"path": "x", "tiny": tiny}
    for options in ({}, both):
        with pytest.raises(ValueError, match="exactly one of policy.path .* and policy.tiny"):
            PolicyConfig(**options)
    with pytest.raises(ValueError, match="name the parties to train in policy.adapters"):
        PolicyConfig(tiny=tiny, quantization="nf4")
    with pytest.raises(ValueError, match="policy.adapters is empty"):
        PolicyConfig(tiny=tiny, adapters={})
    for party in ("a.b", "the student", "value_heads"):
        with pytest.raises(ValueError, match=f"{party!r} is no name for a party"):
            PolicyConfig(tiny=tiny, adapters={party: LoRA()})
    with pytest.raises(ValueError, match="neither a folder with a model and its tokenizer nor a reachable hub id"):
        Policy(PolicyConfig(path=str(tmp_path / "nothing here")))


def test_a_folder_without_chat_template_is_refused(model_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(model_folder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        Policy(PolicyConfig(path=str(tmp_path)))


def test_max_length_is_the_smaller_limit(make_policy: Callable[..., Policy]) -> None:
    assert make_policy().max_length == 256
    assert make_policy(max_length=40).max_length == 40
    assert make_policy(max_length=4000).max_length == 256


@pytest.mark.filterwarnings("ignore:.*computes logits in a way of its own")
def test_an_unknown_head_is_noticed(make_policy: Callable[..., Policy], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hidden states and head do not give the logits, the model's own forward is used, and stays right."""
    monkeypatch.setattr(Policy, "_scales", lambda self: {"softcap": None, "scale": 1.5})
    policy = make_policy("student")
    assert not policy.head_is_exact
    said = talk(policy, "student")
    with policy.acting_as("student"):
        log_probs, _ = policy.log_probs(said["ids"], said["mask"])
    torch.testing.assert_close(log_probs, said["log_probs"], atol=1e-5, rtol=0)
