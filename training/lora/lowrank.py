"""Makes a LoRA's linear layers cheap on a CPU: the low-rank update is added in place, not as tensors of its own.

peft computes base(x) + scale * B(A(x)) as separate operations, each of which writes and reads an activation the size of
the layer's output. On a CPU these cost as much as a fifth of a step.
"""

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear


class _LowRankLinear(torch.autograd.Function):
    """y = x W' + b + s (x A') B', with W and b frozen. x [n, in], W [out, in], A [r, in], B [out, r]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        low = x @ down.T  # [n, r]
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scale = scale
        return torch.nn.functional.linear(x, weight, bias).addmm_(low, up.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, down, up, low = ctx.saved_tensors
        gradient = gradients[0]
        low_gradient = (gradient @ up).mul_(ctx.scale)  # [n, r]
        up_gradient = (gradient.T @ low).mul_(ctx.scale)
        x_gradient = torch.addmm(gradient @ weight, low_gradient, down) if ctx.needs_input_grad[0] else None
        return x_gradient, None, None, low_gradient.T @ x, up_gradient, None


def fuse_low_rank(model: torch.nn.Module) -> None:
    """Give every LoRA layer of `model` the cheap forward pass. For one adapter, without dropout, in one precision."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(layer: Any, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    base = layer.get_base_layer()
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    flat = x.reshape(-1, x.shape[-1])
    y: torch.Tensor = _LowRankLinear.apply(flat, base.weight, base.bias, down, up, layer.scaling["default"])  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)
