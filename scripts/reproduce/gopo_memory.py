"""The memory baseline of `scripts/reproduce/gopo.py`: it serves ToyShop's customers and remembers what that came to."""

from collections.abc import Sequence
from pathlib import Path

from lit_rl.environments.base import Reply
from lit_rl.metrics.service import ServiceScoring
from lit_rl.parties import Call, Party, PolicyParty, ScriptedParty
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.service import PLANNER, RESPONDER, SkillLabels, SkillMemory, scripted_responder
from lit_rl.service.rated import rated
from lit_rl.service.scripts import ServiceContext
from scripts.reproduce.gopo_worlds import CUSTOMERS, NEW, serve, shop_form, summary, write

HEARD = ("much", "trust")  # words by which a customer objects to the price, or to the shop


class Rememberer:
    """A planner that does what went best in states like this one.

    A state is what a planner reads, in features: which skills count as done, which it chose before, which of ``HEARD``
    the customer has said.

    Args:
        memory: What is remembered.
        collecting: Explore, and keep what was chosen for `remember`.
    """

    def __init__(self, memory: SkillMemory, collecting: bool = False):
        self.memory, self.collecting = memory, collecting
        self.chosen: dict[int, list[tuple[tuple[bool, ...], str]]] = {}

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        return [Reply(text=self._plan(call)) for call in calls]

    def remember(self, returns: dict[int, float]) -> None:
        """What each dialogue came to, by its index."""
        for episode, steps in self.chosen.items():
            for state, skill in steps:
                self.memory.add(state, skill, returns[episode])
        self.chosen.clear()

    def _plan(self, call: Call) -> str:
        context: ServiceContext = call.context
        state = features(call, context.labels)
        skill = self.memory.choose(state, context.admissible, key=call.key, collecting=self.collecting)
        if self.collecting:
            self.chosen.setdefault(call.episode, []).append((state, skill))
        return context.labels.write([skill])


def features(call: Call, labels: SkillLabels) -> tuple[bool, ...]:
    """The state of a dialogue, of its words alone."""
    heard = [message.content.split() for message in call.messages if message.role == "user"]
    said = {labels.read_chain(message.content, 1) for message in call.messages if message.role == "assistant"}
    words = {word for line in heard for word in line}
    done = tuple(label in heard[-1] for label in labels.labels.values())
    return done + tuple((skill,) in said for skill in labels.labels) + tuple(word in words for word in HEARD)


def serve_and_remember(folder: Path, model: PolicyConfig, *, seed: int, rounds: int, customers: int) -> None:
    """Collect ``rounds`` of dialogues with an epsilon-greedy planner and scripted replies, then measure it greedily.

    Args:
        folder: Where `service.json` is written.
        model: Whose constraints and chat template count; it says nothing.
        seed: Of customers and exploration.
        rounds: After each the memory takes in what the dialogues came to.
        customers: Of each round.
    """
    policy, form, memory = Policy(model), shop_form(chain_length=1), SkillMemory(seed=seed)
    responder, scoring = ScriptedParty(scripted_responder, RESPONDER), ServiceScoring()
    for number in range(rounds):
        planner = Rememberer(memory, collecting=True)
        parties: dict[str, Party | PolicyParty] = {PLANNER: planner, RESPONDER: responder}
        played = serve(parties, policy, form, count=customers, seed=1000 * (seed + 1) + number)
        planner.remember({episode.index: scoring.figures(rated(episode)).tse for episode in played})
    parties = {PLANNER: Rememberer(memory), RESPONDER: responder}
    found = summary(serve(parties, policy, form, count=CUSTOMERS, seed=NEW))
    write(folder, {"hard": {"greedy": found}})
