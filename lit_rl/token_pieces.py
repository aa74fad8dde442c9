"""The bytes that each token adds to the decoded text, for constraints that are told as text."""

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenPieces(Sequence[bytes | None]):
    """Bytes by token id; None for a token that says nothing dependable, which no constrained reply may hold.

    Those are special tokens, ids without a token, and the bytes from 128 of tokenizers that fall back on bytes: a
    broken character among them spoils its neighbours when decoded.

    Three ways of decoding are known, and which one it is is tried out: byte-level BPE (GPT-2, Llama 3, Qwen),
    SentencePiece's (a space is written U+2581, unknown characters as ``<0xNN>``), and words joined by spaces
    (`lit_rl.tiny.TinyModel`).  The space that decoding drops at the very beginning is part of the piece.

    Args:
        tokenizer: A fast tokenizer of transformers.
        vocabulary: Width of the model's logits, which is often more than the tokenizer knows; by default that.

    Raises:
        ValueError: The text of random token ids is not what their pieces make, or ``vocabulary`` is too small.
    """

    def __init__(self, tokenizer: Any, vocabulary: int | None = None):
        size = len(tokenizer)
        if vocabulary is not None and vocabulary < size:
            raise ValueError(
                f"TokenPieces: vocabulary is {vocabulary}, but the tokenizer has {size} tokens; give the width of the "
                "model's logits."
            )
        names: list[str | None] = tokenizer.convert_ids_to_tokens(list(range(size)))
        special = set(tokenizer.all_special_ids)
        added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        for read in (_byte_level, _sentence_piece, _word):
            pieces = [
                None if name is None or i in special else read(name, added.get(i)) for i, name in enumerate(names)
            ]
            if _reproduces(pieces, tokenizer):
                break
        else:
            raise ValueError(
                f"The text of {tokenizer.name_or_path!r} is not its tokens' pieces side by side, as byte-level, "
                "SentencePiece-like and word-level tokenizers have it; token constraints told as text need one of "
                "those (and clean_up_tokenization_spaces=False)."
            )
        self._pieces = pieces + [None] * ((vocabulary or size) - size)

    def __len__(self) -> int:
        return len(self._pieces)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes | None]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes | None] | None:
        return self._pieces[index]

    def __iter__(self) -> Iterator[bytes | None]:
        return iter(self._pieces)


Reading = Callable[[str, str | None], bytes | None]


def _byte_level(name: str, added: str | None) -> bytes | None:
    if added is not None:
        return added.encode()
    return bytes(_BYTES[c] for c in name) if all(c in _BYTES for c in name) else name.encode()


def _sentence_piece(name: str, added: str | None) -> bytes | None:
    if byte := _BYTE_TOKEN.fullmatch(name):
        value = int(byte.group(1), 16)
        return bytes([value]) if value < 128 else None
    return (name if added is None else added).replace("\u2581", " ").encode()


def _word(name: str, added: str | None) -> bytes | None:
    return b" " + name.encode()


def _byte_names() -> dict[str, int]:
    """GPT-2's printable stand-ins: visible bytes are themselves, the others follow from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_names()
_TIDIED = (b"", b".", b",", b"?", b"!", b"'", b"n't", b"'s", b"'m", b"'ve", b"'re")  # some decoders move spaces there


def _reproduces(pieces: Sequence[bytes | None], tokenizer: Any) -> bool:
    """Whether decoding gives the pieces side by side: every token once in random company, punctuation in all pairs."""
    rng = random.Random(0)
    said = [i for i, piece in enumerate(pieces) if piece is not None]
    if not said:
        return False
    order = rng.sample(said, len(said)) + rng.choices(said, k=512)
    marks = [i for i in said if (pieces[i] or b"").strip() in _TIDIED][:40]
    order += [i for pair in itertools.product(marks, repeat=2) for i in pair]
    for start in range(0, len(order), 32):
        ids = order[start : start + 32]
        joined = b"".join(pieces[i] or b"" for i in ids).decode(errors="replace")
        if _comparable(tokenizer.decode(ids, skip_special_tokens=True)) != _comparable(joined):
            return False
    return True


def _comparable(text: str) -> str:
    """Without the one space a decoder may drop at the beginning; how many marks a broken character gets is its own."""
    return re.sub("\ufffd+", "\ufffd", text.removeprefix(" "))
