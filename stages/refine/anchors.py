"""Whether training queries can be anchors of contrastive batches, known before anything is trained.

Importing this module loads no torch.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from data_prep.queries import Query
from data_prep.shards import ShardSource

FEWEST_ANCHORS = 2
"""Of a batch: an anchor's negatives are the positives of others."""


def usable_queries(queries: Iterable[Query], keys: Collection[str]) -> list[Query]:
    """Those that are answered by a sample that can be trained on; `keys` are all such samples'."""
    return [query for query in queries if any(key in keys for key in query.relevant)]


def too_few_anchors(queries: int, *, batch_size: int, ranks: int) -> str | None:
    """Why so many usable queries make no batch over so many ranks; None if they do."""
    needed = max(FEWEST_ANCHORS, ranks)
    if queries < needed:
        return f"{queries} training queries are too few for a contrastive batch, which needs {needed}"
    if batch_size < needed:
        return f"refine.batch_size {batch_size} is too small for {ranks} ranks, which need {needed}"
    return None


def facts_of_equals(*, same_document_negatives: bool) -> tuple[str, ...]:
    """Digests that a sample may not share with a positive if it is to be its negative."""
    return ("text_digest", "image_digest") + (() if same_document_negatives else ("document_digest",))


def without_negatives(
    queries: Sequence[Query], source: ShardSource, *, same_document_negatives: bool
) -> Query | None:
    """A usable query that has no negative in whatever batch it is drawn; None if every one may have some.

    The negatives of a batch are other queries' positives; what is mined is excluded alike.
    """
    facts = facts_of_equals(same_document_negatives=same_document_negatives)
    positions = source.positions_of({key for query in queries for key in query.relevant})
    entries = {key: source.entry(position) for key, position in positions.items()}
    found: dict[str, None] = {}  # negatives of earlier queries: most likely the next one's too

    def negative(query: Query, positive: Mapping[str, Any]) -> str | None:
        for key in chain(found, entries):
            if key not in query.relevant and all(entries[key][fact] != positive[fact] for fact in facts):
                return key
        return None

    for query in queries:
        for key in filter(entries.__contains__, query.relevant):
            other = negative(query, entries[key])
            if other is None:
                return query
            found[other] = None
    return None
