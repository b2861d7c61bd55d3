"""Puts `GroupedLora` into a vLLM worker: `--worker-extension-cls serving.engine.worker.GroupedLoraWorker`.

vLLM imports the class in each worker process before a model is loaded, which is the moment to do it.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from vllm.lora.punica_wrapper import punica_cpu

from serving.engine.lora import GroupedLora


class GroupedWrapper(punica_cpu.PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's CPU wrapper, with its multiplications done by `GroupedLora`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._grouped, self._sampled = GroupedLora(), GroupedLora()

    def update_metadata(self, mapping: Any, lora_index_to_id: list[int | None], *args: Any, **options: Any) -> None:
        """vLLM tells which token of the coming step has which adapter, and which of those that it will sample from."""
        super().update_metadata(mapping, lora_index_to_id, *args, **options)
        self._grouped.begin(self.token_lora_indices.tolist(), layout=lora_index_to_id)
        self._sampled.begin(self.sampler_indices.tolist(), layout=lora_index_to_id)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Sequence[Tensor],
        lora_b_stacked: Sequence[Tensor],
        scale: float,
        output_slices: Sequence[int],
        **_: Any,
    ) -> None:
        """Add to a layer's output what the tokens' adapters change in it."""
        inputs, output = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        self._grouped.add(output, inputs, lora_a_stacked, lora_b_stacked, output_slices, scale)

    def add_lora_logits(
        self, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **_: Any
    ) -> None:
        """Add to the logits what the adapters change in them: nothing, mostly, and then it is not looked for twice."""
        inputs, output = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        width = min(lora_b_stacked.shape[-2], output.shape[-1])
        self._sampled.add(output, inputs, [lora_a_stacked], [lora_b_stacked], [width], scale)


class GroupedLoraWorker:
    """Adds nothing to the worker; its module has done its work once it is imported."""


punica_cpu.PunicaWrapperCPU = GroupedWrapper
