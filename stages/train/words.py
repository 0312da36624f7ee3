"""Salient words: what the one-word summary should say about a text.

After `Summarize the above ... in one word:` the model predicts the text's words, weighted by inverse document
frequency. The position that predicts them is the position that is later embedded, so that an image and its
text meet there before any contrastive step.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from data_prep.queries import words_of
from stages.backbones.backbone import WORD_TOKEN_PREFIX


@dataclass(frozen=True, kw_only=True)
class SalientWords:
    """Inverse document frequencies over a training corpus, and the tokens that stand for words."""

    document_frequency: dict[str, int]
    documents: int
    tokenizer: PreTrainedTokenizerFast
    buckets: tuple[int, ...]
    """Ids of the vocabulary's word tokens; empty for a tokenizer that has none."""

    @classmethod
    def fit(cls, texts: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> "SalientWords":
        """Count in how many texts each word stands."""
        frequency: Counter[str] = Counter()
        documents = 0
        for text in texts:
            frequency.update(set(words_of(text.casefold())))
            documents += 1
        added = tokenizer.get_added_vocab()
        buckets = tuple(sorted(id_ for token, id_ in added.items() if token.startswith(WORD_TOKEN_PREFIX)))
        return cls(
            document_frequency=dict(frequency), documents=documents, tokenizer=tokenizer, buckets=buckets
        )

    def targets(self, text: str) -> dict[int, float]:
        """Return {token id: weight}, weights summing to 1; empty for a text without words.

        A word weighs its count times log((1 + documents) / (1 + texts that have it)) + 1.
        """
        weights: Counter[int] = Counter()
        for word, count in Counter(words_of(text.casefold())).items():
            seen = self.document_frequency.get(word, 0)
            weights[self._token(word)] += count * (math.log((1 + self.documents) / (1 + seen)) + 1)
        total = sum(weights.values())
        return {token: weight / total for token, weight in weights.items()}

    def _token(self, word: str) -> int:
        """A word's hashed bucket where the vocabulary has word tokens, else its first token after a space."""
        if self.buckets:
            number = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
            return self.buckets[number % len(self.buckets)]
        return self.tokenizer.encode(f" {word}", add_special_tokens=False)[0]
