"""Log-likelihoods of many texts, and of the words of many queries, under each of many page images.

A text is what the model would write after the prompt to transcribe. A page's prompt goes through the model
once; its keys and values then serve all texts. A text ends with the end token, as in training: the
likelihoods of all texts there are sum to 1. A query is no transcription of its page: its words are scored as
CGP teaches them, by the page's one-word summary.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from data_prep.queries import words_of
from stages.backbones.backbone import Backbone
from stages.train.batches import IGNORED_LABEL, collate, padded_buckets
from stages.train.config import EngineConfig
from stages.train.forward import hidden_states, last_hidden
from stages.train.sequences import SequenceBuilder, TokenSequence
from stages.train.words import SalientWords

WHITE = 255
POSITIONS_AT_ONCE = 8_192
"""Positions of texts in a forward pass, at most; each row also holds a copy of the page's keys and values."""
LABELS_AT_ONCE = 256
"""Rows of logits at a time: a few megabytes that stay in a processor's cache take half the time of more."""


def log_likelihoods(
    backbone: Backbone, images: Iterable[Image.Image], texts: Sequence[str]
) -> Iterator[np.ndarray]:
    """Yield for each image, in order, `log p(text | image)` of all texts in nats [texts], float64."""
    builder = SequenceBuilder(backbone)
    answers = [_answer(builder, text) for text in texts]
    longest = max(len(answer) for answer in answers)
    buckets = padded_buckets(answers, EngineConfig(text_tokens=max(POSITIONS_AT_ONCE, longest)))
    # [rows, longest] each, padded on the right: what follows a text cannot change it.
    batches = [
        pad_sequence([torch.tensor(answers[n].ids) for n in bucket], True, IGNORED_LABEL)
        for bucket in buckets
    ]
    for image in images:
        page = builder.transcribe_image(image, None)
        prefix = _encode_prefix(backbone, page)
        values = np.empty(len(answers))
        for bucket, labels in zip(buckets, batches, strict=True):
            values[bucket] = _continuations(backbone, page, prefix, labels)
        yield values


@torch.inference_mode()
def word_log_likelihoods(
    backbone: Backbone, images: Iterable[Image.Image], queries: Sequence[str]
) -> Iterator[np.ndarray]:
    """Yield for each image, in order, `log p(words of the query | image)` in nats [queries], float64.

    The sum over a query's words of the log-probability that the page's one-word summary is that word
    (stages/train/words.py): words independent of each other, in any order; of a word of several tokens their
    mean. 0 for a query without words.
    """
    builder = SequenceBuilder(backbone)
    counts, head = _word_counts(backbone, queries), backbone.family.head(backbone.model)
    for image in images:
        batch = collate([builder.summarize_image(image)], pad_token=builder.pad_token)
        logits = head(last_hidden(backbone.model, batch))[0]
        yield (counts @ logits.float().log_softmax(dim=-1).double()).numpy()


def _word_counts(backbone: Backbone, queries: Sequence[str]) -> torch.Tensor:
    """How often each token stands for a word of each query [queries, vocabulary], float64."""
    words = SalientWords.fit([], backbone.tokenizer)  # of no corpus: every word weighs the same
    counts = torch.zeros(len(queries), backbone.vocabulary, dtype=torch.float64)
    for row, query in enumerate(queries):
        for token, share in words.targets(query).items():
            counts[row, token] = share * len(words_of(query.casefold()))
    return counts


def blank_log_likelihoods(
    backbone: Backbone,
    sizes: Sequence[tuple[int, int]],
    texts: Sequence[str],
    on_page: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Return each text's log-likelihood under a white page, in nats [texts], float64.

    The white page has the width and height of the text's own, `sizes`: all that is missing is the writing.
    `on_page` is called after each size.
    """
    of_size: dict[tuple[int, int], list[int]] = {}
    for number, size in enumerate(sizes):
        of_size.setdefault(size, []).append(number)
    values = np.empty(len(texts))
    for size, numbers in of_size.items():
        white = Image.new("L", size, WHITE)
        (values[numbers],) = log_likelihoods(backbone, [white], [texts[number] for number in numbers])
        on_page()
    return values


def _answer(builder: SequenceBuilder, text: str) -> TokenSequence:
    """What the model is to write: the text's tokens and the end token, after whatever prompt."""
    sequence = builder.repeat_text(text)
    start = sequence.label_start
    return TokenSequence(ids=sequence.ids[start:], label_start=0, positions=sequence.positions[:, start:])


@torch.inference_mode()
def _encode_prefix(backbone: Backbone, page: TokenSequence) -> DynamicCache:
    """Keys and values of a page's prompt but for its last token, which predicts the first one of a text."""
    prompt = replace(page, ids=page.ids[:-1], label_start=len(page) - 1, positions=page.positions[:, :-1])
    return hidden_states(backbone.model, collate([prompt], pad_token=0), use_cache=True).past_key_values


@torch.inference_mode()
def _continuations(
    backbone: Backbone, page: TokenSequence, prefix: DynamicCache, labels: torch.Tensor
) -> np.ndarray:
    """Log-likelihood of each row of labels after the page's prompt [rows]."""
    rows = len(labels)
    ids = torch.cat([labels.new_full((rows, 1), page.ids[-1]), labels[:, :-1].clamp(min=0)], dim=1)
    cache = _for_rows(prefix, rows)
    hidden = backbone.family.continued(backbone.model, ids, page.positions[:, -1], cache)
    head, places = backbone.family.head(backbone.model), labels != IGNORED_LABEL
    losses = [
        torch.nn.functional.cross_entropy(head(states).float(), tokens, reduction="none")
        for states, tokens in zip(
            hidden[places].split(LABELS_AT_ONCE), labels[places].split(LABELS_AT_ONCE), strict=True
        )
    ]
    sums = torch.zeros(rows, dtype=torch.float64)
    return -sums.index_add_(0, places.nonzero()[:, 0], torch.cat(losses).double()).numpy()


def _for_rows(prefix: DynamicCache, rows: int) -> DynamicCache:
    """The keys and values of one row seen as several; nothing is copied, and the prefix stays as it is."""
    cache = DynamicCache()
    for layer in map(copy.copy, prefix.layers):
        layer.keys = layer.keys.expand(rows, -1, -1, -1)
        layer.values = layer.values.expand(rows, -1, -1, -1)
        cache.layers.append(layer)
    return cache
