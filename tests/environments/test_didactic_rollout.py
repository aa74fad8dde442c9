"""Didactic dialogues played by `lit_rl.rollout.play`: scripts, the frozen base and a remote model as teachers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from lit_rl.callbacks import TeacherCritiquePrediction
from lit_rl.environments import Attempt, DidacticDialogue, HigherLower, NumberSearch, Problem, TaskSource
from lit_rl.environments.base import Reply
from lit_rl.environments.teacher_words import CANNOT_SAY, RETRY
from lit_rl.episodes import Episode, Rollouts
from lit_rl.parties import Call, PartyError, PolicyParty, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.rollout import EnvironmentFailure, Planned, Played, play
from lit_rl.sampling import SamplingSettings

STUDENT = PolicyParty(settings=SamplingSettings(max_tokens=4), adapter="student")
BASE = PolicyParty(settings=SamplingSettings(max_tokens=6), adapter=None)
SOURCE = NumberSearch(15)


class Speaker:
    """A party by other means: ``(call) -> reply``; keeps its calls."""

    def __init__(self, words: Callable[[Call], Reply]):
        self.words, self.calls = words, list[Call]()

    def reply(self, calls: Sequence[Call]) -> list[Reply]:
        self.calls += calls
        return [self.words(call) for call in calls]


def guessing(call: Call) -> Reply:
    """Another number in each exchange and episode."""
    return Reply(text=f"ans {(3 * call.episode + 5 * call.exchange + 1) % 15}", stop_reason="end")


def run(
    policy: Policy, teacher: Any, student: Any = STUDENT, count: int = 6, source: TaskSource = SOURCE, **options: Any
) -> Played:
    on_error = options.pop("on_error", "stop")
    planned = [
        Planned(environment=DidacticDialogue(source[i + 1], source, **options), index=i, task_id=f"t{i}", group=0)
        for i in range(count)
    ]
    return play(planned, {"student": student, "teacher": teacher}, policy, seed=0, on_error=on_error)


def check(episodes: Sequence[Episode]) -> None:
    for episode in episodes:
        student, teacher = episode.turns_of("student"), episode.turns_of("teacher")
        assert episode.turns[-1].party == "student", "nobody teaches after the end"
        assert len([turn for turn in teacher if turn.info["attempts"] == 1]) == len(student) - 1
        assert sum(turn.reward for turn in student) == (episode.stop_reason == "solved")
        assert [turn.info["correct"] for turn in student[:-1]] == [False] * (len(student) - 1)


def test_a_script_teaches_a_sampled_student(policy: Policy) -> None:
    played = run(policy, ScriptedParty(HigherLower(), "teacher"), count=8)
    check(played.episodes)
    rollouts = Rollouts.from_episodes(played.episodes, trained=["student"], parties=["student", "teacher"])
    for b, episode in enumerate(rollouts.episodes):
        sampled = [token for turn in episode.turns_of("student") for token in turn.completion_ids]
        assert rollouts.input_ids[b][rollouts.loss_mask[b]].tolist() == sampled
        heard = policy.tokenizer.decode(rollouts.input_ids[b][rollouts.party_ids[b] == 1])
        assert heard.replace(" <end>", "").split() == " ".join(t.text for t in episode.turns_of("teacher")).split()


def test_the_frozen_base_teaches(policy: Policy) -> None:
    """Random words hold no feedback block: the student hears the fixed message, the teacher is briefed in whole."""
    student = Speaker(guessing)
    played = run(policy, BASE, student)
    check(played.episodes)
    names = policy.tokenizer.convert_ids_to_tokens
    for episode in played.episodes:
        teacher = episode.turns_of("teacher")
        assert len(teacher) == len(episode.turns_of("student")) - 1
        for k, turn in enumerate(teacher):
            assert turn.completion_ids and turn.info == {"leak": False, "attempts": 1, "heard": False}
            prompt = " ".join(names(turn.prompt_ids))
            assert turn.new_row and prompt.startswith("<system> You are tutoring")
            assert f"answer : {SOURCE[episode.index + 1].gold} Each message" in prompt
            said = [t.text for t in episode.turns_of("student")[: k + 1]]
            wanted = " <assistant> < feedback > That is not correct . Please try again . </ feedback > <end> ".join(
                f"<user> {text} <end>" for text in said
            )
            assert prompt.endswith(f"{wanted} <assistant>")
    told = [message.content for call in student.calls for message in call.messages if message.role == "user"]
    assert set(told) == {"find n in 0 14", RETRY}


def test_student_and_teacher_sampled_from_one_policy(policy: Policy) -> None:
    """What the student heard is what its row holds; the teacher's private prompt is in no row of the student."""
    played = run(policy, BASE, max_turns=3)
    check(played.episodes)
    rollouts = Rollouts.from_episodes(played.episodes, trained=["student"], parties=["student", "teacher"])
    tutoring = policy.tokenizer.convert_tokens_to_ids("tutoring")
    for b, episode in enumerate(rollouts.episodes):
        said = {token for turn in episode.turns_of("student") for token in turn.completion_ids}
        assert tutoring not in rollouts.input_ids[b] or tutoring in said
        assert all(tutoring in turn.prompt_ids for turn in episode.turns_of("teacher"))
        heard = policy.tokenizer.decode(rollouts.input_ids[b][rollouts.party_ids[b] == 1])
        fixed = [RETRY if t.info["kind"] != "question" else CANNOT_SAY for t in episode.turns_of("student")[:-1]]
        assert heard.replace(" ", "").replace("<end>", "") == "".join(fixed).replace(" ", "")


def test_a_remote_model_is_redrawn_with_new_noise(policy: Policy) -> None:
    """Every second draft gives the answer away; each is a turn of its own with its own random key."""

    def words(call: Call) -> Reply:
        gold = call.context.problem.gold
        leaky = len([c for c in teacher.calls if c.episode == call.episode]) % 2
        text = f"I know it is {gold}. <feedback>{f'say {gold}' if leaky else 'higher'}</feedback>"
        return Reply(text=text, stop_reason="end")

    teacher = Speaker(words)
    played = run(policy, teacher, Speaker(guessing), count=4, max_turns=3)
    check(played.episodes)
    for episode in played.episodes:
        exchanges = len(episode.turns_of("student")) - 1
        drafts = [(t.exchange, t.info["leak"], t.info["heard"]) for t in episode.turns_of("teacher")]
        assert drafts == [d for k in range(exchanges) for d in ((k, True, False), (k, False, True))]
        calls = [call for call in teacher.calls if call.episode == episode.index]
        assert len({call.key for call in calls}) == len(calls)
        for call in calls:
            roles = [message.role for message in call.messages]
            assert roles == ["system", *(["user", "assistant"] * len(roles))][: len(roles)]
            assert roles[-1] == "user" and not any("say" in m.content for m in call.messages[1:])


def test_a_dialogue_to_drop_says_so_in_its_turns(policy: Policy) -> None:
    def tell(context: Any, key: int) -> str:
        return f"it is {context.problem.gold}" if context.problem.gold == "3" else "higher"

    played = run(policy, ScriptedParty(tell), Speaker(guessing), count=5, on_leak="drop")
    dropped = [e.index for e in played.episodes if any(turn.info.get("drop") for turn in e.turns)]
    assert dropped == [2] and len(played.episodes) == 5


@pytest.mark.parametrize("where", ["verifier", "judge", "teacher", "kind of task"])
def test_who_raises_stops_the_run_or_loses_the_dialogue(where: str, policy: Policy) -> None:
    """Never a silent zero: either an error that names the task, or one dialogue less and a sentence about it."""

    class Moody(NumberSearch):
        def verify(self, problem: Problem, utterance: str) -> Any:
            if where == "verifier" and problem.gold == "4":
                raise ZeroDivisionError("of the verifier")
            return super().verify(problem, utterance)

        def __getitem__(self, index: int) -> Problem:
            problem = super().__getitem__(index)
            if where == "kind of task" and index == 4:
                return Problem(id="odd", domain="d", prompt=problem.prompt, gold="cat")
            return problem

    def judge(problem: Problem, gold: str, utterance: str, message: str) -> bool:
        if where == "judge" and gold == "4":
            raise ZeroDivisionError("of the judge")
        return False

    def teacher(context: Any, key: int) -> str:
        if where == "teacher" and context.problem.gold == "4":
            raise ZeroDivisionError("of the teacher")
        return HigherLower()(context, key)

    def once_more(on_error: str) -> Played:
        student, script = Speaker(guessing), ScriptedParty(teacher, "teacher")
        return run(policy, script, student, count=5, source=Moody(15), judge=judge, on_error=on_error)

    error = EnvironmentFailure if where in ("verifier", "judge") else PartyError
    with pytest.raises(error, match="episode 3"):
        once_more("stop")
    played = once_more("drop")
    assert [episode.index for episode in played.episodes] == [0, 1, 2, 4]
    assert len(played.dropped) == 1 and "episode 3" in played.dropped[0]
    check(played.episodes)


def test_equal_seeds_give_equal_dialogues(policy: Policy) -> None:
    def texts() -> list[list[str]]:
        return [[turn.text for turn in episode.turns] for episode in run(policy, BASE, count=4).episodes]

    assert texts() == texts()


def test_acceptance_ends_the_row_and_changes_nothing_else(policy: Policy) -> None:
    """rl2f.md 6.4 and 16.2: what the student heard is a target, private knowledge is in no row."""

    class Secretive(NumberSearch):
        def __getitem__(self, index: int) -> Problem:
            problem = super().__getitem__(index)
            return replace(problem, private={**problem.private, "note": "secret"})

        def verify(self, problem: Problem, utterance: str) -> Any:
            return Attempt("answer", "3", True) if any(map(str.isdigit, utterance)) else Attempt("malformed")

    def batch(count: int = 14, **options: Any) -> Rollouts:
        teacher = ScriptedParty(HigherLower(), "teacher")
        episodes = run(policy, teacher, count=count, source=Secretive(15), max_turns=3, **options).episodes
        rollouts = Rollouts.from_episodes(episodes, trained=["student"], parties=["student", "teacher"])
        callback: Any = TeacherCritiquePrediction()
        callback.on_train_batch_start(None, None, rollouts, 0)
        return rollouts

    plain, accepted = batch(), batch(accept_message="so")
    secret = policy.tokenizer.convert_tokens_to_ids("secret")
    solved = 0
    for b, episode in enumerate(accepted.episodes):
        row = accepted.input_ids[b][accepted.attention_mask[b]].tolist()
        before = plain.input_ids[b][plain.attention_mask[b]].tolist()
        sampled = [i for turn in episode.turns_of("student") for i in turn.completion_ids]
        assert secret not in row or secret in sampled
        targets = accepted.input_ids[b][accepted.target_mask[b]].tolist()
        heard = [turn.text for turn in episode.turns_of("teacher")]
        if episode.stop_reason == "solved":
            solved += 1
            end = policy.chat.end_id
            ends = [end] * (before[-1] != end)
            assert row == before + ends + policy.tokenizer.convert_tokens_to_ids(["<user>", "so", "<end>"])
            assert accepted.turn_ids[b][: len(row)][-2:].tolist() == [len(episode.turns_of("student")) - 1] * 2
            heard.append("so")
        else:
            assert row == before
        assert policy.tokenizer.decode(targets).replace("<end>", "").split() == " ".join(heard).split()
        assert row[: len(before)] == before
    assert solved and torch.equal(plain.rewards, accepted.rewards)
    assert plain.old_log_probs.sum() == accepted.old_log_probs.sum()
