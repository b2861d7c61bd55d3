"""What one training run is told: the whole configuration, in one struct, read from one JSON file.

The process that launches a run writes the file; the trainer reads nothing else, no environment and no database.
"""

import hashlib
from pathlib import Path

import msgspec

from ingestion.core.calls import Kind


class UnableToReadSpec(Exception):
    """The file is not a run's specification, or asks for what no trainer can do."""


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. Paths are local; `out` and `checkpoint_dir` belong to this run alone."""

    rung: str  # "head": a linear head on sentence embeddings (labels only); "lora": a low-rank adapter of base_model
    kind: Kind  # what the answers are; the head takes labels only
    encoder_model: str  # directory of the sentence encoder, the same one the encoder process serves
    data: str  # JSONL of {"query", "answer", "split"}, split "train" or "tuning", answers canonical
    out: str  # the artifact directory; manifest.json appears in it last
    checkpoint_dir: str  # where progress is kept; a restarted run goes on from here
    adapter: str  # the immutable versioned name under which replicas will serve it
    base_model: str = ""  # rung lora: a local directory or a Hugging Face id with a chat template
    marker: str = "Answer:"  # the line between a query and its answer
    labels: tuple[str, ...] = ()  # the closed set (label kind), in canonical form
    modules: str = "all"  # which linear layers get a low-rank pair: "all" but the output's, or "mlp" only
    rank: int = 16  # of every low-rank pair; replicas must be started with at least this
    alpha: float = 32.0  # the update is scaled by alpha / rank; a power of two loses nothing in bfloat16
    lr: float = 2e-3  # peak learning rate; ten times that of full fine-tuning is usual for LoRA
    epochs: int = 2  # passes over the training rows
    batch: int = 16  # examples a step
    max_tokens: int = 512  # longest prompt with answer; longer rows are left out, never cut
    pack_tokens: int = 768  # tokens computed at once; bounds memory, and attention is quadratic in it
    checkpoint_every: int = 20  # steps between checkpoints
    threads: int = 2  # CPU threads
    seed: int = 0  # of the low-rank start and of the order of rows
    fencing_token: int = 0  # grows with every claim of this run; a trainer with an older one must stop
    parent_pid: int = 0  # the launcher; if it is gone before the trainer has tied itself to it, exit. 0: not checked
    dataset_hash: str = ""  # of the frozen dataset, copied into the manifest
    policy: str = ""  # the terms stance under which this was trained, copied into the manifest
    licence: str = ""  # of the base model, copied into the manifest

    def digest(self) -> str:
        """SHA-256 hex of all that decides the weights: two runs with the same digest may share checkpoints."""
        volatile = {"out": "", "checkpoint_dir": "", "fencing_token": 0, "parent_pid": 0, "threads": 0}
        lasting = msgspec.structs.replace(self, **volatile)
        return hashlib.sha256(msgspec.json.encode(lasting, order="sorted")).hexdigest()


def read_spec(path: Path) -> RunSpec:
    """Read and check a run's specification. Raises UnableToReadSpec with a sentence that holds no row of data."""
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=RunSpec)
    except (OSError, msgspec.DecodeError) as error:
        raise UnableToReadSpec(f"not a run specification: {error}") from error
    for wrong, reason in _objections(spec):
        if wrong:
            raise UnableToReadSpec(reason)
    return spec


def _objections(spec: RunSpec) -> list[tuple[bool, str]]:
    sizes = (spec.rank, spec.epochs, spec.batch, spec.max_tokens, spec.pack_tokens, spec.checkpoint_every, spec.threads)
    return [
        (spec.rung not in ("head", "lora"), "rung is neither head nor lora"),
        (spec.rung == "head" and spec.kind is not Kind.LABEL, "a head answers with labels only"),
        (spec.rung == "lora" and not spec.base_model, "a lora needs a base model"),
        (spec.modules not in ("all", "mlp"), "modules is neither all nor mlp"),
        (not spec.adapter, "the adapter has no name"),
        (min(sizes) < 1, "a size, a count or an interval is below one"),
        (spec.lr <= 0, "the learning rate must be positive"),
        (spec.alpha < 1 or spec.alpha != int(spec.alpha), "alpha must be a whole number above zero"),
    ]
