"""SeaHelp and SeaDoc through mteb. Runs where the extra `mteb` is installed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("mteb", reason="the extra mteb is not installed")

import datasets
import mteb

from benchmarks.mteb_tasks import (
    VIDORE,
    BackboneEncoder,
    SeaDoc,
    SeaHelp,
    SeaHelpFromEnglish,
    TestCorpusAsTrainingData,
    load_seadoc,
    named_tasks,
    run_benchmarks,
)
from data_prep.parts import fit_to_grid
from stages.backbones.config import TinyShape
from stages.backbones.tiny import build_tiny_backbone
from stages.recipes import get_recipe
from stages.train.batches import collate
from stages.train.sequences import SequenceBuilder

LANGUAGES = ("vi", "id", "km")
PAGES = {"seen.pdf": 2, "asked.pdf": 3, "too.pdf": 2}
TEST_PAGES = [("asked.pdf", 1), ("asked.pdf", 2), ("asked.pdf", 3), ("too.pdf", 1), ("too.pdf", 2)]


@pytest.fixture
def backbone():
    """A random backbone; always the same weights."""
    shape = TinyShape(hidden_size=32, num_layers=2, num_heads=2, vision_hidden_size=32, vision_heads=2)
    made = build_tiny_backbone(shape, get_recipe("tiny").backbone, seed=0)
    made.model.eval()
    return made


@pytest.fixture
def seahelp(tmp_path) -> Path:
    """A folder as benchmarks.seahelp lays it out: two test documents, one to train on, two queries a page."""
    (tmp_path / "splits.json").write_text(
        json.dumps({"train": ["seen.pdf"], "validation": [], "test": ["asked.pdf", "too.pdf", "absent.pdf"]})
    )
    (tmp_path / "manifest.json").write_text(json.dumps({"digest": "abc"}))
    for language in LANGUAGES:
        images = tmp_path / "images" / language
        images.mkdir(parents=True)
        for document, count in PAGES.items():
            for page in range(1, count + 1):
                image = Image.new("L", (90, 60), 255)
                ImageDraw.Draw(image).text((4, 4), f"{document}\n{language} {page}", fill=0)
                image.save(images / f"{Path(document).stem}-{page:03d}.png")
        for folder, kind in ((language, "own"), (f"{language}-from-en", "English")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "queries.jsonl").write_text(
                "".join(
                    json.dumps({"query": text, "document": document, "page": page, "split": "any"}) + "\n"
                    for document, count in PAGES.items()
                    for page in range(1, count + 1)
                    for text in (f"{kind} {document} {page}", f"{page} of {document} in {language}, {kind}")
                )
            )
    return tmp_path


def vector(backbone, sequence) -> np.ndarray:
    """One input alone, without padding, straight from the model."""
    batch = collate([sequence], pad_token=backbone.tokenizer.pad_token_id)
    states = backbone.family.hidden_states(backbone.model, batch).last_hidden_state
    return states[0, -1].detach().numpy().astype(np.float64)


def mean_ndcg(backbone, folder: Path, language: str, suffix: str) -> float:
    """nDCG@10 by hand: a single right page at rank r gives 1 / log2(r + 1)."""
    builder, contract = SequenceBuilder(backbone), backbone.contract
    pages = []
    for document, page in TEST_PAGES:
        name = f"{Path(document).stem}-{page:03d}.png"
        pixels = np.asarray(Image.open(folder / "images" / language / name))
        fitted = fit_to_grid(pixels, multiple=contract.pixel_multiple, max_pixels=contract.max_pixels)
        pages.append(vector(backbone, builder.summarize_image(Image.fromarray(fitted))))
    gains = []
    for line in (folder / f"{language}{suffix}" / "queries.jsonl").read_text().splitlines():
        query = json.loads(line)
        if query["document"] == "seen.pdf":
            continue
        text = vector(backbone, builder.summarize_text(query["query"]))
        cosine = [text @ page / np.linalg.norm(text) / np.linalg.norm(page) for page in pages]
        right = TEST_PAGES.index((query["document"], query["page"]))
        gains.append(1 / math.log2(sum(c >= cosine[right] for c in cosine) + 1))
    assert len(gains) == 10
    return sum(gains) / len(gains)


def test_mteb_measures_what_a_hand_computation_finds(seahelp, backbone):
    encoder = BackboneEncoder(backbone, name="local/tiny")
    scores = run_benchmarks(encoder, [SeaHelp(seahelp), SeaHelpFromEnglish(seahelp)], batch_size=4)
    assert scores.keys() == {"SeaHelp", "SeaHelpFromEnglish"}
    for task, suffix in (("SeaHelp", ""), ("SeaHelpFromEnglish", "-from-en")):
        assert scores[task].keys() == set(LANGUAGES)
        for language in LANGUAGES:
            expected = mean_ndcg(backbone, seahelp, language, suffix)
            assert scores[task][language]["ndcg_at_10"] == pytest.approx(expected, abs=1e-4)  # mteb rounds


def test_the_corpus_holds_every_page_of_the_test_documents_and_no_other(seahelp):
    task = SeaHelpFromEnglish(seahelp)
    assert task.metadata.dataset["revision"] == "abc"  # scores are those of one build
    task.load_data()
    split = task.dataset["km"]["test"]
    assert sorted(split["corpus"]["id"]) == sorted(f"{document}#{page}" for document, page in TEST_PAGES)
    asked = {page for relevant in split["relevant_docs"].values() for page in relevant}
    assert asked == set(split["corpus"]["id"])
    assert all("English" in text for text in split["queries"]["text"])


@pytest.mark.parametrize("configuration", ["default", "train"])
def test_seadocs_test_corpus_is_no_training_data(configuration, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("was loaded"))
    with pytest.raises(TestCorpusAsTrainingData, match="the 5,091 pages of the test corpus"):
        load_seadoc(configuration)


def test_seadoc_is_read_from_its_test_configurations(monkeypatch):
    image = Image.new("RGB", (32, 32), "white")
    tables = {
        ("corpus", "corpus"): {"id": ["p1", "p2"], "modality": ["image"] * 2, "image": [image] * 2},
        ("query", "test"): {"id": ["q1"], "modality": ["text"], "text": ["Where is the fee?"]},
        ("qrels", "test"): {"query-id": ["q1", "q1"], "corpus-id": ["p2", "p1"], "score": [1, 2]},
    }

    def load_dataset(path, configuration, *, split, revision):
        assert path == "LCO-Embedding/SeaDoc"
        assert len(revision) == 40
        return datasets.Dataset.from_dict(tables[configuration, split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = SeaDoc()
    task.load_data()
    split = task.dataset["default"]["test"]
    assert split["relevant_docs"] == {"q1": {"p2": 1, "p1": 2}}
    assert split["corpus"]["id"] == ["p1", "p2"]
    assert split["queries"]["text"] == ["Where is the fee?"]


def test_named_tasks_are_ours_and_mtebs(seahelp):
    names = [task.metadata.name for task in named_tasks(["SeaHelp", "SeaDoc", VIDORE[1]], seahelp)]
    assert names[:2] == ["SeaHelp", "SeaDoc"]
    assert len(names) > 3
    assert all(name.startswith("Vidore2") for name in names[2:])
    assert all(mteb.get_benchmark(name).tasks for name in VIDORE)


def test_seahelp_without_its_folder_says_how_to_get_it():
    with pytest.raises(ValueError, match=r"benchmarks\.seahelp"):
        named_tasks(["SeaHelp"], None)


def test_a_batch_of_text_and_images_is_refused(backbone):
    encoder = BackboneEncoder(backbone, name="local/tiny")
    with pytest.raises(ValueError, match="embeds one of them"):
        encoder.encode([{"text": ["a"], "image": [Image.new("L", (32, 32))]}])
