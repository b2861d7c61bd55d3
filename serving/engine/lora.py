"""Multiplies by a LoRA's two matrices once for all of its tokens, for an engine without a GPU.

Same meaning and arguments as vLLM's own `bgmv_*` for the CPU (vllm/lora/ops/torch_ops/lora_ops.py), which copy both
matrices for every single token of a batch. A token of index -1 has no adapter: it gets nothing. Nor does one whose
adapter leaves this layer alone, for which the engine keeps zeros: to look for them is quicker than to multiply by them.
"""

import torch
from torch import Tensor

FEW = 64  # tokens; below it, copying a matrix for each is quicker than going from adapter to adapter


def shrink(inputs: Tensor, weights: Tensor, output: Tensor, indices: Tensor, scaling: float = 1.0) -> None:
    """output[t, :r] = scaling · A[indices[t]] · inputs[t].

    Args: inputs [T, h]; weights [adapters, 1, r, h] or [adapters, r, h]; output [T, >= r]; indices [T] int64.
    """
    product, into = _multiply(inputs, weights, indices, output.dtype), output[: len(indices), : weights.shape[-2]]
    into[:] = 0 if product is None else scaling * product


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
    into = output[: len(indices), slice_offset : slice_offset + slice_size]
    if not add_inputs:
        into[:] = 0
    if (product := _multiply(inputs, weights, indices, output.dtype)) is not None:
        into += product[:, :slice_size]


def _multiply(inputs: Tensor, weights: Tensor, indices: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Each token's product [T, rows of a matrix]; None where no adapter of the batch changes this layer."""
    matrices, inputs = weights.reshape(weights.shape[0], *weights.shape[-2:]), inputs[: len(indices)].to(dtype)
    present = torch.unique(indices).tolist()  # sorted: -1 is the first
    if len(present) > 1 and len(indices) <= FEW:
        product = torch.einsum("bi,boi->bo", inputs, matrices[indices.clamp(min=0)].to(dtype))
        if present[0] < 0:
            product[indices < 0] = 0
        return product
    changing = [adapter for adapter in present if adapter >= 0 and matrices[adapter].any()]
    if not changing:
        return None
    if len(present) == 1:
        return inputs @ matrices[present[0]].to(dtype).T
    product = inputs.new_zeros(len(indices), matrices.shape[1])
    for adapter in changing:
        rows = torch.nonzero(indices == adapter)[:, 0]
        product[rows] = inputs[rows] @ matrices[adapter].to(dtype).T
    return product
