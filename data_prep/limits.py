"""The limits that every page is held to, whatever file it comes from. Each raises UnreadableDocument."""

from data_prep.config import ReadingConfig
from data_prep.errors import UnreadableDocument


def check_pages(pages: int, config: ReadingConfig) -> None:
    if pages > config.max_pages_per_document:
        raise UnreadableDocument(f"{pages:,} pages, the limit is {config.max_pages_per_document:,}")


def check_pixels(width: int, height: int, config: ReadingConfig, *, where: str) -> None:
    if width < 1 or height < 1:
        raise UnreadableDocument(f"{where} has no area")
    if width * height > config.max_source_pixels:
        raise UnreadableDocument(
            f"oversized: {where} has {width:,} x {height:,} pixels, the limit is {config.max_source_pixels:,}"
        )


def check_characters(characters: int, config: ReadingConfig) -> None:
    if characters > config.max_page_characters:
        raise UnreadableDocument(
            f"a page has {characters:,} characters, the limit is {config.max_page_characters:,}"
        )


def pages_of(count: int, wanted: range) -> range:
    """Return those of the wanted page numbers, from 1, that a document of `count` pages has."""
    return range(wanted.start, min(wanted.stop, count + 1))
