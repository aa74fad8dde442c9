"""Replies on disk, so that a run that is stopped and resumed asks nothing twice."""

import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from lit_rl.environments.base import Reply
from lit_rl.parties import Call
from lit_rl.remote.settings import RemoteSettings, as_chat

_FORMAT = 1
_STOPS = ("end", "length")


def digest_of(model: str, settings: RemoteSettings, call: Call) -> str:
    """Identifies a request: model, settings, messages and the call's key (of run seed, episode, turn and attempt).

    The address is left out, for the same server may come back on another machine.
    """
    facts = [_FORMAT, model, settings.facts(), as_chat(call.messages), call.key]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class ReplyCache:
    """One small file per reply (4 kB on most disks); nothing is ever removed, so delete the folder after the run.

    A file appears whole or not at all; a process killed in between leaves one named ``.part``, which nobody reads.
    Several processes may share the folder: the first reply to
    a request counts for all of them.  The file system must know hard links.

    Args:
        folder: Made if it is not there.

    Raises:
        ValueError: It cannot be made or written to.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise ValueError(f"cache_folder {str(folder)!r} cannot be written to ({error}); give another.") from error

    def get(self, digest: str) -> Reply | None:
        """The reply kept, or None.  A file that was damaged is ignored with a warning."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        reply = _read(data, digest)
        if reply is None:
            warnings.warn(f"{path} is no whole reply (damaged or torn); it is ignored and asked again.", stacklevel=2)
        return reply

    def put(self, digest: str, reply: Reply) -> Reply:
        """Keep a reply, unless another process kept one to the same request first; the one that counts."""
        path = self._path(digest)
        path.parent.mkdir(exist_ok=True)
        record = {"request": digest, "text": reply.text, "stop_reason": reply.stop_reason}
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        scratch = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(record).encode())
            return self._publish(scratch, path, digest) or reply
        finally:
            scratch.unlink(missing_ok=True)

    def _publish(self, scratch: Path, path: Path, digest: str) -> Reply | None:
        """Give the file its name; the reply that has it already, if one has."""
        try:
            os.link(scratch, path)
        except FileExistsError:
            first = self.get(digest)
            if first is not None:
                return first
            os.replace(scratch, path)
        return None

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.json"


def _read(data: bytes, digest: str) -> Reply | None:
    try:
        record: Any = json.loads(data)
        if record["request"] == digest and isinstance(record["text"], str) and record["stop_reason"] in _STOPS:
            return Reply(text=record["text"], stop_reason=record["stop_reason"])
    except (ValueError, TypeError, KeyError):
        return None
    return None
