"""Parts of a data set that share no row: shuffled by a fixed seed, then some skipped and some taken."""

import hashlib


def row_order(count: int, shuffle_seed: int | None) -> list[int]:
    """Places ``0 ... count - 1``; shuffled by a seed alike on every machine, or as they are for None."""
    order = list(range(count))
    if shuffle_seed is not None:
        order.sort(key=lambda row: hashlib.blake2b(f"{shuffle_seed} {row}".encode(), digest_size=16).digest())
    return order


def check_part(name: str, skip: int, take: int | None) -> None:
    """Raise ValueError unless a part can be meant by ``skip`` and ``take``; ``name`` is whose arguments they are."""
    if skip < 0:
        raise ValueError(f"{name}.skip is {skip}; it must be 0 or more.")
    if take is not None and take < 1:
        raise ValueError(f"{name}.take is {take}; it must be at least 1, or null for all that follow.")


def check_rest(name: str, count: int, skip: int, take: int | None) -> None:
    """Raise ValueError unless a data set of ``count`` usable rows has that part."""
    wanted = skip + (take or 1)
    if count < wanted:
        raise ValueError(
            f"{name} has {count} usable rows, and skip={skip} with take={take} needs {wanted}; lower skip or take."
        )


def part_of(name: str, count: int, shuffle_seed: int | None, skip: int, take: int | None) -> list[int]:
    """Places of the part in a data set of ``count`` usable rows; raises ValueError if it has too few."""
    check_rest(name, count, skip, take)
    return row_order(count, shuffle_seed)[skip:][:take]
