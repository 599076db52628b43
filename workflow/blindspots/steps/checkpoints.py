"""Checkpoints: the state of a long computation in a file beside its output.

A computation that was killed continues from its checkpoint.
"""

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
    """A file that keeps a state of tensors and plain values.

    Attributes:
        path: The file.
        identity: What the state belongs to. A state with another identity is not loaded.
    """

    def __init__(self, path: Path, identity: str, seconds: float = 10):
        """Describe a checkpoint; nothing is read or written yet.

        Args:
            path: The file.
            identity: What the state belongs to.
            seconds: The least time in seconds between two saved states, since each is written to the disk.
        """
        self.path, self.identity = path, identity
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    def load(self) -> dict[str, Any] | None:
        """Load the last saved state.

        Returns:
            The state, with its tensors on the CPU. None if there is no file, if the file is damaged, or if
            the state has another identity.
        """
        if not self.path.exists():
            return None
        content = self.path.read_bytes()
        digest, state = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
        if hashlib.sha256(state).digest() != digest:  # torch.load does not detect a changed bit.
            log.warning("%s is damaged: what it was a checkpoint of begins anew", self.path)
            return None
        kept = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        return kept["state"] if kept["identity"] == self.identity else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Save a state, unless the last one is too recent.

        Args:
            state: Tensors and plain values by name.
        Raises:
            ArtifactError: If the file cannot be written.
        """
        if time.monotonic() < self._next:
            return
        content = io.BytesIO()
        torch.save({"identity": self.identity, "state": dict(state)}, content)
        with whole_file(self.path) as temporary:
            temporary.write_bytes(hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())
        self._next = time.monotonic() + self._seconds

    def remove(self) -> None:
        """Delete the file, if it is there."""
        self.path.unlink(missing_ok=True)
