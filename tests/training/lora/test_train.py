"""A run must leave a whole artifact, survive being stopped, and give way to a later claim."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file

from training.lora.artifact import NEIGHBOURS_K, read_manifest
from training.lora.checkpoint import FILE
from training.lora.train import main

MakeSpec = Callable[..., Path]


def test_a_lora_run_leaves_what_a_replica_needs(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert main([str(make_spec(epochs=3))]) == 0
    manifest = read_manifest(tmp_path / "run")
    assert manifest.files.keys() == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "neighbours.json",
        "neighbours.npz",
    }
    assert (manifest.adapter, manifest.rung, manifest.rank, manifest.dataset_hash) == (
        "parcels-v1",
        "lora",
        4,
        "d" * 64,
    )
    assert (manifest.prompt_prefix, manifest.prompt_suffix) == ("", "\nparcels\n")
    config = msgspec.json.decode((tmp_path / "run" / "adapter_config.json").read_bytes())
    assert config["r"] == 4 and {"q_proj", "down_proj"} <= set(config["target_modules"])
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.layers.") for name in weights)
    assert any(tensor.abs().sum() > 0 for name, tensor in weights.items() if "lora_B" in name)


def test_a_run_may_leave_the_attention_as_it_is(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert main([str(make_spec(modules="mlp"))]) == 0
    config = msgspec.json.decode((tmp_path / "run" / "adapter_config.json").read_bytes())
    assert set(config["target_modules"]) == {"gate_proj", "up_proj", "down_proj"}
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert weights and all(".mlp." in name for name in weights)


def test_the_reference_distances_are_those_of_tuning_and_training_rows_to_the_stored_rows(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    assert main([str(make_spec(rung="head", base_model=""))]) == 0
    with np.load(tmp_path / "run" / "neighbours.npz", allow_pickle=False) as arrays:
        rows, distances = arrays["embeddings"], arrays["reference_distances"]
    assert rows.dtype == np.float16 and distances.dtype == np.float32
    assert len(distances) == 12 + 48 and len(rows) == 48 and len(rows) > NEIGHBOURS_K
    assert (np.diff(distances) >= 0).all()


def test_a_head_run_leaves_a_linear_layer_over_all_its_labels(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert main([str(make_spec(rung="head", base_model=""))]) == 0
    with np.load(tmp_path / "run" / "head.npz", allow_pickle=False) as arrays:
        assert arrays["weights"].shape == (2, 32) and arrays["bias"].shape == (2,)
    assert msgspec.json.decode((tmp_path / "run" / "labels.json").read_bytes()) == ["billing", "shipping"]


def test_a_stopped_run_goes_on_to_the_same_weights(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert main([str(make_spec("whole"))]) == 0
    spec = make_spec("stopped")
    stopped = start(spec)
    assert stopped.stdout is not None
    stopped.stdout.readline()
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=60)
    assert stopped.returncode == 143
    assert (tmp_path / "stopped-checkpoints" / FILE).exists()
    assert not (tmp_path / "stopped" / "manifest.json").exists()
    assert main([str(spec)]) == 0
    whole, resumed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "stopped"))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_trainer_with_an_older_claim_gives_way(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert main([str(make_spec(fencing_token=7))]) == 0
    assert main([str(make_spec(fencing_token=6))]) == 3
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_changed_spec_does_not_go_on_from_the_old_ones_checkpoint(make_spec: MakeSpec, tmp_path: Path) -> None:
    assert main([str(make_spec(epochs=1))]) == 0
    before = read_manifest(tmp_path / "run")
    assert main([str(make_spec(epochs=1, seed=9))]) == 0
    after = read_manifest(tmp_path / "run")
    assert after.metrics["tokens"] == before.metrics["tokens"] > 0
    assert after.spec_hash != before.spec_hash


def test_a_trainer_dies_when_its_launcher_does(make_spec: MakeSpec) -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'training.lora.train', sys.argv[1]], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
    )
    arguments = [sys.executable, "-c", script, str(make_spec(epochs=5000))]
    launcher = subprocess.run(arguments, capture_output=True, timeout=120, check=True)
    pid = int(launcher.stdout)
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # dead already
    assert select.select([handle], [], [], 30)[0], "the trainer outlived its launcher"  # readable once it has ended
    os.close(handle)


def test_a_run_with_one_label_is_refused_with_a_reason(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(rung="head", base_model="")
    rows = [{"query": f"q {number}", "answer": "same", "split": "train"} for number in range(9)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    assert main([str(spec)]) == 2


def start(spec: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "training.lora.train", str(spec)], stdout=subprocess.PIPE)
