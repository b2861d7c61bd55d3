"""Holds that vLLM finds our wrapper where it looks for its own, and that both add the same to a layer."""

import pytest
import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper import punica_cpu

from serving.engine.worker import GroupedWrapper

(THEIRS,) = GroupedWrapper.__bases__
WITH, WITHOUT = [0, 1, 2, 4, 5], 3  # tokens with an adapter and the one without


@pytest.fixture
def both():
    """Both wrappers at a step of two adapters, 7 and 9; each token is sampled from."""
    mapping = LoRAMapping(index_mapping=(7, 7, 9, 0, 9, 7), prompt_mapping=(7, 7, 9, 0, 9, 7), is_prefill=True)
    made = [kind(64, 8, "cpu") for kind in (THEIRS, GroupedWrapper)]
    for wrapper in made:
        wrapper.update_metadata(mapping, [7, 9], 3, 100)
    return made


def rand(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def hold_together(theirs, mine):
    torch.testing.assert_close(theirs[WITH], mine[WITH])
    assert (mine[WITH] != 1).all()
    assert (mine[WITHOUT] == 1).all()  # vLLM's own takes the index of no adapter, -1, for the last one's


def test_vllm_finds_ours_where_it_looks_for_its_own():
    assert punica_cpu.PunicaWrapperCPU is GroupedWrapper


def test_a_layer_of_two_parts_gets_the_same_from_both(both):
    downs, ups = (rand(2, 1, 3, 8), rand(2, 1, 3, 8) + 1), (rand(2, 1, 6, 3), rand(2, 1, 4, 3))
    outputs = [torch.ones(6, 10) for _ in both]
    for wrapper, output in zip(both, outputs, strict=True):
        wrapper.add_lora_linear(output, rand(6, 8), downs, ups, 1.0, (6, 4))
    hold_together(*outputs)


def test_logits_get_the_same_from_both(both):
    outputs = [torch.ones(6, 20) for _ in both]
    for wrapper, output in zip(both, outputs, strict=True):
        wrapper.add_lora_logits(output, rand(6, 8), rand(2, 1, 3, 8), rand(2, 1, 20, 3), 1.0)
    hold_together(*outputs)
