"""Geometry of the embedding space: how cone-shaped it is, and how alike image and text neighbourhoods are.

Both measures follow "Scaling Language-Centric Omnimodal Representation Learning" (arXiv 2510.11693),
which reports them for the representations before contrastive learning. Computed in float64.
"""

import numpy as np

_ROWS_AT_ONCE = 512
_SAME = 1e-6  # vectors are float32


def anisotropy(vectors: np.ndarray) -> float:
    """Mean cosine over all distinct pairs of rows of ``vectors`` ``[N, d]`` (the paper's definition).

    0 for directions spread evenly, 1 when all rows point the same way. Needs no N x N matrix: the sum
    over ordered pairs is ``|sum of unit rows|^2 - N``, so the cost is O(N d).

    Raises:
        ValueError: fewer than two rows, or a row without direction (zero or not finite).
    """
    units = _unit_rows(vectors)
    count = len(units)
    if count < 2:
        raise ValueError("anisotropy needs at least two vectors; give a larger corpus.")
    return float((np.square(units.sum(axis=0)).sum() - count) / (count * (count - 1)))


def mutual_knn(image: np.ndarray, text: np.ndarray, k: int = 10) -> float:
    """Share of the ``k`` nearest neighbours that images and their texts have in common, in [0, 1].

    Args:
        image, text: ``[N, d]`` and ``[N, e]``; row i of both belongs to the same page. The paper takes
            the same layer on both sides and k = 10.

    Neighbours by cosine, the row itself excluded, ties by row number. Unrelated spaces share
    ``chance_mutual_knn(N, k)`` of their neighbours.

    Raises:
        ValueError: row counts differ, or k is not in 1 .. N-1.
    """
    if len(image) != len(text) or not 1 <= k < len(image):
        raise ValueError(
            f"mutual-kNN: {len(image)} images, {len(text)} texts, k={k}; need equal counts above k."
        )
    near_images, near_texts = _neighbours(_unit_rows(image), k), _neighbours(_unit_rows(text), k)
    shared = (near_images[:, :, None] == near_texts[:, None, :]).any(axis=2)
    return float(shared.mean())


def all_identical(vectors: np.ndarray) -> bool:
    """Whether all rows of ``vectors`` ``[N, d]`` point the same way: they have no neighbours to compare.

    So it is before the first layer, where the last position holds one special token's embedding.
    """
    return bool(np.ptp(_unit_rows(vectors), axis=0).max() < _SAME)


def chance_mutual_knn(count: int, k: int = 10) -> float:
    """Expected mutual-kNN of unrelated spaces: ``k / (N - 1)``."""
    return k / (count - 1)


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = ~(np.isfinite(norms) & (norms > 0)).ravel()
    if bad.any():
        raise ValueError(f"vector {int(bad.argmax())} is zero or not finite: the layer's output is broken.")
    return rows / norms


def _neighbours(units: np.ndarray, k: int) -> np.ndarray:
    """Row numbers of the k nearest other rows ``[N, k]``, in blocks so that memory stays O(N)."""
    found = []
    for start in range(0, len(units), _ROWS_AT_ONCE):
        cosines = units[start : start + _ROWS_AT_ONCE] @ units.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        found.append(np.argsort(-cosines, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)
