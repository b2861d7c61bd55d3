"""What the encoder holds in memory of each adapter, and what it can say of a query vector with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from serving.core.gates import Rung
from serving.core.novelty import p_value
from training.lora.artifact import NEIGHBOURS_K, Manifest, UnableToReadArtifact, read_manifest

SHOWN_LABELS = 5


class UnableToLoad(Exception):
    """The path is not an artifact this process may or can serve; the message is safe to show."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one query for one adapter. `labels` is empty for a LoRA, whose answer comes from vLLM.

    `labels`: the likeliest five with their probabilities, falling. `entropy`: over all labels, in nats.
    `similarity`: cosine to the k-th nearest training row. `neighbours`: those k rows' answers and similarities.
    `novelty`: conformal p-value of 1 - similarity among the adapter's own rows'. `neighbour_agreement`: share of the
    neighbours whose answer is the one that was asked about, or else the head's own; None if there is neither.
    """

    labels: list[tuple[str, float]]
    entropy: float
    similarity: float
    neighbours: list[tuple[str, float]]
    neighbour_agreement: float | None
    novelty: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """One adapter's rows, reference distances and, for a head, its linear layer."""

    manifest: Manifest
    rows: torch.Tensor  # [n, width] float32, of unit length up to float16
    answers: tuple[str, ...]  # [n]
    reference: tuple[float, ...]  # what distances are ranked among, ascending
    labels: tuple[str, ...]  # [L], empty for a LoRA
    weights: torch.Tensor  # [L, width]
    bias: torch.Tensor  # [L]

    def judge(self, vector: torch.Tensor, *, answer: str | None) -> Verdict:
        """Say what is known of the query with this vector [width]."""
        labels, entropy = self._weigh_labels(vector)
        nearest = torch.topk(self.rows @ vector, min(NEIGHBOURS_K, len(self.answers)))
        neighbours = [
            (self.answers[row], similarity)
            for row, similarity in zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True)
        ]
        similarity = min(1.0, max(-1.0, neighbours[-1][1]))
        given = answer if answer is not None else (labels[0][0] if labels else None)
        return Verdict(
            labels=labels,
            entropy=entropy,
            similarity=similarity,
            neighbours=neighbours,
            neighbour_agreement=share_agreeing(neighbours, given),
            novelty=p_value(1.0 - similarity, self.reference),
        )

    def _weigh_labels(self, vector: torch.Tensor) -> tuple[list[tuple[str, float]], float]:
        if not self.labels:
            return [], 0.0
        logs = torch.log_softmax(self.weights @ vector + self.bias, dim=0).double()
        chances = logs.exp()
        best = torch.topk(chances, min(SHOWN_LABELS, len(self.labels)))
        shown = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.labels[label], chance) for label, chance in shown], max(0.0, float(-(chances * logs).sum()))


def share_agreeing(neighbours: Sequence[tuple[str, float]], answer: str | None) -> float | None:
    """Share of the neighbours that gave this answer; None if there is no answer to compare."""
    if answer is None:
        return None
    return sum(each == answer for each, _ in neighbours) / len(neighbours)


def resolve_inside(path: str, *, root: Path) -> Path:
    """The real directory behind `path`, links followed. Raises UnableToLoad if it is not below `root`."""
    try:
        real = Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UnableToLoad("the path is not there") from error
    if not real.is_dir() or root.resolve() not in real.parents:
        raise UnableToLoad("the path is not a directory of the artifacts' cache")
    return real


def load_adapter(directory: Path, *, name: str, width: int) -> Loaded:
    """Read an artifact whole and checked. Raises UnableToLoad; `width` is the encoder's."""
    try:
        manifest = read_manifest(directory)
        if manifest.adapter != name:
            raise UnableToLoad("the artifact is another adapter's")
        loaded = _read(directory, manifest)
    except UnableToReadArtifact as error:
        raise UnableToLoad(str(error)) from error
    except (OSError, ValueError, KeyError, msgspec.DecodeError) as error:
        raise UnableToLoad("the artifact's arrays cannot be read") from error
    if not _fits(loaded, width):
        raise UnableToLoad("the artifact's arrays do not fit each other or this encoder")
    return loaded


def _read(directory: Path, manifest: Manifest) -> Loaded:
    is_head = manifest.rung == Rung.HEAD
    needed = {"neighbours.npz", "neighbours.json"} | ({"head.npz", "labels.json"} if is_head else set())
    if not needed <= manifest.files.keys():  # what the manifest does not list, nobody has hashed
        raise UnableToReadArtifact("a file is missing from the manifest")
    known = _read_arrays(directory / "neighbours.npz")
    head = _read_arrays(directory / "head.npz") if is_head else {}
    empty = np.empty((0, known["embeddings"].shape[-1]), dtype=np.float32)
    return Loaded(
        manifest=manifest,
        rows=torch.from_numpy(known["embeddings"].astype(np.float32)),
        answers=_read_texts(directory / "neighbours.json"),
        reference=tuple(
            float(each)
            for each in np.sort(known["reference_distances" if "reference_distances" in known else "tuning_distances"])
        ),
        labels=_read_texts(directory / "labels.json") if is_head else (),
        weights=torch.from_numpy(head.get("weights", empty).astype(np.float32)),
        bias=torch.from_numpy(head.get("bias", np.empty(0)).astype(np.float32)),
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_texts(path: Path) -> tuple[str, ...]:
    return msgspec.json.decode(path.read_bytes(), type=tuple[str, ...])


def _fits(loaded: Loaded, width: int) -> bool:
    tensors = (loaded.rows, loaded.weights, loaded.bias, torch.tensor(loaded.reference))
    return (
        loaded.rows.shape == (len(loaded.answers), width)
        and len(loaded.answers) > 0
        and loaded.weights.shape == (len(loaded.labels), width)
        and loaded.bias.shape == (len(loaded.labels),)
        and (len(loaded.labels) > 1 or loaded.manifest.rung != Rung.HEAD)
        and all(bool(torch.isfinite(each).all()) for each in tensors)
    )
