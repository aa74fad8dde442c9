"""Dialogues of scripts, or of any other party, as if a policy had sampled them: for warm starts and preferences."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from lit_rl.environments.base import Ask, Message, Reply
from lit_rl.episodes import Episode, Turn
from lit_rl.parties import Call, Party
from lit_rl.policy import Policy
from lit_rl.rollout import Planned
from lit_rl.service.labels import SkillLabels
from lit_rl.stream_keys import stream_key


def spoken_episodes(
    planned: Sequence[Planned],
    parties: Mapping[str, Party],
    policy: Policy,
    labels: SkillLabels,
    *,
    trained: Sequence[str],
    seed: int,
) -> list[Episode]:
    """Play service dialogues with parties that reply in text, and keep what is said as the policy's tokens.

    Turns of the parties in ``trained`` have token ids, the states of their constraint, and log-probs of 0, for nobody
    sampled them; `Rollouts.from_episodes <lit_rl.episodes.Rollouts.from_episodes>` makes rows of them like of any
    others.  Random keys are those of `lit_rl.rollout.play`.

    Args:
        planned: Dialogues of `lit_rl.service.dialogue.ServiceDialogue`.
        parties: Who answers to each name.
        policy: Whose tokens, chat template and ``constraints`` count.
        labels: Of the skills, whose tokens open what planners and flat policies say.
        trained: Parties whose turns are to be learned from.
        seed: Of the run.

    Raises:
        ValueError: A party's words break the constraint it was asked under, or cannot be spelled.
        PartyError: A party could not reply.
    """
    return [_Spoken(plan, parties, policy, labels, trained, seed).episode() for plan in planned]


class _Spoken:
    """One dialogue on its way."""

    def __init__(
        self,
        plan: Planned,
        parties: Mapping[str, Party],
        policy: Policy,
        labels: SkillLabels,
        trained: Sequence[str],
        seed: int,
    ):
        self.plan, self.parties, self.policy, self.labels = plan, parties, policy, labels
        self.trained, self.seed = trained, seed
        self.label_ids = labels.token_ids(policy.tokenizer)
        self.heard: dict[str, list[Message]] = {}

    def episode(self) -> Episode:
        plan, calls = self.plan, 0
        episode = Episode(index=plan.index, task_id=plan.task_id, group=plan.group, seed=self.seed)
        outcome = plan.environment.begin()
        while (ask := outcome.ask) is not None:
            calls += 1
            new_row = ask.party not in self.heard
            messages = self.heard.setdefault(ask.party, [])
            messages += ask.messages
            reply = self._reply(ask, messages, calls)
            turn = Turn(party=ask.party, exchange=ask.exchange, text=reply.text)
            if ask.party in self.trained:
                turn = self._in_tokens(ask, reply.text, new_row)
            messages.append(Message(ask.role, reply.text, ask.party, ask.exchange))
            outcome = plan.environment.act(replace(reply, token_ids=tuple(turn.completion_ids)))
            episode.turns.append(replace(turn, info=outcome.info))
        episode.stop_reason = outcome.stop_reason or ""
        episode.terminated, episode.truncated = outcome.terminated, outcome.truncated
        return episode

    def _reply(self, ask: Ask, messages: Sequence[Message], calls: int) -> Reply:
        call = Call(
            messages=tuple(messages),
            context=ask.context,
            key=stream_key(self.seed, self.plan.index, ask.party, ask.exchange, calls),
            episode=self.plan.index,
            exchange=ask.exchange,
            role=ask.role,
            max_tokens=ask.max_tokens,
        )
        return self.parties[ask.party].reply([call])[0]

    def _in_tokens(self, ask: Ask, text: str, new_row: bool) -> Turn:
        chat = self.policy.chat
        anew = new_row or self.policy.rows_per == "turn"
        if anew:
            rendered = chat.opening(ask.party, self.heard[ask.party], ask.role)
        else:
            rendered = chat.continuation(ask.party, ask.messages, True, role=ask.role, after=ask.role)
        ids = [*self._ids(ask, text), chat.end_id]
        return Turn(
            party=ask.party,
            exchange=ask.exchange,
            text=text,
            prompt_ids=list(rendered.ids),
            completion_ids=ids,
            log_probs=[0.0] * len(ids),
            constraint=ask.constraint,
            constraint_states=self._states(ask, ids, text),
            heard=rendered.heard,
            new_row=anew,
            stop_reason="end",
        )

    def _ids(self, ask: Ask, text: str) -> list[int]:
        """Labels as the tokens they are, wherever the tokenizer would put its spaces; then the words."""
        kind = (ask.constraint or "").partition(":")[0]
        if kind == "skills":
            chain = self.labels.read_chain(text, len(text))
            return [self.label_ids[skill] for skill in chain]
        if kind == "flat":
            skill, text = self.labels.read_first(text)
            opening = [] if skill is None else [self.label_ids[skill]]
            return [*opening, *self.policy.chat.reply_ids(ask.party, text)]
        return self.policy.chat.reply_ids(ask.party, text)

    def _states(self, ask: Ask, ids: Sequence[int], text: str) -> list[int]:
        """The constraint's state before each token; empty without one."""
        if ask.constraint is None:
            return []
        table = self.policy.constraints
        if table is None or ask.constraint not in table:
            raise ValueError(f"The policy has no token constraint {ask.constraint!r}; set policy.constraints first.")
        automaton, states, state = table.automata[ask.constraint], [], torch.zeros(1, dtype=torch.int64)
        state = state.to(self.policy.device)
        for token in ids:
            if not automaton.allowed(state)[0, token]:
                raise ValueError(
                    f"Task {self.plan.task_id}: {ask.party!r} says {text!r}, which the constraint {ask.constraint!r} "
                    f"forbids at {self.policy.tokenizer.convert_ids_to_tokens(token)!r}."
                )
            states.append(int(state))
            state = automaton.after(state, torch.tensor([token], device=state.device))
        return states
