"""What a LoRA costs an engine without a GPU: `python -m bench.engine`, half a minute, no network.

vLLM's own CPU wrapper and `serving.engine.lora`, side by side in one process on the same numbers: the down projection
of SmolLM2-135M's feed-forward layers in float32, for a prompt's tokens of one adapter, for a batch of two adapters, for
a step in which sixteen calls each write one token, and where the adapter leaves the layer alone.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from vllm.lora.ops.torch_ops.lora_ops import bgmv_expand, bgmv_shrink

from serving.engine.lora import GroupedLora

WIDE, NARROW, RANK, ADAPTERS, THREADS = 1536, 576, 8, 4, 2
SCALE = 2.0
SECONDS = 1.5
SAME = 1e-3  # relative; the order of additions differs

Add = Callable[[Tensor, Tensor, Tensor, Tensor], None]  # output, inputs, down and up of every adapter


@dataclass(frozen=True, slots=True)
class Mix:
    """A batch of tokens and the adapter of each."""

    name: str
    adapters: tuple[int, ...]
    is_changed: bool = True  # False: the adapters leave this layer alone


MIXES = (
    Mix("700 tokens, one adapter", (1,) * 700),
    Mix("700 tokens, two adapters", (0, 2) * 350),
    Mix("16 tokens, one adapter", (1,) * 16),
    Mix("16 tokens, four adapters", (0, 1, 2, 3) * 4),
    Mix("16 tokens, a layer left alone", (1,) * 16, is_changed=False),
)


def main() -> int:
    """Print milliseconds a layer for both, and how many times faster ours is; 1 if their results differ."""
    torch.set_num_threads(THREADS)
    sys.stdout.write(f"{'tokens of a step':<32}{'vLLM ms':>10}{'ours ms':>10}{'ratio':>8}\n")
    for mix in MIXES:
        theirs, ours = apply(mix, add_one_by_one(mix)), apply(mix, add_grouped(mix))
        if not torch.allclose(theirs(), ours(), rtol=SAME, atol=SAME):
            sys.stdout.write(f"{mix.name}: the results differ\n")
            return 1
        slow, fast = measure(theirs), measure(ours)
        sys.stdout.write(f"{mix.name:<32}{slow:>10.2f}{fast:>10.2f}{slow / fast:>8.1f}\n")
    return 0


def add_one_by_one(mix: Mix) -> Add:
    """vLLM's own."""
    indices = torch.tensor(mix.adapters)

    def add(output: Tensor, inputs: Tensor, down: Tensor, up: Tensor) -> None:
        between = torch.zeros(len(inputs), RANK)
        bgmv_shrink(inputs, down, between, indices, SCALE)
        bgmv_expand(between, up, output, indices, True)

    return add


def add_grouped(mix: Mix) -> Add:
    """Ours; a step's grouping is shared by its two hundred multiplications, and not counted here."""
    grouped = GroupedLora()
    grouped.begin(mix.adapters, layout=range(ADAPTERS))

    def add(output: Tensor, inputs: Tensor, down: Tensor, up: Tensor) -> None:
        grouped.add(output, inputs, [down], [up], [NARROW], SCALE)

    return add


def apply(mix: Mix, add: Add) -> Callable[[], Tensor]:
    """One layer over the mix, on the same random numbers every time."""
    source = torch.Generator().manual_seed(1)
    down = torch.rand(ADAPTERS, 1, RANK, WIDE, generator=source) * mix.is_changed
    up = torch.rand(ADAPTERS, 1, NARROW, RANK, generator=source) * mix.is_changed
    inputs = torch.rand(len(mix.adapters), WIDE, generator=source)

    def run() -> Tensor:
        output = torch.zeros(len(inputs), NARROW)
        add(output, inputs, down, up)
        return output

    return run


def measure(work: Callable[[], Tensor]) -> float:
    """Milliseconds a call, over a second and a half."""
    work()
    calls, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < SECONDS:
        work()
        calls += 1
    return 1000 * taken / calls


if __name__ == "__main__":
    sys.exit(main())
