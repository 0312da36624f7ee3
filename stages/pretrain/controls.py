"""What CGP is trained on: the pages that the law is about, or those of a control that could refute it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from data_prep.samples import Sample
from data_prep.shards import ShardSource
from stages.cells import Pages
from stages.pretrain.config import PretrainConfig

FEWEST_SHUFFLED = 2
"""Pages: one alone would keep its own text."""


class ShuffledTexts:
    """A source in which every page image has the text of another page, always the same one.

    Language can be learned from it, but not which marks on a page stand for which text. Raises ValueError for
    less than `FEWEST_SHUFFLED` pages.
    """

    def __init__(self, source: ShardSource, *, seed: int) -> None:
        if len(source) < FEWEST_SHUFFLED:
            raise ValueError(f"{len(source)} page(s) cannot swap their texts: add documents with text")
        self._source = source
        self.shard_sizes = source.shard_sizes
        order = np.random.default_rng((seed, 3)).permutation(len(source))
        # One cycle through all pages: no page keeps its own text.
        self._text_of = np.empty_like(order)
        self._text_of[order] = np.roll(order, 1)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Sample:
        return replace(self._source[position], text=self._source[self.text_of(position)].text)

    def text_of(self, position: int) -> int:
        """Return the position of the page that a page's text is taken from."""
        return int(self._text_of[position])

    def length(self, position: int) -> int:
        """Return the length of the page's own text, which goes with the size of its image."""
        return self._source.length(position)

    def texts(self) -> Iterator[str]:
        """Every text, in the order of the pages that it was taken from."""
        return self._source.texts()


def mixture_of(
    target: ShardSource, base: ShardSource, *, pages: Pages, config: PretrainConfig
) -> tuple[Sequence[ShardSource | ShuffledTexts], list[float]]:
    """Return the sources of CGP and the share of each; replay of the base language stays as it is.

    `unrelated`: base pages only, as many as there would be of both.
    """
    if pages == "unrelated":
        return [base], [1.0]
    first = ShuffledTexts(target, seed=config.seed) if pages == "shuffled" else target
    return [first, base], [1.0 - config.replay_share, config.replay_share]
