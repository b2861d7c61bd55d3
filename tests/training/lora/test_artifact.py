"""An artifact is whole and unaltered, or it is not read."""

from pathlib import Path

import pytest

from training.lora.artifact import Manifest, UnableToReadArtifact, read_manifest, write_manifest

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
