"""Another model on this machine as a party: it says what it would say alone, in batches and in dialogues."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from lit_rl.datamodules import Dialogue, DidacticDataModule
from lit_rl.environments import HigherLower, NumberSearch
from lit_rl.environments.base import Message, Reply
from lit_rl.local_party import LocalParty
from lit_rl.parties import Call, Party, PartyError
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel
from tests.datamodules.conftest import WORDS

TINY = TinyModel(
    words=[*WORDS, ":", "<feedback>", "</feedback>"],
    numbers=15,
    hidden_size=16,
    layers=1,
    heads=2,
    max_length=128,
    initializer_range=0.3,
)
GREEDY, DRAWN = SamplingSettings(temperature=0.0, max_tokens=4), SamplingSettings(max_tokens=4)


def calls(*texts: str, key: int = 5) -> list[Call]:
    return [
        Call(messages=(Message("user", text),), context=None, key=key + i, episode=i, exchange=0)
        for i, text in enumerate(texts)
    ]


def said(party: Party, asked: Sequence[Call]) -> list[str]:
    return [reply.text for reply in party.reply(asked)]


def test_it_says_what_transformers_would() -> None:
    policy = Policy(PolicyConfig(tiny=TINY))
    (reply,) = LocalParty(PolicyConfig(tiny=TINY), GREEDY).reply(calls("find n in 0 14"))
    prompt = torch.tensor([policy.chat.opening("teacher", [Message("user", "find n in 0 14")]).ids])
    expected = policy.lm.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
    assert list(reply.token_ids) == expected.tolist()
    assert reply.stop_reason == ("end" if policy.chat.end_id in reply.token_ids else "length")


def test_a_batch_changes_no_reply_and_keys_decide() -> None:
    party = LocalParty(PolicyConfig(tiny=TINY), DRAWN)
    together = said(party, calls("find 1", "find 2", "find 3"))
    assert together == [said(party, [call])[0] for call in calls("find 1", "find 2", "find 3")]
    assert said(party, calls("find 1", key=99)) != said(party, calls("find 1", key=5))


def test_two_adapters_more_are_no_part_of_it() -> None:
    plain = said(LocalParty(PolicyConfig(tiny=TINY), GREEDY), calls("find 1", "ask 2"))
    idle = PolicyConfig(tiny=TINY, adapters={"idle": LoRA(rank=1)})
    assert said(LocalParty(idle, GREEDY), calls("find 1", "ask 2")) == plain


def test_limits_and_headers_of_a_call() -> None:
    party = LocalParty(PolicyConfig(tiny=TINY), GREEDY)
    messages = (Message("user", "find 1"), Message("assistant", "ans 3"))
    call = Call(messages=messages, context=None, key=1, episode=0, exchange=0, role="user", max_tokens=1)
    (reply,) = party.reply([call])
    assert len(reply.token_ids) == 1
    policy = Policy(PolicyConfig(tiny=TINY))
    prompt = torch.tensor([policy.chat.opening("teacher", messages, "user").ids])
    assert reply.token_ids[0] == int(policy.lm(prompt).logits[0, -1].argmax())


def test_no_room_names_the_episode() -> None:
    long = [*calls("find 1"), *calls("find 1", " ".join(["ans"] * 130))[1:]]
    with pytest.raises(PartyError, match=r"'teacher' in episode 1: .* leaves no room") as error:
        LocalParty(PolicyConfig(tiny=TINY), GREEDY).reply(long)
    assert error.value.episode == 1
    with pytest.raises(ValueError, match=r"LocalParty.max_rows is 0"):
        LocalParty(PolicyConfig(tiny=TINY), GREEDY, max_rows=0)


class Noting(LocalParty):
    """Remembers what it was asked."""

    heard: tuple[Call, ...] = ()

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        self.heard += tuple(calls)
        return super().reply(calls)


def test_as_a_teacher_and_as_the_critic_of_a_student(attach: Callable[..., Any]) -> None:
    tasks, teacher = NumberSearch(15), LocalParty(PolicyConfig(tiny=TINY), DRAWN)
    student = Policy(PolicyConfig(tiny=TINY, prefill={"student": "ans "}))
    briefing = Dialogue(teacher_instruction="seven {problem} is {private} <feedback>")
    small: dict[str, Any] = {"num_validation_tasks": 3, "tasks_per_batch": 2, "group_size": 2, "seed": 0}
    settings = SamplingSettings(max_tokens=2)
    taught = attach(DidacticDataModule(tasks, teacher, student=settings, dialogue=briefing, **small), policy=student)
    heard = [t for e in next(iter(taught.train_dataloader())).episodes for t in e.turns if t.party == "teacher"]
    assert heard and any(turn.text for turn in heard)
    critic = Noting(PolicyConfig(tiny=TINY), DRAWN)
    alone = DidacticDataModule(
        tasks, HigherLower(), student=settings, conditions=["self_crit_base"], base_critic=critic,
        max_critique_tokens=3, **small,
    )  # fmt: skip
    episodes = next(iter(attach(alone, "validate", policy=student).val_dataloader()[0])).episodes
    critiques = [turn for episode in episodes for turn in episode.turns if turn.info.get("critique")]
    assert critiques and all(turn.party == "critic" for turn in critiques) and critic.work.decoded > 0
    assert {(call.role, call.max_tokens) for call in critic.heard} == {("user", 3)}
    bare = attach(DidacticDataModule(tasks, HigherLower(), conditions=["self_crit_base"], **small), "test")
    with pytest.raises(ValueError, match=r"or a data.base_critic"):
        bare.test_dataloader()
