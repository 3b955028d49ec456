"""The optional second search, by meaning: an encoder finds rewordings and translations that characters do not show."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.exam_items import ExamItem
from medllm.errors import DataError, MissingExtraError

STRETCH = 400
"""Characters that are encoded together; a case with its question is about as long."""
ALIKE = 0.9
"""Cosine from which a stretch is shown to a person. It depends on the encoder: try it on items reworded on purpose."""
_BATCH = 32

Vectors = npt.NDArray[np.float32]


class Encoder:
    """A model of the transformers library; the last layer, averaged over the tokens, is the vector of a text."""

    def __init__(self, folder: Path) -> None:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as fault:
            raise MissingExtraError("train", "The audit by meaning") from fault
        if not (folder / "config.json").is_file():
            raise DataError(
                "corpus.no-encoder",
                f"{folder}: holds no encoder. Give the folder of a sentence encoder with its config.json.",
            )
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector of length 1 for each text."""
        parts = [self._batch(texts[begin : begin + _BATCH]) for begin in range(0, len(texts), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)

    def _batch(self, texts: Sequence[str]) -> Vectors:
        torch = self._torch
        tokens: Any = self._tokenizer(list(texts), padding=True, truncation=True, max_length=512, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        vectors: Vectors = torch.nn.functional.normalize(mean, dim=-1).float().numpy()
        return vectors


class SemanticIndex:
    """Index of the held-out items as vectors."""

    def __init__(self, items: Sequence[ExamItem], encoder: Encoder) -> None:
        self._encoder = encoder
        self._items = encoder.encode([item.text for item in items])

    def match(self, text: str, alike: float = ALIKE) -> Iterator[tuple[int, float]]:
        """Yield the items that are similar to a stretch of the text, with the largest cosine."""
        step = STRETCH // 2
        stretches = [text[at : at + STRETCH] for at in range(0, max(len(text) - step, 1), step)]
        cosines = (self._encoder.encode(stretches) @ self._items.T).max(axis=0)
        for number in np.flatnonzero(cosines >= alike).tolist():
            yield number, round(float(cosines[number]), 4)
