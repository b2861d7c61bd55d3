"""Puts this package's kernels into a vLLM worker: `--worker-extension-cls serving.engine.worker.GroupedLora`.

vLLM imports the class in each worker process before a model is loaded, which is the moment to do it.
"""

from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

from serving.engine import lora


class GroupedLora:
    """Adds nothing to the worker; its module has done its work once it is imported."""


for _module in (lora_ops, punica_cpu):  # the kernels for prompts call the first's, those for single tokens the second's
    _module.bgmv_shrink = lora.shrink
    _module.bgmv_expand = lora.expand
    _module.bgmv_expand_slice = lora.expand_slice
