"""The state of a long computation in a file beside its output, from which it goes on when it has been killed."""

import hashlib
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from blindspots.steps.artifacts import whole_file
from blindspots.steps.step import log


class Checkpoint:
    """Keeps a state of tensors and plain values.

    identity: what the state is of; that of anything else is not gone on from.
    seconds:  at least so long apart states are kept, as each is written to the disk.
    """

    def __init__(self, path: Path, identity: str, seconds: float = 10):
        self.path, self.identity = path, identity
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    def load(self) -> dict[str, Any] | None:
        """The state that was kept last, if it is of this identity and undamaged; its tensors on the CPU."""
        if not self.path.exists():
            return None
        content = self.path.read_bytes()
        digest, state = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
        if hashlib.sha256(state).digest() != digest:  # torch.load does not notice a changed bit
            log.warning("%s is damaged: what it was a checkpoint of begins anew", self.path)
            return None
        kept = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        return kept["state"] if kept["identity"] == self.identity else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state, unless the last one is too young. Raises ArtifactError if it cannot be written."""
        if time.monotonic() < self._next:
            return
        content = io.BytesIO()
        torch.save({"identity": self.identity, "state": dict(state)}, content)
        with whole_file(self.path) as temporary:
            temporary.write_bytes(hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())
        self._next = time.monotonic() + self._seconds

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
