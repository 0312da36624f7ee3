"""Decide which samples and queries each split holds: whole documents on one side, repeats dropped."""

from dataclasses import dataclass
from functools import cached_property

from data_prep.config import DocumentsConfig
from data_prep.queries import Query
from data_prep.query_making import make_queries
from data_prep.reading import Reading
from data_prep.shards import ShardSource
from data_prep.splits import (
    SPLITS,
    NearDuplicates,
    Signature,
    assign_splits,
    image_signature,
    page_runs,
    text_signature,
)

_RUNS_OF_ONE_DOCUMENT = 8

Place = tuple[str, int]
"""A document and a page of it, from 1."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A sample that a split may hold: where it lies, and what is needed to plan with it."""

    config: DocumentsConfig
    source: ShardSource
    position: int
    key: str
    document: str
    content_digest: str  # of what was read from the document
    page: int
    text: str
    reason: str | None  # why it is only searched

    @property
    def trainable(self) -> bool:
        return self.reason is None

    @property
    def place(self) -> Place:
        return self.document, self.page

    @cached_property
    def signature(self) -> Signature:
        return text_signature(self.text) if self.text else image_signature(self.source[self.position].image())

    @cached_property
    def made_queries(self) -> list[Query]:
        """The queries made from its text; none for a sample that is only searched."""
        if not self.trainable:
            return []
        count, word_share = self.config.queries_per_sample, self.config.query_word_share
        return make_queries(self.key, self.text, count=count, word_share=word_share, seed=self.config.seed)


def list_candidates(usable: list[Reading], config: DocumentsConfig) -> list[Candidate]:
    fields = ("key", "document", "page", "text", "reason")
    candidates = []
    for reading in usable:
        source = ShardSource(reading.samples.path)
        of_all = {
            "config": config,
            "source": source,
            "content_digest": reading.samples.manifest.content_digest,
        }
        candidates += [
            Candidate(position=n, **of_all, **{f: record[f] for f in fields})
            for n, record in enumerate(source.records())
        ]
    return candidates


def assign_pages(
    usable: list[Reading], candidates: list[Candidate], config: DocumentsConfig
) -> tuple[dict[Place, str], list[str]]:
    """Return the split of every page, and warnings for the report."""
    with_text = {sample.place for sample in candidates if sample.made_queries}
    documents = len({document for document, _ in with_text})
    by_document = documents >= config.min_documents_to_split
    groups: dict[Place, str] = {}
    for reading in usable:
        name = reading.source.name
        for page, run in page_runs(reading.pages, _RUNS_OF_ONE_DOCUMENT).items():
            groups[name, page] = name if by_document else f"{name}#{run}"
    speaking = {groups[place] for place in with_text}
    # Apart, so that the group that test and train are sure to get has text.
    split_of: dict[str, str] = {}
    for part in (set(groups.values()) - speaking, speaking):
        split_of |= assign_splits(
            part, test_share=config.test_share, validation_share=config.validation_share, seed=config.seed
        )
    splits = {place: split_of[group] for place, group in groups.items()}
    if by_document:
        return splits, []
    return splits, [
        f"Only {documents} document(s) with text: train and test are different pages of the same documents, "
        f"so the scores are optimistic. Add documents (at least {config.min_documents_to_split})."
    ]


def choose_samples(
    candidates: list[Candidate], splits: dict[Place, str], config: DocumentsConfig
) -> tuple[dict[str, list[Candidate]], dict[str, dict[str, int]]]:
    """Return the samples of each split, and how many were dropped for which reason.

    Test first: a near-duplicate of a test sample is dropped from the other splits, never the reverse.
    """
    known, chosen, dropped = NearDuplicates(config), {}, {}
    for name in reversed(SPLITS):
        chosen[name], dropped[name] = _without_repeats(name, candidates, splits, known)
    return chosen, dropped


def _without_repeats(
    name: str, candidates: list[Candidate], splits: dict[Place, str], known: NearDuplicates
) -> tuple[list[Candidate], dict[str, int]]:
    """Return the samples of one split without repeats, and how many were dropped for which reason.

    `known` holds the earlier splits' samples, of which it has no near-duplicate, and receives its own.
    """
    chosen: list[Candidate] = []
    dropped = {"exact_duplicates": 0, "near_duplicates_of_other_splits": 0}
    seen: set[str] = set()
    for sample in candidates:
        if splits[sample.place] != name:
            continue
        folded = sample.text.casefold()
        if folded and folded in seen:
            dropped["exact_duplicates"] += 1
        elif known.seen(sample.signature):
            dropped["near_duplicates_of_other_splits"] += 1
        else:
            seen.add(folded)
            chosen.append(sample)
    for sample in chosen if name != SPLITS[0] else ():  # no split comes after train
        known.add(sample.key, sample.signature)
    return chosen, dropped


def choose_queries(
    chosen: dict[str, list[Candidate]], of_users: dict[str, list[Query]]
) -> dict[str, list[Query]]:
    """Return each split's queries.

    The user's queries alone are the test, where any names its pages; other splits have made ones beside them,
    but none that the user asks there or in a split before it: the user says what answers it, and what is
    tested may not be trained on.
    """
    queries: dict[str, list[Query]] = {}
    asked: set[str] = set()
    for name in chosen:
        own = of_users[name]
        asked |= {query.text.casefold() for query in own}
        made = [query for sample in chosen[name] for query in sample.made_queries]
        left = [query for query in made if query.text.casefold() not in asked]
        queries[name] = own if name == "test" and own else own + left
    return queries
