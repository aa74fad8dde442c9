"""REMUL, second stage (remul.md): the loss of 11.3, properties 14, 15 and 17, and files that outlive a run."""

import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_rl.callbacks import Checkpoints, RunState
from lit_rl.datamodules import masked_answers
from lit_rl.datamodules.masked_answers import MaskedAnswers
from lit_rl.environments.tracking_swaps import TrackingSwaps
from lit_rl.episodes import Rollouts
from lit_rl.listeners import ListenerPool, ScriptedListener
from lit_rl.loading import load_tokenizer
from lit_rl.masked_answers import RecordedTrace, answer_ids, cut_at_tag, is_kept, masked_answer, read_traces
from lit_rl.methods.masked_answers import MaskedAnswerFineTuning
from lit_rl.methods.remul import REMUL
from lit_rl.objectives import masked_cross_entropy
from lit_rl.policy import LoRA, Policy, PolicyConfig
from lit_rl.sampling import SamplingSettings
from lit_rl.tiny import TinyModel, materialize
from lit_rl.weight_files import sign
from tests.methods.worlds import loaded, trainer, weights

TASKS = TrackingSwaps(size=60, steps=4)
TINY = TinyModel(words=TASKS.words, hidden_size=16, layers=1, heads=2, max_length=96)
SHORT = SamplingSettings(max_tokens=24)
ANSWER = " Answer : {answer}"


@pytest.fixture(scope="module")
def speaker() -> Policy:
    """It knows nothing, and so closes its reasoning now and then."""
    return Policy(PolicyConfig(tiny=TINY))


def data(folder: Path, policy: Policy | None = None, version: int = 0, **options: Any) -> MaskedAnswers:
    """With the trainer it would have, if there is a policy."""
    known: dict[str, Any] = {"answer_template": ANSWER, "traces": SHORT, "num_validation_tasks": 6, "max_rows": 18}
    module = MaskedAnswers(options.pop("tasks", TASKS), **known | {"batch_size": 4, "seed": 3} | options)
    if policy is not None:
        learner = SimpleNamespace(policy=policy, policy_version=version)
        module.trainer = SimpleNamespace(lightning_module=learner, default_root_dir=str(folder))
    return module


def targets(batch: Rollouts, policy: Policy) -> list[str]:
    assert batch.target_mask is not None
    return [
        policy.tokenizer.decode(ids[mask].tolist())
        for ids, mask in zip(batch.input_ids, batch.target_mask, strict=True)
    ]


# -- the loss ----------------------------------------------------------------------------------------------------------


def golden() -> tuple[torch.Tensor, torch.Tensor, Rollouts]:
    """Logits, labels and mask of remul.md 11.3; nothing predicts the first token."""
    logits = [[2.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 3, 0], [1, 0, 0, 1], [0, 2, 0, 1]]
    mask = torch.tensor([[False] * 4 + [True] * 2])
    rows = SimpleNamespace(target_mask=mask, target_weights=mask.float(), loss_mask=mask, group_ids=torch.zeros(1))
    return torch.tensor([logits], requires_grad=True), torch.tensor([[0, 1, 2, 3, 1, 3]]), rows  # type: ignore[return-value]


def loss_of(logits: torch.Tensor, labels: torch.Tensor, rows: Rollouts) -> torch.Tensor:
    """Of one optimizer step, as the method forms it."""
    method = MaskedAnswerFineTuning(PolicyConfig(tiny=TINY), start="any")
    log_probs = logits.log_softmax(-1).gather(-1, labels[:, 1:, None])[..., 0]
    log_probs = torch.nn.functional.pad(log_probs, (1, 0))
    return (method.step_weights(rows)(rows) * method.token_loss(rows, log_probs)).sum()


def test_loss_11_3_and_14() -> None:
    logits, labels, rows = golden()
    loss = loss_of(logits, labels, rows)
    assert float(loss) == pytest.approx(1.7501102886, abs=1e-6)
    loss.backward()
    assert logits.grad is not None and not logits.grad[0, :3].any() and bool(logits.grad[0, 3:].any(-1).all())
    log_probs = torch.nn.functional.pad(logits.detach().log_softmax(-1).gather(-1, labels[:, 1:, None])[..., 0], (1, 0))
    tokens = masked_cross_entropy(log_probs, torch.tensor([[False] + [True] * 5]))
    assert tokens[0, 1:].tolist() == pytest.approx([2.340753, 1.743668, 3.139206, 2.006409, 1.493812], abs=1e-6)
    assert rows.target_mask is not None
    assert float(masked_cross_entropy(log_probs, rows.target_mask).sum()) == pytest.approx(3.5002205772, abs=1e-6)
    for place in range(1, 4):  # another label of a token of the reasoning changes nothing; of the answer it does
        assert torch.equal(loss_of(logits, labels.index_fill(1, torch.tensor(place), 0), rows), loss)
    assert not torch.equal(loss_of(logits, labels.index_fill(1, torch.tensor(5), 0), rows), loss)


def test_only_answers_reach_the_gradient_14(tmp_path: Path, speaker: Policy) -> None:
    """As labels, tokens of the reasoning do not count; as inputs they may."""
    batch = next(iter(data(tmp_path, speaker).train_dataloader()))
    assert batch.target_mask is not None

    def loss(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits = speaker.lm(ids, attention_mask=batch.attention_mask).logits[:, :-1]
            return loss_of(logits, labels, batch)

    ids, others = batch.input_ids, torch.where(batch.target_mask, batch.input_ids, (batch.input_ids + 1) % 20)
    assert torch.equal(loss(ids, ids), loss(ids, others))
    assert not torch.equal(loss(ids, ids), loss(others, ids))


# -- rows --------------------------------------------------------------------------------------------------------------


def letters() -> PreTrainedTokenizerFast:
    """One token a letter, the closing tag in five pieces, and one that holds its end and a line break."""
    words = ["<", "/", "th", "ink", ">", ">\n", "\n", " ", *"abcxyz", ".<", "<end>", "<unknown>"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.add_tokens([AddedToken(word, normalized=False) for word in ("</", "th", "ink")])
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", unk_token="<unknown>")


@settings(deadline=None)
@given(st.lists(st.integers(6, 13), max_size=12), st.booleans(), st.lists(st.integers(6, 13), max_size=6))
def test_cut_at_a_tag_of_many_tokens_15(before: list[int], with_break: bool, after: list[int]) -> None:
    tokenizer = letters()
    tag = [0, 1, 2, 3, 5 if with_break else 4]
    reasoning, close = cut_at_tag([*before, *tag, *after, 15], tokenizer, "</think>")
    assert tokenizer.decode(close) == "</think>" and tokenizer.decode(reasoning) == tokenizer.decode(before)
    if not with_break:
        assert (reasoning, close) == (before, tag), "as sampled"


def test_a_token_that_holds_the_end_of_the_reasoning_goes_with_the_tag() -> None:
    reasoning, close = cut_at_tag([8, 9, 14, 1, 2, 3, 4, 10], letters(), "</think>")
    assert (reasoning, close) == ([8, 9], [14, 1, 2, 3, 4])
    assert cut_at_tag([8, 9, 10], letters(), "</think>") == ([8, 9, 10], [])


@lru_cache
def words() -> Any:
    return load_tokenizer(str(materialize(TINY)))


texts = st.lists(st.sampled_from(TASKS.words[:20]), min_size=1, max_size=8).map(" ".join)


@settings(deadline=None)
@given(texts, texts, texts, st.integers(0, 30))
def test_masked_in_is_the_answer_and_its_end_15(prompt: str, reasoning: str, answer: str, spare: int) -> None:
    tokenizer = words()
    end = tokenizer.eos_token_id
    pieces = [tuple(answer_ids(tokenizer, text)) for text in (prompt, f"<think> {reasoning}", "</think>", f" {answer}")]
    trace = RecordedTrace(
        problem_id="0", prompt_ids=pieces[0], reasoning_ids=pieces[1], close_ids=pieces[2], text="", correct=True,
        gold="A", executable=False, source="",
    )  # fmt: skip
    needed = len(pieces[0]) + len(pieces[2]) + len(pieces[3]) + 1
    row = masked_answer(trace, [*pieces[3], end], needed + spare)
    assert row is not None and tokenizer.decode(row.ids[row.start :]) == f"{answer} <end>"
    kept = pieces[1][:spare]
    assert row.ids[: row.start] == (*pieces[0], *kept, *pieces[2])  # the end of the reasoning is what gives way
    assert masked_answer(trace, [*pieces[3], end], needed - 1) is None


def test_rows_are_what_was_sampled_with_another_answer(tmp_path: Path, speaker: Policy) -> None:
    module = data(tmp_path, speaker, batch_size=64)
    (batch,) = list(module.train_dataloader())
    traces = read_traces(tmp_path / "traces.jsonl")
    closed = {trace.problem_id: trace for trace in traces if trace.close_ids}
    assert len(traces) == 54 and 4 < len(closed) < 54
    golds = {TASKS[i].id: TASKS[i].gold for i in range(54)}
    wanted = []
    for trace in closed.values():
        closing = speaker.tokenizer.convert_tokens_to_ids("</think>")
        assert trace.close_ids == (closing,) and closing not in trace.reasoning_ids
        answer = answer_ids(speaker.tokenizer, f"Answer : {golds[trace.problem_id]}")
        wanted.append([*trace.prompt_ids, *trace.reasoning_ids, *trace.close_ids, *answer, speaker.chat.end_id])
    rows = [ids[mask].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    assert sorted(rows) == sorted(wanted)
    assert sorted(targets(batch, speaker)) == sorted(f"Answer : {golds[name]} <end>" for name in closed)
    assert batch.parties == ("speaker",) and not batch.loss_mask.any()
    figures = {name.removeprefix("collected/"): value for name, value in batch.figures.items()}
    assert figures["sampled"] == 54 and figures["kept"] == len(closed) and figures["unclosed"] == 54 - len(closed)
    assert figures["kept_tokens"] == 4 * len(closed) and figures["too_long"] == figures["filtered"] == 0
    (bare,) = list(data(tmp_path, speaker, batch_size=64, append_eos=False).train_dataloader())
    assert all(not text.endswith("<end>") for text in targets(bare, speaker))


def test_an_answer_that_does_not_fit_is_dropped_and_counted(tmp_path: Path, speaker: Policy) -> None:
    prompt = len(speaker.tokenizer(f"<user> {TASKS[0].prompt} <end> <assistant>")["input_ids"])
    (cut,) = list(data(tmp_path, speaker, batch_size=64, max_length=prompt + 6).train_dataloader())
    assert int(cut.attention_mask.sum(1).max()) == prompt + 6 and cut.figures["collected/too_long"] == 0
    with pytest.raises(ValueError, match=r"54 outputs of the speaker 0 can be learned from .* do not fit"):
        data(tmp_path, speaker, max_length=prompt + 4).train_dataloader()


def test_filters(tmp_path: Path, speaker: Policy) -> None:
    """Nobody is right by chance here; a listener who is always right makes everything executable that can be cut."""
    with pytest.raises(ValueError, match=r"filtered out, 0 do not fit.* too few"):
        data(tmp_path, speaker, answer_filter="consistent").train_dataloader()
    heard: list[tuple[str, str]] = []

    def knows(question: str, prefix: str, key: int) -> str:
        heard.append((question, prefix))
        gold = next(TASKS[i].gold for i in range(54) if TASKS[i].prompt == question)
        return f"so </think> Answer : {gold if len(prefix.split()) % 2 else 'C C'}"

    pool = ListenerPool(listeners=[ScriptedListener("one", knows)])
    module = data(tmp_path, speaker, batch_size=64, answer_filter="executable", listeners=pool)
    (batch,) = list(module.train_dataloader())
    traces = read_traces(tmp_path / "traces.jsonl")
    executable = [trace for trace in traces if trace.executable]
    assert 0 < len(executable) < len([trace for trace in traces if trace.close_ids]) and len(batch) == len(executable)
    assert heard and not any("</think>" in prefix for _, prefix in heard)
    closed = RecordedTrace(
        problem_id="0", prompt_ids=(1,), reasoning_ids=(2,), close_ids=(3,), text="", correct=True, gold="A",
        executable=False, source="",
    )  # fmt: skip
    assert is_kept(closed, "all") and is_kept(closed, "consistent") and not is_kept(closed, "executable")
    assert not is_kept(replace(closed, close_ids=(), executable=True), "executable")


# -- files and runs ----------------------------------------------------------------------------------------------------


def test_sampling_goes_on_where_it_was_cut_off(
    tmp_path: Path, speaker: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    data(tmp_path / "whole", speaker).train_dataloader()
    whole = (tmp_path / "whole/traces.jsonl").read_bytes()
    calls: list[int] = []
    really = masked_answers.play

    def breaks(planned: Any, *rest: Any, **options: Any) -> Any:
        calls.append(planned[0].index)
        if calls == [0, 18]:
            raise KeyboardInterrupt
        return really(planned, *rest, **options)

    monkeypatch.setattr(masked_answers, "play", breaks)
    with pytest.raises(KeyboardInterrupt):
        data(tmp_path / "cut", speaker).train_dataloader()
    data(tmp_path / "cut", speaker).train_dataloader()
    assert calls == [0, 18, 18, 36] and (tmp_path / "cut/traces.jsonl").read_bytes() == whole
    data(tmp_path / "cut", speaker, traces=SamplingSettings(max_tokens=20)).train_dataloader()
    assert calls[4:] == [0, 18, 36], "what was sampled in another way is of no use"
    for name in ("rank", "world_size"):  # two ranks share the parts
        monkeypatch.setattr(masked_answers, name, lambda name=name: {"rank": 1, "world_size": 2}[name])
    data(tmp_path / "second", speaker).train_dataloader()
    assert calls[7:] == [18]


def fit(folder: Path, epochs: int, checkpoint: str | None = None) -> MaskedAnswerFineTuning:
    adapters = {"speaker": LoRA(rank=2)}
    method = MaskedAnswerFineTuning(PolicyConfig(tiny=TINY, adapters=adapters), start="any", learning_rate=1e-2)
    running = trainer(folder, max_epochs=epochs, callbacks=[Checkpoints(), RunState()], limit_val_batches=1)
    running.fit(method, datamodule=data(folder), ckpt_path=checkpoint, weights_only=True)
    assert "val/answers/accuracy_turn_1" in running.callback_metrics and running.callback_metrics["train/loss"] > 0
    return method


def test_a_resumed_run_learns_from_the_same_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(tmp_path / "whole", 2)
    half = fit(tmp_path / "half", 1)
    last = str(tmp_path / "half/checkpoints/last.ckpt")
    with monkeypatch.context() as patch:
        patch.setattr(MaskedAnswers, "_sample", lambda *_: pytest.fail("sampled anew"))
        again = fit(tmp_path / "half", 2, last)
    expected, found = weights(whole), weights(again)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not all(torch.equal(expected[name], tensor) for name, tensor in weights(half).items())
    (tmp_path / "half/traces.jsonl").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*traces.jsonl with what it learns from"):
        fit(tmp_path / "half", 3, last)


def test_a_trial_is_short_and_writes_nothing(tmp_path: Path, speaker: Policy) -> None:
    module = data(tmp_path, speaker, batch_size=64)
    module.trainer.fast_dev_run = True
    (batch,) = list(module.train_dataloader())
    assert batch.figures["collected/sampled"] == 18 and not list(tmp_path.iterdir())


def test_only_what_the_first_stage_left_is_taken_17(tmp_path: Path, speaker: Policy) -> None:
    def second(**policy: Any) -> MaskedAnswerFineTuning:
        return MaskedAnswerFineTuning(PolicyConfig(**policy))

    adapters = {"speaker": LoRA(rank=2)}
    first = loaded(REMUL(PolicyConfig(tiny=TINY, adapters=adapters)))
    whole = loaded(REMUL(PolicyConfig(tiny=TINY), kl_coef=0.0))
    first.export(tmp_path / "untrained")
    first.policy_version = whole.policy_version = 7
    first.export(tmp_path / "first")
    whole.export(tmp_path / "whole")
    frozen = str(tmp_path / "first/speaker")
    assert second(path=speaker.path, frozen_adapter=frozen, adapters=adapters).policy_config.frozen_adapter == frozen
    assert second(path=str(tmp_path / "whole"), adapters=adapters).start == "stage_1"
    with pytest.raises(ValueError, match=r"policy.path is not what the first stage left.*no made_by.json"):
        second(path=speaker.path, adapters=adapters)
    with pytest.raises(ValueError, match="random weights has been through no first stage"):
        second(tiny=TINY)
    with pytest.raises(ValueError, match="frozen_adapter is not .* before its first optimizer step"):
        second(path=speaker.path, frozen_adapter=str(tmp_path / "untrained/speaker"), adapters=adapters)
    swapped = tmp_path / "swapped"
    shutil.copytree(speaker.path, swapped)
    shutil.copy(tmp_path / "whole/made_by.json", swapped)
    with torch.no_grad():  # had training moved them, as it does
        next(whole.policy.parameters()).add_(1.0)
    whole.export(tmp_path / "moved")
    shutil.copy(tmp_path / "moved/made_by.json", swapped)
    with pytest.raises(ValueError, match="weights in .*swapped are not those that REMUL wrote there"):
        second(path=str(swapped), adapters=adapters)
    sign(swapped, method="SocialMetaLearning", optimizer_steps=3)
    with pytest.raises(ValueError, match="with SocialMetaLearning, not with REMUL"):
        second(path=str(swapped), adapters=adapters)


def test_bad_input(tmp_path: Path, speaker: Policy) -> None:
    for options, message in (
        ({"answer_template": " Answer :"}, r"must contain \{answer\}"),
        ({"answer_template": " so {answer} so"}, "read no right answer in '<think> </think> so"),
        ({"answer_filter": "best"}, "answer_filter is 'best'"),
        ({"answer_filter": "executable"}, "goes with data.answer_filter='executable'"),
        ({"num_problems": 55}, "num_problems is 55, but data.tasks .* has 54"),
        ({"num_problems": 0}, "num_problems is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            data(tmp_path, **options)
    with pytest.raises(ValueError, match="cannot spell the answer 'Reply : A'"):
        answer_ids(speaker.tokenizer, "Reply : A")
    with pytest.raises(ValueError, match="model.start is 'stage_2'"):
        MaskedAnswerFineTuning(PolicyConfig(tiny=TINY), start="stage_2")
    (tmp_path / "traces.jsonl").write_text('{"problem_id": "0"}\n')
    with pytest.raises(ValueError, match="traces.jsonl, row 1: there is no column"):
        read_traces(tmp_path / "traces.jsonl")
