"""Which weights lie in a folder, and which method wrote them there."""

import hashlib
import json
from pathlib import Path

MADE_BY = "made_by.json"
_SCALE = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")  # of an adapter: part of what it adds


def digest(folder: str | Path) -> bytes:
    """SHA-256 of the weights in a folder, and of how they are scaled if they are an adapter's; reads every byte.

    Raises:
        ValueError: There are no ``.safetensors`` in it.
    """
    path = Path(folder)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ValueError(f"There are no weights (*.safetensors) in {folder}.")
    found = hashlib.sha256()
    config = path / "adapter_config.json"
    if config.is_file():
        written = json.loads(config.read_text())
        found.update(json.dumps({name: written.get(name) for name in _SCALE}, sort_keys=True).encode())
    for file in files:
        found.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(2**24):
                found.update(block)
    return found.digest()


def sign(folder: str | Path, *, method: str, optimizer_steps: int) -> None:
    """Say beside the weights in a folder who made them, and which they are."""
    facts = {"method": method, "optimizer_steps": optimizer_steps, "fingerprint": digest(folder).hex()}
    (Path(folder) / MADE_BY).write_text(json.dumps(facts) + "\n")


def check_signed(folder: str | Path, *, method: str) -> None:
    """Raise ValueError unless the weights in a folder are those that a training with ``method`` wrote there."""
    path = Path(folder) / MADE_BY
    if not path.is_file():
        raise ValueError(f"{folder} was not written by a training with {method}: it holds no {MADE_BY}.")
    facts = json.loads(path.read_text())
    if facts.get("method") != method:
        raise ValueError(f"{folder} was written by a training with {facts.get('method')}, not with {method}.")
    if not facts.get("optimizer_steps"):
        raise ValueError(f"{folder} was written by {method} before its first optimizer step: nothing is learned yet.")
    if facts.get("fingerprint") != digest(folder).hex():
        raise ValueError(f"The weights in {folder} are not those that {method} wrote there: they were replaced since.")
