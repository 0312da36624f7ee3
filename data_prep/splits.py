"""Divide documents into train, validation and test, and keep near-duplicates on one side."""

import hashlib
from collections.abc import Iterable

import imagehash
import numpy as np
from datasketch import MinHash, MinHashLSH
from PIL import Image

from data_prep.config import DocumentsConfig

SPLITS = ("train", "validation", "test")
_PERMUTATIONS = 64
_SHINGLE = 5
_FEWEST_TO_VALIDATE = 5
_EMPTY = MinHash(num_perm=_PERMUTATIONS, seed=1)


def assign_splits(
    groups: Iterable[str], *, test_share: float, validation_share: float, seed: int
) -> dict[str, str]:
    """Return {group: split}. A group is a document, or a run of its pages where documents are few.

    A group's place depends on its name only, so that a changed or added document moves no other; except
    that test and train each get one group when there are two or more, and validation when there are five.
    """
    place = {
        group: int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8]) / 2**64
        for group in groups
    }
    splits = {
        group: "test" if u < test_share else "validation" if u < test_share + validation_share else "train"
        for group, u in place.items()
    }
    ordered = sorted(place, key=place.__getitem__)
    if len(ordered) >= 2:
        splits[ordered[0]], splits[ordered[-1]] = "test", "train"
    in_train = [group for group in ordered if splits[group] == "train"]
    if len(ordered) >= _FEWEST_TO_VALIDATE and "validation" not in splits.values() and len(in_train) > 1:
        splits[in_train[0]] = "validation"
    return splits


Signature = MinHash | np.ndarray
"""What near-duplicates are found by: of a text, or of a page without one."""


class NearDuplicates:
    """Finds texts whose character 5-grams overlap (Jaccard, by MinHash), and pages that look the same."""

    def __init__(self, config: DocumentsConfig) -> None:
        self._texts = MinHashLSH(threshold=config.near_duplicate_similarity, num_perm=_PERMUTATIONS)
        self._images: list[np.ndarray] = []
        self._most_bits = config.near_duplicate_image_bits

    def seen(self, signature: Signature) -> bool:
        if isinstance(signature, MinHash):
            return bool(self._texts.query(signature))
        return any(np.count_nonzero(known != signature) <= self._most_bits for known in self._images)

    def add(self, key: str, signature: Signature) -> None:
        if isinstance(signature, MinHash):
            self._texts.insert(key, signature)
        else:
            self._images.append(signature)


def text_signature(text: str) -> MinHash:
    folded = " ".join(text.casefold().split())
    shingles = {folded[i : i + _SHINGLE].encode() for i in range(max(1, len(folded) - _SHINGLE + 1))}
    signature = _EMPTY.copy()
    signature.update_batch(shingles)
    return signature


def image_signature(image: Image.Image) -> np.ndarray:
    """Return the perceptual hash, 256 bits."""
    return imagehash.phash(image, hash_size=16).hash.ravel()


def page_runs(pages: int, runs: int) -> dict[int, int]:
    """Map each page number, from 1, to one of at most `runs` contiguous runs of about equal length."""
    return {page: (page - 1) * min(runs, pages) // pages for page in range(1, pages + 1)}
