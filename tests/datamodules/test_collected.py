"""Offline social meta-learning (sml.md, section 7) and Q-priming's rows (section 8) with real tiny models."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_rl.callbacks import Checkpoints, RunState
from lit_rl.datamodules import DemonstrationDataModule, collected, dialogue_stream
from lit_rl.datamodules.collected import CollectedDialogues, QPriming
from lit_rl.datamodules.demonstrations import RecordedDialogues
from lit_rl.datamodules.didactic import Dialogue
from lit_rl.environments import HigherLower, NumberSearch
from lit_rl.environments.question_writers import FixedQuestion
from lit_rl.episodes import Episode, Rollouts
from lit_rl.methods.offline_sml import OfflineSocialMetaLearning
from lit_rl.parties import PolicyParty
from lit_rl.policy import Policy, PolicyConfig
from lit_rl.recorded_dialogues import RecordedDialogue, read_dialogues, record, write_dialogues
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel, materialize
from lit_rl.verification.answers import marked_answer
from lit_rl.verification.attempts import Attempt
from tests.methods.worlds import in_ranks, trainer, weights

WORDS = ["find", "n", "in", "higher", "lower", "please", "answer", "or", "ask", "seven", "secret", ":", "<question>"]
WORDS += ["You", "Teacher"]
TINY = TinyModel(words=[*WORDS, "<", ">", "question"], numbers=10, hidden_size=16, layers=1, heads=2, max_length=96)
SHORT = SamplingSettings(max_tokens=1)
SPELLABLE = "ask <question> {problem} {conversation} {attempt} {private}"


class BareNumbers(NumberSearch):
    """A number is an answer without the mark, so that a random model gives some; a further secret is never public."""

    def __getitem__(self, index: int) -> Any:
        problem = super().__getitem__(index)
        return replace(problem, private={**problem.private, "secret": "secret"})

    def verify(self, problem: Any, utterance: str) -> Attempt:
        return marked_answer(utterance if "ask" in utterance else f"ans {utterance}", problem.gold)


@pytest.fixture(scope="module")
def student() -> Policy:
    return Policy(PolicyConfig(tiny=TINY))


def data(folder: Path, policy: Policy | None = None, version: int = 0, **options: Any) -> CollectedDialogues:
    """With the trainer it would have, if there is a policy."""
    known: dict[str, Any] = {"group_size": 60, "keep_per_problem": 2, "batch_size": 4, "student": SHORT, "seed": 3}
    known |= {"validation_tasks": BareNumbers(10), "num_validation_tasks": 2, "dialogue": Dialogue(max_turns=3)}
    module = CollectedDialogues(options.pop("tasks", BareNumbers(10)), HigherLower(), **known | options)
    if policy is not None:
        learner = SimpleNamespace(policy=policy, policy_version=version)
        module.trainer = SimpleNamespace(lightning_module=learner, default_root_dir=str(folder))
    return module


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Episode, RecordedDialogue | None]]:
    """All solved episodes that were considered, and what was recorded of them."""
    seen: list[tuple[Episode, RecordedDialogue | None]] = []

    def spying(episode: Episode, *rest: Any) -> RecordedDialogue | None:
        seen.append((episode, record(episode, *rest)))
        return seen[-1][1]

    monkeypatch.setattr(collected, "record", spying)
    return seen


def targets(batch: Rollouts, policy: Policy) -> list[str]:
    assert batch.target_mask is not None
    return [
        policy.tokenizer.decode(ids[mask].tolist())
        for ids, mask in zip(batch.input_ids, batch.target_mask, strict=True)
    ]


def whole_rows(batch: Rollouts) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]


def heard(batch: Rollouts, policy: Policy) -> list[str]:
    """All that is in rows and was not sampled."""
    assert batch.target_mask is not None
    tokens: list[str] = policy.tokenizer.convert_ids_to_tokens(batch.input_ids[~batch.target_mask].tolist())
    return tokens


def respelled(episode: Episode, policy: Policy) -> bool:
    """Whether the tokenizer spells some turn's text otherwise than it was sampled."""
    turns = [turn for turn in episode.turns if turn.completion_ids]
    spelled = [policy.tokenizer(turn.text)["input_ids"] for turn in turns]
    return any(ids != turn.completion_ids for ids, turn in zip(spelled, turns, strict=True))


def test_only_solved_dialogues_as_sampled_17_12(
    tmp_path: Path, student: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch)
    module = data(tmp_path, student)
    batches = list(module.train_dataloader())
    kept = read_dialogues(tmp_path / "dialogues.jsonl")
    assert len(seen) == len(kept) > 8 and all(episode.stop_reason == "solved" for episode, _ in seen)
    assert max(Counter(dialogue.problem_id for dialogue in kept).values()) == 2
    assert {dialogue.problem_id for dialogue in kept} <= {str(n) for n in range(10)}
    rows = Counter(tuple(ids) for batch in batches for ids in whole_rows(batch))
    sampled = Counter[tuple[int, ...]]()
    for episode, _ in seen:  # exactly what the student conditioned on and said
        turns = episode.turns_of("student")
        sampled[tuple(i for turn in turns for i in [*turn.prompt_ids, *turn.completion_ids])] += 1
    assert rows == sampled
    for dialogue in kept:
        last = [turn for turn in dialogue.turns if turn.role == "student"][-1]
        assert last.correct and last.text == dialogue.problem_id and last.exchange == dialogue.solve_turn
    figures = batches[0].figures
    assert figures["collected/played"] == 600 and figures["collected/kept"] == len(kept)
    assert figures["collected/solved"] >= len(kept) and "collected/played" not in batches[1].figures
    learned = sum(int(batch.target_mask.sum()) for batch in batches if batch.target_mask is not None)
    assert figures["collected/kept_tokens"] == learned


def test_which_tokens_are_targets(tmp_path: Path, student: Policy) -> None:
    chosen = {"train_turns": "all", "batch_size": 64}
    (every,) = list(data(tmp_path, student, **chosen).train_dataloader())
    (final,) = list(data(tmp_path, student, **chosen | {"train_turns": "final"}).train_dataloader())
    (both,) = list(data(tmp_path, student, **chosen | {"train_feedback": True}).train_dataloader())
    assert every.target_mask is not None and final.target_mask is not None and both.target_mask is not None
    assert torch.equal(every.input_ids, final.input_ids) and torch.equal(every.input_ids, both.input_ids)
    assert final.target_mask.sum(1).unique().tolist() == [1]
    told = both.target_mask & ~every.target_mask
    words = student.tokenizer.convert_ids_to_tokens(both.input_ids[told].tolist())
    assert set(words) <= {"higher", "lower", "please", "answer", "or", "ask", "<end>"} and "<end>" in words
    assert torch.equal(told.sum(1) > 0, every.target_mask.sum(1) > 1)
    assert both.parties == ("student",) and set(both.party_ids[both.target_mask].tolist()) == {0}


def test_words_of_acceptance_are_feedback(tmp_path: Path, student: Policy) -> None:
    """They end the row where the dialogue has an ``accept_message``."""
    rules = Dialogue(max_turns=3, accept_message="seven")
    for train_feedback in (True, False):
        module = data(tmp_path, student, dialogue=rules, train_feedback=train_feedback, batch_size=64)
        (batch,) = list(module.train_dataloader())
        assert all(text.endswith(" seven <end>") == train_feedback for text in targets(batch, student))
    assert {dialogue.turns[-1].text for dialogue in read_dialogues(module.path())} == {"seven"}


def test_teacher_labels_are_not_learned_17_12(tmp_path: Path, student: Policy) -> None:
    """The loss over labels: other labels where the teacher speaks change nothing."""
    (batch,) = list(data(tmp_path, student, batch_size=64).train_dataloader())
    method = OfflineSocialMetaLearning(student.config)
    logits = student.lm(batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1)

    def loss(labels: torch.Tensor) -> torch.Tensor:
        log_probs = torch.zeros(labels.shape)
        log_probs[:, 1:] = logits[:, :-1].gather(-1, labels[:, 1:, None])[..., 0]
        return (method.step_weights(batch)(batch) * method.token_loss(batch, log_probs)).sum()

    assert batch.target_mask is not None
    altered = torch.where(batch.target_mask, batch.input_ids, (batch.input_ids + 1) % 8)
    assert torch.equal(loss(batch.input_ids), loss(altered))
    assert not torch.equal(loss(batch.input_ids), loss((batch.input_ids + 1) % 8))
    token_means = [  # mean per dialogue, then over dialogues
        -torch.stack([logits[b, i - 1, batch.input_ids[b, i]] for i in mask.nonzero()[:, 0].tolist()]).mean()
        for b, mask in enumerate(batch.target_mask)
    ]
    torch.testing.assert_close(loss(batch.input_ids), torch.stack(token_means).mean())


def test_an_epoch_is_one_pass_in_even_batches(tmp_path: Path, student: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = data(tmp_path, student).train_dataloader()
    kept = len(read_dialogues(tmp_path / "dialogues.jsonl"))
    passes = [list(stream), list(stream)]
    assert all(len(batches) == -(-kept // 4) for batches in passes)
    assert {len(batch) for batch in passes[0]} <= {3, 4}

    def said(batches: list[Rollouts]) -> list[list[int]]:
        return [ids for batch in batches for ids in whole_rows(batch)]

    assert sorted(said(passes[0])) == sorted(said(passes[1])) and said(passes[0]) != said(passes[1])
    for module in (collected, dialogue_stream):
        monkeypatch.setattr(module, "world_size", lambda: 2)
    halves = []
    for number in (0, 1):  # as two ranks that read the file back
        monkeypatch.setattr(collected, "rank", lambda number=number: number)
        halves += list(data(tmp_path, student, version=1).train_dataloader())
    assert sorted(said(halves)) == sorted(said(passes[0]))


def test_the_file_serves_other_runs(tmp_path: Path, student: Policy) -> None:
    (batch,) = list(data(tmp_path, student, batch_size=64).train_dataloader())
    path = tmp_path / "dialogues.jsonl"
    count = len(read_dialogues(path))
    other = DemonstrationDataModule(RecordedDialogues(str(path)), batch_size=count)
    other.trainer = SimpleNamespace(lightning_module=SimpleNamespace(policy=student, policy_version=0))
    (again,) = list(other.train_dataloader())
    assert sorted(targets(again, student)) == sorted(targets(batch, student))
    stranger = Policy(PolicyConfig(tiny=replace(TINY, numbers=11)))
    other.trainer = SimpleNamespace(lightning_module=SimpleNamespace(policy=stranger, policy_version=0))
    with pytest.raises(ValueError, match="another tokenizer or chat template .* collect dialogues anew"):
        next(iter(other.train_dataloader()))
    write_dialogues(path, read_dialogues(path)[:1])
    assert len(read_dialogues(path)) == 1 and len(read_dialogues(tmp_path / "previous-dialogues.jsonl")) == count
    path.write_text(json.dumps({**json.loads(path.read_text()), "turns": [{"word": 1}]}) + "\n")
    with pytest.raises(ValueError, match=r"dialogues.jsonl, row 1: it is no recorded dialogue"):
        read_dialogues(path)


def test_q_priming_leaves_no_trace_in_rows_17_13(
    tmp_path: Path, student: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is the public conversation as the template renders it, token for token: nothing else can be in it."""
    seen = spied(monkeypatch)
    priming = QPriming(writer=FixedQuestion("ask seven"))
    module = data(tmp_path, student, q_priming=priming, batch_size=64, keep_per_problem=8)
    (batch,) = list(module.train_dataloader())
    assert batch.figures["collected/questions"] > 100
    questions = 0
    for episode, dialogue in seen:
        if dialogue is None:
            continue
        asked = {turn.exchange for turn in episode.turns if turn.info.get("asked")}
        assert asked == {turn.exchange for turn in dialogue.turns if turn.replaced_by_question}
        assert all((turn.text == "ask seven") == (turn.exchange in asked) for turn in dialogue.turns if turn.kind)
        questions += len(asked)
        if not respelled(episode, student):
            public = [{"role": "user", "content": "find n in 0 9"}]
            roles = {"student": "assistant", "teacher": "user"}
            public += [{"role": roles[turn.role], "content": turn.text} for turn in dialogue.turns]
            ids = student.tokenizer.apply_chat_template(public)["input_ids"]
            assert [*dialogue.input_ids, student.chat.end_id] == ids
    assert questions > 5
    assert "secret" not in heard(batch, student)
    said = targets(batch, student)
    assert sum(text.count("ask seven <end>") for text in said) == questions  # questions included, and their end


def test_a_model_may_write_questions(tmp_path: Path, student: Policy) -> None:
    """This one cannot: it is asked again three times for each turn, and the attempts stand."""
    writer = PolicyParty(adapter="student", settings=SamplingSettings(max_tokens=2))
    for one in (writer, None):
        priming = QPriming(writer=one, decay=1.0, instruction=SPELLABLE)
        module = data(tmp_path, student, q_priming=priming, group_size=20, batch_size=64)
        (batch,) = list(module.train_dataloader())
        assert batch.figures["collected/questions"] == 0
        assert batch.figures["collected/sampled_tokens"] > 200 * 3 * 4
        assert "secret" not in heard(batch, student)


def test_a_turn_that_is_spelled_otherwise_is_not_learned(
    tmp_path: Path, student: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampled special token, say, vanishes from the text: the row rendered anew is not what was sampled."""
    seen = spied(monkeypatch)
    priming = QPriming(writer=FixedQuestion("ask seven"), decay=0.5)
    module = data(tmp_path, student, q_priming=priming, keep_per_problem=60)
    module.train_dataloader()
    lost = [episode for episode, dialogue in seen if dialogue is None]
    assert lost and all(respelled(episode, student) for episode in lost)


def learner() -> OfflineSocialMetaLearning:
    return OfflineSocialMetaLearning(PolicyConfig(tiny=TINY), learning_rate=1e-2)


def fit(folder: Path, epochs: int, checkpoint: str | None = None) -> OfflineSocialMetaLearning:
    method = learner()
    running = trainer(folder, max_epochs=epochs, callbacks=[Checkpoints(), RunState()], limit_val_batches=1)
    running.fit(method, datamodule=data(folder), ckpt_path=checkpoint, weights_only=True)
    assert "val/teacher/accuracy_turn_3" in running.callback_metrics and running.callback_metrics["train/loss"] > 0
    return method


def test_a_resumed_run_learns_from_the_same_dialogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(tmp_path / "whole", 2)
    half = fit(tmp_path / "half", 1)
    file, last = tmp_path / "half/dialogues.jsonl", str(tmp_path / "half/checkpoints/last.ckpt")
    assert file.read_bytes() == (tmp_path / "whole/dialogues.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(collected, "play", lambda *_, **__: pytest.fail("collected anew"))
        patch.setattr(CollectedDialogues, "val_dataloader", lambda self: [])
        method = learner()
        running = trainer(tmp_path / "half", max_epochs=2, callbacks=[Checkpoints(), RunState()])
        running.fit(method, datamodule=data(tmp_path / "half"), ckpt_path=last, weights_only=True)
    expected, found = weights(whole), weights(method)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not all(torch.equal(expected[name], tensor) for name, tensor in weights(half).items())
    write_dialogues(file, read_dialogues(file)[:-1])
    with pytest.raises(ValueError, match="learned from other dialogues than those of its file now"):
        fit(tmp_path / "half", 3, str(tmp_path / "half/checkpoints/last.ckpt"))
    file.unlink()
    with pytest.raises(ValueError, match=r"there is no file .*dialogues.jsonl with what it learns from"):
        fit(tmp_path / "half", 3, str(tmp_path / "half/checkpoints/last.ckpt"))


def test_recorded_dialogues_are_validated_by_their_loss(tmp_path: Path, student: Policy) -> None:
    module = data(tmp_path, student)
    module.train_dataloader()
    recorded = DemonstrationDataModule(RecordedDialogues(str(module.path())), batch_size=4, num_validation=4)
    running = trainer(tmp_path, limit_val_batches=1)
    running.fit(learner(), datamodule=recorded)
    assert running.callback_metrics["val/loss"] > 0


def test_two_ranks_collect_and_learn_what_one_does(tmp_path: Path) -> None:
    materialize(TINY)  # before there are ranks

    def check(rank: int) -> None:
        method = learner()
        running = trainer(tmp_path / "two", strategy="ddp", devices=2, callbacks=[RunState()])
        running.fit(method, datamodule=data(tmp_path / "two"))
        torch.save((weights(method), dict(running.callback_metrics)), tmp_path / f"rank{rank}.pt")

    in_ranks(check, tmp_path)
    alone = learner()
    running = trainer(tmp_path / "one", callbacks=[RunState()])
    running.fit(alone, datamodule=data(tmp_path / "one"))
    (first, metrics), (second, _) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    written = [read_dialogues(tmp_path / folder / "dialogues.jsonl") for folder in ("one", "two")]
    assert written[0] == written[1]
    for name in ("collected/played", "collected/kept_tokens", "collected/sampled_tokens"):
        assert metrics[name] == running.callback_metrics[name]
    for name, tensor in weights(alone).items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_trial_is_short_and_writes_nothing(tmp_path: Path, student: Policy) -> None:
    module = data(tmp_path, student, max_rows=60, batch_size=64)
    module.trainer.fast_dev_run = True
    (batch,) = list(module.train_dataloader())
    assert batch.figures["collected/played"] == 60 and not list(tmp_path.iterdir())


def test_single_turn_dialogues(tmp_path: Path, student: Policy) -> None:
    """Section 9's st_sft is the same with one turn: successful single attempts."""
    module = data(tmp_path, student, dialogue=Dialogue(max_turns=1), batch_size=64)
    (batch,) = list(module.train_dataloader())
    assert {turn.role for dialogue in read_dialogues(module.path()) for turn in dialogue.turns} == {"student"}
    assert batch.rewards.shape[1] == 1


def test_what_cannot_be_learned_from_is_said(tmp_path: Path, student: Policy) -> None:
    with pytest.raises(ValueError, match="solved none of 10 dialogues about 10 problems.*warm it up first"):
        data(tmp_path, student, group_size=1, dialogue=Dialogue(max_turns=1)).train_dataloader()
    with pytest.raises(ValueError, match="num_problems is 11, but .* has 10 that are not held out"):
        data(tmp_path, num_problems=11)
    with pytest.raises(ValueError, match="keep_per_problem is 0"):
        data(tmp_path, keep_per_problem=0)
    with pytest.raises(ValueError, match="decay is 0"):
        QPriming(decay=0)
    prefilled = Policy(PolicyConfig(tiny=TINY, prefill={"student": "answer "}))
    with pytest.raises(ValueError, match="opens every reply of the student with 'answer ', so it can ask nothing"):
        data(tmp_path, prefilled, q_priming=QPriming()).train_dataloader()
    by_turn = Policy(PolicyConfig(tiny=TINY, rows="turn"))
    with pytest.raises(ValueError, match="does not extend a dialogue turn by turn"):
        data(tmp_path, by_turn).train_dataloader()
