"""Building the local models twice must cost nothing, and a damaged one must be built again."""

from pathlib import Path

from training.lora.starter_models import ensure


def build(source: Path, target: Path) -> None:
    (target / "model.safetensors").write_bytes(source.read_bytes() * 2)


def test_what_is_there_and_whole_stays(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "models" / "one"
    source.write_bytes(b"weights")
    ensure("one", source, target, build)
    written = (target / "model.safetensors").stat().st_mtime_ns
    ensure("one", source, target, build)
    assert (target / "model.safetensors").stat().st_mtime_ns == written


def test_a_damaged_or_outdated_model_is_built_again(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "models" / "one"
    source.write_bytes(b"weights")
    ensure("one", source, target, build)
    (target / "model.safetensors").write_bytes(b"damaged")
    ensure("one", source, target, build)
    assert (target / "model.safetensors").read_bytes() == b"weightsweights"
    source.write_bytes(b"newer")
    ensure("one", source, target, build)
    assert (target / "model.safetensors").read_bytes() == b"newernewer"
    assert {path.name for path in target.parent.iterdir()} == {"one", "one.lock"}
