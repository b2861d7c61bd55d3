"""The artifact directory: the one thing a run leaves, and all that a replica reads. No torch, no pickle.

manifest.json              written last, so that its presence means the rest is whole
neighbours.npz             embeddings float16 [n, width], reference_distances float32 [m + n] ascending
neighbours.json            the training rows' answers, [n]
head.npz, labels.json      rung head: weights float32 [L, width], bias [L]; the labels, [L]
adapter_config.json, adapter_model.safetensors    rung lora, as vLLM loads them
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

MANIFEST = "manifest.json"
NEIGHBOURS_K = 5  # the neighbour whose distance is the novelty, and how many are shown
ROWS_AT_ONCE = 512  # of a matrix of all rows with all rows, which as a whole would not fit

Matrix = NDArray[np.float32]


class UnableToReadArtifact(Exception):
    """The directory is not a whole, unaltered artifact. The message names files, never paths or rows."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the artifact is, where it came from, and the SHA-256 of each of its files by name."""

    adapter: str
    rung: str
    kind: str
    base_model: str
    licence: str
    dataset_hash: str
    policy: str
    spec_hash: str
    marker: str = ""
    labels: tuple[str, ...] = ()
    prompt_prefix: str = ""
    prompt_suffix: str = ""
    control_tokens: tuple[str, ...] = ()
    max_query_chars: int = 0  # the longest query it was trained on
    max_output_tokens: int = 64
    rank: int = 0
    metrics: dict[str, float] = {}
    files: dict[str, str] = {}


def measure_distances(queries: Matrix, rows: Matrix, *, k: int = NEIGHBOURS_K) -> Matrix:
    """Cosine distance of each query [m, width] to its k-th nearest row [n, width], both of unit length: [m] ascending.

    With fewer than k rows, to the farthest. This is the reference that a live query's novelty is ranked in.
    """
    if not len(queries):
        return np.empty(0, dtype=np.float32)
    nth = min(k, len(rows))
    similarity = np.partition(queries @ rows.T, len(rows) - nth, axis=1)[:, len(rows) - nth]
    return np.sort(1.0 - similarity).astype(np.float32)


def measure_own_distances(rows: Matrix, *, k: int = NEIGHBOURS_K) -> Matrix:
    """Cosine distance of each row [n, width] of unit length to its k-th nearest other row: [n] ascending.

    With fewer than k others, to the farthest; of a lone row there is none.
    """
    nth = min(k, len(rows) - 1)
    if nth < 1:
        return np.empty(0, dtype=np.float32)
    found = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        similarity = rows[start : start + ROWS_AT_ONCE] @ rows.T
        own = np.arange(len(similarity))
        similarity[own, start + own] = -np.inf
        found.append(np.partition(similarity, len(rows) - nth, axis=1)[:, len(rows) - nth])
    return np.sort(1.0 - np.concatenate(found)).astype(np.float32)


def write_neighbours(out: Path, *, rows: Matrix, answers: Sequence[str], tuning: Matrix) -> None:
    """Store the training rows as float16, and what a live query's distance is ranked among.

    Those are the distances of the tuning rows, and of each training row to the others, to exactly what was stored: the
    tuning split alone is so small that its one odd row would set the bound (ADR 0006).
    """
    stored = rows.astype(np.float16)
    known = stored.astype(np.float32)
    reference = np.sort(np.concatenate([measure_distances(tuning, known), measure_own_distances(known)]))
    np.savez(out / "neighbours.npz", embeddings=stored, reference_distances=reference)
    (out / "neighbours.json").write_bytes(msgspec.json.encode(list(answers)))


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Seal the directory: hash every file in it, then let the manifest appear in one step."""
    names = sorted(path.name for path in out.iterdir() if path.is_file() and path.name != MANIFEST)
    whole = msgspec.structs.replace(manifest, files={name: digest_file(out / name) for name in names})
    unfinished = out / f"{MANIFEST}.tmp"
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=1))
    os.replace(unfinished, out / MANIFEST)


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest and check every file it lists. Raises UnableToReadArtifact."""
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise UnableToReadArtifact("no readable manifest") from error
    for name, digest in manifest.files.items():
        if Path(name).name != name or not (directory / name).is_file():
            raise UnableToReadArtifact(f"{name!r} is missing")
        if digest_file(directory / name) != digest:
            raise UnableToReadArtifact(f"{name!r} is not what the manifest says")
    return manifest


def digest_file(path: Path) -> str:
    """SHA-256 hex of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
