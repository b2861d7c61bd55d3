"""An artifact is whole and unaltered, or it is not read."""

from pathlib import Path

import numpy as np
import pytest

from training.lora.artifact import (
    ROWS_AT_ONCE,
    Manifest,
    UnableToReadArtifact,
    measure_own_distances,
    read_manifest,
    write_manifest,
)

MANIFEST = Manifest(
    adapter="a-v1", rung="head", kind="label", base_model="", licence="", dataset_hash="", policy="", spec_hash=""
)


def test_an_altered_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("[]")
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path).files.keys() == {"labels.json"}
    (tmp_path / "labels.json").write_text("[1]")
    with pytest.raises(UnableToReadArtifact, match="not what the manifest says"):
        read_manifest(tmp_path)


def test_a_missing_file_or_manifest_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(UnableToReadArtifact, match="no readable manifest"):
        read_manifest(tmp_path)
    (tmp_path / "labels.json").write_text("[]")
    write_manifest(tmp_path, MANIFEST)
    (tmp_path / "labels.json").unlink()
    with pytest.raises(UnableToReadArtifact, match="missing"):
        read_manifest(tmp_path)


def test_a_manifest_cannot_name_a_file_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    inside = tmp_path / "artifact"
    inside.mkdir()
    write_manifest(inside, MANIFEST)
    text = (inside / "manifest.json").read_text().replace('"files": {}', '"files": {"../secret": "00"}')
    (inside / "manifest.json").write_text(text)
    with pytest.raises(UnableToReadArtifact):
        read_manifest(inside)


def test_a_row_s_own_distance_is_to_the_kth_nearest_other_row() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(ROWS_AT_ONCE + 40, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    plain = [
        sorted(1.0 - float(row @ other) for j, other in enumerate(rows) if j != i)[4] for i, row in enumerate(rows)
    ]
    assert np.allclose(measure_own_distances(rows, k=5), np.sort(plain), atol=1e-5)


@pytest.mark.parametrize(("rows", "found"), [(0, 0), (1, 0), (2, 2), (4, 4)])
def test_few_rows_have_the_distances_that_there_are(rows: int, found: int) -> None:
    assert measure_own_distances(np.eye(max(rows, 1), 8, dtype=np.float32)[:rows]).tolist() == [1.0] * found
