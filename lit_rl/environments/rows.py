"""Reading rows of local files and of data sets on the Hugging Face hub."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE_TYPES = (".jsonl", ".parquet")


def read_rows(
    path: str | Path, columns: Sequence[str], split: str = "train", subset: str | None = None
) -> list[dict[str, Any]]:
    """All rows of a data set, in its order, cut to some columns.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file, or the id of a data set on the hub.
        columns: Wanted of each row; none of them may be missing or null.
        split: Of a hub data set; ``train[:100]`` takes a part.  A file has no splits.
        subset: Of a hub data set that has several, such as "main" of openai/gsm8k.

    Raises:
        ValueError: Missing or empty file, a type we do not read, a malformed row, one without a column (naming file
            and row, counted from 1), or a hub that cannot be reached or has no such data set.
    """
    file = Path(path).expanduser()
    if file.suffix in FILE_TYPES:
        if not file.is_file():
            raise ValueError(
                f"There is no file {path}; give a {' or '.join(FILE_TYPES)} file that exists, or a hub id."
            )
        found = _read_jsonl(file) if file.suffix == ".jsonl" else _read_parquet(file)
    elif file.exists() or str(path).startswith((".", "/", "~")):
        raise ValueError(f"{path} is not a file we read; give a {' or '.join(FILE_TYPES)} file, or a hub id.")
    else:
        found = _load_from_hub(str(path), split, subset)
    rows = [_cut(row, columns, f"{path}, row {number}") for number, row in enumerate(found, start=1)]
    if not rows:
        raise ValueError(f"{path} has no rows.")
    return rows


def _cut(row: Any, columns: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: it is {json.dumps(row)[:60]}, not an object with named columns.")
    for column in columns:
        if row.get(column) is None:
            raise ValueError(f"{where}: there is no column {column!r} in it; it has {sorted(row)}.")
    return {column: row[column] for column in columns}


def _read_jsonl(file: Path) -> Iterator[Any]:
    text = file.read_text(encoding="utf-8").rstrip()
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, row {number}: it is not JSON ({error}); write one object a line.") from error


def _read_parquet(file: Path) -> Iterable[Mapping[str, Any]]:
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {error}") from error
    return rows


def _load_from_hub(name: str, split: str, subset: str | None) -> Iterable[Mapping[str, Any]]:
    import datasets

    try:
        found: Iterable[Mapping[str, Any]] = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # of many kinds: no such id, no network, no such split, a gated data set
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"Cannot load {name!r} (split {split!r}, subset {subset!r}): it is no {' or '.join(FILE_TYPES)} file, and "
            f"the Hugging Face hub gave {type(error).__name__}: {reason}"
        ) from error
    return found
