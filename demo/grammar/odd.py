"""Writes what no workload expects: other languages, poems, code, chatter, and messages of many pages.

They come under a workload's own prompt; a student should leave them to the teacher, who answers them as nothing.
"""

from random import Random

from demo.grammar.fillers import FILLERS
from demo.grammar.phrases import load_phrases, write
from demo.grammar.sampling import Sample, Workload

OVERSIZED_CHARACTERS = 8000
OVERSIZED_SHARE = 0.15
_FILE = "odd.txt"


def draw_odd(workload: Workload, rng: Random) -> Sample:
    """A query unlike the workload's, or in a share of OVERSIZED_SHARE one of its own buried in a long thread."""
    if rng.random() < OVERSIZED_SHARE:
        return draw_oversized(workload, rng)
    query = write(rng.choice(load_phrases(_FILE)["odd"]), rng, fillers=FILLERS)
    return Sample(query, workload.read(query))


def draw_oversized(workload: Workload, rng: Random) -> Sample:
    """One of the workload's own queries with at least OVERSIZED_CHARACTERS of other people's mail below it."""
    lines = [workload.draw(rng).query]
    size = len(lines[0])
    while size < OVERSIZED_CHARACTERS:
        lines.append(write(rng.choice(load_phrases(_FILE)["padding"]), rng, fillers=FILLERS))
        size += len(lines[-1]) + 1
    query = "\n".join(lines)
    return Sample(query, workload.read(query))
