"""Rows become tensors here: read, render into the base's prompt, tokenise, group into steps, pack without padding.

A pack is one sequence that holds the tokens all its examples begin with once, then each example's own tokens. The
attention mask lets an example see that shared start and itself, and positions count on from the shared start, so the
result is what each example would give alone, at no padding and one prompt head instead of sixteen.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch
from transformers import PreTrainedTokenizerBase


class UnableToReadData(Exception):
    """The data file is not rows of query, answer and split, or has none to train on."""


class Row(msgspec.Struct, frozen=True):
    """One example of the frozen dataset; the answer is canonical."""

    query: str
    answer: str
    split: Literal["train", "tuning"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text around a query, exactly as trainer and replica use it."""

    prefix: str
    suffix: str
    control_tokens: tuple[str, ...]  # strings the tokeniser reads as structure; a query must not hold one


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids; the last `answer_length` of them are the answer and its end-of-sequence token."""

    ids: tuple[int, ...]
    answer_length: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Several examples as one sequence of T tokens, A of which are answers."""

    input_ids: torch.Tensor  # [1, T] int64
    position_ids: torch.Tensor  # [1, T] int64
    mask: torch.Tensor  # [1, 1, T, T] bool, True where attention is allowed
    asking: torch.Tensor  # [A] int64: where the logits are taken, one before each answer token
    answers: torch.Tensor  # [A] int64: the tokens to be predicted there


def read_rows(path: Path) -> list[Row]:
    """All rows of a JSONL file. Raises UnableToReadData, naming the line but never what stands in it."""
    rows: list[Row] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                rows.append(msgspec.json.decode(line, type=Row))
            except msgspec.DecodeError as error:
                raise UnableToReadData(f"line {number} is not a row") from error
    if not any(row.split == "train" for row in rows):
        raise UnableToReadData("no row to train on")
    return rows


def render_prompt(tokenizer: PreTrainedTokenizerBase, *, marker: str) -> Prompt:
    """The least text around a query that tells it from its answer: a start token where the base has one, and `marker`
    on a line of its own.

    No chat template: its default instructions cost a small base more tokens than most queries have, on every call, and
    an adapter that only ever answers one workload learns its form from the rows.
    """
    begins = tokenizer("x").input_ids[:1]
    start = tokenizer.bos_token if tokenizer.bos_token and begins == [tokenizer.bos_token_id] else ""
    return Prompt(str(start), f"\n{marker}\n", list_control_tokens(tokenizer))


def list_control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Every special token's string, sorted: those with a role and those merely added."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple(sorted({*tokenizer.all_special_tokens, *added}))


def encode_rows(
    rows: Sequence[Row], prompt: Prompt, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> list[tuple[Row, Encoded]]:
    """Tokenise each row as the replica will; rows with a control token or above `max_tokens` are left out.

    Prompt and answer are tokenised apart, since a replica starts to write after the prompt's last token.
    """
    usable = [row for row in rows if not any(token in row.query + row.answer for token in prompt.control_tokens)]
    if not usable:
        return []
    asks = tokenizer([prompt.prefix + row.query + prompt.suffix for row in usable], add_special_tokens=False).input_ids
    answers = tokenizer([row.answer for row in usable], add_special_tokens=False).input_ids
    end = tokenizer.eos_token_id
    encoded = [Encoded((*ask, *answer, end), len(answer) + 1) for ask, answer in zip(asks, answers, strict=True)]
    return [pair for pair in zip(usable, encoded, strict=True) if len(pair[1].ids) <= max_tokens]


def order_steps(examples: Sequence[Encoded], *, batch: int, epochs: int, seed: int) -> list[list[Encoded]]:
    """The run's steps in order: each epoch is a fresh seeded shuffle cut into batches of at most `batch` examples."""
    steps: list[list[Encoded]] = []
    for epoch in range(epochs):
        order = list(examples)
        random.Random(f"{seed}/{epoch}").shuffle(order)
        steps.extend(order[start : start + batch] for start in range(0, len(order), batch))
    return steps


def group_packs(step: Sequence[Encoded], *, pack_tokens: int) -> Iterator[list[Encoded]]:
    """Cut one step into packs of at most `pack_tokens` tokens, shortest first; a longer example stands alone."""
    group: list[Encoded] = []
    for example in sorted(step, key=lambda each: len(each.ids)):
        if group and count_packed([*group, example]) > pack_tokens:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def count_packed(group: Sequence[Encoded]) -> int:
    """Tokens of the pack of these examples, the shared start counted once."""
    shared = measure_shared_start(group)
    return shared + sum(len(example.ids) - shared for example in group)


def measure_shared_start(group: Sequence[Encoded]) -> int:
    """How many tokens all these examples begin with; leaves each its last prompt token, the answer's start."""
    limit = min(len(example.ids) - example.answer_length for example in group) - 1
    first = min(group, key=lambda each: each.ids).ids  # the common start of the least and the greatest is everyone's
    last = max(group, key=lambda each: each.ids).ids
    for position in range(limit):
        if first[position] != last[position]:
            return position
    return max(limit, 0)


def pack_examples(group: Sequence[Encoded], *, device: torch.device) -> Pack:
    """One sequence of the shared start and every example's rest, with the mask that keeps the examples apart."""
    shared = measure_shared_start(group)
    ids = list(group[0].ids[:shared])
    positions = list(range(shared))
    owners = [0] * shared  # 0 is the shared start, which everyone may see
    asking: list[int] = []
    answers: list[int] = []
    for owner, example in enumerate(group, start=1):
        ids.extend(example.ids[shared:])
        positions.extend(range(shared, len(example.ids)))
        owners.extend([owner] * (len(example.ids) - shared))
        asking.extend(range(len(ids) - example.answer_length - 1, len(ids) - 1))
        answers.extend(example.ids[-example.answer_length :])
    owner_of = torch.tensor(owners, device=device)
    seen = (owner_of[None, :] == owner_of[:, None]) | (owner_of[None, :] == 0)
    return Pack(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        mask=seen.tril()[None, None],
        asking=torch.tensor(asking, device=device),
        answers=torch.tensor(answers, device=device),
    )
