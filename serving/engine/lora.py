"""Multiplies by a LoRA's two matrices once for all of its tokens, for an engine without a GPU.

Same meaning and arguments as vLLM's own `bgmv_*` for the CPU (vllm/lora/ops/torch_ops/lora_ops.py), which copy both
matrices for every single token of a batch. A token of index -1 has no adapter: it gets nothing.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def shrink(inputs: Tensor, weights: Tensor, output: Tensor, indices: Tensor, scaling: float = 1.0) -> None:
    """output[t, :r] = scaling · A[indices[t]] · inputs[t].

    Args: inputs [T, h]; weights [adapters, 1, r, h] or [adapters, r, h]; output [T, >= r]; indices [T] int64.
    """
    rank = weights.shape[-2]
    for adapter, rows in _groups(indices):
        if adapter < 0:
            output[rows, :rank] = 0
        else:
            output[rows, :rank] = scaling * _times(inputs[rows], weights[adapter], output)


def expand(inputs: Tensor, weights: Tensor, output: Tensor, indices: Tensor, add_inputs: bool = True) -> None:
    """output[t, :n] (+)= B[indices[t]] · inputs[t], n the smaller width of B and output, which may be padded apart.

    Args: inputs [T, r]; weights [adapters, 1, o, r] or [adapters, o, r]; output [T, n or more]; indices [T] int64.
    """
    expand_slice(inputs, weights, output, indices, 0, min(weights.shape[-2], output.shape[-1]), add_inputs)


def expand_slice(
    inputs: Tensor,
    weights: Tensor,
    output: Tensor,
    indices: Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """`expand` into the columns from `slice_offset` on."""
    columns = slice(slice_offset, slice_offset + slice_size)
    for adapter, rows in _groups(indices):
        if adapter >= 0:
            product = _times(inputs[rows], weights[adapter], output)[:, :slice_size]
            output[rows, columns] = output[rows, columns] + product if add_inputs else product
        elif not add_inputs:
            output[rows, columns] = 0


def _times(inputs: Tensor, matrix: Tensor, like: Tensor) -> Tensor:
    return inputs.to(like.dtype) @ matrix.reshape(matrix.shape[-2:]).to(like.dtype).T


def _groups(indices: Tensor) -> Iterator[tuple[int, slice | Tensor]]:
    """(adapter, its tokens); mostly all are one adapter's, and then nothing is copied."""
    present = torch.unique(indices).tolist()
    if len(present) == 1:
        yield present[0], slice(0, len(indices))
        return
    for adapter in present:
        yield adapter, torch.nonzero(indices == adapter).squeeze(1)
