"""Names of random streams as numbers; needs no torch."""

import hashlib


def stream_key(*parts: int | str) -> int:
    """A 63-bit key of what identifies a random stream, e.g. ``(run seed, "train", episode, party)``."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
