"""Playing parties against environments: turns, payments, rows, failures, and noise that knows only its episode."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from lit_rl.constraints import ConstraintTable, TokenConstraint
from lit_rl.environments.base import Ask, Message, Outcome, Reply
from lit_rl.episodes import Episode, Rollouts
from lit_rl.parties import Call, PartyError, PolicyParty, ScriptedParty
from lit_rl.policy import Policy
from lit_rl.reply_constraints import ReplyConstraint
from lit_rl.rollout import EnvironmentFailure, Planned, Played, fill_reference, play
from lit_rl.sampling import SamplingSettings, Work
from lit_rl.skill_chains import SkillChain
from lit_rl.token_pieces import TokenPieces

SETTINGS = SamplingSettings(max_tokens=5)
STUDENT = PolicyParty(settings=SETTINGS, adapter="student")
TUTOR = ScriptedParty(lambda context, key: f"no {context} .")


class Lesson:
    """A student and a teacher take turns; the student is paid 1, 2, 3 ... and the teacher ten times that.

    Args:
        task: The first message to the student.
        exchanges: Student turns.
        first: Who opens.
        private: What the teacher alone hears before the student's first words.
        **ask: Passed on to every `Ask` of the student.
    """

    def __init__(
        self, task: str = "a b", exchanges: int = 3, first: str = "student", private: str = "e", **ask: Any
    ) -> None:
        self.task, self.exchanges, self.first, self.private, self.options = task, exchanges, first, private, ask
        self.turn, self.speaker = 0, first

    def begin(self) -> Outcome:
        return Outcome(ask=self._ask(Message("user", self.task)))

    def _ask(self, message: Message) -> Ask:
        messages: tuple[Message, ...] = (message,)
        options: dict[str, Any] = self.options if self.speaker == "student" else {"context": self.turn}
        if self.speaker == "teacher" and self.turn == 0:
            messages = (Message("system", self.private), message)
        return Ask(party=self.speaker, messages=messages, exchange=self.turn, **options)

    def act(self, reply: Reply) -> Outcome:
        speaker, exchange = self.speaker, self.turn
        paid = {speaker: float(exchange + 1) * (10 if speaker == "teacher" else 1)}
        text = reply.text if reply.text.strip() else "so"
        said = Message("user", text.replace("<unknown>", "so"), speaker, exchange)
        self.speaker = "teacher" if speaker == "student" else "student"
        if self.speaker == self.first:
            self.turn += 1
        if self.turn == self.exchanges:
            hears = Ask(party=self.speaker, messages=(said,), exchange=exchange)
            return Outcome(rewards=paid, stop_reason="done", terminated=True, epilogue=hears)
        return Outcome(ask=self._ask(said), rewards=paid, info={"number": exchange})


def plans(count: int = 4, make: Callable[[int], Any] = lambda i: Lesson(), start: int = 0) -> list[Planned]:
    return [
        Planned(environment=make(i), index=i, task_id=f"t{i // 2}", group=i // 2) for i in range(start, start + count)
    ]


def rows_of(played: Played, *trained: str, **options: Any) -> Rollouts:
    return Rollouts.from_episodes(played.episodes, trained=trained, parties=["student", "teacher"], **options)


def told(episodes: Sequence[Episode]) -> list[list[tuple[str, str, tuple[int, ...]]]]:
    return [[(turn.party, turn.text, tuple(turn.completion_ids)) for turn in e.turns] for e in episodes]


@pytest.fixture(scope="module")
def policy(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy("student", "teacher", value_heads=["critic"])


def lesson(policy: Policy, planned: list[Planned] | None = None, seed: int = 0, **options: Any) -> Played:
    return play(planned or plans(), {"student": STUDENT, "teacher": TUTOR}, policy, seed=seed, **options)


# -- turns, payments, rows -------------------------------------------------------------------------------------


def test_order_rewards_and_reasons(policy: Policy) -> None:
    for index, episode in enumerate(lesson(policy).episodes):
        assert (episode.index, episode.task_id, episode.group) == (index, f"t{index // 2}", index // 2)
        parties = [turn.party for turn in episode.turns]
        assert parties == ["student", "teacher"] * 3 + ["student"]
        assert [turn.exchange for turn in episode.turns] == [0, 0, 1, 1, 2, 2, 2]
        assert [turn.reward for turn in episode.turns] == [1, 10, 2, 20, 3, 30, 0]
        assert [turn.info.get("number") for turn in episode.turns[:5]] == [0, 0, 1, 1, 2]
        assert episode.stop_reason == "done" and episode.terminated and not episode.truncated
        assert episode.turns[-1].stop_reason == "epilogue"
        assert len(episode.turns_of("student")) == 3
        assert [turn.text for turn in episode.turns_of("teacher")] == ["no 0 .", "no 1 .", "no 2 ."]
        for turn in episode.turns_of("student"):
            assert turn.stop_reason == ("end" if turn.completion_ids[-1] == policy.chat.end_id else "length")
            assert 1 <= len(turn.completion_ids) <= 5


def test_rows_are_the_template_of_what_was_said(policy: Policy) -> None:
    """Prompts, replies as sampled, feedback with its end of turn; the epilogue ends the row without a header."""
    rollouts = rows_of(lesson(policy), "student")
    assert rollouts.rewards.tolist() == [[1, 2, 3]] * 4 and bool(rollouts.turn_valid.all())
    names = policy.tokenizer.convert_ids_to_tokens
    for b, episode in enumerate(rollouts.episodes):
        row = rollouts.input_ids[b][rollouts.attention_mask[b]]
        wanted = ["<user>", "a", "b", "<end>"]
        for exchange, turn in enumerate(episode.turns_of("student")):
            said = names(turn.completion_ids)
            wanted += ["<assistant>", *said] + ([] if said[-1] == "<end>" else ["<end>"])
            wanted += ["<user>", "no", str(exchange), ".", "<end>"]
        assert names(row.tolist()) == wanted
        heard = rollouts.party_ids[b] == 1
        assert names(rollouts.input_ids[b][heard].tolist()) == [
            word for exchange in "012" for word in ("no", exchange, ".", "<end>")
        ]
        assert rollouts.turn_ids[b][heard].tolist() == [0] * 4 + [1] * 4 + [2] * 4
        sampled = [token for turn in episode.turns_of("student") for token in turn.completion_ids]
        assert rollouts.input_ids[b][rollouts.loss_mask[b]].tolist() == sampled
        assert not (rollouts.loss_mask[b] & heard).any()


def score(policy: Policy, rollouts: Rollouts, party: str | None) -> torch.Tensor:
    with policy.acting_as(party), torch.no_grad():
        return policy.log_probs(
            rollouts.input_ids,
            rollouts.loss_mask,
            temperature=rollouts.temperature,
            constraint_states=rollouts.constraint_states,
        )[0]


def test_two_trained_parties_in_one_dialogue(policy: Policy) -> None:
    """Each has its own row, its own adapter, and is paid for its own turns."""
    parties = {name: PolicyParty(settings=SETTINGS, adapter=name) for name in ("student", "teacher")}
    played = play(plans(6), parties, policy, seed=0)
    both = rows_of(played, "student", "teacher")
    assert len(both) == 12
    for number, party in enumerate(("student", "teacher")):
        mine = rows_of(played, party)
        assert mine.rewards.tolist() == [[1, 2, 3] if party == "student" else [10, 20, 30]] * 6
        assert set(mine.party_ids[mine.loss_mask].tolist()) == {number}
        torch.testing.assert_close(score(policy, mine, party), mine.old_log_probs, atol=1e-5, rtol=0)
        other = score(policy, mine, "teacher" if party == "student" else "student")
        assert (other - mine.old_log_probs).abs().max() > 1e-2
        assert (mine.party_ids == 1 - number).any(), "each hears the other"


def test_a_private_prompt_never_reaches_the_student(policy: Policy) -> None:
    """The teacher is the frozen base with a secret; its row has it, the student's has only what the teacher said."""
    parties = {"student": STUDENT, "teacher": PolicyParty(settings=SETTINGS, adapter=None)}
    played = play(plans(6, lambda i: Lesson(private="think think think")), parties, policy, seed=0)
    secret = policy.tokenizer.convert_tokens_to_ids(["<system>", "think", "think", "think", "<end>"])
    for episode in played.episodes:
        first = episode.turns_of("teacher")[0]
        assert first.prompt_ids[:5] == secret and first.new_row
        inserted = [token for turn in episode.turns if turn.party == "student" for token in turn.prompt_ids]
        assert secret[0] not in inserted
        spoken = policy.tokenizer.convert_ids_to_tokens([t for turn in episode.turns for t in turn.completion_ids])
        if "think" not in spoken:
            assert secret[1] not in inserted
    rollouts = rows_of(played, "student")
    torch.testing.assert_close(score(policy, rollouts, "student"), rollouts.old_log_probs, atol=1e-5, rtol=0)
    teacher = rows_of(played, "teacher")
    torch.testing.assert_close(score(policy, teacher, None), teacher.old_log_probs, atol=1e-5, rtol=0)


def test_one_row_per_turn(make_policy: Callable[..., Policy]) -> None:
    """Each turn's prompt is rendered anew and whole; only that turn is learned in its row."""
    policy = make_policy("student", rows="turn")
    played = lesson(policy)
    rollouts = rows_of(played, "student")
    assert len(rollouts) == 4 * 3
    assert rollouts.episode_ids.tolist() == [index for index in range(4) for _ in range(3)]
    turns = [turn for episode in played.episodes for turn in episode.turns_of("student")]
    for b, turn in enumerate(turns):
        assert turn.new_row
        assert rollouts.input_ids[b][rollouts.loss_mask[b]].tolist() == turn.completion_ids
        assert set(rollouts.turn_ids[b][rollouts.loss_mask[b]].tolist()) == {turn.exchange}
        names = policy.tokenizer.convert_ids_to_tokens(turn.prompt_ids)
        assert names.count("<assistant>") == turn.exchange + 1 and names[:3] == ["<user>", "a", "b"]
    torch.testing.assert_close(score(policy, rollouts, "student"), rollouts.old_log_probs, atol=1e-5, rtol=0)
    assert played.work.shared > 0, "what two prompts begin with is not run twice"


def test_templates_that_do_not_extend_fall_back_to_turns(
    make_policy: Callable[..., Policy], model_folder: Any, tmp_path: Any
) -> None:
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from lit_rl.chat import TemplateMismatch

    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_folder)
    tokenizer.chat_template = "{{ '<system> ' ~ messages | length ~ ' <end>' }}" + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(model_folder).save_pretrained(tmp_path)
    with pytest.raises(TemplateMismatch):
        make_policy("student", tiny=None, path=str(tmp_path), rows="dialogue")
    with pytest.warns(
        UserWarning, match="does not extend a dialogue turn by turn: token 1 is '1'.*rows='auto' does so"
    ):
        policy = make_policy("student", tiny=None, path=str(tmp_path))
    assert policy.rows_per == "turn"
    prompts = [turn.prompt_ids[1] for turn in lesson(policy).episodes[0].turns_of("student")]
    assert policy.tokenizer.convert_ids_to_tokens(prompts) == ["1", "3", "5"]


def test_constraints_reach_the_rows(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student")
    size = policy.lm.config.vocab_size
    end, yes = policy.chat.end_id, policy.tokenizer.convert_tokens_to_ids("yes")
    anything = TokenConstraint(torch.ones(1, size, dtype=torch.bool), torch.zeros(1, size, dtype=torch.int64))
    allowed = torch.zeros(2, size, dtype=torch.bool)
    allowed[0, yes : yes + 2], allowed[1, end] = True, True
    table = {"anything": anything, "yes or no": TokenConstraint(allowed, torch.ones(2, size, dtype=torch.int64))}
    policy.constraints = ConstraintTable(table)
    played = lesson(policy, plans(4, lambda i: Lesson(constraint="yes or no" if i % 2 else None)))
    for episode in played.episodes[1::2]:
        for turn in episode.turns_of("student"):
            assert turn.completion_ids[0] in (yes, yes + 1) and turn.completion_ids[1:] == [end]
            assert turn.constraint_states == [0, 1]
    rollouts = rows_of(played, "student", constraint_offsets=policy.constraints.offsets)
    assert rollouts.constraint_states is not None
    assert set(rollouts.constraint_states[1][rollouts.loss_mask[1]].tolist()) == {1, 2}
    assert set(rollouts.constraint_states[0].tolist()) == {-1}
    torch.testing.assert_close(score(policy, rollouts, "student"), rollouts.old_log_probs, atol=1e-5, rtol=0)


def test_a_planner_and_a_responder_under_constraints(make_policy: Callable[..., Policy]) -> None:
    """A chain of skills, then a reply with a phrase, in three exchanges of one dialogue; both are scored again."""
    policy = make_policy("student", "teacher")
    size, end = policy.lm.config.vocab_size, policy.chat.end_id
    labels = policy.tokenizer.convert_tokens_to_ids(["a", "b", "c"])
    skills = SkillChain(labels, admissible=[True] * 3, length=2, end_id=end, vocabulary=size)
    words = TokenPieces(policy.tokenizer, vocabulary=size)
    reply = ReplyConstraint(words, required=["think so"], forbidden=["no"], max_tokens=4, end_id=end)
    policy.constraints = ConstraintTable({"reply": reply, "skills": skills})

    class Shop(Lesson):
        """The teacher plans, the student speaks."""

        def _ask(self, message: Message) -> Ask:
            name = {"student": "reply", "teacher": "skills"}[self.speaker]
            return replace(super()._ask(message), constraint=name)

    parties = {name: PolicyParty(settings=SETTINGS, adapter=name) for name in ("student", "teacher")}
    played = play(plans(5, lambda i: Shop()), parties, policy, seed=0)
    for episode in played.episodes:
        for turn in episode.turns_of("student"):
            assert "think so" in turn.text and "no" not in turn.text and turn.stop_reason == "end"
        for turn in episode.turns_of("teacher"):
            assert len(set(turn.text.split())) == 2 and set(turn.text.split()) <= {"a", "b", "c"}
            assert len(turn.completion_ids) == 3 and turn.log_probs[2] == 0
    for party in ("student", "teacher"):
        rollouts = rows_of(played, party, constraint_offsets=policy.constraints.offsets)
        torch.testing.assert_close(score(policy, rollouts, party), rollouts.old_log_probs, atol=1e-5, rtol=0)
        fill_reference(rollouts, policy, token_budget=40)
        assert rollouts.ref_log_probs is not None and rollouts.ref_log_probs.isfinite().all()
        torch.testing.assert_close(rollouts.ref_log_probs, score(policy, rollouts, None), atol=1e-5, rtol=0)


def test_reference(policy: Policy) -> None:
    rollouts = rows_of(lesson(policy), "student")
    fill_reference(rollouts, policy, token_budget=40)
    torch.testing.assert_close(rollouts.ref_log_probs, score(policy, rollouts, None), atol=1e-5, rtol=0)
    rollouts.validate()


# -- noise -----------------------------------------------------------------------------------------------------


def test_a_seed_fixes_everything_and_another_changes_it(policy: Policy) -> None:
    first = told(lesson(policy, seed=3).episodes)
    torch.manual_seed(123)
    assert told(lesson(policy, seed=3).episodes) == first
    assert told(lesson(policy, seed=4).episodes) != first
    assert len({str(episode) for episode in first}) == 4, "episodes of one group differ"


def test_neither_company_nor_slots_change_an_episode(policy: Policy) -> None:
    wanted = told(lesson(policy, plans(7)).episodes)
    assert told(lesson(policy, plans(7), max_rows=2).episodes) == wanted
    assert told(lesson(policy, plans(1, start=4)).episodes) == wanted[4:5]
    assert told(lesson(policy, plans(7)[::-1]).episodes) == wanted[::-1]


def test_parties_that_wait_for_each_other_all_get_a_slot(policy: Policy) -> None:
    """Two slots each; half the lessons are opened by the teacher: waiting rows make room, and lose nothing."""
    parties = {name: PolicyParty(settings=SETTINGS, adapter=name) for name in ("student", "teacher")}

    def make(index: int) -> Lesson:
        return Lesson(first="student" if index % 2 else "teacher")

    few = play(plans(9, make), parties, policy, seed=0, max_rows=2)
    many = play(plans(9, make), parties, policy, seed=0)
    assert told(few.episodes) == told(many.episodes)
    for party in parties:
        rollouts = rows_of(few, party)
        torch.testing.assert_close(score(policy, rollouts, party), rollouts.old_log_probs, atol=1e-5, rtol=0)


def test_the_same_question_again_is_a_new_draw(policy: Policy) -> None:
    """Asked anew within one exchange (a listener, several times), a party draws new noise, each in its own row."""

    class Poll:
        asked = 0

        def begin(self) -> Outcome:
            message = Message("user", "a b c")
            return Outcome(ask=Ask(party="student", messages=(message,), exchange=0, restart=True))

        def act(self, reply: Reply) -> Outcome:
            self.asked += 1
            return Outcome(stop_reason="asked") if self.asked == 6 else self.begin()

    played = lesson(policy, plans(1, lambda i: Poll()))
    replies = [tuple(turn.completion_ids) for turn in played.episodes[0].turns]
    assert len(replies) == 6 and len(set(replies)) > 1
    rollouts = rows_of(played, "student")
    assert len(rollouts) == 6
    torch.testing.assert_close(score(policy, rollouts, "student"), rollouts.old_log_probs, atol=1e-5, rtol=0)


def test_work_is_counted(policy: Policy) -> None:
    """Four equal prompts of five tokens run once; later turns run their inserted tokens and the last one drawn."""
    played = lesson(policy, plans(4, lambda i: Lesson(exchanges=1)))
    turns = [episode.turns[0] for episode in played.episodes]
    assert played.work.prefilled == 5 and played.work.shared == 15
    assert played.work.decoded == sum(len(turn.completion_ids) - 1 for turn in turns)
    assert played.seconds > 0 and played.dropped == []


# -- limits and failures ---------------------------------------------------------------------------------------


def test_a_full_context_ends_the_episode(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", max_length=40)
    played = lesson(policy, plans(4, lambda i: Lesson(exchanges=30)))
    rollouts = rows_of(played, "student")
    assert rollouts.input_ids.shape[1] <= 40
    for episode in played.episodes:
        assert (episode.stop_reason, episode.truncated, episode.terminated) == ("context_full", True, False)
        assert episode.turns[-1].party == "teacher" and len(episode.turns_of("student")) >= 3
    assert bool(rollouts.truncated.all()) and not bool(rollouts.terminated.any())


def test_an_epilogue_that_does_not_fit_is_left_out(make_policy: Callable[..., Policy]) -> None:
    """No row is longer than the context, and none ends in the middle of what was said."""
    policies = {length: make_policy("student", max_length=length) for length in (256, 27)}
    long, short = (lesson(policy, plans(12, lambda i: Lesson(exchanges=2))).episodes for policy in policies.values())
    closed = [[turn for turn in episode.turns if turn.stop_reason == "epilogue"] for episode in short]
    assert {len(turns) for turns in closed} == {0, 1}
    for whole, episode, epilogue in zip(long, short, closed, strict=True):
        assert len(episode.turns) == len(whole.turns) - (not epilogue)
        row = rows_of(Played(episodes=[whole], dropped=[], work=Work(), seconds=0.0), "student").input_ids.shape[1]
        assert (row <= 27) == bool(epilogue)


def test_a_first_prompt_that_is_too_long(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy("student", max_length=12)
    with pytest.raises(ValueError, match="Task t0: its prompt of 13 tokens and a reply of up to 5 do not fit into 12"):
        lesson(policy, plans(1, lambda i: Lesson(task="a " * 10)))


def test_an_unknown_party(policy: Policy) -> None:
    with pytest.raises(ValueError, match=r"Task t0 asks for party 'judge'; there are only \['student', 'teacher'\]"):
        lesson(policy, plans(1, lambda i: Lesson(first="judge")))


def test_an_epilogue_for_somebody_who_never_spoke(policy: Policy) -> None:
    class Odd(Lesson):
        def act(self, reply: Reply) -> Outcome:
            hears = Ask(party="teacher", messages=(), exchange=0)
            return Outcome(stop_reason="done", epilogue=hears)

    with pytest.raises(ValueError, match="the epilogue is for 'teacher', who took no turn"):
        lesson(policy, plans(1, lambda i: Odd()))


def moody(bad: set[int]) -> Any:
    """A teacher who gives up in some episodes."""

    class Moody:
        def reply(self, calls: Sequence[Call]) -> list[Reply]:
            for call in calls:
                if call.episode in bad and call.exchange == 1:
                    raise PartyError("teacher", "out of patience.", call.episode)
            return [Reply(text="no") for _ in calls]

    return Moody()


def test_a_party_that_raises(policy: Policy) -> None:
    parties = {"student": STUDENT, "teacher": moody({1, 2})}
    with pytest.raises(PartyError, match="Party 'teacher' in episode 1: out of patience"):
        play(plans(), parties, policy, seed=0)
    played = play(plans(), parties, policy, seed=0, on_error="drop", max_rows=2)
    assert [episode.index for episode in played.episodes] == [0, 3]
    assert [sentence.split(":")[0] for sentence in played.dropped] == [
        f"Party 'teacher' in episode {index}" for index in (1, 2)
    ]
    calm = play(plans(), {"student": STUDENT, "teacher": moody(set())}, policy, seed=0)
    assert told(played.episodes) == told([calm.episodes[0], calm.episodes[3]])
    everyone = play(plans(), {"student": STUDENT, "teacher": moody({0, 1, 2, 3})}, policy, seed=0, on_error="drop")
    assert everyone.episodes == [] and len(everyone.dropped) == 4


def test_a_script_that_raises_names_its_episode(policy: Policy) -> None:
    teacher = ScriptedParty(lambda context, key: {}[context], name="teacher")
    with pytest.raises(PartyError, match=r"Party 'teacher' in episode 0: its script raised KeyError\(0\)"):
        play(plans(1), {"student": STUDENT, "teacher": teacher}, policy, seed=0)


def test_a_party_that_answers_too_little(policy: Policy) -> None:
    class Short:
        def reply(self, calls: Sequence[Call]) -> list[Reply]:
            return [Reply(text="no")]

    with pytest.raises(PartyError, match="gave 1 replies to . calls"):
        play(plans(), {"student": STUDENT, "teacher": Short()}, policy, seed=0)


class Broken(Lesson):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def begin(self) -> Outcome:
        if self.where == "begin":
            raise KeyError("no such room")
        return super().begin()

    def act(self, reply: Reply) -> Outcome:
        if self.where == "act" and self.turn == 1:
            raise ZeroDivisionError("verifier")
        return super().act(reply)


@pytest.mark.parametrize(
    ("where", "what"), [("begin", r"begin\(\) raised KeyError"), ("act", "act.*ZeroDivisionError")]
)
def test_an_environment_that_raises(where: str, what: str, policy: Policy) -> None:
    def make(index: int) -> Lesson:
        return Broken(where if index == 2 else "nowhere")

    with pytest.raises(EnvironmentFailure, match=rf"Task t1 \(episode 2\): Broken\.{what}"):
        lesson(policy, plans(4, make))
    played = lesson(policy, plans(4, make), on_error="drop")
    assert [episode.index for episode in played.episodes] == [0, 1, 3]
    assert len(played.dropped) == 1 and played.dropped[0].startswith("Task t1 (episode 2): Broken.")
    whole = lesson(policy).episodes
    assert told(played.episodes) == told([whole[0], whole[1], whole[3]])


def test_an_environment_that_ends_before_anybody_spoke(policy: Policy) -> None:
    class Over(Lesson):
        def begin(self) -> Outcome:
            return Outcome(stop_reason="over")

    with pytest.raises(ValueError, match="ended in begin"):
        lesson(policy, plans(1, lambda i: Over()))
    with pytest.raises(ValueError, match="needs a stop_reason"):
        Outcome()


class Held(Lesson):
    """A lesson that holds something; ``loses`` raises in its second exchange."""

    def __init__(self, loses: bool = False, **options: Any):
        super().__init__(**options)
        self.loses, self.closed, self.replies = loses, 0, 0

    def act(self, reply: Reply) -> Outcome:
        self.replies += 1
        if self.loses and self.replies == 2:
            raise RuntimeError("lost")
        return super().act(reply)

    def close(self) -> None:
        self.closed += 1


def test_an_environment_is_closed_however_it_ends(make_policy: Callable[..., Policy]) -> None:
    """Over by itself, raising, and cut by the context: once each."""
    worlds = [Held(), Held(loses=True), Held(exchanges=30)]
    played = lesson(make_policy("student", max_length=40), plans(3, lambda i: worlds[i]), on_error="drop")
    assert [episode.stop_reason == "context_full" for episode in played.episodes] == [False, True]
    assert len(played.dropped) == 1 and [world.closed for world in worlds] == [1, 1, 1]
