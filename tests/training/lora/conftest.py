"""Models and specs for the trainer's tests."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.training.lora.tiny import write_base, write_encoder, write_rows
from training.lora.spec import RunSpec


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def make_spec(base: Path, encoder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a spec (LoRA unless told otherwise) over the little rows; returns its path."""

    def make(name: str = "run", **changes: object) -> Path:
        rows = write_rows(tmp_path / "rows.jsonl", repeat=6)
        spec = {
            "rung": "lora",
            "kind": "label",
            "base_model": str(base),
            "encoder_model": str(encoder),
            "data": str(rows),
            "out": str(tmp_path / name),
            "checkpoint_dir": str(tmp_path / f"{name}-checkpoints"),
            "adapter": "parcels-v1",
            "marker": "parcels",
            "labels": ["billing", "shipping"],
            "rank": 4,
            "alpha": 8,
            "batch": 8,
            "checkpoint_every": 2,
            "threads": 1,
            "dataset_hash": "d" * 64,
            "licence": "Apache-2.0",
        }
        path = tmp_path / f"{name}.json"
        path.write_bytes(msgspec.json.encode(msgspec.convert(spec | changes, RunSpec)))
        return path

    return make
