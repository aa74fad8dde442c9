"""Texts of real papers: where they are read from, their pages, and how a long one is made to fit.

The paper is cut, never the prompt rendered from it: that would lose the question at its end, or page one and the
instruction at its beginning (intelli.md section 1.4).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lit_rl.environments.rows import read_rows
from lit_rl.environments.stored_tasks import cell_text, check_ids

MARKDOWN = (".md", ".markdown")
CUT = "\n[...]\n"  # stands where the middle was


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperText:
    """The whole text of one paper."""

    paper_id: str
    text: str

    @property
    def pages(self) -> list[str]:
        """Its pages, between form feeds; one page if there is none."""
        return pages_of(self.text)

    @property
    def page1_text(self) -> str | None:
        """Its first page, or None: without form feeds nobody knows where that ends."""
        return self.pages[0] if "\f" in self.text else None


def pages_of(text: str) -> list[str]:
    """The pages of a text, between form feeds."""
    return text.split("\f")


def read_papers(
    path: str | Path, text: str = "text", paper_id: str = "paper_id", *, split: str = "train", subset: str | None = None
) -> list[PaperText]:
    """Papers of a ``.jsonl`` or ``.parquet`` file, a hub data set, a Markdown file, or a folder of Markdown files.

    A Markdown file is one paper, named by the file; those of a folder come in the order of their names.

    Args:
        path: Where they are.
        text: Column with the text.
        paper_id: Column that names papers.
        split: Of a hub data set.
        subset: Of a hub data set that has several.

    Raises:
        ValueError: As `read_rows`, an empty text, a name that occurs twice (naming file and row), or a folder without
            Markdown files.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.suffix in MARKDOWN)
        if not files:
            raise ValueError(f"The folder {path} has no {' or '.join(MARKDOWN)} file; give one that has, or a file.")
        return [_markdown(file) for file in files]
    if place.suffix in MARKDOWN:
        return [_markdown(place)]
    rows = read_rows(path, [paper_id, text], split=split, subset=subset)
    papers = [_paper(row, text, paper_id, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
    check_ids(str(path), ((paper.paper_id, number) for number, paper in enumerate(papers, start=1)), paper_id)
    return papers


def _paper(row: dict[str, Any], text: str, paper_id: str, where: str) -> PaperText:
    whole = row[text]
    if not isinstance(whole, str) or not whole.strip():
        raise ValueError(f"{where}: column {text!r} holds {str(whole)[:60]!r}; wanted the text of a paper.")
    return PaperText(paper_id=cell_text(row[paper_id], paper_id, where), text=whole)


def _markdown(file: Path) -> PaperText:
    if not file.is_file():
        raise ValueError(f"There is no file {file}; give a Markdown file that exists.")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error}); save it as UTF-8.") from error
    if not text.strip():
        raise ValueError(f"{file} is empty; wanted the text of a paper.")
    return PaperText(paper_id=file.stem, text=text)


class Tokenizer(Protocol):
    """What `cut_middle` needs of a tokenizer of transformers."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""
        ...


def cut_middle(text: str, tokenizer: Tokenizer | Callable[[str], int], max_tokens: int, mark: str = CUT) -> str:
    """The text if it fits, else its head and its tail, with ``mark`` in place of as little of the middle as need be.

    Cut between words, or within those of more than 40 letters; head and tail have as many each, the head the odd one.

    Args:
        text: Of a paper, before it goes into a prompt.
        tokenizer: One of transformers, or a function that says how many tokens a text has.
        max_tokens: Most tokens of what is returned, ``mark`` included.
        mark: Stands where something was cut.

    Raises:
        ValueError: ``max_tokens`` is too few for the mark and a word.
    """
    length = _length(tokenizer)
    if length(text) <= max_tokens:
        return text
    starts = [word.start() for word in re.finditer(r"\S{1,40}", text)]  # also where a text has no spaces

    def kept(words: int) -> str:
        head, tail = (words + 1) // 2, words // 2
        rest = text[starts[-tail] :] if tail else ""
        return text[: starts[head]].rstrip(" ") + mark + rest

    fewest, too_many = 0, len(starts)  # tokens rise with words but for a few at the seams: bisect, then make sure
    while too_many - fewest > 1:
        words = (fewest + too_many) // 2
        fewest, too_many = (words, too_many) if length(kept(words)) <= max_tokens else (fewest, words)
    while fewest and length(kept(fewest)) > max_tokens:
        fewest -= 1
    if not fewest:
        raise ValueError(f"cut_middle: max_tokens is {max_tokens}, too few for the mark and a word; raise it.")
    return kept(fewest)


def _length(tokenizer: Tokenizer | Callable[[str], int]) -> Callable[[str], int]:
    encode: Any = getattr(tokenizer, "encode", None)  # a tokenizer can be called too, but gives no number
    if encode is None:
        count: Any = tokenizer
        return lambda text: int(count(text))
    return lambda text: len(encode(text, add_special_tokens=False))
