"""Holds that tokens multiplied together get what each would have got alone, and a token without an adapter nothing."""

import pytest
import torch

from serving.engine.lora import GroupedLora

HIDDEN, RANK, SLOTS = 12, 3, 4
WIDTHS = (6, 4)  # a layer of two parts, as a feed-forward layer's gate and up are
MIXES = ([2] * 90, [0, 0, 1, -1, 3, 1, 0, -1, 2], [0, 0, 1, -1, 3, 1, 0, -1, 2] * 10, [-1] * 9, [])
LAYOUT = (11, 12, 13, 14)


def rand(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float32)


@pytest.fixture
def matrices():
    return [rand(SLOTS, 1, RANK, HIDDEN) + n for n in range(2)], [rand(SLOTS, 1, width, RANK) for width in WIDTHS]


def add(lora, slots, matrices, *, layout=LAYOUT, spare=0):
    """One layer of one step; gives its inputs and its output, which was 7 everywhere."""
    inputs, output = rand(len(slots), HIDDEN), torch.full((len(slots), sum(WIDTHS) + spare), 7.0)
    lora.begin(slots, layout=layout)
    lora.add(output, inputs, *matrices, WIDTHS, 0.5)
    return inputs, output


def alone(slot, token, downs, ups):
    """What one token gets on top, part after part."""
    if slot < 0:
        return torch.zeros(sum(WIDTHS))
    return torch.cat([0.5 * up[slot, 0] @ (down[slot, 0] @ token) for down, up in zip(downs, ups, strict=True)])


@pytest.mark.parametrize("slots", MIXES)
def test_each_token_gets_what_its_own_adapter_adds_and_columns_beyond_stay(matrices, slots):
    inputs, output = add(GroupedLora(), slots, matrices, spare=3)
    for row, slot in enumerate(slots):
        torch.testing.assert_close(output[row, : sum(WIDTHS)], 7 + alone(slot, inputs[row], *matrices))
    assert (output[:, sum(WIDTHS) :] == 7).all()


@pytest.mark.parametrize("left_alone", ["down", "up"])
def test_a_layer_that_an_adapter_leaves_alone_stays_as_it_is(matrices, left_alone):
    """The engine keeps zeros for it, in one of the two matrices or in both."""
    for part in matrices[left_alone == "up"]:
        part[1] = 0
    inputs, output = add(GroupedLora(), [1, 0, 1], matrices)
    assert (output[[0, 2]] == 7).all()
    torch.testing.assert_close(output[1], 7 + alone(0, inputs[1], *matrices))


def test_another_adapter_in_a_slot_is_looked_at_anew(matrices):
    """What was left alone by the adapter that lay there before may be changed by this one."""
    lora, kept = GroupedLora(), [part[1].clone() for part in matrices[1]]
    for part in matrices[1]:
        part[1] = 0
    add(lora, [1], matrices)
    for part, was in zip(matrices[1], kept, strict=True):
        part[1] = was
    inputs, output = add(lora, [1], matrices, layout=(11, 99, 13, 14))
    torch.testing.assert_close(output[0], 7 + alone(1, inputs[0], *matrices))


def test_ids_given_out_anew_are_looked_at_anew(matrices):
    """An engine warms up with adapters of zeros under the ids that its first real ones get."""
    lora, downs = GroupedLora(), matrices[0]
    slots = [torch.zeros_like(up) for up in matrices[1]]
    add(lora, [1], (downs, slots), layout=list(LAYOUT))
    for slot, up in zip(slots, matrices[1], strict=True):
        slot.copy_(up)
    inputs, output = add(lora, [1], (downs, slots), layout=list(LAYOUT))
    torch.testing.assert_close(output[0], 7 + alone(1, inputs[0], *matrices))


def test_layers_of_one_step_are_told_apart(matrices):
    """One that is left alone does not make another be."""
    lora = GroupedLora()
    lora.begin([1], layout=LAYOUT)
    downs, ups = matrices
    zeros, output = [torch.zeros_like(up) for up in ups], torch.full((1, sum(WIDTHS)), 7.0)
    inputs = rand(1, HIDDEN)
    lora.add(output, inputs, downs, zeros, WIDTHS, 0.5)
    assert (output == 7).all()
    lora.add(output, inputs, downs, ups, WIDTHS, 0.5)
    torch.testing.assert_close(output[0], 7 + alone(1, inputs[0], downs, ups))
