"""Decide which samples each split holds: whole documents on one side, repeats and near-duplicates dropped."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from data_prep.config import DocumentsConfig
from data_prep.queries import Query, make_queries
from data_prep.reading import Reading
from data_prep.shards import ShardSource
from data_prep.splits import (
    SPLITS,
    ImageDuplicates,
    TextDuplicates,
    assign_splits,
    image_signature,
    page_runs,
    text_signature,
)

_RUNS_OF_ONE_DOCUMENT = 8


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A sample that a split may hold: where it lies, and what is needed to plan with it."""

    source: ShardSource
    position: int
    key: str
    document: str
    page: int
    text: str
    trainable: bool

    def image(self) -> Image.Image:
        return self.source[self.position].image()

    def made_queries(self, config: DocumentsConfig) -> list[Query]:
        """Return the queries made from its text; none for a sample that is only searched."""
        if not self.trainable:
            return []
        count, word_share = config.queries_per_sample, config.query_word_share
        return make_queries(self.key, self.text, count=count, word_share=word_share, seed=config.seed)


def list_candidates(usable: list[Reading]) -> list[Candidate]:
    sources = [ShardSource(reading.samples.path) for reading in usable]
    fields = ("key", "document", "page", "text", "trainable")
    return [
        Candidate(source=source, position=position, **{name: record[name] for name in fields})
        for source in sources
        for position, record in enumerate(source.records())
    ]


def assign_pages(
    usable: list[Reading], candidates: list[Candidate], config: DocumentsConfig
) -> tuple[dict[str, dict[int, str]], list[str]]:
    """Return {document: {page: split}} and warnings for the report."""
    with_text = {(sample.document, sample.page) for sample in candidates if sample.made_queries(config)}
    documents = len({document for document, _ in with_text})
    by_document = documents >= config.min_documents_to_split
    groups: dict[str, dict[int, str]] = {}
    for reading in usable:
        name, pages = reading.source.name, range(1, reading.pages + 1)
        runs = page_runs(pages, _RUNS_OF_ONE_DOCUMENT)
        groups[name] = {page: name if by_document else f"{name}#{runs[page]}" for page in pages}
    every = {group for of_page in groups.values() for group in of_page.values()}
    speaking = {groups[document][page] for document, page in with_text}
    # Apart, so that the group that test and train are sure to get has text.
    split_of: dict[str, str] = {}
    for part in (every - speaking, speaking):
        split_of |= assign_splits(
            part, test_share=config.test_share, validation_share=config.validation_share, seed=config.seed
        )
    splits = {
        document: {page: split_of[group] for page, group in of_page.items()}
        for document, of_page in groups.items()
    }
    if by_document:
        return splits, []
    return splits, [
        f"Only {documents} document(s) with text: train and test are different pages of the same documents, "
        f"so the scores are optimistic. Add documents (at least {config.min_documents_to_split})."
    ]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    samples: list[Candidate]
    dropped: dict[str, int]


def choose_samples(
    name: str,
    candidates: list[Candidate],
    splits: dict[str, dict[int, str]],
    texts: TextDuplicates,
    images: ImageDuplicates,
) -> Chosen:
    """List the samples of one split without exact repeats and without near-duplicates of earlier splits.

    `texts` and `images` hold the earlier splits' samples and receive this one's.
    """
    chosen: list[tuple[Candidate, Any]] = []
    dropped = {"exact_duplicates": 0, "near_duplicates_of_other_splits": 0}
    seen: set[str] = set()
    for sample in candidates:
        if splits[sample.document][sample.page] != name:
            continue
        folded = sample.text.casefold()
        if folded and folded in seen:
            dropped["exact_duplicates"] += 1
            continue
        signature = text_signature(folded) if folded else image_signature(sample.image())
        if (texts if folded else images).seen(signature):
            dropped["near_duplicates_of_other_splits"] += 1
            continue
        seen.add(folded)
        chosen.append((sample, signature))
    for sample, signature in chosen if name != SPLITS[0] else ():  # no split comes after train
        if sample.text:
            texts.add(sample.key, signature)
        else:
            images.add(signature)
    return Chosen(samples=[sample for sample, _ in chosen], dropped=dropped)
