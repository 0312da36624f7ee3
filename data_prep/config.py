"""How documents become samples: what is read from each, and how the samples are divided and asked for."""

from dataclasses import dataclass, fields
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """What decides which samples one document gives, whatever other documents there are."""

    unit: Literal["page", "block"] = "block"
    """`page`: one sample a page. `block`: one sample a passage with exactly its own text, drawn in rows."""
    dots_per_inch: int = 96
    """Of pages that are shown whole, and of all boxes."""
    pixel_multiple: int = 16
    """Images are padded to this multiple: patch size times merge size of the backbone."""
    max_pixels: int = 768 * 48
    """A larger image is shrunk to this many pixels before it is stored."""
    max_block_characters: int = 84
    """A longer paragraph becomes several blocks, cut between its lines, and a longer line becomes several."""
    row_characters: int = 48
    """A longer line of a block is cut into rows, as high as `pixel_multiple`."""
    row_stretch: float = 2.0
    """How much wider rows are drawn than they were printed: with 2, a visual token shows about 1.2
    characters."""
    min_characters: int = 4
    """A page or block with less text is searched but never trained on."""

    max_document_bytes: int = 512 * 2**20
    max_pages_per_document: int = 5_000
    max_source_pixels: int = 64_000_000
    """Largest page bitmap that is ever allocated; anything above is quarantined."""
    max_page_characters: int = 200_000
    max_samples_per_document: int = 100_000
    max_sample_bytes_per_document: int = 256 * 2**20
    """Texts and stored images of all samples of one document together."""
    document_seconds: float = 300.0
    """Wall-clock limit for reading the first pages of a document, and for each further range of them."""
    document_memory_bytes: int = 4 * 2**30
    """Address-space limit of the process that reads a document."""


@dataclass(frozen=True, kw_only=True)
class DocumentsConfig(ReadingConfig):
    """Everything that decides what a folder of documents becomes. A change below reads no document again."""

    max_quarantined_share: float = 0.95
    """A run ends in an error when a larger share of the files is bad."""

    test_share: float = 0.2
    validation_share: float = 0.05
    min_documents_to_split: int = 5
    """With fewer usable documents the split is by runs of pages, and the report says so."""
    near_duplicate_similarity: float = 0.85
    """Jaccard similarity of character 5-grams from which two texts count as near-duplicates."""
    near_duplicate_image_bits: int = 6
    """Hamming distance of 256-bit perceptual hashes up to which two pages without text count as one."""

    queries_per_sample: int = 2
    query_word_share: float = 0.5
    """Share of a sentence's words that a made query keeps, in shuffled order."""
    samples_per_shard: int = 1_000
    seed: int = 0

    @property
    def reading(self) -> ReadingConfig:
        """What decides the samples of one document."""
        return ReadingConfig(**{field.name: getattr(self, field.name) for field in fields(ReadingConfig)})
