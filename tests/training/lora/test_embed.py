"""The trainer embeds in batches and the encoder one by one: both must get the same vector."""

from pathlib import Path

import numpy as np

from training.lora.artifact import measure_distances
from training.lora.embed import Embedder


def test_a_text_gets_the_same_vector_in_any_company(encoder: Path) -> None:
    embedder = Embedder(encoder)
    texts = ["short", "a rather longer text than the others", "", "mid length"] * 20
    together = embedder.embed(texts)
    alone = np.vstack([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_no_texts_give_no_vectors(encoder: Path) -> None:
    assert Embedder(encoder).embed([]).shape == (0, 32)


def test_the_distance_is_to_the_kth_nearest_row_or_the_farthest_of_fewer() -> None:
    rows = np.eye(3, dtype=np.float32)
    query = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    assert measure_distances(query, rows, k=1).tolist() == [0.0]
    assert measure_distances(query, rows, k=2).tolist() == [1.0]
    assert measure_distances(query, rows, k=5).tolist() == [1.0]
    assert measure_distances(query[:0], rows).shape == (0,)
