"""The user's own queries, `queries.jsonl` in a folder of documents: a line is used, or named with why not."""

import codecs
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from annotated_types import Interval, MinLen
from pydantic import AfterValidator, BaseModel, ValidationError
from rapidfuzz import fuzz, process

from data_prep.choosing import Candidate, Place
from data_prep.errors import NoUsableDocuments
from data_prep.plain_text import clean_text, escaped
from data_prep.queries import Query
from data_prep.reading import Reading
from data_prep.source_files import Unsupported, open_file
from data_prep.splits import SPLITS

USER_QUERIES_BYTES = 64 * 2**20
LAST_PAGE = 10**9
_LONGEST_NAME = 4_096  # characters; no file system has a longer path
_SHOWN_CHARACTERS = 200  # of a document's name in a sentence
_NEAREST_SOUGHT = 1_000  # unknown names whose nearest one is looked up: each takes a pass over all
_LINES_TOLD = 3  # by a message of one line
_NEAR = 70.0  # percent, from which a name is shown as the nearest


def _whole(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"half a character in {_shown(text)}")
    return text


def _visible(text: str) -> str:
    if not any(unicodedata.category(character)[0] in "LNS" for character in text):
        raise ValueError("no letter, digit or sign in it")
    return text


_Text = Annotated[str, AfterValidator(_whole)]


class _Line(BaseModel, strict=True):
    """Other fields are passed over."""

    query: Annotated[_Text, AfterValidator(clean_text), AfterValidator(_visible)]
    document: Annotated[_Text, MinLen(1)]
    page: Annotated[int, Interval(ge=1, le=LAST_PAGE)]


@dataclass(frozen=True, kw_only=True)
class UserQuery:
    """One line of the file."""

    line: int  # from 1
    text: str
    document: str  # path relative to the documents folder, as the report shows it
    page: int


def read_user_queries(path: Path) -> list[UserQuery]:
    """Read the file: one object a line with `query`, `document` and `page` (from 1).

    Raises:
        NoUsableDocuments: it cannot be read, or a line is no such object; the message names file and line.
    """
    queries = []
    # Bytes, cut at line feeds only: JSON text may hold other line separators (U+2028).
    for number, line in enumerate(_content(path).removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            read = _Line.model_validate(json.loads(line.decode(), object_pairs_hook=_unrepeated))
        except (ValueError, RecursionError) as error:
            expected = '{"query": ..., "document": ..., "page": ...}'
            reason = f"{path}: line {number} is not {expected}: {_what_is_wrong(error)}"
            raise NoUsableDocuments(reason) from error
        queries.append(UserQuery(line=number, text=read.query, document=read.document, page=read.page))
    return queries


def _content(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            content = file.read(USER_QUERIES_BYTES + 1)
    except OSError as error:
        raise NoUsableDocuments(f"{path}: cannot be read: {error.strerror}; correct or remove it") from error
    if len(content) > USER_QUERIES_BYTES:
        raise NoUsableDocuments(f"{path}: too large, the limit is {USER_QUERIES_BYTES:,} bytes; shorten it")
    return content


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a name that is there twice, no reader can say which value is meant."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"{_shown(counts.most_common(1)[0][0])} is there twice")
    return content


def _what_is_wrong(error: ValueError | RecursionError) -> str:
    if isinstance(error, ValidationError):
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return "".join(f"{name}: " for name in wrong["loc"]) + wrong["msg"].removeprefix("Value error, ")
    if isinstance(error, json.JSONDecodeError):
        return f"Invalid JSON: {error.msg} at character {error.pos + 1}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start + 1}"
    return "too deeply nested" if isinstance(error, RecursionError) else str(error)


@dataclass(frozen=True, kw_only=True)
class Named:
    """What lines may name of a folder."""

    pages: Mapping[str, int]
    """Pages of each document that is used, by its name."""
    refused: Mapping[str, str]
    """Why another entry of the folder is not used, by its name."""
    samples: Mapping[Place, tuple[str, tuple[str, ...]]]
    """Of a page: its split, and the keys of its samples there that may answer a query."""
    _nearest: dict[str, str | None] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def _meant(self) -> dict[str, str]:
        """The name that is meant by what a line writes; itself before another that composes to the same."""
        names = [*self.refused, *self.pages]
        return {_composed(name): name for name in names} | {name: name for name in names}

    def name(self, document: str) -> str | None:
        """The name of a document, for `./a.pdf` or another Unicode form of it; None where there is none."""
        path = str(PurePosixPath(document))
        return self._meant.get(path) or self._meant.get(_composed(path))

    def answers(self, line: UserQuery) -> tuple[str, tuple[str, ...]]:
        """The split of the page that a line names, and the keys of the samples there that may answer it."""
        return self.samples.get((self.name(line.document), line.page), ("", ()))

    def why_unused(self, line: UserQuery, own: str | None) -> str:
        """The reason for a line; `own`: the split of the query of its text, if there is one."""
        name = self.name(line.document)
        if name is None:
            return self._unknown(line.document)
        document, page = _shown(name), f"page {line.page:,} of {_shown(name)}"
        if reason := self.refused.get(name):
            return f"{document} is not used: {reason}"
        if line.page > (pages := self.pages[name]):
            return f"{document} has {pages:,} page{'s' * (pages > 1)}, not {line.page:,}"
        split, keys = self.answers(line)
        if not split:
            return f"nothing is left of {page}: it repeats other pages"
        if not keys:
            return f"{page} is in {split} and has no text to train on"
        return f"{page} is in {split}; the same query asks for one in {own}, and belongs to one split"

    def _unknown(self, document: str) -> str:
        if document not in self._nearest and len(self._nearest) < _NEAREST_SOUGHT:
            found = process.extractOne(
                _folded(document[:_LONGEST_NAME]), self._folded, scorer=fuzz.WRatio, score_cutoff=_NEAR
            )
            self._nearest[document] = found and found[2]
        nearest = self._nearest.get(document)
        absolute = " (names begin below the documents folder)" if document.startswith("/") else ""
        said = f"no document {_shown(document)}{absolute}"
        return f"{said}; the nearest is {_shown(nearest)}" if nearest else said

    @cached_property
    def _folded(self) -> dict[str, str]:
        return {name: _folded(name) for name in self._meant.values()}


def named_in(
    readings: list[Reading], unsupported: list[Unsupported], chosen: dict[str, list[Candidate]]
) -> Named:
    """What the user's queries may name; a sample without text is searched, but not trained on."""
    keys: dict[Place, list[str]] = {}
    split_of: dict[Place, str] = {}
    for split, samples in chosen.items():
        for sample in samples:
            split_of[sample.place] = split
            answers = sample.trainable or split != "train"
            keys.setdefault(sample.place, []).extend([sample.key] if answers else [])
    refused = {one.name: one.reason for one in unsupported}
    return Named(
        pages={r.source.name: r.pages for r in readings if not r.reason},
        refused=refused | {r.source.name: r.reason for r in readings if r.reason},
        samples={place: (split_of[place], tuple(found)) for place, found in keys.items()},
    )


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """What became of the user's queries."""

    queries: dict[str, list[Query]]
    """Of each split."""
    unused: dict[UserQuery, str]
    """The reason for each line that is not used, in their order."""
    parted: int
    """Queries that left pages out, which lie in other splits."""


def assign_user_queries(lines: Sequence[UserQuery], named: Named) -> Assigned:
    """Make one query of all lines of equal text, in any case, with all their pages.

    It is of one split, the first of test, validation and train that has one of its pages: what is tested may
    not be trained on.
    """
    by_text: dict[str, list[UserQuery]] = {}
    for line in lines:
        by_text.setdefault(line.text.casefold(), []).append(line)
    number_of = {line: number for number, line in enumerate(lines)}
    queries: dict[str, list[Query]] = {name: [] for name in SPLITS}
    unused: dict[UserQuery, str] = {}
    parted = 0
    for asked in by_text.values():
        answers = {line: named.answers(line) for line in asked}
        splits = {split for split, keys in answers.values() if keys}
        own = max(splits, key=SPLITS.index, default=None)
        keys = dict.fromkeys(key for split, keys in answers.values() if split == own for key in keys)
        if keys:
            identity = f"user-{number_of[asked[0]]:06d}"
            queries[own].append(Query(identity=identity, text=asked[0].text, relevant=tuple(keys)))
        left = [line for line, (split, keys) in answers.items() if not keys or split != own]
        unused |= {line: named.why_unused(line, own) for line in left}
        parted += len(splits) > 1
    in_order = dict(sorted(unused.items(), key=lambda one: one[0].line))
    return Assigned(queries=queries, unused=in_order, parted=parted)


def in_words(unused: Mapping[UserQuery, str]) -> list[str]:
    """A sentence for each line."""
    return [f"line {line.line:,}: {reason}" for line, reason in unused.items()]


def none_is_used(unused: Mapping[UserQuery, str]) -> str:
    """Why, for the first lines of a file of which none is used, and the next step."""
    told = in_words(unused)[:_LINES_TOLD]
    more = f"; and {len(unused) - len(told):,} more" if len(unused) > len(told) else ""
    return (
        f"none of its {len(unused):,} line(s) is used: {'; '.join(told)}{more}. Correct them; without the "
        "file queries are made"
    )


def _shown(text: str) -> str:
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return f"'{escaped(cut)}'"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folded(name: str) -> str:
    return _composed(name).casefold().replace("\\\\", "/").replace("\\", "/")
