"""Holds that tokens multiplied together get what each would have got alone, and a token without an adapter nothing."""

import pytest
import torch

from serving.engine.lora import expand, expand_slice, shrink

HIDDEN, RANK, OUT, ADAPTERS = 12, 3, 10, 4
MIXES = ([2] * 90, [0, 0, 1, -1, 3, 1, 0, -1, 2], [0, 0, 1, -1, 3, 1, 0, -1, 2] * 10, [-1] * 9)  # few and many tokens


def rand(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float32)


@pytest.fixture(params=MIXES)
def indices(request):
    return torch.tensor(request.param)


@pytest.mark.parametrize("shape", [(ADAPTERS, 1, RANK, HIDDEN), (ADAPTERS, RANK, HIDDEN)])
def test_each_token_is_shrunk_by_its_own_adapter(indices, shape):
    weights, inputs, output = rand(*shape), rand(len(indices), HIDDEN), torch.full((len(indices), RANK + 2), 7.0)
    shrink(inputs, weights, output, indices, 0.5)
    for token, adapter in enumerate(indices.tolist()):
        alone = 0.5 * weights.reshape(ADAPTERS, RANK, HIDDEN)[adapter] @ inputs[token] if adapter >= 0 else 0
        torch.testing.assert_close(output[token, :RANK], torch.zeros(RANK) + alone)
    assert (output[:, RANK:] == 7).all()


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("width", [OUT, OUT + 3, OUT - 2])
def test_each_token_is_expanded_by_its_own_adapter_into_what_fits(indices, width, add):
    weights, inputs, output = (
        rand(ADAPTERS, 1, OUT, RANK),
        rand(len(indices), RANK),
        torch.full((len(indices), width), 7.0),
    )
    expand(inputs, weights, output, indices, add)
    fits = min(width, OUT)
    for token, adapter in enumerate(indices.tolist()):
        alone = (weights[adapter, 0] @ inputs[token])[:fits] if adapter >= 0 else torch.zeros(fits)
        torch.testing.assert_close(output[token, :fits], alone + (7 if add else 0))
    assert (output[:, fits:] == 7).all()


@pytest.mark.parametrize("add", [True, False])
def test_a_slice_leaves_the_other_columns_alone(indices, add):
    weights, inputs, output = (
        rand(ADAPTERS, OUT, RANK),
        rand(len(indices), RANK),
        torch.full((len(indices), OUT + 8), 7.0),
    )
    expand_slice(inputs, weights, output, indices, 4, OUT, add)
    for token, adapter in enumerate(indices.tolist()):
        alone = weights[adapter] @ inputs[token] if adapter >= 0 else torch.zeros(OUT)
        torch.testing.assert_close(output[token, 4 : 4 + OUT], alone + (7 if add else 0))
    assert (output[:, :4] == 7).all() and (output[:, 4 + OUT :] == 7).all()


@pytest.mark.parametrize("add", [True, False])
def test_a_layer_that_an_adapter_leaves_alone_stays_as_it_is(add):
    """The engine keeps zeros for it, in one of the two matrices or in both."""
    indices, output = torch.tensor([1, 0, 1]), torch.full((3, OUT), 7.0)
    weights, inputs = rand(ADAPTERS, 1, OUT, RANK), rand(3, RANK)
    weights[1] = 0
    expand(inputs, weights, output, indices, add)
    assert (output[[0, 2]] == (7 if add else 0)).all()
    torch.testing.assert_close(output[1], weights[0, 0] @ inputs[1] + (7 if add else 0))
    between = torch.full((3, RANK), 7.0)
    shrink(rand(3, HIDDEN), torch.zeros(ADAPTERS, 1, RANK, HIDDEN), between, indices)
    assert (between == 0).all()
