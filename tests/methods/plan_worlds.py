"""A world of two stages, fetch and deliver, episodes in it made by hand, and a policy that knows the form alone."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_rl.datamodules.world_rows import TurnReader, plan_extras
from lit_rl.environments.base import Reply
from lit_rl.environments.plan_execute import PlanExecuteEpisode
from lit_rl.environments.world_prompts import WorldPrompts
from lit_rl.episodes import Episode, Rollouts, Turn
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.tiny import TinyModel
from lit_rl.verification.plan_execute import render_plan_execute
from lit_rl.worlds.base import Observation, Step

ACTIONS, SUBGOALS = ("left", "right", "take", "drop"), ("fetch", "deliver")
TAGS = [f"<{end}{block}>" for block in ("switch", "subgoal", "action") for end in ("", "/")]
WORDS = [*TAGS, "KEEP", "SWITCH", "None", "task", "bring", "taken", "now", "subgoal", "holds", "nothing"]
WORDS += ["book", "saw", "did", *ACTIONS, *SUBGOALS]
# Weights large enough to look at the prompt after some steps; from 0.02 it takes hundreds.
TINY = TinyModel(words=WORDS, numbers=10, hidden_size=32, layers=1, heads=2, max_length=64, initializer_range=0.1)
SHORT = WorldPrompts(style="short", history_length=0, list_actions=False)


class Errand:
    """Take the book, then drop it: the episode is over when that is done or time is up; going about does nothing."""

    task = "bring"

    def __init__(self, limit: int = 8, reward: float = 10.0, raise_at: int | None = None):
        self.limit, self.reward, self.raise_at = limit, reward, raise_at
        self.holds, self.turn, self.closed = False, 0, 0

    def reset(self) -> Observation:
        return self.seen()

    def step(self, action: str) -> Step:
        self.turn += 1
        if self.turn == self.raise_at:
            raise OSError("the shelf broke")
        delivered = action == "drop" and self.holds
        self.holds = (self.holds or action == "take") and not delivered
        late = self.turn == self.limit and not delivered
        return Step(self.seen(), self.reward * delivered, delivered, late, {"success": delivered, "family": "errand"})

    def close(self) -> None:
        self.closed += 1

    def seen(self) -> Observation:
        return Observation(f"holds {'book' if self.holds else 'nothing'}", ACTIONS)


class Errands:
    """Numbered errands, some of which break."""

    name = "Errands"

    def __init__(
        self, size: int = 64, limit: int = 8, reward: float = 10.0, broken: Sequence[int] = (), raise_at: int = 2
    ):
        self.size, self.limit, self.reward, self.broken, self.raise_at = size, limit, reward, broken, raise_at
        self.given: list[Errand] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Errand:
        raise_at = self.raise_at if index in self.broken else None
        self.given.append(Errand(self.limit, self.reward, raise_at))
        return self.given[-1]


def policy_config(*heads: str, adapters: Any = None, **options: Any) -> PolicyConfig:
    return PolicyConfig(**{"tiny": TINY, "value_heads": list(heads), "adapters": adapters} | options)


# -- episodes made by hand ---------------------------------------------------------------------------------------------


def said(switch: bool, subgoal: str = "fetch", action: str = "left") -> str:
    return render_plan_execute(switch, subgoal, action)


def played(policy: Policy, texts: Sequence[str], index: int = 0, world: Any = None, group: int = 0) -> Episode:
    """An episode with these replies, each ended."""
    episode = Episode(index=index, task_id=str(group), group=group, seed=0)
    environment = PlanExecuteEpisode(world or Errand(limit=len(texts)), prompts=SHORT)
    outcome = environment.begin()
    for text in texts:
        assert outcome.ask is not None
        prompt = policy.chat.opening("agent", outcome.ask.messages)
        ids = [*policy.tokenizer(text, add_special_tokens=False)["input_ids"], policy.chat.end_id]
        said, ask = policy.chat.text("agent", ids), outcome.ask
        outcome = environment.act(Reply(text=said))
        episode.turns.append(
            Turn(party="agent", exchange=ask.exchange, text=said, prompt_ids=list(prompt.ids), completion_ids=ids,
                 log_probs=[-3.0 - 0.01 * i for i in range(len(ids))], new_row=True, info=outcome.info,
                 reward=outcome.rewards.get("agent", 0.0), stop_reason="end")
        )  # fmt: skip
    episode.stop_reason, episode.terminated = str(outcome.stop_reason), outcome.terminated
    episode.truncated = outcome.truncated
    return episode


def rows(policy: Policy, *episodes: Sequence[str], **options: Any) -> Rollouts:
    """Episodes with these replies as a batch with its extras, in groups of their own."""
    found = [played(policy, texts, index, group=index) for index, texts in enumerate(episodes)]
    return with_extras(policy, found, **options)


def with_extras(policy: Policy, episodes: Sequence[Episode], **options: Any) -> Rollouts:
    batch = Rollouts.from_episodes(episodes, trained=["agent"], parties=["agent"])
    batch.extras |= plan_extras(batch, "agent", TurnReader(policy, "agent", **options))
    return batch


# -- a policy that knows the form --------------------------------------------------------------------------------------


def teach_form(policy: Policy, steps: int = 80, right: float = 0.2, seed: int = 0) -> None:
    """Supervised, on replies that are well formed, random, and in this share of turns right.

    Without any that are right, the policy would unlearn to look at what the world shows.
    """
    rng, trained = random.Random(seed), [p for n, p in policy.named_parameters() if not n.startswith("value_heads")]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        ids, mask = _turns(policy, rng, 48, right)
        loss = -policy.log_probs(ids, mask)[0].sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _turns(policy: Policy, rng: random.Random, count: int, right: float) -> tuple[Tensor, Tensor]:
    """Prompts and replies, and which tokens are of replies."""
    turns = [_turn(policy, rng, rng.random() < right) for _ in range(count)]
    longest = max(len(prompt) + len(reply) for prompt, reply in turns)
    ids, mask = torch.zeros(count, longest, dtype=torch.int64), torch.zeros(count, longest, dtype=torch.bool)
    for row, (prompt, reply) in enumerate(turns):
        ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        mask[row, len(prompt) : len(prompt) + len(reply)] = True
    return ids, mask


def _turn(policy: Policy, rng: random.Random, right: bool) -> tuple[list[int], list[int]]:
    world = Errand()
    world.holds = rng.random() < 0.5
    episode = PlanExecuteEpisode(world, prompts=SHORT)
    episode.observation, episode.subgoal = world.seen(), rng.choice([None, *SUBGOALS])
    prompt = policy.chat.opening("agent", episode.ask().messages).ids
    best, action = ("deliver", "drop") if world.holds else ("fetch", "take")
    switch = episode.subgoal != best if right else episode.subgoal is None or rng.random() < 0.5
    subgoal = best if right else rng.choice(SUBGOALS) if switch else str(episode.subgoal)
    reply = policy.chat.reply_ids("agent", said(switch, subgoal, action if right else rng.choice(ACTIONS)))
    return list(prompt), [*reply, policy.chat.end_id]
