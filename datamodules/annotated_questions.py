"""Annotated questions about papers, split by paper, in batches of what a frozen backbone made of them."""

import time
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import lightning as L

from lit_rl.datamodules.online import at_least_one
from lit_rl.datamodules.order import ShuffledOrder, run_seed
from lit_rl.datamodules.stream import RolloutStream
from lit_rl.distributed import rank, world_size
from lit_rl.papers.annotations import annotated_questions
from lit_rl.papers.records import LayoutName, QuestionRecord, read_questions, shared_papers, split_by_paper
from lit_rl.papers.synthetic import SyntheticPapers
from lit_rl.reward_models.batch import QuestionBatch
from lit_rl.reward_models.cache import RepresentationCache

Part = Literal["train", "val", "test"]


class QuestionSource(Protocol):
    """Records by index, the same for every run; any sequence of `QuestionRecord`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> QuestionRecord: ...


class StoredQuestions:
    """Records of a JSONL or Parquet file or a data set on the hub, see `lit_rl.papers.read_questions`.

    Args:
        path: The file, or a hub id.
        layout: "released" for the published annotations, "own" for columns named as the fields of a record.
        split: Of a hub data set.
        subset: Of a hub data set that has several.
    """

    def __init__(self, path: str, layout: LayoutName = "released", *, split: str = "train", subset: str | None = None):
        self._records = read_questions(path, layout, split=split, subset=subset)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> QuestionRecord:
        return self._records[index]


class SyntheticQuestions:
    """One question of each of four sources about every synthetic paper, with labels that are now and then wrong.

    Args:
        papers: Number of papers.
        seed: Which papers, questions and errors.
        flip_rate: How often a label is the opposite of the oracle's.
    """

    def __init__(self, papers: int = 100, *, seed: int = 0, flip_rate: float = 0.0):
        self._records = annotated_questions(SyntheticPapers(papers, seed), flip_rate=flip_rate, seed=seed)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> QuestionRecord:
        return self._records[index]


class AnnotatedQuestions(L.LightningDataModule):
    """Batches for `lit_rl.methods.IntelliReward`, in an order that depends on the seed alone.

    No paper is in two parts: what is validated on is cut from the training questions by paper, and so is what is tested
    on unless it is given.  An epoch is one pass; its last batch may be smaller.  Where the backbone is frozen, its
    states are computed once and found on disk by every later run.

    Args:
        questions: To learn from.
        test_questions: To test on, never to validate on; None takes ``test_share``.
        validation_share: Share of the papers of ``questions`` that is validated on; 0 for none.
        test_share: Share of the papers of ``questions`` that is tested on.
        shared_papers: What to do if ``test_questions`` has papers of ``questions``: "stop", or "drop" their training
            questions.
        batch_size: Questions per batch, over all ranks.
        cache: Folder of the computed states; None is that of `RepresentationCache`.
        seed: Of order and split; None takes that of ``seed_everything``.
    """

    def __init__(
        self,
        questions: QuestionSource,
        *,
        test_questions: QuestionSource | None = None,
        validation_share: float = 0.1,
        test_share: float = 0.0,
        shared_papers: Literal["stop", "drop"] = "stop",
        batch_size: int = 8,
        cache: str | None = None,
        seed: int | None = None,
    ):
        super().__init__()
        at_least_one(batch_size=batch_size)
        for name, share in (("validation_share", validation_share), ("test_share", test_share)):
            if not 0 <= share < 1:
                raise ValueError(f"data.{name} is {share}; it must be at least 0 and below 1.")
        if test_questions is not None and test_share:
            raise ValueError(
                "data.test_share cuts from data.questions what data.test_questions gives; set one of them."
            )
        self.seed, self.batch_size, self.cache = run_seed(seed), batch_size, cache
        train = [questions[index] for index in range(len(questions))]
        _check_labels(train, "data.questions")
        if test_questions is not None:
            test = [test_questions[index] for index in range(len(test_questions))]
            _check_labels(test, "data.test_questions")
            train = _without_shared(train, test, shared_papers)
        else:
            train, test = _cut(train, test_share, self.seed)
        train, held_out = _cut(train, validation_share, self.seed + 1)
        if not train:
            raise ValueError("data.questions has no question left to learn from; give more, or hold out fewer.")
        self.records: dict[Part, list[QuestionRecord]] = {"train": train, "val": held_out, "test": test}
        self.batches_per_epoch = -(-len(train) // batch_size)
        self._order = ShuffledOrder(len(train), self.seed)
        self._encoded: dict[Part, QuestionBatch] = {}
        self._stream: RolloutStream | None = None

    def check_use(self, stage: str, module: Any) -> None:
        """Raise ValueError if ``module`` is no reward model, or there is nothing to do ``stage`` on."""
        if not hasattr(module, "reward_model"):
            raise ValueError(
                f"data is AnnotatedQuestions, which {type(module).__name__} cannot learn from; it takes "
                "lit_rl.methods.IntelliReward."
            )
        if stage in ("validate", "predict") and not self.records["val"]:
            raise ValueError("data.validation_share is 0, so there is nothing to validate on; hold some papers out.")
        if stage == "test" and not self.records["test"]:
            raise ValueError("There is nothing to test on: give data.test_questions or data.test_share.")

    def train_dataloader(self) -> RolloutStream:
        """The one stream of the run; its place in the order is in the checkpoint."""
        if self._stream is None:
            self._stream = RolloutStream(self._training_batch, self.batches_per_epoch)
        return self._stream

    def val_dataloader(self) -> list[RolloutStream]:
        return [self._pass_over("val")] if self.records["val"] else []

    def test_dataloader(self) -> list[RolloutStream]:
        return [self._pass_over("test")]

    def predict_dataloader(self) -> list[RolloutStream]:
        return [self._pass_over("val")]

    # -- batches -----------------------------------------------------------------------------------------------

    def _training_batch(self, number: int) -> Any:
        """Batch ``number`` of the run; a rank may get no row of an epoch's last one."""
        epoch, place = divmod(number, self.batches_per_epoch)
        count = len(self.records["train"])
        places = range(place * self.batch_size, min((place + 1) * self.batch_size, count))[rank() :: world_size()]
        start, first = time.perf_counter(), not self._encoded
        batch = self._batch("train", [self._order[epoch * count + place] for place in places])
        if first:
            batch.figures["time/encoding_seconds"] = time.perf_counter() - start
        return batch

    def _pass_over(self, part: Part) -> RolloutStream:
        """Every record of a part once; ranks without any get an empty batch."""
        mine = range(len(self.records[part]))[rank() :: world_size()]

        def collect(number: int) -> Any:
            return self._batch(part, mine[number * self.batch_size : (number + 1) * self.batch_size])

        return RolloutStream(collect, max(1, -(-len(mine) // self.batch_size)), repeat=True)

    def _batch(self, part: Part, places: Sequence[int]) -> QuestionBatch:
        if part not in self._encoded:
            self._encoded[part] = self._encode(self.records[part])
        whole = self._encoded[part]
        found = None if whole.representations is None else whole.representations[list(places)]
        return QuestionBatch([whole.records[i] for i in places], [whole.rows[i] for i in places], found)

    def _encode(self, records: Sequence[QuestionRecord]) -> QuestionBatch:
        """All records of a part, rendered, and run through the backbone if it is frozen."""
        module: Any = getattr(self.trainer, "lightning_module", None)
        model = getattr(module, "reward_model", None)
        if model is None:
            raise RuntimeError("AnnotatedQuestions need a module with a loaded `reward_model`: attach one first.")
        rows = [model.prompts.ids(record.paper_text, record.question) for record in records]
        if model.config.train_backbone:
            return QuestionBatch(records, rows)
        cache = RepresentationCache(model.backbone.identity, model.config.pool_tokens, self.cache)
        return QuestionBatch(records, rows, cache.fetch(rows, model.represent, module.micro_batch_tokens))


def _check_labels(records: Sequence[QuestionRecord], option: str) -> None:
    for number, record in enumerate(records):
        if record.labels == (None, None, None):
            raise ValueError(
                f"{option}: record {number} (of paper {record.paper_id!r}) has no label; leave out what nobody "
                "annotated."
            )


def _cut(records: list[QuestionRecord], share: float, seed: int) -> tuple[list[QuestionRecord], list[QuestionRecord]]:
    return split_by_paper(records, share, seed) if share else (records, [])


def _without_shared(
    train: list[QuestionRecord], test: list[QuestionRecord], what: Literal["stop", "drop"]
) -> list[QuestionRecord]:
    shared = shared_papers(train, test)
    if shared and what == "stop":
        raise ValueError(
            f"data.questions and data.test_questions share {len(shared)} papers, the first is {shared[0]!r}; set "
            "data.shared_papers to 'drop' to leave their training questions out."
        )
    return [record for record in train if record.paper_id not in set(shared)]
