"""Says what a workload is, and cuts its grammar into seeds whose queries can never meet.

A query belongs to the partition that the hash of its squashed text names, so that two seeds share no query, not even
one that differs only in case or punctuation; within a seed no query comes twice.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from demo.grammar.phrases import squash

SEEDS = 16
AMBIGUOUS_SHARE = 0.008


class UnableToPartition(Exception):
    """A seed outside the partitions: its queries could meet another seed's."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A query and what the expert says of it; `ambiguous` where the text holds two answers and either may come."""

    query: str
    answer: str
    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """One recurring use of a model: its fixed prompt, and a writer and a reader of its queries.

    `answer` texts are a label, a canonical JSON object, or for a tool call its arguments as canonical JSON. `template`
    has one `{query}`. `tool` is the function on offer as (name, description, JSON Schema), None where there is none.
    """

    name: str
    dialect: str  # openai or anthropic
    model: str
    system: str
    template: str
    draw: Callable[[Random], Sample]
    read: Callable[[str], str]
    tool: tuple[str, str, Mapping[str, object]] | None = None
    max_tokens: int = 64


def partition_of(query: str) -> int:
    """The seed, 0 to SEEDS - 1, to which a query belongs."""
    return hashlib.blake2b(squash(query).encode(), digest_size=8).digest()[0] % SEEDS


def draw_samples(workload: Workload, *, seed: int) -> Iterator[Sample]:
    """Samples without end and without repeats; disjoint between seeds. Raises UnableToPartition beyond SEEDS - 1."""
    if not 0 <= seed < SEEDS:
        raise UnableToPartition(f"seed {seed} is not between 0 and {SEEDS - 1}")
    rng = Random(f"{workload.name}/{seed}")
    seen: set[bytes] = set()
    while True:
        sample = workload.draw(rng)
        digest = hashlib.blake2b(squash(sample.query).encode(), digest_size=8).digest()
        if digest[0] % SEEDS == seed and digest not in seen:
            seen.add(digest)
            yield sample


def pick_by_text(query: str, *, options: int) -> int:
    """A choice that depends on the text alone: the same text is always answered the same way."""
    return hashlib.blake2b(squash(query).encode(), digest_size=8).digest()[1] % options
