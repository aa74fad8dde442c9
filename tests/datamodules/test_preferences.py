import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_rl.datamodules import passes
from lit_rl.datamodules.preferences import PreferenceDataModule, StoredPreferences
from lit_rl.episodes import Rollouts
from lit_rl.policy import LoRA, Policy, PolicyConfig

Attach = Callable[..., PreferenceDataModule]
SCORES = {"score_chosen": "score_chosen", "score_rejected": "score_rejected"}


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"find {number}", "chosen": f"ans {number}", "rejected": f"ans {number} please", **more}


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., StoredPreferences]:
    def stored(count: int = 10, **options: Any) -> StoredPreferences:
        rows = [row(n, score_chosen=n, score_rejected=0.5) for n in range(count)]
        return StoredPreferences(write(tmp_path / "pairs.jsonl", rows), **options)

    return stored


def said(batch: Rollouts, policy: Policy) -> list[str]:
    assert batch.target_mask is not None
    return [policy.tokenizer.decode(ids[m].tolist()) for ids, m in zip(batch.input_ids, batch.target_mask, strict=True)]


def test_two_rows_of_each_pair(attach: Attach, policy: Policy, stored: Any) -> None:
    data = attach(PreferenceDataModule(stored(**SCORES), batch_size=5, num_validation=4, batches_per_epoch=2, seed=1))
    batch = next(iter(data.train_dataloader()))
    replies = said(batch, policy)
    numbers = [int(text.split()[0]) for text in replies[::2]]
    assert len(set(numbers)) == 5 and max(numbers) < 6  # the last four are held out
    assert replies == [text for n in numbers for text in (f"{n} <end>", f"{n} please <end>")]  # the prefill is given
    assert batch.extras["chosen"].tolist() == [True, False] * 5
    assert batch.target_mask is not None and batch.target_weights is not None
    assert torch.equal(batch.target_weights > 0, batch.target_mask & batch.extras["chosen"][:, None])
    assert batch.extras["score"].tolist() == [score for n in numbers for score in (n, 0.5)]
    assert batch.group_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert batch.label == "preferences" and not batch.loss_mask.any() and batch.ref_log_probs is None
    assert batch.episode_ids.tolist() == list(range(10))


def test_an_epoch_is_one_pass_and_validation_repeats_what_is_held_out(
    attach: Attach, policy: Policy, stored: Any
) -> None:
    data = attach(PreferenceDataModule(stored(), batch_size=3, num_validation=4, seed=1))
    batches = list(data.train_dataloader())
    assert len(batches) == 2 and "score" not in batches[0].extras
    assert sorted(int(text.split()[0]) for batch in batches for text in said(batch, policy)[::2]) == list(range(6))
    (stream,) = data.val_dataloader()
    for _ in range(2):
        assert [text.split()[0] for batch in stream for text in said(batch, policy)[::2]] == ["6", "7", "8", "9"]
    other = PreferenceDataModule(stored(), validation_preferences=stored(3), num_validation=9, batch_size=10)
    assert other.count == 10 and len(other.held_out) == 3


def test_the_order_goes_on_where_it_stopped(attach: Attach, stored: Any) -> None:
    def stream() -> Any:
        return attach(PreferenceDataModule(stored(), batch_size=2, batches_per_epoch=4, seed=3)).train_dataloader()

    whole, stopped, resumed = stream(), stream(), stream()
    wanted = list(whole)
    passing = iter(stopped)
    next(passing), next(passing)
    resumed.load_state_dict(stopped.state_dict())
    for ours, theirs in zip(resumed, wanted[2:], strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids) and torch.equal(ours.group_ids, theirs.group_ids)
    assert not all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(stream(), whole, strict=True))  # next pass


def test_ranks_share_pairs(attach: Attach, policy: Policy, stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def replies(rank: int, ranks: int) -> tuple[list[str], list[str]]:
        monkeypatch.setattr(passes, "rank", lambda: rank)
        monkeypatch.setattr(passes, "world_size", lambda: ranks)
        data = attach(PreferenceDataModule(stored(), batch_size=3, num_validation=3, seed=1))
        train = [text for batch in data.train_dataloader() for text in said(batch, policy)]
        return train, [text for batch in data.val_dataloader()[0] for text in said(batch, policy)]

    whole, parts = replies(0, 1), [replies(0, 2), replies(1, 2)]
    for stage in (0, 1):
        assert sorted(whole[stage]) == sorted(text for part in parts for text in part[stage])
        assert all(part[stage] for part in parts)
    with pytest.raises(ValueError, match="data.batch_size is 3 pairs for 4 processes"):
        replies(0, 4)


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_strings_messages_whole_dialogues_and_parquet_are_one(
    attach: Attach, policy: Policy, stored: Any, tmp_path: Path
) -> None:
    import pyarrow
    import pyarrow.parquet

    alone, whole, mixed = [], [], []
    for n in range(3):
        user, good, bad = ("user", f"find {n}"), ("assistant", f"ans {n}"), ("assistant", f"ans {n} please")
        alone.append({"prompt": messages(user), "chosen": messages(good), "rejected": messages(bad)})
        whole.append({"prompt": messages(user), "chosen": messages(user, good), "rejected": messages(user, bad)})
        mixed.append({"prompt": f"find {n}", "chosen": messages(user, good), "rejected": messages(user, bad)})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(alone), tmp_path / "pairs.parquet")
    sources = [StoredPreferences(write(tmp_path / f"{i}.jsonl", r)) for i, r in enumerate((alone, whole, mixed))]
    sources.append(StoredPreferences(str(tmp_path / "pairs.parquet")))

    def rows(source: Any) -> Rollouts:
        return next(iter(attach(PreferenceDataModule(source, batch_size=3, seed=0)).train_dataloader()))

    wanted = rows(stored(3))
    assert wanted.target_mask is not None
    for source in sources:
        found = rows(source)
        assert torch.equal(found.input_ids, wanted.input_ids) and torch.equal(found.target_mask, wanted.target_mask)


def test_a_prompt_of_several_turns(attach: Attach, policy: Policy, tmp_path: Path) -> None:
    prompt = messages(("system", "find n"), ("user", "find 3"), ("assistant", "ans 4"), ("user", "lower"))
    path = write(tmp_path / "pairs.jsonl", [{"prompt": prompt, "chosen": "ans 3", "rejected": "ans 5"}])
    (batch,) = list(attach(PreferenceDataModule(StoredPreferences(path), batch_size=1)).train_dataloader())
    assert said(batch, policy) == ["3 <end>", "5 <end>"]  # the earlier reply is not learned


def test_the_reference_is_filled_where_it_is_needed(attach: Attach, stored: Any, policy: Policy) -> None:
    adapted = Policy(PolicyConfig(path=policy.path, adapters={"student": LoRA(rank=2)}, prefill=policy.chat.prefill))
    for parameter in adapted.parameter_groups()["student"]:
        parameter.data.fill_(0.1)
    data = attach(PreferenceDataModule(stored(), batch_size=6, num_validation=4), policy=adapted, needs_reference=True)
    for batch in (*data.train_dataloader(), *data.val_dataloader()[0]):
        assert batch.ref_log_probs is not None and batch.target_mask is not None
        with torch.no_grad():
            wanted, _ = policy.log_probs(batch.input_ids, batch.target_mask)
        torch.testing.assert_close(batch.ref_log_probs, wanted)
        assert batch.ref_log_probs[batch.target_mask].all() and not batch.ref_log_probs[~batch.target_mask].any()


USER = {"role": "user", "content": "find 1"}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([row(1), {"prompt": "find 1", "chosen": "ans 1"}], {}, r"pairs.jsonl, row 2: there is no column 'rejected'"),
        ([row(1) | {"chosen": 7}], {}, r"pairs.jsonl, row 1, chosen: it is '7'; give a string or a list of messages"),
        ([row(1) | {"rejected": []}], {}, r"row 1, rejected: it is '\[\]'"),
        ([row(1) | {"prompt": [{"role": "judge", "content": "a"}]}], {}, r"row 1, prompt: .* is not \{'role': one of"),
        ([row(1) | {"chosen": [USER]}], {}, r"row 1, chosen: it has the roles \[\]; give one message of 'assistant'"),
        ([row(1) | {"chosen": [USER, USER]}], {}, r"row 1, chosen: it has the roles \['user'\]"),
        (
            [row(1) | {"prompt": messages(("assistant", "ans 2"))}],
            {},
            r"row 1: the prompt is empty or ends with a reply",
        ),
        ([row(1, score_chosen="good", score_rejected=1)], SCORES, r"row 1: the score 'good' is not a number"),
        ([row(1, score_chosen=1e999, score_rejected=1)], SCORES, r"row 1: the scores are \(inf, 1.0\)"),
        ([row(1)], SCORES, r"row 1: there is no column 'score_chosen'"),
        ([row(1)], {"score_chosen": "score"}, "give both score_chosen and score_rejected, or neither"),
    ],
)
def test_bad_rows_name_file_and_row(rows: list[Any], options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        StoredPreferences(write(tmp_path / "pairs.jsonl", rows), **options)


def test_pairs_that_are_too_long(attach: Attach, tmp_path: Path, policy: Policy) -> None:
    rows = [row(n) for n in range(3)] + [row(3) | {"rejected": "ans" + " is" * 200}]
    source = StoredPreferences(write(tmp_path / "pairs.jsonl", rows))
    with pytest.raises(ValueError, match=r"pairs.jsonl, row 4, rejected has 2\d\d tokens; the policy's rows hold 128"):
        next(iter(attach(PreferenceDataModule(source, batch_size=4)).train_dataloader()))
    data = attach(PreferenceDataModule(source, batch_size=4, on_long="drop"))
    (batch,) = list(data.train_dataloader())
    assert sorted(text.split()[0] for text in said(batch, policy)[::2]) == ["0", "1", "2"]
    assert batch.figures["train/dropped_pairs"] == 1.0
    alone = attach(PreferenceDataModule(source, batch_size=1, num_validation=1, on_long="drop"))
    with pytest.raises(ValueError, match="All 1 pairs of a batch are longer than the 128 tokens"):
        next(iter(alone.val_dataloader()[0]))


def test_options_are_checked(stored: Any) -> None:
    with pytest.raises(ValueError, match="has 10 pairs, of which 0 are held out; that is less than one batch of 64"):
        PreferenceDataModule(stored())
    with pytest.raises(ValueError, match="has 10 pairs, of which 8 are held out"):
        PreferenceDataModule(stored(), num_validation=8, batch_size=3)
    with pytest.raises(ValueError, match="data.num_validation is 0; give how many"):
        PreferenceDataModule(stored(), validation_preferences=stored(), batch_size=2)
    with pytest.raises(ValueError, match="data.batch_size is 0"):
        PreferenceDataModule(stored(), batch_size=0)


def test_pairs_of_which_some_are_scored_are_refused(attach: Attach, stored: Any) -> None:
    mixed = [stored(**SCORES)[0], stored()[1]]
    with pytest.raises(ValueError, match="1 of 2 pairs of a batch have scores; score all of them or none"):
        next(iter(attach(PreferenceDataModule(mixed, batch_size=2)).train_dataloader()))
