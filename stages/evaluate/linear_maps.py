"""Baselines without contrastive refinement of the model: a linear map of its frozen vectors.

`whitening` needs no training: vectors are centred and decorrelated with the statistics of training pages
("Whitening Sentence Representations for Better Semantics and Faster Retrieval", arXiv 2103.15316).
`projection` is a matrix trained with InfoNCE from queries to texts, the "linear projection" that LCO-Emb
(arXiv 2510.11693) compares with LoRA. No page that is searched takes part in either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf

from data_prep.queries import Query
from data_prep.shards import Sample, ShardSource, read_queries
from stages.backbone import Backbone
from stages.evaluate.encoding import PreparedSequences, encode, prepared_images, prepared_texts
from stages.evaluate.search_task import choose
from stages.recipes import EvaluateConfig, Recipe
from stages.train.sequences import SequenceBuilder


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """x -> normalised (x - mean) matrix."""

    mean: np.ndarray
    """[hidden] float64."""
    matrix: np.ndarray
    """[hidden, hidden] float64."""

    def vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Map rows [rows, hidden]; float32, L2-normalised."""
        mapped = (vectors.astype(np.float64) - self.mean) @ self.matrix
        return (mapped / np.linalg.norm(mapped, axis=1, keepdims=True)).astype(np.float32)


def fit_whitening(vectors: np.ndarray) -> LinearMap:
    """Fit the map under which `vectors` [N, hidden] have mean zero and, for large N, covariance one.

    The covariance is shrunk towards a multiple of the identity as Ledoit and Wolf (2004) choose it: with
    fewer vectors than dimensions the sample covariance has no inverse, and with few more its small
    eigenvalues are noise that plain whitening would blow up. No number of components has to be chosen.
    """
    rows = vectors.astype(np.float64)
    covariance, _ = ledoit_wolf(rows)
    return LinearMap(mean=rows.mean(axis=0), matrix=inverse_root(covariance))


def inverse_root(covariance: np.ndarray) -> np.ndarray:
    """Return the symmetric W with W W = inverse of a positive definite `covariance` [hidden, hidden]."""
    eigenvalues, directions = np.linalg.eigh(covariance)
    return directions / np.sqrt(eigenvalues) @ directions.T


@dataclass(frozen=True, kw_only=True)
class Positives:
    """Which of some texts answers each of some queries."""

    own: np.ndarray
    """[queries] the text that is trained on."""
    same: np.ndarray
    """[queries, texts] bool: texts that are not negatives of the query."""


def fit_projection(
    queries: np.ndarray,
    texts: np.ndarray,
    positives: Positives,
    *,
    temperature: float,
    batch_size: int,
    steps: int,
    learning_rate: float,
    seed: int,
) -> LinearMap:
    """Train a square matrix by Adam on batches of frozen vectors, from the identity (the untouched model).

    Args:
        queries, texts: [Q, hidden] and [N, hidden], L2-normalised.
        batch_size: queries of a batch, at most Q; their texts are its candidates.
    """
    queries, texts = torch.from_numpy(queries).float(), torch.from_numpy(texts).float()
    own, same = torch.from_numpy(positives.own), torch.from_numpy(positives.same)
    matrix = torch.eye(queries.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([matrix], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        drawn = torch.randperm(len(queries), generator=generator)[:batch_size]
        candidates = own[drawn]
        masked = same[drawn][:, candidates].fill_diagonal_(False)
        loss = projected_info_nce(matrix, queries[drawn], texts[candidates], masked, temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return LinearMap(mean=np.zeros(len(matrix)), matrix=matrix.detach().double().numpy())


def projected_info_nce(
    matrix: torch.Tensor,
    queries: torch.Tensor,
    texts: torch.Tensor,
    masked: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Mean InfoNCE in nats of `queries @ matrix` against `texts @ matrix`; row i answers query i.

    Args:
        queries, texts: [B, hidden] each.
        masked: [B, B] bool, candidates left out of the denominator.
    """
    mapped_queries, mapped_texts = (
        torch.nn.functional.normalize(rows @ matrix, dim=-1) for rows in (queries, texts)
    )
    logits = (mapped_queries @ mapped_texts.T / temperature).masked_fill(masked, -torch.inf)
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))


class TrainingPages:
    """Pages of the training split that linear maps are fitted on: the same ones for every model."""

    def __init__(self, folder: Path, backbone: Backbone, config: EvaluateConfig) -> None:
        builder = SequenceBuilder(backbone)
        self._samples = choose(ShardSource(folder, trainable_only=True), config.fit_samples)
        number_of = {sample.key: number for number, sample in enumerate(self._samples)}
        self._queries = [query for query in read_queries(folder) if number_of.keys() & set(query.relevant)]
        if not self._queries:
            raise ValueError(f"{folder}: no query for any of {len(self._samples)} samples; raise fit_samples")
        self.keys = number_of.keys()
        self._number_of = number_of
        self.images = prepared_images(builder, self._samples)
        self.texts = prepared_texts(builder, [sample.text for sample in self._samples])
        self.queries = prepared_texts(builder, [query.text for query in self._queries])

    def positives(self, *, same_document_negatives: bool) -> Positives:
        """As in refinement: no negative answers the query, has its answer's text or, unless the recipe counts
        those, its answer's document."""
        return positives_of(
            self._queries, self._samples, self._number_of, same_document_negatives=same_document_negatives
        )


def positives_of(
    queries: list[Query],
    samples: list[Sample],
    number_of: Mapping[str, int],
    *,
    same_document_negatives: bool,
) -> Positives:
    """The first sample, by key, that answers each query, and which samples must not count against it."""
    answers = [sorted(key for key in query.relevant if key in number_of) for query in queries]
    own = np.array([number_of[keys[0]] for keys in answers])
    facts = [[sample.text for sample in samples]]
    if not same_document_negatives:
        facts.append([sample.document for sample in samples])
    same = np.zeros((len(queries), len(samples)), dtype=bool)
    for fact in facts:
        _, number = np.unique(fact, return_inverse=True)
        same |= number[own][:, None] == number[None, :]
    for row, keys in enumerate(answers):
        same[row, [number_of[key] for key in keys]] = True
    return Positives(own=own, same=same)


def fit_linear_map(
    arm: str, backbone: Backbone, pages: TrainingPages, recipe: Recipe, seed: int
) -> LinearMap:
    """Fit one of `LINEAR_MAPS` on the vectors of a model before refinement; whitening draws nothing."""
    config, refine = recipe.evaluate, recipe.refine

    def vectors(sequences: PreparedSequences) -> np.ndarray:
        return encode(backbone, sequences, config.batch_size).vectors

    if arm == "whitening":
        return fit_whitening(np.concatenate([vectors(pages.images), vectors(pages.texts)]))
    return fit_projection(
        vectors(pages.queries),
        vectors(pages.texts),
        pages.positives(same_document_negatives=refine.same_document_negatives),
        temperature=refine.temperature,
        batch_size=refine.batch_size,
        steps=config.projection_steps,
        learning_rate=config.projection_learning_rate,
        seed=seed,
    )
