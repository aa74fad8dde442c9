import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_rl.datamodules import annotated_questions as module_of_data
from lit_rl.datamodules.annotated_questions import AnnotatedQuestions, StoredQuestions, SyntheticQuestions
from lit_rl.papers.records import QuestionRecord
from lit_rl.reward_models import MultiObjectiveRewardModel, QuestionBatch
from tests.reward_models.worlds import record, reward_model

RECORDS = [record(number) for number in range(40)]  # of ten papers


@pytest.fixture(scope="module")
def model() -> MultiObjectiveRewardModel:
    return reward_model().eval()


@pytest.fixture
def data(model: MultiObjectiveRewardModel, tmp_path: Path) -> Callable[..., AnnotatedQuestions]:
    def data(records: Any = RECORDS, reward: Any = model, **options: Any) -> AnnotatedQuestions:
        known: dict[str, Any] = {"cache": str(tmp_path / "cache"), "validation_share": 0.2, "seed": 1}
        made = AnnotatedQuestions(records, **known | options)
        module = SimpleNamespace(reward_model=reward, micro_batch_tokens=128)
        made.trainer = SimpleNamespace(lightning_module=module)
        return made

    return data


def papers(records: list[QuestionRecord]) -> set[str]:
    return {record.paper_id for record in records}


def test_no_paper_is_in_two_parts(data: Any) -> None:
    made = data(test_share=0.3)
    parts = [papers(made.records[part]) for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [6, 1, 3]
    assert not parts[0] & parts[1] and not parts[1] & parts[2] and not parts[0] & parts[2]
    assert sum(len(records) for records in made.records.values()) == 40
    same, other = data(test_share=0.3), data(test_share=0.3, seed=2)
    assert papers(same.records["test"]) == parts[2] != papers(other.records["test"])


def test_given_test_questions_never_touch_validation(data: Any) -> None:
    others = [record(number, paper_id=f"other-{number}") for number in range(5)]
    made = data(test_questions=others)
    assert made.records["test"] == others and len(papers(made.records["val"])) == 2
    shared = [*others, record(0)]
    with pytest.raises(ValueError, match="share 1 papers, the first is 'paper-0'; set data.shared_papers to 'drop'"):
        data(test_questions=shared)
    kept = data(test_questions=shared, shared_papers="drop")
    assert "paper-0" not in papers(kept.records["train"]) | papers(kept.records["val"])
    assert kept.records["test"] == shared


def test_an_epoch_is_one_pass_in_an_order_of_its_own(data: Any) -> None:
    made = data(batch_size=5)
    stream = made.train_dataloader()
    assert len(stream) == 7  # 32 questions: six batches of five and one of two, as 486 in 61 batches of 8
    epochs = [[r.question + r.paper_id for batch in stream for r in batch.records] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(r.question + r.paper_id for r in made.records["train"])
    assert epochs[0] != epochs[1]
    many = [record(n % 8, paper_id=f"p{n}") for n in range(486)]
    assert data(many, validation_share=0.0).batches_per_epoch == 61


def test_seed_and_folder_are_obeyed(data: Any, tmp_path: Path) -> None:
    def order(seed: int) -> list[str]:
        made = data(seed=seed, validation_share=0.0)
        return [r.paper_id + r.question for batch in made.train_dataloader() for r in batch.records]

    assert order(1) == order(1) != order(2) and sorted(order(1)) == sorted(order(2))
    made = data(cache=str(tmp_path / "states"))
    next(iter(made.train_dataloader()))
    assert len(list((tmp_path / "states").rglob("*.safetensors"))) == 32


def test_labels_that_are_wrong_now_and_then() -> None:
    right, wrong = SyntheticQuestions(100), SyntheticQuestions(100, flip_rate=0.2)
    pairs = [(right[i], wrong[i]) for i in range(len(right))]
    assert all(a.question == b.question for a, b in pairs)
    differ = [x != y for a, b in pairs for x, y in zip(a.labels, b.labels, strict=True)]
    assert 0.15 < sum(differ) / len(differ) < 0.25


def test_what_a_batch_holds(data: Any, model: MultiObjectiveRewardModel) -> None:
    batch = next(iter(data(batch_size=8).train_dataloader()))
    assert batch.labels.tolist() == [list(r.labels) for r in batch.records] and batch.labels.dtype == torch.int64
    live = model.represent(batch.rows)
    torch.testing.assert_close(batch.representations, live, atol=1e-6, rtol=1e-5)
    assert batch.figures["time/encoding_seconds"] > 0
    assert batch.to("meta").labels.device.type == batch.representations.device.type == "meta"
    assert list(QuestionBatch([], []).parts(9)) == []


def test_missing_labels(data: Any) -> None:
    partly = [record(number, evidence=None) for number in range(8)]
    batch = next(iter(data(partly, validation_share=0.0).train_dataloader()))
    assert (batch.labels[:, 1] == -100).all() and (batch.labels[:, [0, 2]] >= 0).all()
    with pytest.raises(ValueError, match="data.questions: record 1 .of paper 'paper-0'. has no label"):
        data([record(0), record(1, effort=None, evidence=None, grounding=None)])


def test_a_trained_backbone_reads_prompts(data: Any) -> None:
    made = data(reward=reward_model(train_backbone=True), batch_size=8)
    batch = next(iter(made.train_dataloader()))
    assert batch.representations is None and all(len(row) > 10 for row in batch.rows)
    assert sorted(place for part in batch.parts(40) for place in part) == list(range(8))
    assert len(list(batch.parts(40))) > 1
    assert not Path(made.cache).exists()


def test_the_order_goes_on_where_it_stopped(data: Any) -> None:
    wanted = [batch.rows for batch in data().train_dataloader()]
    stopped, resumed = data().train_dataloader(), data().train_dataloader()
    passing = iter(stopped)
    next(passing), next(passing)
    resumed.load_state_dict(stopped.state_dict())
    assert [batch.rows for batch in resumed] == wanted[2:]


def test_ranks_share_questions(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(rank: int, ranks: int) -> tuple[list[str], list[str]]:
        monkeypatch.setattr(module_of_data, "rank", lambda: rank)
        monkeypatch.setattr(module_of_data, "world_size", lambda: ranks)
        made = data(batch_size=3)
        streams = (made.train_dataloader(), made.val_dataloader()[0])
        train, val = ([str(r) for batch in stream for r in batch.records] for stream in streams)
        assert len(streams[0]) == 11
        return train, val

    whole, parts = seen(0, 1), [seen(rank, 3) for rank in range(3)]
    for stage in (0, 1):
        assert sorted(whole[stage]) == sorted(question for part in parts for question in part[stage])
    assert len(seen(30, 40)[1]) == 0  # a rank without any question takes part


def test_stored_and_synthetic_questions(tmp_path: Path) -> None:
    row: dict[str, Any] = {"paper_id": "p", "source": "o3", "question": "why?", "ocr_output": "a"}
    row |= {"low_effort": True, "evidence": False, "factual": True}
    (tmp_path / "votes.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = [StoredQuestions(str(tmp_path / "votes.jsonl"))[i] for i in range(1)]
    assert found.labels == (1, 0, 1)  # low_effort is true for HIGH effort
    made = SyntheticQuestions(3, seed=1)
    assert len(made) == 12 and {made[i].source for i in range(4)} == {"human", "o3", "gemini", "qwen"}
    assert made[5] == SyntheticQuestions(3, seed=1)[5] != SyntheticQuestions(3, seed=2)[5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0; it must be at least 1"),
        ({"validation_share": 1.0}, "data.validation_share is 1.0; it must be at least 0 and below 1"),
        ({"test_share": -0.1}, "data.test_share is -0.1"),
        ({"test_share": 0.1, "test_questions": RECORDS[:1]}, "set one of them"),
        ({"test_questions": RECORDS, "shared_papers": "drop", "validation_share": 0.0}, "no question left to learn"),
    ],
)
def test_bad_input(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(**options)


def test_uses_without_questions(data: Any) -> None:
    module = SimpleNamespace(reward_model=None)
    with pytest.raises(ValueError, match="data.validation_share is 0, so there is nothing to validate on"):
        data(validation_share=0.0).check_use("validate", module)
    with pytest.raises(ValueError, match="nothing to test on: give data.test_questions or data.test_share"):
        data().check_use("test", module)
    with pytest.raises(ValueError, match="SimpleNamespace cannot learn from; it takes lit_rl.methods.IntelliReward"):
        data().check_use("fit", SimpleNamespace())
    data().check_use("fit", module)
    with pytest.raises(RuntimeError, match="need a module with a loaded `reward_model`"):
        next(iter(data(reward=None).train_dataloader()))
