"""Salient words: what the one-word summary should say about a text.

After `Summarize the above ... in one word:` the model predicts the text's words, weighted by inverse document
frequency. The position that predicts them is the position that is later embedded, so that an image and its
text meet there before any contrastive step. Torch-free.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_prep.queries import words_of
from stages.backbones.config import WORD_TOKEN_PREFIX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, kw_only=True)
class SalientWords:
    """Inverse document frequencies over a training corpus, and the tokens that stand for words."""

    document_frequency: dict[str, int]
    documents: int
    tokenizer: "PreTrainedTokenizerFast"
    buckets: tuple[int, ...]
    """Ids of the vocabulary's word tokens; empty for a tokenizer that has none."""

    @classmethod
    def fit(cls, texts: Iterable[str], tokenizer: "PreTrainedTokenizerFast") -> "SalientWords":
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

        A word weighs its count times its `idf`, shared evenly by the tokens that stand for it.
        """
        weights: Counter[int] = Counter()
        for word, count in Counter(words_of(text.casefold())).items():
            numbers = self.numbers_of(word)
            for number in numbers:
                weights[self.tokens[number]] += count * self.idf(word) / len(numbers)
        total = sum(weights.values())
        return {token: weight / total for token, weight in weights.items()}

    def idf(self, word: str) -> float:
        """Return log((1 + documents) / (1 + texts that have the case-folded word)) + 1."""
        return math.log((1 + self.documents) / (1 + self.document_frequency.get(word, 0))) + 1

    @property
    def tokens(self) -> Sequence[int]:
        """Ids of the tokens that stand for words: the word tokens, or the whole vocabulary."""
        return self.buckets or range(len(self.tokenizer))

    def numbers_of(self, word: str) -> list[int]:
        """Which of `tokens` stand for a case-folded word: its hash chooses a word token; where there are none
        they are all tokens of the word after a space.

        The first one alone tells fewer words apart (tests/bench/word_tokens.py).
        """
        if self.buckets:
            return [int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) % len(self.buckets)]
        return self.tokenizer.encode(f" {word}", add_special_tokens=False)
