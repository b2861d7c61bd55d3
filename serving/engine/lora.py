"""Applies the LoRAs of a batch group by group, for an engine without a GPU.

Same meaning as vLLM's own for the CPU (vllm/lora/punica_wrapper/punica_cpu.py), which finds out anew in each of some
two hundred multiplications of a step which token has which adapter, and multiplies by the zeros that it keeps where an
adapter leaves a layer alone. Here the tokens are grouped once a step, and what is left alone is remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """The tokens of a step that have the adapter in one of the engine's slots; `rows` is None where all have it."""

    slot: int
    rows: Tensor | None


def group_tokens(slots: Sequence[int]) -> list[Group]:
    """Group a step's tokens, given the slot of each token's adapter; -1 has none and is in no group."""
    present = sorted(set(slots))
    if len(present) == 1:
        return [Group(present[0], None)] if present[0] >= 0 else []
    by_slot: dict[int, list[int]] = {slot: [] for slot in present if slot >= 0}
    for row, slot in enumerate(slots):
        if slot >= 0:
            by_slot[slot].append(row)
    return [Group(slot, torch.tensor(rows)) for slot, rows in by_slot.items()]


class GroupedLora:
    """What one step's layers share: the groups of its tokens, and which adapter changes which layer."""

    def __init__(self) -> None:
        self._groups: list[Group] = []
        self._layout: tuple[int | None, ...] = ()
        self._told: Sequence[int | None] = ()
        self._changes: dict[tuple[int, int], bool] = {}

    def begin(self, slots: Sequence[int], *, layout: Sequence[int | None]) -> None:
        """Begin a step: the slot of each token's adapter, and the id of the adapter in each slot.

        An id stands for the same weights as long as `layout` is the same list (adapters are never loaded again in
        place): vLLM warms up with zeros under the first ids and gives those out anew, in a new list.
        """
        self._groups = group_tokens(slots)
        if self._told is not layout or self._layout != tuple(layout):  # other weights lie in some slot
            self._told, self._layout = layout, tuple(layout)
            self._changes.clear()

    def add(
        self,
        output: Tensor,
        inputs: Tensor,
        downs: Sequence[Tensor],
        ups: Sequence[Tensor],
        widths: Sequence[int],
        scale: float,
    ) -> None:
        """output[t, columns of part p] += scale · ups[p][slot of t] · downs[p][slot of t] · inputs[t], in place.

        Args: output [T, sum of widths or more]; inputs [T, h]; of each part (query, key and value are three of one
        layer) downs [slots, 1, r, h], ups [slots, 1, width or more, r] and its width.
        """
        start = 0
        for down, up, width in zip(downs, ups, widths, strict=True):
            for group in self._groups:
                if self._is_changed(down, up, group.slot):
                    columns = output[:, start : start + width]
                    _add_product(columns, inputs, down[group.slot, 0], up[group.slot, 0, :width], scale, group.rows)
            start += width

    def _is_changed(self, down: Tensor, up: Tensor, slot: int) -> bool:
        """Whether the adapter in a slot changes a layer: the engine keeps zeros for those that it leaves alone."""
        key = (up.data_ptr(), slot)
        if key not in self._changes:
            self._changes[key] = bool(down[slot].any() and up[slot].any())
        return self._changes[key]


def _add_product(columns: Tensor, inputs: Tensor, down: Tensor, up: Tensor, scale: float, rows: Tensor | None) -> None:
    if rows is None:
        columns.addmm_(inputs @ down.T, up.T, alpha=scale)
    else:
        columns.index_add_(0, rows, inputs[rows] @ down.T @ up.T, alpha=scale)
