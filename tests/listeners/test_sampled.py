"""Listeners that are models: what they share, that they stay as they are, and that each is its own."""

import copy
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_rl.listeners import LISTENING, Continuation, ListenRequest, LocalListener, PolicyListener
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from lit_rl.verification.traces import ThinkTags, prefixes

OWN = ThinkTags("[T]", "[/T]")
QUESTION = "so she has the ball. is it true. then who has it."
NOWHERE: Any = SimpleNamespace(policy=None, device="cpu")


def settings(**options: Any) -> SamplingSettings:
    return SamplingSettings(**{"temperature": 1.0, "max_tokens": 12} | options)


def speller(folder: Path, **options: Any) -> LocalListener:
    given: dict[str, Any] = {"settings": settings(), "tags": OWN} | options
    listener = LocalListener("speller", PolicyConfig(path=str(folder)), **given)
    listener.attach(NOWHERE)
    return listener


def trace(number: int) -> str:
    words = ["so she has the ball", "he gives it to her", "step one is done", "so it is true", "so then he goes on"]
    return "\n".join(f"{words[(i * (number + 1) + number) % 5]} {number} is done." for i in range(8))


def requests(traces: int, fractions: tuple[float, ...] = (0.25, 0.5, 0.75)) -> list[ListenRequest]:
    beginnings = [prefixes(trace(t), fractions) for t in range(traces)]
    return [
        ListenRequest(QUESTION, beginnings[t][j], 10 * t + j) for t, j in product(range(traces), range(len(fractions)))
    ]


def test_beginnings_share_their_tokens_and_say_what_they_would_say_alone(spelling_folder: Path) -> None:
    """Issue 4, item 3: re-tokenised prompts run about the longest beginning of each trace, and the question once."""
    listener = speller(spelling_folder)
    asked = requests(4)
    together = listener.continue_(asked)
    prompts = [listener._prompts.ids(r.question, r.prefix) for r in asked]
    separate = sum(map(len, prompts))
    tree = len({prompt[:n] for prompt in prompts for n in range(1, len(prompt) + 1)})
    longest = sum(len(prompts[3 * t + 2]) for t in range(4))
    crossed = [prompts[3 * t] != prompts[3 * t + 2][: len(prompts[3 * t])] for t in range(4)]
    assert any(crossed), "no piece crosses a cut: as ids too, each prompt begins the next"
    assert listener.work.prefilled + listener.work.shared == separate
    # One node of the tree for each last token, whose logits are wanted; less than 16 tokens are not worth a copy.
    assert tree <= listener.work.prefilled <= tree + 4 + 4 * 15
    assert listener.work.prefilled < longest < separate / 1.5
    assert listener.work.decoded <= 11 * len(asked)
    for request, said in zip(asked, together, strict=True):
        assert speller(spelling_folder).continue_([request]) == [said]


def test_what_is_said_does_not_depend_on_who_is_asked_with_it(spelling_folder: Path) -> None:
    """Property 11, and few slots: noise belongs to the key."""
    asked = requests(3)
    whole = speller(spelling_folder).continue_(asked)
    few = speller(spelling_folder, max_rows=2)
    assert few.continue_(asked[::-1])[::-1] == whole
    split = speller(spelling_folder)
    assert split.continue_(asked[:4]) + split.continue_(asked[4:]) == whole
    other = [ListenRequest(r.question, r.prefix, r.key + 1000) for r in asked]
    assert split.continue_(other) != whole


def test_equal_requests_of_a_greedy_listener_run_once(spelling_folder: Path) -> None:
    asked = [ListenRequest(QUESTION, trace(0), key) for key in range(5)]
    greedy = speller(spelling_folder, settings=settings(temperature=0.0))
    said = greedy.continue_(asked)
    assert len(set(said)) == 1 and greedy.work.shared == 0 and greedy.work.decoded <= 11
    assert greedy.work.prefilled == len(greedy._prompts.ids(QUESTION, trace(0)))
    assert len(set(speller(spelling_folder).continue_(asked))) > 1


def test_prompts_that_fill_the_context(spelling_folder: Path) -> None:
    """remul.md 3.5: without room there is no continuation; with little room it is short."""
    listener = speller(spelling_folder)
    short, long = ListenRequest(QUESTION, trace(0), 0), ListenRequest(QUESTION, "so " * 900, 1)
    need = len(listener._prompts.ids(QUESTION, trace(0)))
    config = PolicyConfig(path=str(spelling_folder), max_length=need + 3)
    tight = LocalListener("tight", config, settings=settings(), tags=OWN)
    tight.attach(NOWHERE)
    first, second = tight.continue_([short, long])
    assert second == Continuation(stop_reason="no_room")
    assert first.stop_reason in ("length", "end") and tight.work.decoded <= 2
    full = LocalListener(
        "full", PolicyConfig(path=str(spelling_folder), max_length=need), settings=settings(), tags=OWN
    )
    full.attach(NOWHERE)
    assert full.continue_([short]) == [Continuation(stop_reason="no_room")]
    assert full.continue_([]) == []


def test_an_end_of_turn_ends_it_and_is_not_said(spelling_folder: Path) -> None:
    listener = speller(spelling_folder, settings=settings(max_tokens=150))
    said = listener.continue_([ListenRequest(QUESTION, trace(0), key) for key in range(16)])
    ended = [c for c in said if c.stop_reason == "end"]
    assert ended and not any("<end>" in c.text for c in ended)


def test_each_listener_has_settings_of_its_own(spelling_folder: Path) -> None:
    """Property 5: template, tags and decoding; text in, text out."""
    asked = requests(1)
    chat, raw = speller(spelling_folder), speller(spelling_folder, prompt_mode="raw")
    penalised = speller(spelling_folder, settings=settings(repetition_penalty=5.0))
    told = speller(spelling_folder, instruction="so it is true.")
    said = [listener.continue_(asked) for listener in (chat, raw, penalised, told)]
    assert len({tuple(c.text for c in s) for s in said}) == 4
    with pytest.warns(UserWarning, match="no token for the think tag"):
        foreign = speller(spelling_folder, tags=ThinkTags())
    assert foreign.continue_(asked) != said[0]
    assert LocalListener("plain", PolicyConfig(path="p")).settings == LISTENING


def test_listeners_are_not_changed_by_listening(listening_model: TinyModel) -> None:
    """Property 6: bit-identical parameters, without gradient, also where gradients are on."""
    listener = LocalListener("frozen", PolicyConfig(tiny=listening_model), settings=settings())
    state = torch.get_rng_state()
    listener.attach(NOWHERE)
    assert torch.equal(torch.get_rng_state(), state), "a resumed run, which loads at another moment, draws the same"
    policy = listener._policy
    before = copy.deepcopy(policy.state_dict())
    with torch.enable_grad():
        listener.continue_([ListenRequest("Who is it", "step1 \n step2", 0)])
    assert all(not p.requires_grad and p.grad is None for p in policy.parameters())
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    listener.attach(NOWHERE)
    assert listener._policy is policy, "loaded once"


def test_the_modules_own_policy_listens_as_an_adapter_or_as_the_base(module: Any, listening_model: TinyModel) -> None:
    asked = [ListenRequest("Who is it", f"step1 \n step{n}", n) for n in range(2, 6)]
    listeners = {
        "base": PolicyListener("base", settings=settings()),
        "friend": PolicyListener("friend", "friend", settings=settings()),
        "speaker": PolicyListener("itself", "speaker", settings=settings()),
        "local": LocalListener("local", PolicyConfig(tiny=listening_model), settings=settings()),
        "idle": LocalListener(
            "idle", PolicyConfig(tiny=listening_model, adapters={"idle": LoRA(rank=1)}), settings=settings()
        ),
    }
    said = {}
    for name, listener in listeners.items():
        listener.attach(module)
        said[name] = listener.continue_(asked)
    assert said["base"] == said["local"] == said["idle"], "the base is the model the adapters are on"
    assert len({tuple(said[name]) for name in ("base", "friend", "speaker")}) == 3
    assert all(p.grad is None for p in module.policy.parameters())
    assert all(p.requires_grad for n, p in module.policy.named_parameters() if "lora" in n), "training goes on"


def test_bad_listeners_say_what_is_wrong(module: Any, listening_model: TinyModel) -> None:
    with pytest.raises(ValueError, match="Listener 'x': prompt_mode is 'json'"):
        PolicyListener("x", prompt_mode="json")
    with pytest.raises(ValueError, match="Listener 'x': max_rows is 0"):
        PolicyListener("x", max_rows=0)
    with pytest.raises(ValueError, match=r"the policy of the module, but SimpleNamespace has no .* use LocalListener"):
        PolicyListener("x").attach(NOWHERE)
    whole = Policy(PolicyConfig(tiny=listening_model))
    with pytest.raises(ValueError, match="frozen base of the policy, all of whose weights are trained"):
        PolicyListener("x").attach(SimpleNamespace(policy=whole, device="cpu"))
    stranger = PolicyListener("x", "stranger", settings=settings())
    stranger.attach(module)
    with pytest.raises(ValueError, match=r"no party 'stranger'"):
        stranger.continue_([ListenRequest("Who is it", "step1", 0)])
    with pytest.raises(RuntimeError, match="Listener 'x' has no model yet"):
        LocalListener("x", PolicyConfig(tiny=listening_model)).continue_([])


@pytest.mark.filterwarnings("ignore")
def test_a_listener_in_four_bits_is_nearly_itself(listening_model: TinyModel) -> None:
    """Its base is quantized; the adapter that a 4-bit base needs stays idle."""
    asked = [ListenRequest("Who is it", "step1 \n step2", key) for key in range(4)]
    config = PolicyConfig(tiny=listening_model, quantization="nf4", adapters={"idle": LoRA(rank=1)})
    small = LocalListener("small", config, settings=settings())
    small.attach(NOWHERE)
    assert type(small._policy.lm.model.layers[0].mlp.up_proj.base_layer).__name__ == "Linear4bit"
    policy = small._policy
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    said = small.continue_(asked)
    assert said == small.continue_(asked) and len(set(said)) == 4
    for parameter in (p for n, p in policy.named_parameters() if "lora_B" in n):
        parameter.data += 1.0
    assert said == small.continue_(asked), "an idle adapter has no say"
    assert all(torch.equal(v, before[n]) for n, v in policy.state_dict().items() if "lora" not in n)
