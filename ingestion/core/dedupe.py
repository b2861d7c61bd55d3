"""Why a dataset does not fool itself: rows that are almost the same text are found, so that they can stand on one side.

MinHash with locality-sensitive hashing proposes pairs (Broder 1997; Leskovec, Rajaraman and Ullman, ch. 3); each
proposal is then checked on the exact Jaccard similarity, so hashing can miss a pair but never invent one.
"""

import re
from collections.abc import Iterator, Sequence

from datasketch import MinHash, MinHashLSH

_SHINGLE_CHARS = 5
_PERMUTATIONS = 128
_SEED = 1  # the same rows give the same clusters, on every machine
_LOOSER = 0.1  # proposals start below the threshold: 128 permutations estimate a similarity to about +-0.04
_NOISE = re.compile(r"[\W_]+")


def cluster_near_duplicates(texts: Sequence[str], *, threshold: float = 0.85) -> list[int]:
    """A cluster id per row, 0, 1, 2… in order of first appearance; rows that share one are near duplicates.

    Two texts are near duplicates when the Jaccard similarity of their character 5-grams, after casefolding and with
    punctuation as spaces, is at least `threshold` in (0, 1]; clusters are what such pairs connect.
    """
    if not 0 < threshold <= 1:
        raise ValueError("threshold must be in (0, 1]")
    plain = [_NOISE.sub(" ", text.casefold()).strip() or text.strip() for text in texts]
    distinct = list(dict.fromkeys(plain))
    parents = list(range(len(distinct)))
    for one, other in _near_pairs([_shingles(text) for text in distinct], threshold):
        parents[_root(parents, other)] = _root(parents, one)
    place = {text: _root(parents, index) for index, text in enumerate(distinct)}
    ids: dict[int, int] = {}
    return [ids.setdefault(place[text], len(ids)) for text in plain]


def _near_pairs(shingles: Sequence[frozenset[bytes]], threshold: float) -> Iterator[tuple[int, int]]:
    index = MinHashLSH(threshold=max(0.1, threshold - _LOOSER), num_perm=_PERMUTATIONS)
    sketches = MinHash.generator([list(grams) for grams in shingles], num_perm=_PERMUTATIONS, seed=_SEED)
    for row, sketch in enumerate(sketches):
        for other in index.query(sketch):
            if _jaccard(shingles[row], shingles[other]) >= threshold:
                yield other, row
        index.insert(row, sketch)


def _shingles(text: str) -> frozenset[bytes]:
    last = max(1, len(text) - _SHINGLE_CHARS + 1)
    return frozenset(text[start : start + _SHINGLE_CHARS].encode("utf-8", "surrogatepass") for start in range(last))


def _jaccard(one: frozenset[bytes], other: frozenset[bytes]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _root(parents: list[int], row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row
