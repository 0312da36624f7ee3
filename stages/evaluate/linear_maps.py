"""Baselines without contrastive refinement of the model: a linear map of its frozen vectors.

`whitening` needs no training: vectors are centred and decorrelated with the statistics of training pages
("Whitening Sentence Representations for Better Semantics and Faster Retrieval", arXiv 2103.15316).
`projection` is a matrix trained with InfoNCE from queries to texts, the "linear projection" that LCO-Emb
(arXiv 2510.11693) compares with LoRA. No page that is searched takes part in either.

A further one is a function like `whitening` in `LINEAR_MAPS` (the width of vectors stays), and in
stages/recipes.py an arm that names it in its `changes` and that a sweep names in `linear_maps`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch.nn.functional import normalize

from stages.backbones.backbone import Backbone
from stages.evaluate.config import LinearMapSettings, RetrievalSettings
from stages.evaluate.encoding import TaskEncoder
from stages.evaluate.search_task import SearchTask
from stages.losses import info_nce


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


def whitening(pages: TaskEncoder, backbone: Backbone, settings: RetrievalSettings, seed: int) -> LinearMap:
    """Whitening by the vectors of images and texts; it draws nothing."""
    vectors = [pages.encode(backbone, kind).vectors for kind in ("images", "texts")]
    return fit_whitening(np.concatenate(vectors))


def fit_whitening(vectors: np.ndarray) -> LinearMap:
    """Fit the map under which `vectors` [N, hidden] have mean zero and, for large N, covariance one.

    The covariance is shrunk towards a multiple of the identity as Ledoit and Wolf (2004) choose it: with
    fewer vectors than dimensions the sample covariance has no inverse, and with few more its small
    eigenvalues are noise that plain whitening would blow up. No number of components has to be chosen.
    """
    rows = vectors.astype(np.float64)
    covariance, _ = ledoit_wolf(rows)
    eigenvalues, directions = np.linalg.eigh(covariance)
    inverse_root = directions / np.sqrt(eigenvalues) @ directions.T
    return LinearMap(mean=rows.mean(axis=0), matrix=inverse_root)


def projection(pages: TaskEncoder, backbone: Backbone, settings: RetrievalSettings, seed: int) -> LinearMap:
    """A matrix trained from queries to texts."""
    queries, texts = (pages.encode(backbone, kind).vectors for kind in ("queries", "texts"))
    own, same = positives_of(pages.task, same_document_negatives=settings.linear_map.same_document_negatives)
    return fit_projection(
        queries, texts, own, same, settings.linear_map, temperature=settings.temperature, seed=seed
    )


def positives_of(task: SearchTask, *, same_document_negatives: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first sample, by key, that answers each query [queries], and which samples must not count against
    it [queries, samples]: as in refinement, what answers the query, has its answer's text or, unless
    `same_document_negatives`, its answer's document."""
    number_of = {key: number for number, key in enumerate(task.corpus_ids)}
    answers = [sorted(keys) for keys in task.relevant]
    own = np.array([number_of[keys[0]] for keys in answers])
    facts = [[sample.text for sample in task.corpus]]
    if not same_document_negatives:
        facts.append([sample.document for sample in task.corpus])
    same = np.zeros((len(answers), len(number_of)), dtype=bool)
    for fact in facts:
        _, number = np.unique(fact, return_inverse=True)
        same |= number[own][:, None] == number[None, :]
    for row, keys in enumerate(answers):
        same[row, [number_of[key] for key in keys]] = True
    return own, same


def fit_projection(
    queries: np.ndarray,
    texts: np.ndarray,
    own: np.ndarray,
    same: np.ndarray,
    settings: LinearMapSettings,
    *,
    temperature: float,
    seed: int,
) -> LinearMap:
    """Train a square matrix by Adam on batches of frozen vectors, from the identity (the untouched model).

    Args:
        queries, texts: [Q, hidden] and [N, hidden], L2-normalised.
        own, same: as of `positives_of`. The texts of a batch's queries are its candidates.
        temperature: refinement's, as the batch size is.
    """
    queries, texts, own, same = map(torch.from_numpy, (queries, texts, own, same))
    matrix = torch.eye(queries.shape[1], requires_grad=True)
    config = settings.config
    optimizer = torch.optim.Adam([matrix], lr=config.projection_learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.projection_steps):
        drawn = torch.randperm(len(queries), generator=generator)[: settings.batch_size]
        loss = info_nce(
            normalize(queries[drawn] @ matrix, dim=-1),
            normalize(texts[own[drawn]] @ matrix, dim=-1),
            own=torch.arange(len(drawn)),
            same=same[drawn][:, own[drawn]],
            temperature=temperature,
        )
        optimizer.zero_grad()
        (loss / len(drawn)).backward()
        optimizer.step()
    return LinearMap(mean=np.zeros(len(matrix)), matrix=matrix.detach().double().numpy())


LINEAR_MAPS: dict[str, Callable[[TaskEncoder, Backbone, RetrievalSettings, int], LinearMap]] = {
    "whitening": whitening,
    "projection": projection,
}
"""How each is fitted: on pages of training as a model before CL embeds them, by a seed."""
