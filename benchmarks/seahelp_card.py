"""The dataset card of SeaHelp."""

from data_prep.splits import SPLITS

LANGUAGE_NAMES = {"en": "English", "vi": "Vietnamese", "id": "Indonesian", "km": "Khmer"}
CARD = """---
license: mpl-2.0
language: [vi, id, km, en]
task_categories: [visual-document-retrieval]
pretty_name: SeaHelp
---
# SeaHelp

Find the page that answers a query, among pages in Vietnamese, Indonesian and Khmer: help topics of
LibreOffice as ordinary multi-page PDFs (A6) with an exact text layer, and as page images (grey, 150
dpi).

| language | documents (train / validation / test) | pages | paragraphs | queries |
|---|---|---|---|---|
{rows}

## Layout
| path | what |
|---|---|
| `km/` | PDFs and `queries.jsonl`: queries in the language of the pages (also `vi/`, `id/`, `en/`) |
| `km-from-en/` | the same PDFs with English queries for the same paragraphs (also `vi-`, `id-`) |
| `images/km/NAME-001.png` | page 1 of `km/NAME.pdf` |
| `splits.json` | documents of train, validation and test; the same in every language |
| `manifest.json` | sha256 of every file, one digest over all, versions, counts |

A line of `queries.jsonl`: `query`, `document` (file name), `page` (from 1; the one page that answers
it), `split`, and `identity` (help topic # paragraph): the same in all languages and in both kinds of
queries, so that scores can be paired.

## How it was made
- **Text.** The help of LibreOffice is parallel by file and by paragraph id. Kept are paragraphs of 4 to
  400 characters that are really translated (half of the words are not in the English original, and no
  four words in a row are), whole, and without damaged characters. Of wordings that differ by platform
  the default is kept. Khmer words are separated by U+200B where the translators wrote it.
- **Documents.** Twelve neighbouring topics of the English help are one document, in every language, less
  those that are not translated. Splits are by document, by a digest of its name: a test document is no
  training document in any of the languages, and a translation of a test page is never trained on.
- **Near-duplicates.** A paragraph whose character 5-grams overlap an earlier paragraph's by 85% or more
  (Jaccard, estimated by MinHash) is left out; test documents come first, then validation, then train. So
  no text of the test stands a second time in its language.
- **English queries** are the English originals of paragraphs with 6 to 40 words: their paragraph on the
  page shares names, commands and numbers with them, not sentences. **Queries in the page's language**
  keep half of the words of one of the same paragraph's sentences, shuffled, and are never a copy of the
  page. Up to two paragraphs a page; a query that two paragraphs give is left out.
- **Pages.** Noto Sans Mono 10 pt; Khmer in Noto Sans Khmer 12 pt, shaped by HarfBuzz. No paragraph runs
  over two pages. Khmer lines break at U+200B and spaces, else between syllables.

One page counts as right; other pages of the same topic may answer in part. Topics are about one program,
so pages resemble each other more than those of a library would.

## Provenance and licence
Made from Debian packages by `python -m benchmarks.seahelp` of LCO-Pipeline, which names the commands to
fetch them:

| package | version |
|---|---|
{packages}

The texts are by the LibreOffice contributors and The Document Foundation, under the **Mozilla Public
License 2.0** (https://www.mozilla.org/MPL/2.0/); source: https://www.libreoffice.org. This benchmark is
under the same licence. The embedded typefaces are by the Noto project, SIL Open Font License 1.1.
"""


def dataset_card(counts: dict[str, dict], versions: dict[str, str]) -> str:
    """Return README.md. `counts`: by language, as in the manifest; `versions`: of the Debian packages."""
    rows = [_row(language, numbers) for language, numbers in counts.items()]
    packages = [f"| `{name}` | {version} |" for name, version in versions.items()]
    return CARD.format(rows="\n".join(rows), packages="\n".join(packages))


def _row(language: str, numbers: dict) -> str:
    parts = [
        " / ".join(str(numbers[kind].get(split, 0)) for split in SPLITS)
        for kind in ("documents", "pages", "queries")
    ]
    documents, pages, queries = parts
    return f"| {LANGUAGE_NAMES[language]} | {documents} | {pages} | {numbers['paragraphs']} | {queries} |"
