"""Holds that vLLM finds our wrapper where it looks for its own, and that both add the same to a layer."""

import pytest
import torch

wrappers = pytest.importorskip("vllm.lora.punica_wrapper.punica_cpu")
THEIRS = wrappers.PunicaWrapperCPU


@pytest.fixture
def ours():
    """The class that the worker's extension puts in place; vLLM's own is put back afterwards."""
    from serving.engine import worker  # noqa: PLC0415  importing it is what is tested

    yield worker.GroupedWrapper
    wrappers.PunicaWrapperCPU = THEIRS


def test_a_mixed_batch_gets_the_same_from_both(ours):
    from vllm.lora.layers import LoRAMapping  # noqa: PLC0415  vLLM takes seconds to import
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: PLC0415  as vLLM looks it up

    assert PunicaWrapperCPU is ours
    source = torch.Generator().manual_seed(1)
    downs = [torch.rand(2, 1, 3, 8, generator=source) for _ in range(2)]
    ups = [torch.rand(2, 1, width, 3, generator=source) for width in (6, 4)]
    inputs = torch.rand(6, 8, generator=source)
    mapping = LoRAMapping(index_mapping=(7, 7, 9, 0, 9, 7), prompt_mapping=(7, 9, 0, 9, 7), is_prefill=True)
    outputs = []
    for made in (THEIRS, ours):
        wrapper, output = made(64, 8, "cpu"), torch.ones(6, 10)
        wrapper.update_metadata(mapping, [7, 9], 3, 100)
        wrapper.add_lora_linear(output, inputs, tuple(downs), tuple(ups), 1.0, (6, 4))
        outputs.append(output)
    theirs, mine = outputs
    with_adapter = [0, 1, 2, 4, 5]
    torch.testing.assert_close(theirs[with_adapter], mine[with_adapter])
    assert (mine[3] == 1).all()  # vLLM's own takes the index of no adapter, -1, for the last one's
