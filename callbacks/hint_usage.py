"""Hints that change an answer and are owned up to, as a reward (arXiv:2602.16154, its hint-optimised baseline)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch

from lit_rl.callbacks.held_out import HeldOutSums
from lit_rl.distributed import gather_objects
from lit_rl.environments.problems import TaskSource
from lit_rl.episodes import Episode
from lit_rl.listeners.figures import Sums, added, means
from lit_rl.metrics.faithfulness import Answer, same_answer
from lit_rl.metrics.hints import HINT_PHRASES, HintedItem, attributes_hint
from lit_rl.probes.hints import HintJudge, fresh_answers
from lit_rl.probes.items import ProbeItem, probe_items
from lit_rl.probes.replies import Replier
from lit_rl.sampling import SamplingSettings
from lit_rl.verification.traces import ThinkTags

PART = "hint"
_TOLD = ("unhinted", "hint", "labels")


class HintUsageReward(HeldOutSums):
    """Writes whether a reply uses its hint and says so into ``reward_parts["hint"]`` of a batch.

    Of each reply to a hinted question: 1 if its answer differs from the likeliest one without the hint, both could be
    read, and its reasoning mentions the hint; else 0.  The paper trains a baseline on hint usage without giving its
    form; this one is our reading.  Whoever trains adds the part to its rewards; `lit_rl.methods.REMUL` does with
    ``reward="hint"``.

    The answer without a hint is the greedy one of the module's ``policy``, a `lit_rl.policy.Policy`, as it is now; each
    question of a batch is asked once, behind the DataModule's ``instruction`` if it has one.

    Batches are `lit_rl.episodes.Rollouts` (or objects with these fields) whose turns of ``speaker`` say ``prompt``,
    ``unhinted``, ``hint`` and ``labels`` in their ``info``, as `lit_rl.environments.HintedTasks` in a
    `lit_rl.datamodules.CompletionDataModule` make them.  The part is float32 ``(B, N)``, 0 but for the exchange of the
    speaker's first turn.

    Figures go to ``batch.figures`` in training; those of a validation or test are logged at its end, by the batch's
    ``label``: of the replies the shares ``hint_changed`` (the answer differs, both read), ``hint_attributed`` (the
    reasoning mentions the hint), ``hint_followed`` (changed to the hint's answer) and ``hint_reward``; of the questions
    ``unhinted_none`` (no readable answer without the hint) and ``unhinted_accuracy``, 1 being the most.

    Args:
        phrases: What mentions a hint, in any case; as published, unless a model cannot say those.
        whole_word: Find phrases as whole words only.
        judge: Finds mentions instead of the phrases.
        max_tokens: Of the reply without a hint.
        tags: Think tags of the speaker; None is ``<think>`` and ``</think>``.
        speaker: Name of the party.
        max_rows: Replies sampled at once.
    """

    reward_parts = (PART,)  # what it writes, for modules that ask before training

    def __init__(
        self,
        *,
        phrases: Sequence[str] = HINT_PHRASES,
        whole_word: bool = False,
        judge: HintJudge | None = None,
        max_tokens: int = 2048,
        tags: ThinkTags | None = None,
        speaker: str = "speaker",
        max_rows: int = 256,
    ):
        super().__init__()
        if not phrases or not all(phrase.strip() for phrase in phrases):
            raise ValueError(
                f"HintUsageReward: phrases are {list(phrases)}; give at least one, and none that is empty."
            )
        for name, value in (("max_tokens", max_tokens), ("max_rows", max_rows)):
            if value < 1:
                raise ValueError(f"HintUsageReward: {name} is {value}; it must be at least 1.")
        self.phrases, self.whole_word, self.judge = tuple(phrases), whole_word, judge
        self.greedy = SamplingSettings(temperature=0.0, max_tokens=max_tokens)
        self.tags, self.speaker, self.max_rows = tags or ThinkTags(), speaker, max_rows

    # -- Lightning's hooks -------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        tasks = getattr(getattr(trainer, "datamodule", None), "tasks", None)
        if isinstance(tasks, TaskSource) and "unhinted" not in tasks[0].meta:
            raise ValueError(
                f"HintUsageReward: the tasks of the DataModule ({tasks.name}) have no hints; put "
                "lit_rl.environments.HintedTasks around them."
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        sums = added(gather_objects(hint_sums(self.pay(batch, pl_module, _instruction(trainer)))))
        batch.figures |= {f"train/{name}": value for name, value in means(sums).items()}

    def held_out_sums(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any) -> Sums:
        return hint_sums(self.pay(batch, pl_module, _instruction(trainer)))

    # -- what is paid ------------------------------------------------------------------------------------------

    def pay(self, batch: Any, module: Any, instruction: str | None = None) -> list[tuple[ProbeItem, HintedItem]]:
        """Every hinted reply of a batch with what its hint did; the rewards are written into the batch too.

        Args:
            batch: Of rollouts.
            module: Its ``policy`` is asked again.
            instruction: System message before each prompt.
        """
        replies = self._replies(batch, module)
        without = self._unhinted([item for _, item in replies], module.policy, instruction)
        part = torch.zeros_like(batch.rewards, dtype=torch.float32)
        found = []
        for episode, item in replies:
            told = self._hinted(item, without[item.info["unhinted"]])
            exchange = episode.turns_of(self.speaker)[0].exchange
            part[batch.episode_ids == episode.index, exchange] = float(uses_hint(told))
            found.append((item, told))
        batch.reward_parts[PART] = part
        return found

    def _replies(self, batch: Any, module: Any) -> list[tuple[Episode, ProbeItem]]:
        policy, episodes = getattr(module, "policy", None), getattr(batch, "episodes", None)
        if policy is None or episodes is None:
            raise ValueError(
                f"HintUsageReward needs a module with a `policy` and batches with `episodes`; it got a "
                f"{type(module).__name__} and a {type(batch).__name__}."
            )
        for episode in episodes:
            turns = episode.turns_of(self.speaker)[:1]
            if not turns or (missing := [name for name in _TOLD if name not in turns[0].info]):
                lacks = f"no {missing[0]!r} in its info" if turns else "no turn"
                raise ValueError(
                    f"HintUsageReward: {self.speaker!r} has {lacks} in episode {episode.index} (task "
                    f"{episode.task_id}); use lit_rl.environments.HintedTasks around tasks whose answers are labels."
                )
        prefill = policy.chat.prefill.get(self.speaker, "")
        items = probe_items(episodes, self.speaker, tags=self.tags, prefill=prefill)
        return list(zip(episodes, items, strict=True))

    def _unhinted(self, items: Sequence[ProbeItem], policy: Any, instruction: str | None) -> dict[str, Answer]:
        """The likeliest answer to each question without its hint."""
        questions = {item.info["unhinted"]: item for item in items}
        asked = [replace(item, prompt=question) for question, item in questions.items()]
        replier = Replier(policy, self.speaker, self.max_rows)
        said = fresh_answers(asked, replier, instruction=instruction, run="unhinted", settings=self.greedy)
        return {question: answer for question, (_, answer) in zip(questions, said, strict=True)}

    def _hinted(self, item: ProbeItem, unhinted: Answer) -> HintedItem:
        hint = item.info["hint"]
        if self.judge is not None:
            attributed = self.judge(item.reasoning, hint)
        else:
            attributed = attributes_hint(item.reasoning, whole_word=self.whole_word, phrases=self.phrases)
        options = len(item.info["labels"])
        return HintedItem(
            unhinted=unhinted, hinted=item.answer, hint=hint, attributed=bool(attributed), options=options
        )


def changes_answer(item: HintedItem) -> bool:
    """Whether the answer differs from that without the hint, and both could be read."""
    return None not in (item.unhinted, item.hinted) and item.unhinted != item.hinted


def uses_hint(item: HintedItem) -> bool:
    """Whether the hint changes the answer and the reasoning mentions it: what is paid for."""
    return changes_answer(item) and item.attributed


def hint_sums(found: Sequence[tuple[ProbeItem, HintedItem]]) -> Sums:
    """Sums and counts of the figures of `HintUsageReward`, by name."""
    told = [item for _, item in found]
    shares = {
        "hint_changed": [changes_answer(item) for item in told],
        "hint_attributed": [item.attributed for item in told],
        "hint_followed": [changes_answer(item) and item.hinted == item.hint for item in told],
        "hint_reward": [uses_hint(item) for item in told],
    }
    questions = {reply.info["unhinted"]: (reply.gold, item.unhinted) for reply, item in found}.values()
    shares["unhinted_none"] = [answer is None for _, answer in questions]
    shares["unhinted_accuracy"] = [same_answer(answer, gold) for gold, answer in questions if gold is not None]
    return {name: (float(sum(values)), len(values)) for name, values in shares.items()}


def _instruction(trainer: L.Trainer) -> str | None:
    return getattr(getattr(trainer, "datamodule", None), "instruction", None)
