"""One way to turn a query into a vector, so that the trainer's rows and the encoder's live queries can be compared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

MAX_TOKENS = 256  # what the sentence encoder was trained on; the rest of a longer query is not seen
BATCH = 32

Vectors = NDArray[np.float32]


class Embedder:
    """A sentence encoder in fp32: mean of the last hidden states over real tokens, scaled to length one."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self._model = AutoModel.from_pretrained(directory, local_files_only=True, dtype=torch.float32).eval()
        self.width: int = self._model.config.hidden_size

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors float32 [len(texts), width] in the order given; the same text gives the same vector in any company.

        Batches are cut from the texts sorted by length, so that a short one is not padded to a long one.
        """
        rows = np.empty((len(texts), self.width), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), BATCH):
            chunk = order[start : start + BATCH]
            rows[chunk] = self._embed_batch([texts[index] for index in chunk])
        return rows

    @torch.inference_mode()
    def _embed_batch(self, texts: list[str]) -> Vectors:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        hidden = self._model(**tokens).last_hidden_state  # [B, T, width]
        real = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)  # [B, T, 1]
        mean = (hidden * real).sum(dim=1) / real.sum(dim=1)
        vectors: Vectors = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors
