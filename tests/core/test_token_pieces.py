"""The bytes of tokens, by the tokenizers they come from: side by side they are the decoded text."""

import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from lit_rl.loading import load_tokenizer
from lit_rl.token_pieces import TokenPieces
from tests.core.tokenizers_of_ours import SENTENCES, byte_level_tokenizer, sentence_piece_tokenizer


def joined(pieces: TokenPieces, ids: list[int]) -> str:
    return b"".join(pieces[i] or b"" for i in ids).decode(errors="replace")


def test_words(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder)
    pieces = TokenPieces(tokenizer, vocabulary=len(tokenizer) + 3)
    assert len(pieces) == len(tokenizer) + 3 and pieces[len(tokenizer) :] == [None] * 3
    one, question = tokenizer.convert_tokens_to_ids(["one", "?"])
    assert (pieces[one], pieces[question]) == (b" one", b" ?")
    assert {i for i, piece in enumerate(pieces) if piece is None} == {*range(6), *range(len(tokenizer), len(pieces))}
    assert joined(pieces, [one, question, one]).strip() == tokenizer.decode([one, question, one])


def test_byte_level() -> None:
    tokenizer = byte_level_tokenizer()
    pieces = TokenPieces(tokenizer)
    for sentence in (*SENTENCES, "Über 5 € – naïve 漢字 \n\tand so on"):
        ids = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        assert joined(pieces, ids) == sentence == tokenizer.decode(ids)
    assert any(len(piece or b"") > 3 for piece in pieces), "tokens of several bytes"
    assert b"\xc3" in list(pieces), "a token may be half a character"
    assert pieces[tokenizer.convert_tokens_to_ids("<|end|>")] is None
    assert pieces[tokenizer.convert_tokens_to_ids("<think so>")] == b"<think so>", "added, but said"


def test_sentence_piece() -> None:
    tokenizer = sentence_piece_tokenizer()
    pieces = TokenPieces(tokenizer)
    ids = tokenizer("your order\nships", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<0x0A>") in ids, "a line break is a byte"
    assert joined(pieces, ids) == " your order\nships" and tokenizer.decode(ids) == "your order\nships"
    assert pieces[tokenizer.convert_tokens_to_ids("<0x41>")] == b"A"
    assert pieces[tokenizer.convert_tokens_to_ids("<0xC3>")] is None, "an invalid byte spoils its neighbours"


def test_random_ids_of_a_byte_level_tokenizer() -> None:
    """Incomplete characters included, whose number of marks is the decoder's own."""
    tokenizer, rng = byte_level_tokenizer(), random.Random(1)
    pieces = TokenPieces(tokenizer)
    said = [i for i, piece in enumerate(pieces) if piece is not None]
    for _ in range(200):
        ids = rng.choices(said, k=20)
        assert tokenizer.decode(ids).replace("\ufffd", "") == joined(pieces, ids).replace("\ufffd", "")


def word_piece() -> Any:
    core = tokenizers.Tokenizer(models.WordPiece({"<unk>": 0, "a": 1, "##b": 2, "c": 3, "##d": 4}, unk_token="<unk>"))
    core.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def tidied() -> Any:
    tokenizer = byte_level_tokenizer()
    core = tokenizer.backend_tokenizer
    core.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(" .", ".")])
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_texts_that_are_not_their_pieces_are_refused() -> None:
    for tokenizer in (word_piece(), tidied()):
        with pytest.raises(ValueError, match="is not its tokens' pieces side by side"):
            TokenPieces(tokenizer)
    with pytest.raises(ValueError, match=r"vocabulary is 7, but the tokenizer has \d+ tokens"):
        TokenPieces(byte_level_tokenizer(), vocabulary=7)
