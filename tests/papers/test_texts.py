import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_rl.papers.texts import CUT, PaperText, cut_middle, read_papers


def count_words(text: str) -> int:
    return len(text.split())


def test_pages() -> None:
    assert PaperText(paper_id="p", text="one\ftwo\fthree").pages == ["one", "two", "three"]
    assert PaperText(paper_id="p", text="one\ftwo").page1_text == "one"
    assert PaperText(paper_id="p", text="all").page1_text is None


def test_jsonl_parquet_and_markdown_give_the_same_papers(tmp_path: Path) -> None:
    import datasets

    rows = [{"paper_id": "a", "text": "A one\fA two"}, {"paper_id": "b", "text": "B"}]
    (tmp_path / "papers.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "papers.parquet")
    folder = tmp_path / "papers"
    folder.mkdir()
    for row in reversed(rows):
        (folder / f"{row['paper_id']}.md").write_text(row["text"])
    (folder / "notes.txt").write_text("no paper")
    wanted = [PaperText(paper_id="a", text="A one\fA two"), PaperText(paper_id="b", text="B")]
    assert read_papers(tmp_path / "papers.jsonl") == wanted
    assert read_papers(tmp_path / "papers.parquet") == wanted
    assert read_papers(folder) == wanted
    assert read_papers(folder / "b.md") == wanted[1:]


def test_bad_files(tmp_path: Path) -> None:
    file = tmp_path / "papers.jsonl"
    file.write_text('{"paper_id": "a", "text": "A"}\n{"paper_id": "a", "text": "B"}')
    with pytest.raises(ValueError, match=r"papers.jsonl, row 2: the paper_id 'a' is that of row 1 too"):
        read_papers(file)
    file.write_text('{"paper_id": "a", "text": "A"}\n{"paper_id": "b", "text": " "}')
    with pytest.raises(ValueError, match=r"papers.jsonl, row 2: column 'text' holds ' '"):
        read_papers(file)
    with pytest.raises(ValueError, match=r"has no .md or .markdown file"):
        read_papers(tmp_path)
    with pytest.raises(ValueError, match="There is no file"):
        read_papers(tmp_path / "none.md")
    (tmp_path / "empty.md").write_text(" ")
    with pytest.raises(ValueError, match=r"empty.md is empty"):
        read_papers(tmp_path / "empty.md")
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"latin.md is not UTF-8"):
        read_papers(tmp_path / "latin.md")


def test_the_middle_is_cut_by_hand() -> None:
    assert cut_middle("a b c d e f", count_words, 6) == "a b c d e f"
    assert cut_middle("a b c d e f", count_words, 5, mark=" ... ") == "a b ... e f"
    assert cut_middle("a b c d e f", count_words, 4, mark=" ... ") == "a b ... f"
    assert cut_middle("a b c d e f", count_words, 2, mark=" ... ") == "a ... "
    with pytest.raises(ValueError, match="max_tokens is 1, too few for the mark and a word"):
        cut_middle("a b c d e f", count_words, 1, mark=" ... ")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a ", "bb\n", "c\f", "d" * 90, "  "])).map("".join), st.integers(50, 300))
def test_what_is_kept_fits_and_is_head_and_tail(text: str, limit: int) -> None:
    cut = cut_middle(text, len, limit)
    assert len(cut) <= limit
    if len(text) <= limit:
        assert cut == text
        return
    head, tail = cut.split(CUT)
    assert text.startswith(head) and text.endswith(tail)
    assert len(head) >= 1 and len(cut) > limit - 85  # a word more on either side would not have fitted


def test_as_much_is_kept_as_fits() -> None:
    text = " ".join(["word"] * 1000)
    assert count_words(cut_middle(text, count_words, 300)) == 300


def test_a_tokenizer_counts_its_own_tokens() -> None:
    class Letters:
        def __call__(self, text: str) -> dict[str, list[int]]:
            raise AssertionError("a tokenizer is asked to encode")

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [ord(letter) for letter in text]

    assert cut_middle("aa bb cc dd", Letters(), 8, mark="|") == "aa bb|dd"
