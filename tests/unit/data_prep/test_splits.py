"""Splits depend on names only, keep documents and their near-copies on one side, and are never empty."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.choosing import Candidate, assign_pages, choose_samples
from data_prep.config import DocumentsConfig
from data_prep.shards import ShardSource
from data_prep.splits import (
    SPLITS,
    NearDuplicates,
    assign_splits,
    image_signature,
    page_runs,
    text_signature,
)

SHARES = {"test_share": 0.2, "validation_share": 0.05, "seed": 0}
names = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=30)


@given(names, st.randoms())
def test_splits_are_a_function_of_names_only(groups, random):
    shuffled = sorted(groups)
    random.shuffle(shuffled)
    assert assign_splits(shuffled, **SHARES) == assign_splits(groups, **SHARES)


@given(names.filter(lambda groups: len(groups) > 1), st.text(min_size=9, max_size=9))
def test_one_group_more_moves_at_most_the_three_that_are_or_were_placed_by_force(groups, new):
    before, after = assign_splits(groups, **SHARES), assign_splits(groups | {new}, **SHARES)
    moved = {group for group in groups if before[group] != after[group]}
    # In a crowd all splits have members: nobody is forced.
    crowd = assign_splits(groups | {f"document-{n}" for n in range(200)}, **SHARES)
    assert len(moved) <= 3
    assert all(after[group] in (crowd[group], "validation") for group in moved)


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=30), st.integers(0, 5))
def test_test_and_train_are_never_empty_and_of_five_groups_one_validates(groups, seed):
    splits = list(assign_splits(groups, **SHARES | {"seed": seed}).values())
    assert {"test", "train"} <= set(splits) <= set(SPLITS)
    assert len(groups) < 5 or "validation" in splits or splits.count("train") == 1


def test_shares_are_about_as_asked():
    places = list(assign_splits([f"document-{n}" for n in range(4000)], **SHARES).values())
    shares = [places.count(name) / 4000 for name in ("test", "validation")]
    assert shares == pytest.approx([0.2, 0.05], abs=0.015)


@given(st.integers(1, 60), st.integers(1, 8))
def test_page_runs_are_contiguous_and_of_equal_length(pages, runs):
    run_of = page_runs(pages, runs)
    assert list(run_of) == list(range(1, pages + 1))
    assert list(run_of.values()) == sorted(run_of.values())
    sizes = np.bincount(list(run_of.values()))
    assert len(sizes) == min(runs, pages)
    assert max(sizes) - min(sizes) <= 1


def candidates(*texts: str, document: str = "a.pdf", page: int = 1) -> list[Candidate]:
    return [
        Candidate(
            config=DocumentsConfig(), source=None, position=n, key=f"{document}{page}-{n}", document=document,
            page=page, text=text, reason=None if text else "short", content_digest="",
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip


def usable(name: str, pages: int) -> SimpleNamespace:
    """What `assign_pages` needs of a reading."""
    return SimpleNamespace(source=SimpleNamespace(name=name), pages=pages)


@pytest.mark.parametrize("documents", [5, 1])
def test_documents_are_split_whole_where_there_are_enough_and_a_warning_says_where_not(documents):
    places = [(f"d{n}.pdf", page) for n in range(documents) for page in range(1, 5)]
    samples = [one for name, page in places for one in candidates("two words", document=name, page=page)]
    readings = [usable(f"d{n}.pdf", 4) for n in range(documents)]
    splits, warnings = assign_pages(readings, samples, DocumentsConfig())
    assert {"test", "train"} <= set(splits.values())
    if documents == 5:
        assert len({(name, splits[name, page]) for name, page in places}) == 5 and warnings == []
    else:
        assert warnings[0].startswith("Only 1 document(s) with text")


@given(st.integers(2, 4), st.integers(0, 20), st.integers(0, 99))
def test_pages_without_text_take_no_ones_place(pages, scans, seed):
    """Test and train both get a page with text, however many pages without text there are."""
    samples = [c for page in range(1, pages + 1) for c in candidates("two words", page=page)]
    samples += [c for page in range(1, scans + 1) for c in candidates("", document="scan.pdf", page=page)]
    readings = [usable("a.pdf", pages), usable("scan.pdf", scans)]
    splits, _ = assign_pages(readings, samples, DocumentsConfig(seed=seed))
    assert {"test", "train"} <= {splits["a.pdf", page] for page in range(1, pages + 1)}


def test_repeats_are_dropped_inside_a_split_and_near_copies_between_splits():
    original = "The quick river bends around the old stone market and the bridge of iron in winter"
    near = original.replace("quick", "quack")
    other = "Letters arrive by cart when the garden gate is shut and nobody looks at the window"
    samples = [*candidates(original, original.upper()), *candidates(near, other, page=2)]
    splits = {("a.pdf", 1): "test", ("a.pdf", 2): "train"}
    chosen, dropped = choose_samples(samples, splits, DocumentsConfig(near_duplicate_similarity=0.7))
    texts = {name: [sample.text for sample in of_split] for name, of_split in chosen.items()}
    assert texts == {"test": [original], "validation": [], "train": [other]}
    assert dropped["test"] == {"exact_duplicates": 1, "near_duplicates_of_other_splits": 0}
    assert dropped["train"] == {"exact_duplicates": 0, "near_duplicates_of_other_splits": 1}


def test_equal_texts_are_always_near_duplicates_and_different_ones_are_not():
    texts = NearDuplicates(DocumentsConfig())
    words = [f"sentence {n} speaks of {n * n} things and {n * 7} more" for n in range(40)]
    for n, text in enumerate(words):
        texts.add(str(n), text_signature(text))
    assert all(texts.seen(text_signature(text.upper() + "  ")) for text in words)
    assert not texts.seen(text_signature("nothing of the kind was ever written here before"))


def test_pages_without_text_are_compared_as_images(scan):
    images = NearDuplicates(DocumentsConfig())
    assert not images.seen(image_signature(scan))
    images.add("scan", image_signature(scan))
    brighter = Image.fromarray(np.maximum(np.asarray(scan), 3))
    assert images.seen(image_signature(brighter))
    assert not images.seen(image_signature(scan.rotate(180)))


def test_in_a_prepared_folder_no_document_and_no_near_copy_is_on_two_sides(prepared):
    sides = {name: list(ShardSource(getattr(prepared, name).path).records()) for name in SPLITS}
    documents = [{record["document"] for record in records} for records in sides.values()]
    keys = [record["key"] for records in sides.values() for record in records]
    texts = [record["text"].casefold() for record in sides["test"]]
    assert sum(map(len, documents)) == len(set().union(*documents))
    assert len(keys) == len(set(keys)) and len(texts) == len(set(texts))
    seen = NearDuplicates(DocumentsConfig())
    for text in texts:
        seen.add(text, text_signature(text))
    assert not any(seen.seen(text_signature(record["text"])) for record in sides["train"])
    inventory = prepared.inventory.json("inventory.json")
    assert sum(counts["exact_duplicates"] for counts in inventory["splits"].values()) >= 4
    assert [entry["samples"] for entry in inventory["documents"]] == [8, 8, 8, 8, 8, 12]
    assert all(len(entry["splits"]) == 1 for entry in inventory["documents"])
