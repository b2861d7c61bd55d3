"""Where a run's progress survives the process: one safetensors file, replaced in one step, stamped with its claim."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

FILE = "checkpoint.safetensors"


class UnableToCheckpoint(Exception):
    """A later claim of the run has written here: this trainer is no longer the run's, and must stop."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Progress after `step` steps: tensors by name (weights and optimiser moments)."""

    step: int
    tensors: dict[str, torch.Tensor]


class CheckpointStore:
    """The checkpoint of one run, as one claim of it sees it."""

    def __init__(self, directory: Path, *, spec_hash: str, fencing_token: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._spec_hash = spec_hash
        self._token = fencing_token

    def load(self) -> Checkpoint | None:
        """The last checkpoint, or None if there is none of this very spec. Raises UnableToCheckpoint if fenced off."""
        with self._locked():
            stamp = self._read_stamp()
            if stamp is None or stamp["spec_hash"] != self._spec_hash:
                return None
            with safe_open(self._directory / FILE, framework="pt") as file:
                return Checkpoint(int(stamp["step"]), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint. Raises UnableToCheckpoint and changes nothing if a later claim wrote it."""
        stamp = {"step": str(checkpoint.step), "spec_hash": self._spec_hash, "fencing_token": str(self._token)}
        unfinished = self._directory / f"{FILE}.{os.getpid()}.tmp"
        save_file(checkpoint.tensors, unfinished, metadata=stamp)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        with self._locked():
            self._read_stamp()
            os.replace(unfinished, self._directory / FILE)

    def _read_stamp(self) -> dict[str, str] | None:
        path = self._directory / FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                stamp: dict[str, str] = file.metadata() or {}
        except SafetensorError:
            return None  # not ours, or torn by a full disk: start over
        if not {"step", "spec_hash", "fencing_token"} <= stamp.keys():
            return None
        if int(stamp["fencing_token"]) > self._token:
            raise UnableToCheckpoint("a later claim of this run has written a checkpoint")
        return stamp

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # without it a late trainer could look, be overtaken, and then replace the new claim's checkpoint
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
