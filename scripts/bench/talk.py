"""Dialogues of a student with a scripted teacher, as simple as they can be, and the DataModule that plays them."""

from typing import Any, Protocol

import lightning as L

from lit_rl.datamodules.stream import RolloutStream
from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.episodes import Rollouts
from lit_rl.parties import Party, PolicyParty, ScriptedParty
from lit_rl.rollout import Planned, play
from lit_rl.sampling import SamplingSettings
from scripts.bench.case import FEEDBACK, Case, prompt, score


class Clock(Protocol):
    """Who wants to know when a batch is sampled."""

    def begin_sampling(self) -> None: ...

    def end_sampling(self, *, sampled: int, row: int) -> None: ...


class Talk:
    """The student speaks, hears the teacher, and speaks again, ``turns`` times; every turn is paid its share."""

    def __init__(self, prompt: str, turns: int):
        self.prompt, self.turns, self.turn, self.teaching = prompt, turns, 0, False

    def begin(self) -> Outcome:
        return Outcome(ask=Ask(party="student", messages=(Message("user", self.prompt),), exchange=0))

    def act(self, reply: Reply) -> Outcome:
        self.teaching = not self.teaching
        if not self.teaching:
            self.turn += 1
            words = Message("user", reply.text, "teacher", self.turn - 1)
            return Outcome(ask=Ask(party="student", messages=(words,), exchange=self.turn))
        paid = {"student": score(reply.text) / self.turns}
        if self.turn + 1 == self.turns:
            return Outcome(rewards=paid, stop_reason="max_turns", truncated=True)
        return Outcome(ask=Ask(party="teacher", messages=(), exchange=self.turn), rewards=paid)


class TalkData(L.LightningDataModule):
    """Every batch is played when it is asked for."""

    def __init__(self, case: Case, clock: Clock, iterations: int):
        super().__init__()
        self.case, self.clock, self.iterations = case, clock, iterations
        self.group_size = case.group_size
        student = PolicyParty(adapter="student", settings=SamplingSettings(max_tokens=case.max_tokens))
        teacher = ScriptedParty(lambda context, key: FEEDBACK, "teacher")
        self.parties: dict[str, Party | PolicyParty] = {"student": student, "teacher": teacher}

    def train_dataloader(self) -> RolloutStream:
        return RolloutStream(self.collect, self.iterations)

    def collect(self, number: int) -> Rollouts:
        """Batch ``number`` of the run."""
        self.clock.begin_sampling()
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        first = number * self.case.rows
        planned = [
            Planned(environment=Talk(prompt(task), self.case.turns), index=index, task_id=str(task), group=task)
            for index in range(first, first + self.case.rows)
            for task in [index // self.case.group_size]
        ]
        played = play(planned, self.parties, module.policy, seed=self.case.seed)
        rollouts = Rollouts.from_episodes(
            played.episodes,
            trained=["student"],
            parties=["student", "teacher"],
            policy_version=module.policy_version,
            min_exchanges=self.case.turns,
        ).to(module.policy.device)
        self.clock.end_sampling(sampled=int(rollouts.loss_mask.sum()), row=int(rollouts.attention_mask.sum()))
        return rollouts
