"""All readings of one checkpoint on the pages that are searched (readings.py); fusion's weights are chosen on
validation pages, which no score of the test enters."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from stages.backbones.backbone import Backbone
from stages.cells import PRIMARY_METRIC
from stages.evaluate.config import RetrievalSettings
from stages.evaluate.encoding import AskedWords, Encoded, TaskEncoder
from stages.evaluate.late_interaction import late_interaction
from stages.evaluate.readings import (
    Lexical,
    Pooled,
    Transcribed,
    best_weights,
    equal_weights,
    fused_scores,
)
from stages.evaluate.score import score_retrieval
from stages.evaluate.search_task import NoQueries, SearchTask, build_task
from stages.evaluate.transcription import read_transcriptions
from stages.program import Input
from stages.train.bm25 import trigrams, words
from stages.train.words import SalientWords

OF_THE_TRANSCRIPTION = {"transcribed": words, "trigrams": trigrams}
"""Readings of the checkpoint's text alone. CL's adapter is off when it writes: CL changes neither."""


class CheckpointReadings:
    """Scores model after model on the same pages."""

    def __init__(
        self, encoder: TaskEncoder, inputs: Mapping[str, Input], settings: RetrievalSettings
    ) -> None:
        """`encoder`: of the pages that are searched. `inputs`: "validation", "validation_queries"."""
        self._encoder, self._task, self._settings = encoder, encoder.task, settings
        self._validation = _validation(inputs, settings)
        self._words: SalientWords | None = None
        self._validation_encoder: TaskEncoder | None = None
        if self._validation:
            self._validation_encoder = TaskEncoder(self._validation, batch_size=settings.batch_size)

    def asked(self, backbone: Backbone) -> AskedWords:
        """Which words are asked for of a page that is encoded."""
        return AskedWords(tokens=self._words_of(backbone).tokens, kept=self._settings.readings.kept_words)

    def measure(
        self,
        backbone: Backbone,
        encoded: Mapping[str, Encoded],
        transcription: Input,
        *,
        refined: bool,
        on_batch: Callable[[], None],
    ) -> dict:
        """Return what retrieval.json says of one model's readings.

        Args:
            encoded: the task's "images", with the `asked` words, and "queries".
            transcription: what the checkpoint wrote.
            refined: whether the model is one after CL.
        """
        scores = self._scores(backbone, self._task, encoded, transcription, "target_test")
        chosen = self._weights(backbone, transcription, list(scores), on_batch)
        fused = {"fused equally": equal_weights(scores)}
        if chosen["validation"] is not None:
            fused = {"fused": chosen["weights"]} | fused
        matrices = scores | {name: fused_scores(scores, weights) for name, weights in fused.items()}
        if refined:
            matrices = {name: one for name, one in matrices.items() if name not in OF_THE_TRANSCRIPTION}
        else:
            matrices["late interaction"] = late_interaction(self._encoder, backbone, on_batch)
        del matrices["pooled"]  # it is "query_to_image"
        place = {"corpus_ids": self._task.corpus_ids, "relevant": self._task.relevant}
        return {
            "readings": {name: score_retrieval(one, **place) for name, one in matrices.items()},
            "fusion": chosen,
        }

    def _scores(
        self,
        backbone: Backbone,
        task: SearchTask,
        encoded: Mapping[str, Encoded],
        transcription: Input,
        split: str,
    ) -> dict[str, np.ndarray]:
        """[queries, pages] of each reading but the fused ones."""
        asked, images, vectors = self._words_of(backbone), encoded["images"], encoded["queries"].vectors
        written = read_transcriptions(transcription, split)
        texts = [written[key] for key in task.corpus_ids]
        parts = {
            "pooled": Pooled(pages=images.vectors, embed=lambda _: vectors),
            "lexical": Lexical(images.words, columns_of=asked.numbers_of),
        }
        parts |= {name: Transcribed(texts, terms) for name, terms in OF_THE_TRANSCRIPTION.items()}
        queries = [query.text for query in task.queries]
        return {name: part.scores(queries) for name, part in parts.items()}

    def _weights(
        self, backbone: Backbone, transcription: Input, names: list[str], on_batch: Callable[[], None]
    ) -> dict:
        """The weights, and nDCG@10 on validation pages of parts and sum; equal weights without such."""
        task = self._validation
        if task is None:
            return {"weights": equal_weights(names), "validation": None}
        encoder, asked = self._validation_encoder, self.asked(backbone)
        encoded = {
            "images": encoder.encode(backbone, "images", on_batch, asked=asked),
            "queries": encoder.encode(backbone, "queries", on_batch),
        }
        scores = self._scores(backbone, task, encoded, transcription, "target_validation")
        place = {"corpus_ids": task.corpus_ids, "relevant": task.relevant}
        weights = best_weights(scores, steps=self._settings.readings.weight_steps, **place)
        measured = scores | {"fused": fused_scores(scores, weights)}
        means = {name: score_retrieval(one, **place)["means"] for name, one in measured.items()}
        return {
            "weights": weights,
            "validation": {name: mean[PRIMARY_METRIC] for name, mean in means.items()},
        }

    def _words_of(self, backbone: Backbone) -> SalientWords:
        """Checkpoints of one backbone have one tokenizer."""
        if self._words is None:
            self._words = SalientWords.fit([], backbone.tokenizer)  # of no corpus: their weights are not used
        return self._words


def _validation(inputs: Mapping[str, Input], settings: RetrievalSettings) -> SearchTask | None:
    """None where the documents leave no validation queries."""
    folders: tuple[Path, Path] = (inputs["validation"].path, inputs["validation_queries"].path)
    try:
        return build_task(*folders, settings.readings.validation)
    except NoQueries:
        return None
