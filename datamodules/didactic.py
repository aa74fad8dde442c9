"""Online dialogues between a student that is trained and a teacher that knows the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from lit_rl.datamodules.online import OnlineDataModule, Place, at_least_one
from lit_rl.datamodules.played import played_rollouts
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.environments import TEACHER_INSTRUCTION, DidacticDialogue, Problem, TaskSource
from lit_rl.environments.base import Environment
from lit_rl.environments.self_correction import FalseCriticism, SelfCorrection
from lit_rl.environments.teacher_words import RETRY
from lit_rl.episodes import Rollouts
from lit_rl.parties import Party, PolicyParty, ScriptedParty
from lit_rl.rollout import Planned, Played, play
from lit_rl.sampling import SamplingSettings
from lit_rl.stream_keys import stream_key

STUDENT, TEACHER, CRITIC = "student", "teacher", "critic"
PARTIES = (STUDENT, TEACHER)
Feedback = Literal["teacher", "retry", "shuffled", "resample"]
CONDITIONS = ("teacher", "retry", "shuffled", "resample")
SELF_CORRECTION = ("self_crit", "self_crit_base", "shuffled_crit")
KNOWN_CONDITIONS = (*CONDITIONS, *SELF_CORRECTION, "false_criticism")


@dataclass(kw_only=True)
class Dialogue:
    """The rules of one dialogue, see `lit_rl.environments.DidacticDialogue`."""

    max_turns: int = 4
    on_leak: Literal["resample", "flag", "drop"] = "resample"
    wrong_attempt_penalty: float = 0.0
    question_cost: float = 0.0
    student_instruction: str | None = None
    teacher_instruction: str = TEACHER_INSTRUCTION
    accept_message: str | None = None


class DidacticDataModule(OnlineDataModule):
    """Rollouts of a student with a teacher, played with the policy as it is now.

    Args:
        tasks: Problems to train on.
        teacher: Who corrects: a script ``(TeacherContext, key) -> text``, any `Party`, or a `PolicyParty`.
        dialogue: Rules of the dialogue.
        feedback: What the student hears in training: "teacher", or a control of arXiv 2606.30774: "retry" (a fixed
            message), "shuffled" (the teacher's words about another problem), "resample" (no history).
        validation_turns: Turns in validation; None takes ``dialogue.max_turns``.
        fit_conditions: What is validated while training.
        conditions: What ``lit-rl validate`` and ``test`` play, each also with "_greedy": "teacher" and the controls;
            without any teacher "self_crit" (the student's own critiques), "self_crit_base" (those of the base, adapters
            off) and "shuffled_crit" (the student's own of an attempt at another problem), all three with the noise of
            "teacher" and to the last attempt, whatever a verifier says; "false_criticism" (of the solving attempt).
        max_critique_tokens: Longest critique of the student's own; None takes its ``max_tokens``.
        base_critic: Who criticises under "self_crit_base"; None is the policy's base with adapters off.  Where all
            weights are trained, a `lit_rl.local_party.LocalParty` with the weights training began from.
        kwargs: Of `OnlineDataModule`; ``student`` is how the student samples.
    """

    def __init__(
        self,
        tasks: TaskSource,
        teacher: Party | PolicyParty | Callable[[Any, int], str],
        *,
        dialogue: Dialogue | None = None,
        feedback: Feedback = "teacher",
        validation_turns: int | None = None,
        fit_conditions: Sequence[str] = ("teacher",),
        conditions: Sequence[str] = (*CONDITIONS, "teacher_greedy"),
        max_critique_tokens: int | None = None,
        base_critic: Party | None = None,
        **kwargs: Any,
    ):
        super().__init__(tasks, **kwargs)
        for name in (*fit_conditions, *conditions):
            if name.removesuffix("_greedy") not in KNOWN_CONDITIONS:
                raise ValueError(
                    f"data.conditions has {name!r}; known are {list(KNOWN_CONDITIONS)}, each also as X_greedy."
                )
        at_least_one(max_critique_tokens=max_critique_tokens)
        self.dialogue, self.feedback = dialogue or Dialogue(), feedback
        self.validation_turns = validation_turns or self.dialogue.max_turns
        self.fit_conditions, self.conditions = tuple(fit_conditions), tuple(conditions)
        self.max_critique_tokens, self.base_critic = max_critique_tokens, base_critic
        self.teacher: Party | PolicyParty = (
            teacher if isinstance(teacher, Party | PolicyParty) else ScriptedParty(teacher, TEACHER)
        )

    def ceiling(self) -> list[float] | None:
        """Best accuracy by turn that any student can reach, where the task knows it."""
        known = getattr(self.tasks, "ceiling", None)
        return None if known is None else known(self.validation_turns)

    # -- collecting --------------------------------------------------------------------------------------------

    def training_world(self, task: int, index: int) -> DidacticDialogue:
        return self._dialogue(self.tasks, task, index, self.feedback, self.dialogue.max_turns)

    def play_training(self, planned: list[Planned]) -> Rollouts:
        return self._play(planned, "train", self.student, self.dialogue.max_turns)

    def _evaluation_stream(self, condition: str) -> RolloutStream:
        nobody = self.base_critic is None and not self._module().policy.parties
        if condition.startswith("self_crit_base") and nobody:
            raise ValueError(
                "data.conditions has 'self_crit_base', which needs policy.adapters that can be off, or a "
                "data.base_critic."
            )
        return super()._evaluation_stream(condition)

    def play_held_out(self, places: Sequence[Place], condition: str) -> Rollouts:
        feedback, settings = condition.removesuffix("_greedy"), self.evaluation_settings(condition)
        noise = condition.replace(feedback, TEACHER) if feedback in SELF_CORRECTION else condition
        critiques: dict[int, list[str]] = {}
        if feedback == "shuffled_crit":
            critiques = self._critiques_elsewhere(places, noise, settings)
        planned = []
        for source, task, index in places:
            world = self._world(source, task, index, feedback, critiques.get(index, [RETRY]))
            planned.append(Planned(environment=world, index=index, task_id=str(task), group=task))
        return self._play(planned, condition, settings, self.validation_turns, noise)

    def _critiques_elsewhere(
        self, places: Sequence[Place], noise: str, settings: SamplingSettings
    ) -> dict[int, list[str]]:
        """For each dialogue what the student says of its own attempts at another problem."""
        planned = []
        for source, task, index in places:
            elsewhere = self._self_correction(self._another(source, source[task], index), source, STUDENT)
            planned.append(Planned(environment=elsewhere, index=index, task_id=str(task), group=task))
        found = {}
        for episode in self._let_speak(planned, noise, settings).episodes:
            critiques = [turn.text for turn in episode.turns if turn.info.get("critique")]
            found[episode.index] = critiques or [RETRY]
        return found

    def _world(self, source: TaskSource, task: int, index: int, feedback: str, critiques: list[str]) -> Environment:
        if feedback == "false_criticism":
            return FalseCriticism(self._dialogue(source, task, index, TEACHER, self.validation_turns), RETRY)
        if feedback not in SELF_CORRECTION:
            return self._dialogue(source, task, index, feedback, self.validation_turns)
        critic = CRITIC if feedback == "self_crit_base" else STUDENT
        given = critiques if feedback == "shuffled_crit" else None
        return self._self_correction(source[task], source, critic, given)

    def _self_correction(
        self, problem: Problem, source: TaskSource, critic: str, critiques: list[str] | None = None
    ) -> SelfCorrection:
        return SelfCorrection(
            problem,
            source,
            max_turns=self.validation_turns,
            critic=critic,
            critiques=critiques,
            accept_message=self.dialogue.accept_message,
            max_critique_tokens=self.max_critique_tokens,
            student_instruction=self.dialogue.student_instruction,
        )

    def _dialogue(self, source: TaskSource, task: int, index: int, feedback: str, turns: int) -> DidacticDialogue:
        problem = source[task]
        other = self._another(source, problem, index) if feedback == "shuffled" else None
        rules: dict[str, Any] = asdict(self.dialogue) | {"max_turns": turns}
        return DidacticDialogue(problem, source, feedback=feedback, shuffled_problem=other, **rules)

    def _another(self, source: TaskSource, problem: Problem, index: int) -> Problem:
        """A problem with another answer, the same for every run."""
        for attempt in range(100):
            other = source[stream_key(self.seed, "other", index, attempt) % len(source)]
            if other.gold != problem.gold:
                return other
        raise ValueError(f"data.conditions has 'shuffled', but the tasks of {source.name} all have one answer.")

    def _let_speak(self, planned: list[Planned], noise: str, settings: SamplingSettings) -> Played:
        parties: dict[str, Party | PolicyParty] = {
            STUDENT: PolicyParty(adapter=STUDENT, settings=settings),
            TEACHER: self.teacher,
            CRITIC: self.base_critic or PolicyParty(adapter=None, settings=settings),
        }
        return play(
            planned,
            parties,
            self._module().policy,
            seed=stream_key(self.seed, noise),
            max_rows=self.max_rows,
            on_error=self.on_error,
        )

    def _play(
        self, planned: list[Planned], label: str, settings: SamplingSettings, turns: int, noise: str | None = None
    ) -> Rollouts:
        played = self._let_speak(planned, noise or label, settings)
        rollouts = played_rollouts(
            played, self._module(), settings, trained=[STUDENT], parties=PARTIES, label=label, turns=turns
        )
        rollouts.figures[f"{label}/leaking_dialogues"] = float(_forget_leaks(rollouts))
        if (counts := getattr(self.teacher, "figures", None)) is not None:  # of requests: not the same after a resume
            rollouts.figures |= {f"time/teacher_{name}": value for name, value in counts().items()}
        return rollouts


def _forget_leaks(rollouts: Rollouts) -> int:
    """Learn nothing from dialogues marked by ``on_leak="drop"``, whose rewards stay in their group's statistics.

    Returns:
        How many dialogues heard the answer from the teacher.
    """
    leaks: dict[int, list[Mapping[str, Any]]] = {}
    for episode in rollouts.episodes:
        for turn in episode.turns:
            if turn.info.get("leak") and turn.info.get("heard"):
                leaks.setdefault(episode.index, []).append(turn.info)
    dropped = [index for index, infos in leaks.items() if any(info.get("drop") for info in infos)]
    if dropped:
        rows = torch.isin(rollouts.episode_ids, torch.tensor(dropped, device=rollouts.episode_ids.device))
        rollouts.loss_mask[rows] = False
        rollouts.old_log_probs[rows] = 0.0
    return len(leaks)
