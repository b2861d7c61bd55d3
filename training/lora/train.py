"""Train one adapter: python -m training.lora.train SPEC.json

Reads a RunSpec, writes an artifact directory (see `artifact`), and says on stdout how far it is, a JSON object a line:

    {"event": "progress", "step": 40, "steps": 76, "loss": 0.31, "tokens_per_s": 270.0}
    {"event": "done", "seconds": 130.2, "tokens": 36112, "peak_rss_mb": 1900.0, ...}

Exit codes: 0 done, 2 the spec, the data or the base is no good, 3 a later claim of the run took over, 143 stopped by
SIGTERM after writing a checkpoint. Run it again with the same spec and it goes on where it stopped.
"""

import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from training.lora.artifact import MANIFEST, Manifest, write_manifest, write_neighbours
from training.lora.checkpoint import Checkpoint, CheckpointStore, UnableToCheckpoint
from training.lora.data import (
    Encoded,
    Pack,
    Row,
    UnableToReadData,
    encode_rows,
    group_packs,
    order_steps,
    pack_examples,
    read_rows,
    render_prompt,
)
from training.lora.embed import Embedder
from training.lora.head import UnableToFitHead, fit_head
from training.lora.spec import RunSpec, UnableToReadSpec, read_spec
from training.lora.tether import UnableToTether, die_with_parent

WARMUP = 0.1  # share of the steps in which the learning rate climbs to its peak
CLIP = 1.0  # largest norm of a step's gradient
SPARE_OUTPUT_TOKENS = 8  # a constrained decoder may spell an answer in a few tokens more than the tokeniser did
PACKING_TOLERANCE = 0.02  # relative; more than fp32 or bf16 noise, less than any example seeing another

BAD_INPUT, FENCED_OFF, STOPPED = 2, 3, 143


class UnableToTrain(Exception):
    """No row is left to train on once the unusable ones are out."""


class StopRequest:
    """Turns SIGTERM into a flag, so that a step is never torn in half."""

    def __init__(self) -> None:
        self.made = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.made = True


@dataclass(slots=True)
class Trainee:
    """The model in training, and what trains it."""

    model: Any  # a PeftModel; its type does not survive the wrapping
    optimizer: torch.optim.Optimizer
    parameters: dict[str, torch.nn.Parameter]  # the trainable ones, in a fixed order
    device: torch.device


def main(arguments: Sequence[str]) -> int:
    """Run one spec; returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        spec = read_spec(Path(arguments[0]))
        die_with_parent(parent_pid=spec.parent_pid)
        metrics = train(spec)
    except (UnableToReadSpec, UnableToReadData, UnableToFitHead, UnableToTrain) as error:
        return _fail(BAD_INPUT, error)
    except (UnableToCheckpoint, UnableToTether) as error:
        return _fail(FENCED_OFF, error)
    report("done", **metrics)
    return 0


def train(spec: RunSpec) -> dict[str, float]:
    """Do what the spec says and seal the artifact; returns the metrics."""
    started = time.monotonic()
    torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)
    out = Path(spec.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)  # an earlier attempt's: from here on the directory is not whole
    rows = read_rows(Path(spec.data))
    rung = train_head if spec.rung == "head" else train_lora
    manifest = rung(spec, rows, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    metrics = manifest.metrics | {"seconds": round(time.monotonic() - started, 1), "peak_rss_mb": round(peak, 1)}
    write_manifest(out, msgspec.structs.replace(manifest, metrics=metrics))
    return metrics


def train_head(spec: RunSpec, rows: Sequence[Row], out: Path) -> Manifest:
    """Embed the rows and fit a linear head on them."""
    training, tuning = (_rows_of(rows, split) for split in ("train", "tuning"))
    vectors = embed_neighbours(spec, training, tuning, out)
    head = fit_head(vectors, [row.answer for row in training], seed=spec.seed)
    np.savez(out / "head.npz", weights=head.weights, bias=head.bias)
    (out / "labels.json").write_bytes(msgspec.json.encode(head.labels))
    metrics = {"examples": float(len(training)), "tokens": 0.0, "strength": head.strength}
    return describe(spec, training, labels=head.labels, metrics=metrics)


def train_lora(spec: RunSpec, rows: Sequence[Row], out: Path) -> Manifest:
    """Fit a low-rank adapter of the base to the training rows' answers."""
    tokenizer = AutoTokenizer.from_pretrained(spec.base_model)
    prompt = render_prompt(tokenizer, marker=spec.marker)
    kept = encode_rows(_rows_of(rows, "train"), prompt, tokenizer, max_tokens=spec.max_tokens)
    if not kept:
        raise UnableToTrain("no training row fits the token limit without a control token in it")
    training = [row for row, _ in kept]
    embed_neighbours(spec, training, _rows_of(rows, "tuning"), out)
    examples = [example for _, example in kept]
    trainee = load_base(spec)
    metrics = run_steps(spec, trainee, examples)
    save_adapter(spec, trainee, out)
    return describe(
        spec,
        training,
        labels=spec.labels,
        metrics=metrics | {"examples": float(len(kept)), "left_out": float(len(_rows_of(rows, "train")) - len(kept))},
        prompt_prefix=prompt.prefix,
        prompt_suffix=prompt.suffix,
        control_tokens=prompt.control_tokens,
        max_output_tokens=max(example.answer_length for example in examples) + SPARE_OUTPUT_TOKENS,
        rank=spec.rank,
        base_model=spec.base_model,
    )


def embed_neighbours(
    spec: RunSpec, training: Sequence[Row], tuning: Sequence[Row], out: Path
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Store the training rows for the novelty gate and the neighbours; returns their vectors [n, width]."""
    embedder = Embedder(Path(spec.encoder_model))
    vectors = embedder.embed([row.query for row in training])
    known = embedder.embed([row.query for row in tuning])
    write_neighbours(out, rows=vectors, answers=[row.answer for row in training], tuning=known)
    return vectors


def load_base(spec: RunSpec) -> Trainee:
    """The base, frozen, with fresh low-rank pairs on the linear layers that the spec names."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # a CPU without AMX is slower in bf16
    base: Any = AutoModelForCausalLM.from_pretrained(spec.base_model, dtype=dtype)
    targets = choose_targets(base, spec.modules)
    config = LoraConfig(r=spec.rank, lora_alpha=int(spec.alpha), target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(base.to(device), config)
    parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=spec.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    return Trainee(model.train(), optimizer, parameters, device)


def choose_targets(base: torch.nn.Module, modules: str) -> str | list[str]:
    """What PEFT is to adapt: layers by their full names, or its word for all linear layers but the output's.

    The feed-forward layers alone learn about as well as all (https://thinkingmachines.ai/blog/lora/) and train faster;
    a base that does not call them "mlp", as Llama, Mistral, Phi, Qwen and SmolLM do, gets pairs on all.
    """
    linear = [name for name, layer in base.named_modules() if isinstance(layer, torch.nn.Linear)]
    names = [name for name in linear if ".mlp." in name] if modules == "mlp" else []
    return names or "all-linear"


def run_steps(spec: RunSpec, trainee: Trainee, examples: Sequence[Encoded]) -> dict[str, float]:
    """Train from the last checkpoint to the end; exits 143 after a checkpoint when asked to stop."""
    store = CheckpointStore(Path(spec.checkpoint_dir), spec_hash=spec.digest(), fencing_token=spec.fencing_token)
    first = restore(trainee, store.load())
    steps = order_steps(examples, batch=spec.batch, epochs=spec.epochs, seed=spec.seed)
    pack_tokens = spec.pack_tokens if can_pack(trainee, examples[:4]) else 0
    stop, loss, tokens, started = StopRequest(), 0.0, 0, time.monotonic()
    before = signal.signal(signal.SIGTERM, stop)
    for number, step in enumerate(steps[first:], start=first + 1):
        set_rate(trainee.optimizer, peak=spec.lr, step=number, steps=len(steps))
        loss = take_step(trainee, step, pack_tokens=pack_tokens)
        tokens += sum(len(example.ids) for example in step)
        pace = tokens / (time.monotonic() - started)
        report("progress", step=number, steps=len(steps), loss=round(loss, 4), tokens_per_s=round(pace, 1))
        if stop.made or number % spec.checkpoint_every == 0:
            store.save(snapshot(trainee, number))
        if stop.made:
            sys.exit(STOPPED)
    signal.signal(signal.SIGTERM, before)
    seconds = time.monotonic() - started
    pace = (len(steps) - first) * spec.batch / seconds
    metrics = {
        "tokens": float(tokens),
        "loss": loss,
        "training_seconds": round(seconds, 1),
        "resumed_from": float(first),
    }
    return metrics | {"examples_per_s": round(pace, 2)}


def take_step(trainee: Trainee, step: Sequence[Encoded], *, pack_tokens: int) -> float:
    """One optimiser step over a batch, pack by pack; returns the mean loss per answer token in nats."""
    answer_tokens = sum(example.answer_length for example in step)
    total = 0.0
    for group in group_packs(step, pack_tokens=pack_tokens):
        loss = sum_loss(trainee, pack_examples(group, device=trainee.device)) / answer_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(trainee.parameters.values(), CLIP)
    trainee.optimizer.step()
    trainee.optimizer.zero_grad(set_to_none=True)
    return total


def sum_loss(trainee: Trainee, pack: Pack) -> torch.Tensor:
    """Cross-entropy summed over the answer tokens; logits [A, vocabulary] are computed at these alone."""
    logits = trainee.model(
        input_ids=pack.input_ids,
        position_ids=pack.position_ids,
        attention_mask=pack.mask,
        logits_to_keep=pack.asking,
        use_cache=False,
    ).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), pack.answers, reduction="sum")


@torch.no_grad()
def can_pack(trainee: Trainee, examples: Sequence[Encoded]) -> bool:
    """Whether this base keeps packed examples apart: a recurrent layer, say, does not read the mask."""
    together = sum_loss(trainee, pack_examples(examples, device=trainee.device)).item()
    apart = sum(sum_loss(trainee, pack_examples([each], device=trainee.device)).item() for each in examples)
    return abs(together - apart) <= PACKING_TOLERANCE * apart


def set_rate(optimizer: torch.optim.Optimizer, *, peak: float, step: int, steps: int) -> None:
    """Climb to the peak over the warm-up, then fall in a line to nearly nothing at the last step (counted from 1)."""
    warmup = max(1, int(WARMUP * steps))
    factor = step / warmup if step <= warmup else (steps - step + 1) / (steps - warmup + 1)
    for group in optimizer.param_groups:
        group["lr"] = peak * factor


def snapshot(trainee: Trainee, step: int) -> Checkpoint:
    """The weights and the optimiser's moments, by parameter."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trainee.parameters.items():
        tensors[f"{name}/weight"] = parameter.detach().contiguous()
        for moment, value in trainee.optimizer.state[parameter].items():
            tensors[f"{name}/{moment}"] = value.contiguous()
    return Checkpoint(step, tensors)


def restore(trainee: Trainee, checkpoint: Checkpoint | None) -> int:
    """Put a checkpoint's tensors back; returns how many steps are done."""
    if checkpoint is None:
        return 0
    for name, parameter in trainee.parameters.items():
        parameter.data.copy_(checkpoint.tensors[f"{name}/weight"])
        trainee.optimizer.state[parameter] = {
            key.rpartition("/")[2]: value if key.endswith("/step") else value.to(parameter.device)
            for key, value in _of(checkpoint.tensors, name)
        }
    return checkpoint.step


def save_adapter(spec: RunSpec, trainee: Trainee, out: Path) -> None:
    """Write the two files vLLM loads, without the model card and the look-ups of `save_pretrained`."""
    state = get_peft_model_state_dict(trainee.model, save_embedding_layers=False)
    tensors = {name: each.detach().cpu().contiguous() for name, each in state.items()}
    save_file(tensors, out / "adapter_model.safetensors")
    config = trainee.model.peft_config["default"]
    config.inference_mode = True
    config.base_model_name_or_path = Path(spec.base_model).name
    # peft may list every layer by its full path; replicas look for the names of the kinds of layer
    config.target_modules = {name.split(".lora_")[0].rpartition(".")[2] for name in state}
    config.save_pretrained(out)


def describe(
    spec: RunSpec, training: Sequence[Row], *, labels: tuple[str, ...], metrics: dict[str, float], **more: object
) -> Manifest:
    """The manifest of what was trained; file hashes and times are added when it is sealed."""
    return Manifest(
        adapter=spec.adapter,
        rung=spec.rung,
        kind=spec.kind,
        licence=spec.licence,
        dataset_hash=spec.dataset_hash,
        policy=spec.policy,
        spec_hash=spec.digest(),
        marker=spec.marker,
        labels=labels,
        max_query_chars=max(len(row.query) for row in training),
        metrics=metrics,
        **({"base_model": ""} | more),  # type: ignore[arg-type]
    )


def report(event: str, **facts: float | str) -> None:
    """One JSON line on stdout, at once."""
    sys.stdout.buffer.write(msgspec.json.encode({"event": event, **facts}) + b"\n")
    sys.stdout.buffer.flush()


def _rows_of(rows: Sequence[Row], split: str) -> list[Row]:
    return [row for row in rows if row.split == split]


def _of(tensors: dict[str, torch.Tensor], name: str) -> list[tuple[str, torch.Tensor]]:
    return [(key, value) for key, value in tensors.items() if key.startswith(f"{name}/") and key != f"{name}/weight"]


def _fail(code: int, error: Exception) -> int:
    report("failed", kind=type(error).__name__, message=str(error))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
