"""The bound on the contrastive loss, computed from a critic's matrix; torch-free, float64, in nats.

A matrix is `[images, texts]`: entry (i, j) scores text j under image i, entry (j, j) under its own image. A
constant added to a column changes nothing here, so that likelihoods `log p(y_j | x_i)` give the same numbers
as the critic's scores `log p(y_j | x_i) - log p_hat(y_j)`.

`image_losses` is InfoNCE of any critic's scores, measured at full precision; stages/losses.py has it of
vectors, as it is trained.
"""

import numpy as np
from scipy.special import logsumexp

SMALLEST_SIZE = 8


def first_candidates(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Return the matrices of the first 8, 16, 32, ... candidates, and of all, by their number."""
    sizes, size = [len(matrix)], SMALLEST_SIZE
    while size < len(matrix):
        sizes.insert(-1, size)
        size *= 2
    return {str(size): matrix[:size, :size] for size in sizes}


def image_losses(matrix: np.ndarray) -> np.ndarray:
    """Return for each text the InfoNCE loss of finding its image `[texts]`: -log softmax over images.

    The mean over texts is `L_gen(N)` for a generative critic, `L_cl(N)` for cosines over the temperature.
    Raises ValueError for a matrix that is not square or not finite.
    """
    matrix = _below_zero(matrix)
    return logsumexp(matrix, axis=0) - matrix.diagonal()


def log_ratios(log_likelihoods: np.ndarray) -> np.ndarray:
    """Return `log p(y_j | x_i) - log p_hat(y_j)` `[images, texts]`, with the candidates' mixture as p_hat.

    `p_hat(y_j) = (1/N) sum_i p(y_j | x_i)`; hence no entry is above log N. Raises as `image_losses`.
    """
    matrix = _below_zero(log_likelihoods)
    return matrix - (logsumexp(matrix, axis=0) - np.log(len(matrix)))


def information(log_likelihoods: np.ndarray) -> float:
    """Return `I_N`: the mean log ratio of texts and their own images. `log N - I_N` is `L_gen(N)`."""
    return float(log_ratios(log_likelihoods).diagonal().mean())


def slack(log_likelihoods: np.ndarray) -> float:
    """Return `log(1 + (E[r+] - 1) / N)`, where r+ is p(y_j | x_j) / p_hat(y_j) with the candidates' mixture.

    It is the last term of `L <= log N - I + log(1 + (E[r+] - 1) / N)`, for one positive and N - 1 independent
    negatives: `L + E[log r+] = E[log(r+ + sum of r-)]`, by Jensen's inequality at most `log(E[r+] + N - 1)`.
    As r+ is at most N it is below log 2; a critic worse than chance makes it negative.
    """
    positive = np.exp(log_ratios(log_likelihoods).diagonal())
    return float(np.log1p((positive.mean() - 1) / len(positive)))


def _below_zero(matrix: np.ndarray) -> np.ndarray:
    """Check a matrix and take each column's maximum off: log N would be lost beside large numbers."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"the critic's matrix has shape {matrix.shape}: score as many texts as images")
    if not np.isfinite(matrix).all():
        raise ValueError("the critic's matrix holds NaN or infinity: the model is broken; look at its loss")
    return matrix - matrix.max(axis=0)
