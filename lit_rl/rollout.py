"""Plays parties against environments until every episode is over."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from lit_rl.environments.base import Ask, Environment, Message, Outcome, Reply, Role
from lit_rl.episodes import Episode, Heard, Rollouts, Turn
from lit_rl.parties import Call, Party, PartyError, PolicyParty
from lit_rl.policy import Policy
from lit_rl.sampling import Sampled, Sampler, SampleRequest, Work
from lit_rl.stream_keys import stream_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """An episode to be played."""

    environment: Environment
    index: int  # number of the episode in the run
    task_id: str
    group: int


@dataclass(kw_only=True, slots=True)
class Played:
    """Finished episodes in the order planned, those given up, and what it cost."""

    episodes: list[Episode]
    dropped: list[str]  # one sentence for each episode given up
    work: Work
    seconds: float


class EnvironmentFailure(RuntimeError):
    """An environment (or the verifier inside it) raised."""


@dataclass(slots=True)
class _View:
    """What one party has seen of one episode: its row so far."""

    messages: list[Message] = field(default_factory=list)
    length: int = 0  # tokens in its row
    ended: bool = False  # its last token was an end of turn
    role: Role = "assistant"  # under whose header it spoke last
    inserted: list[int] = field(default_factory=list)
    heard: tuple[Heard, ...] = ()
    new_row: bool = False


@dataclass(slots=True)
class _Live:
    plan: Planned
    episode: Episode
    ask: Ask
    views: dict[str, _View] = field(default_factory=dict)
    calls: int = 0


def play(
    planned: Sequence[Planned],
    parties: Mapping[str, Party | PolicyParty],
    policy: Policy,
    *,
    seed: int,
    max_rows: int = 256,
    on_error: Literal["stop", "drop"] = "stop",
) -> Played:
    """Play every planned episode to its end.

    Args:
        planned: Episodes with indices that are unique in the run.
        parties: Who answers to each name an environment asks for.
        policy: Samples the parties that are `PolicyParty`.
        seed: Of the run; with an episode's index it fixes all noise, whoever shares the batch.
        max_rows: Rows sampled at once by each party.
        on_error: When a party or an environment raises: "stop" raises it again, "drop" gives up that episode and
            counts it.

    Raises:
        ValueError: An environment asks for a party that is not there, or a first prompt exceeds the context.
        PartyError, EnvironmentFailure: With ``on_error="stop"``.
    """
    return _Game(planned, parties, policy, seed, max_rows, on_error).play()


class _Game:
    def __init__(
        self,
        planned: Sequence[Planned],
        parties: Mapping[str, Party | PolicyParty],
        policy: Policy,
        seed: int,
        max_rows: int,
        on_error: str,
    ):
        self.parties, self.policy, self.seed, self.on_error = parties, policy, seed, on_error
        self.planned, self.max_rows = planned, max_rows
        self.samplers: dict[str, Sampler] = {}
        self.live: dict[int, _Live] = {}
        self.waiting: dict[str, list[int]] = {name: [] for name in parties}  # party -> episodes that ask for it
        self.over: dict[int, Episode] = {}
        self.dropped: list[str] = []
        self.finished: list[int] = []  # episodes whose rows are still held

    def play(self) -> Played:
        start = time.perf_counter()
        try:
            self._play_all()
        finally:
            for live in self.live.values():  # the run stops in the middle of these
                _close(live.plan.environment)
        work = Work()
        for sampler in self.samplers.values():
            work.prefilled += sampler.work.prefilled
            work.decoded += sampler.work.decoded
            work.shared += sampler.work.shared
        episodes = [self.over[plan.index] for plan in self.planned if plan.index in self.over]
        return Played(episodes=episodes, dropped=self.dropped, work=work, seconds=time.perf_counter() - start)

    def _play_all(self) -> None:
        for plan in self.planned:
            self._open(plan)
        while any(self.waiting.values()) or any(sampler.busy for sampler in self.samplers.values()):
            spoke = [self._turns_of(name, party) for name, party in self.parties.items()]
            if not any(spoke):
                for sampler in self.samplers.values():
                    sampler.make_room()

    def _turns_of(self, name: str, party: Party | PolicyParty) -> bool:
        """Let a party say what it can; whether that was anything."""
        if isinstance(party, PolicyParty):
            return self._sample(name, party)
        asked = bool(self.waiting[name])
        if asked:
            self._call(name, party)
        return asked

    # -- the environment's side --------------------------------------------------------------------------------

    def _open(self, plan: Planned) -> None:
        episode = Episode(index=plan.index, task_id=plan.task_id, group=plan.group, seed=self.seed)
        try:
            outcome = plan.environment.begin()
        except Exception as error:
            _close(plan.environment)
            self._failed(plan, f"begin() raised {error!r}", error)
            return
        if outcome.ask is None:
            raise ValueError(f"Task {plan.task_id}: its environment ended in begin(), before anybody spoke.")
        self.live[plan.index] = _Live(plan, episode, outcome.ask)
        self._wait(self.live[plan.index])

    def _failed(self, plan: Planned, what: str, error: Exception) -> None:
        sentence = f"Task {plan.task_id} (episode {plan.index}): {type(plan.environment).__name__}.{what}."
        if self.on_error == "stop":
            raise EnvironmentFailure(sentence) from error
        self._drop(plan.index, sentence)

    def _drop(self, index: int, sentence: str) -> None:
        self.dropped.append(sentence)
        if (live := self.live.pop(index, None)) is not None:
            _close(live.plan.environment)
        self.finished.append(index)

    def _wait(self, live: _Live) -> None:
        if live.ask.party not in self.waiting:
            raise ValueError(
                f"Task {live.plan.task_id} asks for party {live.ask.party!r}; there are only {sorted(self.parties)}."
            )
        self.waiting[live.ask.party].append(live.plan.index)

    def _advance(self, live: _Live, reply: Reply, turn: Turn) -> None:
        """Give the reply to the environment, file the turn with what it was paid, and see who is next."""
        try:
            outcome = live.plan.environment.act(reply)
        except Exception as error:
            self._failed(live.plan, f"act({reply.text!r}) raised {error!r}", error)
            return
        paid = outcome.rewards.get(turn.party, 0.0)
        live.episode.turns.append(replace(turn, reward=paid, info=outcome.info))
        if outcome.ask is None:
            self._finish(live, outcome)
        else:
            live.ask = outcome.ask
            self._wait(live)

    def _finish(self, live: _Live, outcome: Outcome) -> None:
        episode = live.episode
        episode.stop_reason, episode.terminated = str(outcome.stop_reason), outcome.terminated
        episode.truncated = outcome.truncated
        if outcome.epilogue is not None:
            episode.turns += self._epilogue(live, outcome.epilogue)
        _close(live.plan.environment)
        self.over[live.plan.index] = episode
        del self.live[live.plan.index]
        self.finished.append(live.plan.index)

    def _epilogue(self, live: _Live, ask: Ask) -> list[Turn]:
        """What ends the row of ``ask.party``; nothing where the policy's context cannot hold it."""
        if ask.party not in live.views:
            raise ValueError(
                f"Task {live.plan.task_id}: the epilogue is for {ask.party!r}, who took no turn it could follow."
            )
        view = live.views[ask.party]
        rendered = self.policy.chat.closing(ask.party, ask.messages, view.ended)
        if view.length + len(rendered.ids) > self.policy.max_length:
            return []
        return [
            Turn(
                party=ask.party,
                exchange=ask.exchange,
                text="",
                prompt_ids=list(rendered.ids),
                heard=rendered.heard,
                stop_reason="epilogue",
            )
        ]

    def _release_finished(self) -> None:
        for sampler in self.samplers.values():
            sampler.release(self.finished)
        self.finished.clear()

    # -- parties that reply by other means ---------------------------------------------------------------------

    def _call(self, name: str, party: Party) -> None:
        asked, self.waiting[name] = self.waiting[name], []
        calls = [self._call_of(name, self.live[index]) for index in asked]
        while calls:
            try:
                replies = party.reply(calls)
                break
            except PartyError as error:
                if self.on_error == "stop" or error.episode not in asked:
                    raise
                self._drop(error.episode, str(error))
                calls = [call for call in calls if call.episode != error.episode]
        else:
            return
        if len(replies) != len(calls):
            raise PartyError(name, f"gave {len(replies)} replies to {len(calls)} calls; give one each, in order.")
        for call, reply in zip(calls, replies, strict=True):
            live = self.live[call.episode]
            live.views[name].messages.append(Message(live.ask.role, reply.text, name, live.ask.exchange))
            self._advance(live, reply, Turn(party=name, exchange=live.ask.exchange, text=reply.text))

    def _call_of(self, name: str, live: _Live) -> Call:
        view = self._hear(live)
        live.calls += 1
        key = stream_key(self.seed, live.plan.index, name, live.ask.exchange, live.calls)
        return Call(
            messages=tuple(view.messages),
            context=live.ask.context,
            key=key,
            episode=live.plan.index,
            exchange=live.ask.exchange,
            role=live.ask.role,
            max_tokens=live.ask.max_tokens,
        )

    def _hear(self, live: _Live) -> _View:
        ask = live.ask
        if ask.restart or ask.party not in live.views:
            live.views[ask.party] = _View(new_row=True)
        view = live.views[ask.party]
        view.messages += ask.messages
        return view

    # -- parties sampled from the policy -----------------------------------------------------------------------

    def _sample(self, name: str, party: PolicyParty) -> bool:
        asked, self.waiting[name] = self.waiting[name], []
        if not asked and not (name in self.samplers and self.samplers[name].busy):
            return False
        with self.policy.acting_as(party.adapter):
            if name not in self.samplers:
                self.samplers[name] = self.policy.sampler(party.settings, self.max_rows)
            sampler = self.samplers[name]
            self._release_finished()
            for index in asked:
                self._submit(self.live[index], party, sampler)
            replies = sampler.run()
        for said in replies:
            self._said(self.live[said.row], said)
        return bool(asked or replies)

    def _submit(self, live: _Live, party: PolicyParty, sampler: Sampler) -> None:
        ask = live.ask
        began = ask.party in live.views
        view = self._hear(live)
        anew = view.new_row or self.policy.rows_per == "turn"
        chat = self.policy.chat
        if anew:
            rendered = chat.opening(ask.party, view.messages, ask.role)
        else:
            rendered = chat.continuation(ask.party, ask.messages, view.ended, role=ask.role, after=view.role)
        length = len(rendered.ids) + (0 if anew else view.length)
        most = ask.max_tokens or party.settings.max_tokens
        if length + most > self.policy.max_length:
            self._too_long(live, length, most, began)
            return
        view.inserted, view.heard, view.length, view.new_row = list(rendered.ids), rendered.heard, length, anew
        live.calls += 1
        sampler.submit(
            SampleRequest(
                row=live.plan.index,
                new_ids=view.inserted,
                key=stream_key(self.seed, live.plan.index, ask.party, ask.exchange, live.calls),
                max_tokens=most,
                constraint=ask.constraint,
                restart=anew,
            )
        )

    def _too_long(self, live: _Live, length: int, most: int, began: bool) -> None:
        if not began:
            raise ValueError(
                f"Task {live.plan.task_id}: its prompt of {length} tokens and a reply of up to {most} do not fit into "
                f"{self.policy.max_length} tokens. Shorten the task, lower max_tokens, or raise policy.max_length."
            )
        self._finish(live, Outcome(stop_reason="context_full", truncated=True))

    def _said(self, live: _Live, said: Sampled) -> None:
        ask, view = live.ask, live.views[live.ask.party]
        text = self.policy.chat.text(ask.party, said.ids, ask.role)
        ended = said.ids[-1] == self.policy.chat.end_id
        offset = self.policy.constraints.start(ask.constraint) if self.policy.constraints and ask.constraint else 0
        turn = Turn(
            party=ask.party,
            exchange=ask.exchange,
            text=text,
            prompt_ids=view.inserted,
            completion_ids=said.ids,
            log_probs=said.log_probs,
            constraint=ask.constraint,
            constraint_states=[state - offset for state in said.states] if ask.constraint else [],
            heard=view.heard,
            new_row=view.new_row,
            stop_reason="end" if said.ended else "length",
        )
        view.messages.append(Message(ask.role, text, ask.party, ask.exchange))
        view.length += len(said.ids)
        view.ended, view.new_row, view.role = ended, False, ask.role
        reply = Reply(text=text, stop_reason="end" if said.ended else "length", token_ids=tuple(said.ids))
        self._advance(live, reply, turn)


def _close(environment: Environment) -> None:
    """Let go of what an episode holds (a game's process, say); most hold nothing."""
    close = getattr(environment, "close", None)
    if close is not None:
        close()


@torch.no_grad()
def fill_reference(rollouts: Rollouts, policy: Policy, *, token_budget: int) -> None:
    """Write ``ref_log_probs``: of the base with adapters off, under the sampler's temperature and constraints."""
    filled = torch.zeros_like(rollouts.old_log_probs)
    with policy.acting_as(None):
        for rows in rollouts.micro_batch_rows(token_budget):
            part = rollouts.select(rows)
            log_probs, _ = policy.log_probs(
                part.input_ids,
                part.loss_mask,
                temperature=part.temperature,
                constraint_states=part.constraint_states,
            )
            filled[rows, : log_probs.shape[1]] = log_probs
    rollouts.ref_log_probs = filled
