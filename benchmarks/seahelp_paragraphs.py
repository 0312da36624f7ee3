"""Which paragraphs of the help are in SeaHelp: really translated, whole, and each text once."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.libreoffice_help import FEWEST_PARAGRAPHS, LONGEST_PARAGRAPH, Paragraph
from benchmarks.syllable_font import ZERO_WIDTH_SPACE, has_stray_mark
from data_prep.config import DocumentsConfig
from data_prep.queries import words_of
from data_prep.splits import SPLITS, NearDuplicates, assign_splits, text_signature

TEST_SHARE, VALIDATION_SHARE = 0.15, 0.05
TRANSLATED_SHARE = 0.5
"""Share of a paragraph's distinct words that its English original must lack."""
COPIED_RUN = 4
"""Words in a row that a translation and its English original never share."""
_BROKEN_REFERENCE = ".xhp#"
# U+200B that ends no Khmer syllable, or stands before a space or at the end, parts nothing.
_LOOSE_SPACE = re.compile("(?<![\u1780-\u17d3\u17dd])\u200b+|\u200b+(?=[\\s\u200b]|$)")

Topics = dict[str, list[Paragraph]]
"""Topic path -> paragraphs."""


@dataclass(frozen=True, kw_only=True)
class HelpParagraph:
    """One paragraph of a document, with its English original."""

    topic: str
    identity: str
    is_title: bool
    text: str
    english: str


def split_documents(names: Iterable[str]) -> dict[str, str]:
    """Return {document: split}, the same in every language; what the recipes tiny and small make of it.

    A run with a larger test share than this tests on documents of the validation too, and trains on fewer.
    """
    return assign_splits(names, test_share=TEST_SHARE, validation_share=VALIDATION_SHARE, seed=0)


def choose_paragraphs(
    topics: Topics, english: Topics, documents: dict[str, list[str]], printable: set[str]
) -> tuple[dict[str, list[HelpParagraph]], dict[str, int]]:
    """Return {document: its paragraphs} and how many were left out for which reason.

    Args:
        topics, english: one language's help, and the original; the same object for English itself.
        documents: {document: its topics}.

    Of near-duplicates (the measure of `data_prep.splits`) the first is kept, test documents before the
    others: no text of the test stands a second time, in its split or in another.
    """
    splits = split_documents(documents)
    in_order = sorted(documents, key=lambda name: (-SPLITS.index(splits[name]), name))
    originals = {p.text for paragraphs in english.values() for p in paragraphs}
    seen = NearDuplicates(DocumentsConfig())
    kept: dict[str, list[HelpParagraph]] = {}
    left_out: Counter[str] = Counter()
    for name in in_order:
        for topic in documents[name]:
            paragraphs = []
            for paragraph in _with_originals(topic, topics, english):
                reason = _why_unusable(paragraph.text, printable)
                if not reason and topics is not english:
                    reason = "" if is_translated(paragraph, originals) else "untranslated"
                if reason:
                    left_out[reason] += 1
                else:
                    paragraphs.append(paragraph)
            new = [p for p in paragraphs if _is_new(p, seen)]
            left_out["near-duplicate"] += len(paragraphs) - len(new)
            if len(new) >= FEWEST_PARAGRAPHS:
                kept.setdefault(name, []).extend(new)
            else:
                left_out["topic too short"] += len(new)
    return kept, dict(sorted(left_out.items()))


def _with_originals(topic: str, topics: Topics, english: Topics) -> list[HelpParagraph]:
    originals = _first_by_identity(english[topic])
    return [
        HelpParagraph(
            topic=topic,
            identity=identity,
            is_title=paragraph.is_title,
            text=_LOOSE_SPACE.sub("", paragraph.text),
            english=originals[identity].text if identity in originals else "",
        )
        for identity, paragraph in _first_by_identity(topics.get(topic, ())).items()
    ]


def _first_by_identity(paragraphs: Sequence[Paragraph]) -> dict[str, Paragraph]:
    """Some topics use an id twice: its first paragraph counts."""
    first: dict[str, Paragraph] = {}
    for paragraph in paragraphs:
        first.setdefault(paragraph.identity, paragraph)
    return first


def is_translated(paragraph: HelpParagraph, originals: set[str]) -> bool:
    """Return whether nothing of the text is left in English but names, commands and numbers."""
    words = [word.casefold() for word in words_of(paragraph.text)]
    known = [word.casefold() for word in words_of(paragraph.english)]
    new = len(set(words) - set(known))
    return (
        paragraph.text not in originals
        and new >= max(1, TRANSLATED_SHARE * len(set(words)))
        and not _runs(words) & _runs(known)
    )


def _runs(words: list[str]) -> set[tuple[str, ...]]:
    """Return the runs of `COPIED_RUN` words of letters; numbers in a row stay what they are."""
    runs = zip(*(words[start:] for start in range(COPIED_RUN)), strict=False)
    return {run for run in runs if all(word.isalpha() for word in run)}


def _why_unusable(text: str, printable: set[str]) -> str:
    if not 4 <= len(text) <= LONGEST_PARAGRAPH:
        return "too short or too long"
    if _BROKEN_REFERENCE in text:
        return "broken reference"
    return "damaged text" if not set(text) <= printable or has_stray_mark(text) else ""


def _is_new(paragraph: HelpParagraph, seen: NearDuplicates) -> bool:
    signature = text_signature(paragraph.text.replace(ZERO_WIDTH_SPACE, ""))
    if seen.seen(signature):
        return False
    seen.add(f"{paragraph.topic}#{paragraph.identity}", signature)
    return True
