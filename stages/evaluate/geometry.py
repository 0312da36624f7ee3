"""Geometry of the embedding space: how cone-shaped it is, and how alike its images and texts lie.

Anisotropy and mutual-kNN follow "Scaling Language-Centric Omnimodal Representation Learning" (arXiv
2510.11693), which reports them for the representations before contrastive learning. All measures compare
directions (rows are L2-normalised first) and are computed in float64.
"""

import numpy as np

_ROWS_AT_ONCE = 512
_SAME = 1e-6  # vectors are float32


def geometry_by_layer(images: np.ndarray, texts: np.ndarray, neighbours: int) -> list[dict]:
    """Return every layer's measures, of images and texts ``[layers, N, d]`` of the same N >= 4 pages.

    None where all vectors of a side are identical: their cosine is 1 and their neighbours are ties. Raises
    ValueError for a vector without direction (zero or not finite).
    """
    measured = []
    for layer, sides in enumerate(zip(images, texts, strict=True)):
        image, text = map(unit_rows, sides)
        same_images, same_texts = all_identical(image), all_identical(text)
        comparable = not (same_images or same_texts)
        measured.append(
            {
                "layer": layer,
                "anisotropy_image": None if same_images else anisotropy(image),
                "anisotropy_text": None if same_texts else anisotropy(text),
                "mutual_knn": mutual_knn(image, text, k=neighbours) if comparable else None,
                "cka": linear_cka(image, text) if comparable else None,
            }
        )
    return measured


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return L2-normalised rows in float64: what the measures below take."""
    rows = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = ~(np.isfinite(norms) & (norms > 0)).ravel()
    if bad.any():
        raise ValueError(f"vector {int(bad.argmax())} is zero or not finite: the layer's output is broken.")
    return rows / norms


def all_identical(units: np.ndarray) -> bool:
    """Whether all rows ``[N, d]`` are the same: they have no neighbours to compare.

    So it is before the first layer, where the last position holds one special token's embedding.
    """
    return bool(np.ptp(units, axis=0).max() < _SAME)


def anisotropy(units: np.ndarray) -> float:
    """Mean cosine over all distinct pairs of rows ``[N, d]`` (the paper's definition).

    0 for directions spread evenly, 1 when all rows point the same way. Needs no N x N matrix: the sum
    over ordered pairs is ``|sum of rows|^2 - N``, so the cost is O(N d).
    """
    count = len(units)
    return float((np.square(units.sum(axis=0)).sum() - count) / (count * (count - 1)))


def mutual_knn(image: np.ndarray, text: np.ndarray, k: int = 10) -> float:
    """Share of the ``k`` nearest neighbours that images and their texts have in common, in [0, 1].

    Args:
        image, text: ``[N, d]`` and ``[N, e]``, N above k; row i of both belongs to the same page. The paper
            takes the same layer on both sides and k = 10.

    Neighbours by cosine, the row itself excluded, ties by row number. Unrelated spaces share
    ``chance_mutual_knn(N, k)`` of their neighbours.
    """
    near_images, near_texts = _neighbours(image, k), _neighbours(text, k)
    shared = (near_images[:, :, None] == near_texts[:, None, :]).any(axis=2)
    return float(shared.mean())


def chance_mutual_knn(count: int, k: int = 10) -> float:
    """Expected mutual-kNN of unrelated spaces: ``k / (N - 1)``."""
    return k / (count - 1)


def linear_cka(image: np.ndarray, text: np.ndarray) -> float:
    """Linear centred kernel alignment of images and their texts; 1 for equal spaces, about 0 for unrelated.

    Args:
        image, text: ``[N, d]`` and ``[N, e]``, N at least 4; row i of both belongs to the same page. Not all
            rows of a side may be identical, see `all_identical`.

    CKA of Kornblith et al. (2019, arXiv 1905.00414) with the unbiased estimator of HSIC of Song et al.
    (2012), as in Nguyen et al. (2021, arXiv 2010.15327). The biased one gives unrelated spaces about
    d / (N + d): nearly 1 for a few hundred pages and a model's thousands of dimensions. Unbiased, unrelated
    spaces may come out a little below 0. Memory is O(N^2).
    """
    images, texts = (_u_centred(units @ units.T) for units in (image, text))
    return float((images * texts).sum() / np.sqrt(np.square(images).sum() * np.square(texts).sum()))


def _neighbours(units: np.ndarray, k: int) -> np.ndarray:
    """Row numbers of the k nearest other rows ``[N, k]``, in blocks so that memory stays O(N)."""
    found = []
    for start in range(0, len(units), _ROWS_AT_ONCE):
        cosines = units[start : start + _ROWS_AT_ONCE] @ units.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        found.append(np.argsort(-cosines, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


def _u_centred(gram: np.ndarray) -> np.ndarray:
    """Kernel ``[N, N]`` whose elementwise product with another, summed, is N (N - 3) times unbiased HSIC."""
    count = len(gram)
    gram = gram.copy()
    np.fill_diagonal(gram, 0.0)
    means = gram.sum(axis=0) / (count - 2)
    centred = gram - means[:, None] - means[None, :] + means.sum() / (count - 1)
    np.fill_diagonal(centred, 0.0)
    return centred
