"""Vectors of a task's inputs by one model after another; token sequences are made once, for all models."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from data_prep.samples import Sample
from stages.backbones.backbone import Backbone, EmbeddingContract
from stages.evaluate.readings import WordsOfPages
from stages.evaluate.search_task import SearchTask
from stages.train.batches import Batch, collate
from stages.train.sequences import SequenceBuilder, TokenSequence

KINDS = ("images", "texts", "queries")
"""What is encoded of a search task: the corpus, the samples of it that have a text, the queries."""
KEPT_IMAGE_BYTES = 2**30
"""Patches kept for the next model, for one set of images: thousands of blocks, or some forty whole pages; and
as much of what the vision tower made of them."""


class PreparedSequences(Sequence[TokenSequence]):
    """Token sequences of some inputs, each made when it is first asked for.

    Those whose patches fit into `KEPT_IMAGE_BYTES` are kept, first come; the others are made again for every
    model. So memory does not grow with the corpus, and a batch holds no more images than its rows.

    Args:
        build: makes the sequence of one of `inputs`.
        size: a number that grows with the sequence's length, known without making it.
    """

    def __init__(
        self, inputs: Sequence[Any], build: Callable[[Any], TokenSequence], size: Callable[[Any], int]
    ) -> None:
        self.sizes = [size(one) for one in inputs]
        self._inputs = inputs
        self._build = build
        self._kept: dict[int, TokenSequence] = {}
        self._free_bytes = KEPT_IMAGE_BYTES

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, row: int) -> TokenSequence:
        if row in self._kept:
            return self._kept[row]
        sequence = self._build(self._inputs[row])
        patch_bytes = 0 if sequence.patches is None else sequence.patches.nbytes
        if patch_bytes <= self._free_bytes:
            self._free_bytes -= patch_bytes
            self._kept[row] = sequence
        return sequence

    def batches(self, backbone: Backbone, size: int) -> Iterator[tuple[list[int], Batch]]:
        """Yield batches of `size` rows of similar length, with their rows: every time the same ones."""
        order = sorted(range(len(self)), key=lambda row: (self.sizes[row], row))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, collate([self[row] for row in rows], pad_token=backbone.tokenizer.pad_token_id)


class KeptImageFeatures:
    """What the vision tower made of the batches of one set of images, for the next model that has the tower.

    Models of one checkpoint have it: CL's adapter is on the decoder.
    """

    def __init__(self) -> None:
        self._tower: tuple[EmbeddingContract, str] | None = None
        self._of_batch: dict[int, Any] = {}
        self._free_bytes = KEPT_IMAGE_BYTES

    def take(self, backbone: Backbone) -> None:
        """Forget what is of another tower than this one's."""
        content = hashlib.sha256()
        for name, tensor in backbone.family.vision(backbone.model).state_dict().items():
            content.update(name.encode())
            content.update(tensor.reshape(-1).contiguous().view(torch.uint8).numpy())
        tower = (replace(backbone.contract, adapter_keys=()), content.hexdigest())
        if tower != self._tower:
            self._tower, self._of_batch, self._free_bytes = tower, {}, KEPT_IMAGE_BYTES

    def of(self, backbone: Backbone, first: int, batch: Batch) -> Any:
        """Image features of the batch that begins with row `first`, for a family's `hidden_states`."""
        if first in self._of_batch:
            return self._of_batch[first]
        features = backbone.family.image_features(backbone.model, batch)
        feature_bytes = sum(one.nbytes for one in features.pooler_output)
        if feature_bytes <= self._free_bytes:
            self._free_bytes -= feature_bytes
            self._of_batch[first] = features
        return features


def prepared_images(builder: SequenceBuilder, samples: Sequence[Sample]) -> PreparedSequences:
    """Sequences of samples' images, to be embedded."""
    return PreparedSequences(
        samples,
        build=lambda sample: builder.summarize_image(sample.image()),
        size=lambda sample: sample.width * sample.height,
    )


def prepared_texts(builder: SequenceBuilder, texts: Sequence[str]) -> PreparedSequences:
    """Sequences of texts or queries, to be embedded."""
    return PreparedSequences(texts, build=builder.summarize_text, size=len)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Vectors of some rows."""

    vectors: np.ndarray
    """[rows, hidden] float32, L2-normalised: the embedding."""
    layers: np.ndarray
    """[layers + 1, chosen rows, hidden] float32: the same position's hidden state after the embedding layer
    and after each decoder layer (the last one after the final norm), of the rows asked for."""
    words: WordsOfPages | None = None
    """What the same position says which words come, of what was asked for."""

    def mapped(self, vectors_by: Callable[[np.ndarray], np.ndarray]) -> "Encoded":
        """Map the embedding; the last layer becomes its image, the layers below stay the model's."""
        layers, last = self.layers.copy(), self.layers[-1]
        layers[-1] = vectors_by(last / np.linalg.norm(last, axis=1, keepdims=True))
        return Encoded(vectors=vectors_by(self.vectors), layers=layers)


@dataclass(frozen=True, kw_only=True)
class AskedWords:
    """Which tokens' log-probabilities are kept at the position that is embedded, and how many of each row."""

    tokens: Sequence[int]
    kept: int


@torch.no_grad()
def encode(
    backbone: Backbone,
    sequences: PreparedSequences,
    batch_size: int,
    *,
    layer_rows: Sequence[int] = (),
    asked: AskedWords | None = None,
    features: KeptImageFeatures | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Encoded:
    """Embed token sequences, in batches of similar size; hidden states of all layers for `layer_rows`, and
    the likeliest words where they are `asked` for.

    Batches are of so many rows, chosen before any sequence is made: mining, which has them all in memory,
    goes by tokens (stages/train/forward.py). `features`: of these sequences' images, by this backbone's
    tower. `on_batch` is called after every batch.
    """
    shape = backbone.shape
    vectors = np.empty((len(sequences), shape.width), dtype=np.float32)
    layers = np.empty((shape.layers + 1, len(layer_rows), shape.width), dtype=np.float32)
    place = {row: number for number, row in enumerate(layer_rows)}
    words = None
    if asked:
        shown = (len(sequences), min(asked.kept, len(asked.tokens)))
        words = WordsOfPages(
            columns=np.empty(shown, dtype=np.int32),
            log_probabilities=np.empty(shown, dtype=np.float32),
            size=len(asked.tokens),
        )
    for rows, batch in sequences.batches(backbone, batch_size):
        chosen = [number for number, row in enumerate(rows) if row in place]
        output = _hidden_states(backbone, rows, batch, features, output_hidden_states=bool(chosen))
        last = output.last_hidden_state[:, -1].float()
        vectors[rows] = torch.nn.functional.normalize(last, dim=-1).numpy()
        if asked:
            logits = backbone.family.head(backbone.model)(last)[:, list(asked.tokens)].float()
            likeliest = logits.log_softmax(dim=-1).topk(shown[1])
            words.columns[rows], words.log_probabilities[rows] = map(torch.Tensor.numpy, likeliest[::-1])
        if chosen:
            states = [state[chosen, -1].float() for state in output.hidden_states[:-1]] + [last[chosen]]
            layers[:, [place[rows[number]] for number in chosen]] = torch.stack(states).numpy()
        on_batch()
    return Encoded(vectors=vectors, layers=layers, words=words)


def _hidden_states(
    backbone: Backbone, rows: Sequence[int], batch: Batch, features: KeptImageFeatures | None, **options: Any
) -> Any:
    images = None
    if features is not None and batch.pixel_values is not None:
        images = features.of(backbone, rows[0], batch)
    return backbone.family.hidden_states(backbone.model, batch, images=images, **options)


class TaskEncoder:
    """Encodes a search task with model after model; those that take the same inputs share the sequences, and
    those of one vision tower what it made of the images."""

    def __init__(self, task: SearchTask, *, batch_size: int, geometry_samples: int = 0) -> None:
        """`geometry_samples`: so many samples that have a text get the hidden states of all layers."""
        compared = task.with_text[:geometry_samples]
        self.task = task
        self._batch_size = batch_size
        self._layer_rows = {"images": compared, "texts": range(len(compared)), "queries": ()}
        self._contract: EmbeddingContract | None = None
        self._sequences: dict[str, PreparedSequences] = {}
        self._features = KeptImageFeatures()

    def encode(
        self,
        backbone: Backbone,
        kind: str,
        on_batch: Callable[[], None] = lambda: None,
        *,
        asked: AskedWords | None = None,
    ) -> Encoded:
        """Embed one of `KINDS`, with layers of the first samples that have a text. See `encode`."""
        self._take(backbone, kind)
        options = {"layer_rows": self._layer_rows[kind], "asked": asked, "on_batch": on_batch}
        return encode(backbone, self._sequences[kind], self._batch_size, features=self._features, **options)

    @torch.no_grad()
    def content_states(
        self, backbone: Backbone, kind: str, on_batch: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield each row of one of `KINDS` with the L2-normalised last hidden states [tokens, hidden] of its
        image or text, without its prompt."""
        self._take(backbone, kind)
        sequences = self._sequences[kind]
        for rows, batch in sequences.batches(backbone, self._batch_size):
            states = _hidden_states(backbone, rows, batch, self._features).last_hidden_state
            states = torch.nn.functional.normalize(states.float(), dim=-1)
            for row, of_row in zip(rows, states, strict=True):
                sequence = sequences[row]
                start = len(of_row) - len(sequence)  # padded on the left
                yield row, of_row[start + sequence.content.start : start + sequence.content.stop]
            on_batch()

    def _take(self, backbone: Backbone, kind: str) -> None:
        """Keep of earlier models what is this one's too."""
        contract = replace(backbone.contract, adapter_keys=())
        if contract != self._contract:
            task, builder = self.task, SequenceBuilder(backbone)
            self._contract = contract
            self._sequences = {
                "images": prepared_images(builder, task.corpus),
                "texts": prepared_texts(builder, [task.corpus[row].text for row in task.with_text]),
                "queries": prepared_texts(builder, [query.text for query in task.queries]),
            }
        if kind == "images":
            self._features.take(backbone)
