"""Pairs of text and page per second of the generative critic, and of ways that encode a page again each time.

    python -m tests.bench.critic [--candidates 128] [--pages 5]

Recipe tiny's base and the candidates of its sample documents. Each round scores the texts of all candidates
under one page, as the critic does; the variants take turns, and must agree.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from stages.backbones.backbone import Backbone, load_backbone
from stages.evaluate.likelihood import log_likelihoods
from stages.evaluate.search_task import build_task, candidates_of
from stages.recipes import get_recipe
from stages.train.batches import collate, padded_buckets
from stages.train.config import EngineConfig
from stages.train.forward import hidden_states, label_logits
from stages.train.sequences import SequenceBuilder, TokenSequence
from tests.bench.measure import Moment, Run, sample_documents, show

OURS = "ours"
NAIVE = "the naive loop: a pair prepared and run at a time"
WITH_LABELS = "and logits of the text only"
PLAIN = "the same, image and texts prepared once"
BATCHED = "and pairs in batches"

Rows = Iterator[np.ndarray]
"""For each image the log-likelihoods of all texts."""
Scorer = Callable[[Backbone, Sequence[Image.Image], Sequence[str]], Rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=128)
    parser.add_argument("--pages", type=int, default=5, help="rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = get_recipe("tiny")
    backbone = load_backbone(recipe.backbone.location, recipe.backbone)
    prepared = sample_documents()
    search = build_task(prepared.train.path, prepared.train_queries.path, recipe.evaluate.search)
    pages = [search.corpus[row] for _, row in candidates_of(search, arguments.candidates)]
    images, texts = [page.image() for page in pages[: arguments.pages + 1]], [page.text for page in pages]
    runs: dict[str, list[Run]] = {name: [] for name in SCORERS}
    running = {name: scorer(backbone, images, texts) for name, scorer in SCORERS.items()}
    nats, relative = [], []
    for _ in images:
        values = {}
        for name, scorer in running.items():
            began = Moment.now()
            values[name] = next(scorer)
            runs[name].append(Run(work=len(texts), took=Moment.now() - began))
        np.testing.assert_allclose(values[OURS], values[NAIVE], rtol=1e-4)
        nats.append(np.abs(values[OURS] - values[NAIVE]).max())
        relative.append(np.abs(values[OURS] / values[NAIVE] - 1).max())
    title = f"{len(texts)} texts under each page, {arguments.threads} threads"
    show(title, "pairs/s", {name: each[1:] for name, each in runs.items()}, OURS)
    print(f"ours against {NAIVE}: {max(nats):.1e} nats at most, {max(relative):.1e} of a value")


@torch.inference_mode()
def with_labels(backbone: Backbone, images: Sequence[Image.Image], texts: Sequence[str]) -> Rows:
    for pairs in _pairs(backbone, images, texts):
        yield np.array([_batch(backbone, [pair])[0] for pair in pairs])


@torch.inference_mode()
def plain(backbone: Backbone, images: Sequence[Image.Image], texts: Sequence[str]) -> Rows:
    for pairs in _pairs(backbone, images, texts):
        yield np.array([_with_all_logits(backbone, pair) for pair in pairs])


@torch.inference_mode()
def naive(backbone: Backbone, images: Sequence[Image.Image], texts: Sequence[str]) -> Rows:
    builder = SequenceBuilder(backbone)
    for image in images:
        yield np.array([_with_all_logits(backbone, builder.transcribe_image(image, text)) for text in texts])


def _with_all_logits(backbone: Backbone, sequence: TokenSequence) -> float:
    batch = collate([sequence], pad_token=backbone.tokenizer.pad_token_id)
    states = hidden_states(backbone.model, batch).last_hidden_state[0]
    logits = backbone.family.head(backbone.model)(states)[sequence.label_start - 1 : -1].float()
    answer = torch.tensor(sequence.ids[sequence.label_start :])
    return -float(torch.nn.functional.cross_entropy(logits, answer, reduction="none").double().sum())


@torch.inference_mode()
def batched(backbone: Backbone, images: Sequence[Image.Image], texts: Sequence[str]) -> Rows:
    for pairs in _pairs(backbone, images, texts):
        values = np.empty(len(pairs))
        for bucket in padded_buckets(pairs, EngineConfig()):
            values[bucket] = _batch(backbone, [pairs[number] for number in bucket])
        yield values


def _batch(backbone: Backbone, pairs: Sequence[TokenSequence]) -> np.ndarray:
    batch = collate(pairs, pad_token=backbone.tokenizer.pad_token_id)
    losses = torch.nn.functional.cross_entropy(*label_logits(backbone.model, batch), reduction="none")
    lengths = [len(one) - one.label_start for one in pairs]
    return np.array([-float(part.double().sum()) for part in losses.split(lengths)])


def _pairs(
    backbone: Backbone, images: Sequence[Image.Image], texts: Sequence[str]
) -> Iterator[list[TokenSequence]]:
    """All texts after one image; image and texts are prepared once."""
    builder = SequenceBuilder(backbone)
    repeated = [builder.repeat_text(text) for text in texts]
    answers = [one.ids[one.label_start :] for one in repeated]
    for image in images:
        page = builder.transcribe_image(image, None)
        yield [_pair(page, answer) for answer in answers]


def _pair(page: TokenSequence, answer: list[int]) -> TokenSequence:
    following = page.positions[:, -1:] + np.arange(1, len(answer) + 1)
    return replace(page, ids=page.ids + answer, positions=np.hstack([page.positions, following]))


SCORERS: dict[str, Scorer] = {
    OURS: log_likelihoods,
    NAIVE: naive,
    PLAIN: plain,
    WITH_LABELS: with_labels,
    BATCHED: batched,
}


if __name__ == "__main__":
    main()
