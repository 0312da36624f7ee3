"""Public benchmarks through mteb: SeaHelp from a folder, SeaDoc and ViDoRe from the Hugging Face hub.

    .venv/bin/uv pip install --no-deps --require-hashes -r requirements-mteb.txt
    .venv/bin/python -m benchmarks.mteb_tasks --model MODEL_FOLDER --recipe tiny --seahelp seahelp \\
        --tasks SeaHelp SeaHelpFromEnglish --output scores.json

`benchmarks/seahelp.py` builds SeaHelp. With a network `--tasks` also takes SeaDoc and mteb's own benchmarks,
such as `"ViDoRe(v2)"`. Models see a page as in training: grey, on the contract's pixel grid.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from PIL import Image

from data_prep.parts import fit_to_grid
from data_prep.source_files import USER_QUERIES
from data_prep.user_queries import read_user_queries
from stages.backbones.backbone import Backbone, EmbeddingContract, load_backbone
from stages.evaluate.encoding import PreparedSequences, encode, prepared_texts
from stages.recipes import get_recipe
from stages.train.sequences import SequenceBuilder

SPLIT = "test"
LANGUAGES = {"vi": "vie-Latn", "id": "ind-Latn", "km": "khm-Khmr"}
VIDORE = ("ViDoRe(v1)", "ViDoRe(v2)", "ViDoRe(v3)")
SEADOC = "LCO-Embedding/SeaDoc"
SEADOC_REVISION = "7c3cf3335cc157c415c7cc084e91b6f0fc26f839"
SEADOC_SPLITS = {"corpus": "corpus", "query": "test", "qrels": "test"}


class TestCorpusAsTrainingData(Exception):
    """What was asked for as training data is what a benchmark tests on."""

    __test__ = False  # no test class, whatever pytest thinks of the name


def load_seadoc(configuration: str) -> datasets.Dataset:
    """Load one configuration of SeaDoc (arXiv 2510.11693): `corpus`, `query` or `qrels`; needs a network.

    Raises:
        TestCorpusAsTrainingData: the default configuration: its split is called "train", and its 5,091 images
            are the test corpus.
    """
    if configuration not in SEADOC_SPLITS:
        raise TestCorpusAsTrainingData(
            f"{SEADOC}, configuration {configuration!r}: refused. The dataset has no training data: its "
            'default configuration calls a split "train" that holds the 5,091 pages of the test corpus; a '
            "model trained on it is tested on what it has seen. To evaluate, load "
            f"{', '.join(SEADOC_SPLITS)}; to train, use other pages in these languages"
        )
    split = SEADOC_SPLITS[configuration]
    return datasets.load_dataset(SEADOC, configuration, split=split, revision=SEADOC_REVISION)


def _metadata(name: str, description: str, **fields: Any) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description=description,
        type="DocumentUnderstanding",
        category="t2i",
        modalities=["text", "image"],
        eval_splits=[SPLIT],
        main_score="ndcg_at_10",
        task_subtypes=["Image Text Retrieval"],
        dialect=[],
        **fields,
    )


def _retrieval_data(
    page_images: dict[str, Path] | datasets.Dataset,
    queries: dict[str, str],
    answers: dict[str, dict[str, int]],
) -> dict:
    """Return one split as mteb holds it. `answers`: {query id: {page id: relevance}}."""
    if isinstance(page_images, dict):
        columns = {"id": list(page_images), "image": [str(path) for path in page_images.values()]}
        page_images = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    return {
        "corpus": page_images,
        "queries": datasets.Dataset.from_dict({"id": list(queries), "text": list(queries.values())}),
        "relevant_docs": answers,
        "top_ranked": None,
    }


class _SeaHelpTask(AbsTaskRetrieval):
    """Pages of SeaHelp's test documents; one subset a language."""

    folder_of_subset = "{language}"

    def __init__(self, folder: Path, **options: Any) -> None:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        revision = {"path": "SeaHelp", "revision": manifest["digest"]}
        # Scores of another build are scores of another dataset.
        self.metadata = type(self).metadata.model_copy(update={"dataset": revision})
        super().__init__(**options)
        self._folder = folder

    def load_data(self, *_: Any, **__: Any) -> None:
        """Read queries and page images of the test documents."""
        documents = set(json.loads((self._folder / "splits.json").read_text(encoding="utf-8"))[SPLIT])
        self.dataset = {}
        for language in self.hf_subsets:
            images = self._folder / "images" / language
            pages = {
                f"{document}#{int(path.stem.rpartition('-')[2])}": path
                for document in sorted(documents)
                for path in sorted(images.glob(f"{Path(document).stem}-*.png"))
            }
            lines = read_user_queries(
                self._folder / self.folder_of_subset.format(language=language) / USER_QUERIES
            )
            asked = {
                f"{language}-{number:06d}": q for number, q in enumerate(lines) if q.document in documents
            }
            self.dataset[language] = {
                SPLIT: _retrieval_data(
                    pages,
                    queries={identity: q.text for identity, q in asked.items()},
                    answers={identity: {f"{q.document}#{q.page}": 1} for identity, q in asked.items()},
                )
            }
        self.data_loaded = True


_SEAHELP_FIELDS = {
    "dataset": {"path": "SeaHelp", "revision": "of the folder"},
    "reference": "https://www.libreoffice.org",
    "date": ("2023-01-01", "2026-11-01"),
    "domains": ["Non-fiction", "Written"],
    "license": "mpl-2.0",
    "annotations_creators": "derived",
    "sample_creation": "created",
    "bibtex_citation": "",
}


class SeaHelp(_SeaHelpTask):
    """Queries in the language of the pages."""

    metadata = _metadata(
        "SeaHelp",
        "Find the page of a program's help, as an image, that holds the words of a query in its language.",
        eval_langs={language: [code] for language, code in LANGUAGES.items()},
        **_SEAHELP_FIELDS,
    )


class SeaHelpFromEnglish(_SeaHelpTask):
    """English queries, pages in another language."""

    folder_of_subset = "{language}-from-en"
    metadata = _metadata(
        "SeaHelpFromEnglish",
        "Find the page of a program's help, as an image, whose text translates an English sentence.",
        eval_langs={language: ["eng-Latn", code] for language, code in LANGUAGES.items()},
        **_SEAHELP_FIELDS,
    )


class SeaDoc(AbsTaskRetrieval):
    """English questions, page images in Thai, Vietnamese, Malay and Lao."""

    metadata = _metadata(
        "SeaDoc",
        "Find the page image that answers an English question, in four languages of Southeast Asia.",
        dataset={"path": SEADOC, "revision": SEADOC_REVISION},
        reference="https://arxiv.org/abs/2510.11693",
        eval_langs=["eng-Latn", "tha-Thai", "vie-Latn", "zsm-Latn", "lao-Laoo"],
        license="apache-2.0",
    )

    def load_data(self, *_: Any, **__: Any) -> None:
        """Load corpus, queries and answers from the hub; never its "train" split."""
        queries = load_seadoc("query")
        answers: dict[str, dict[str, int]] = {}
        for judged in load_seadoc("qrels"):
            answers.setdefault(judged["query-id"], {})[judged["corpus-id"]] = int(judged["score"])
        self.dataset = {
            "default": {
                SPLIT: _retrieval_data(
                    load_seadoc("corpus").select_columns(["id", "image"]),
                    queries=dict(zip(queries["id"], queries["text"], strict=True)),
                    answers=answers,
                )
            }
        }
        self.data_loaded = True


class BackboneEncoder(AbsEncoder):
    """Our encoder as an mteb model: text or page images in, embeddings of the contract out."""

    def __init__(self, backbone: Backbone, name: str) -> None:
        self.model = backbone
        self._builder = SequenceBuilder(backbone)
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": name, "modalities": ["text", "image"], "similarity_fn_name": ScoringFunction.COSINE}
        )

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        """Return [inputs, hidden] float32, L2-normalised. `inputs`: mteb's batches of `text` or `image`.

        Raises:
            ValueError: a batch has both, or neither: the contract has no prompt for it.
        """
        return np.concatenate([self._encode_batch(batch) for batch in inputs])

    def _encode_batch(self, batch: dict[str, Sequence]) -> np.ndarray:
        kinds = sorted({"text", "image"} & set(batch))
        if len(kinds) != 1:
            raise ValueError(
                f"a batch has {kinds or 'neither text nor images'}; this model embeds one of them"
            )
        inputs = batch[kinds[0]]
        sequences = (
            prepared_texts(self._builder, inputs) if kinds == ["text"] else self._page_sequences(inputs)
        )
        return encode(self.model, sequences, batch_size=len(inputs)).vectors

    def _page_sequences(self, images: Sequence[Image.Image]) -> PreparedSequences:
        contract = self.model.contract
        pages = [_fitted(image, contract) for image in images]
        return PreparedSequences(
            pages, build=self._builder.summarize_image, size=lambda page: page.width * page.height
        )


def _fitted(image: Image.Image, contract: EmbeddingContract) -> Image.Image:
    pixels = np.asarray(image.convert("L"))
    return Image.fromarray(
        fit_to_grid(pixels, multiple=contract.pixel_multiple, max_pixels=contract.max_pixels)
    )


def named_tasks(names: Sequence[str], seahelp: Path | None) -> list[mteb.AbsTask]:
    """Return the tasks of these names: SeaHelp's, SeaDoc, and the benchmarks and tasks that mteb has.

    Raises:
        ValueError: SeaHelp is asked for without its folder.
        KeyError: mteb has no benchmark and no task of this name.
    """
    tasks: list[mteb.AbsTask] = []
    for name in names:
        if name in ("SeaHelp", "SeaHelpFromEnglish"):
            if seahelp is None:
                raise ValueError(f"{name} needs its folder: build it with benchmarks.seahelp, pass --seahelp")
            tasks.append({"SeaHelp": SeaHelp, "SeaHelpFromEnglish": SeaHelpFromEnglish}[name](seahelp))
        elif name == "SeaDoc":
            tasks.append(SeaDoc())
        elif "(" in name:
            tasks.extend(mteb.get_benchmark(name).tasks)
        else:
            tasks.append(mteb.get_task(name))
    return tasks


def run_benchmarks(encoder: BackboneEncoder, tasks: Sequence[mteb.AbsTask], *, batch_size: int) -> dict:
    """Return {task: {subset: {score: value}}} of the test splits, as mteb measures them."""
    result = mteb.evaluate(
        encoder,
        tasks,
        cache=None,
        co2_tracker=False,
        encode_kwargs={"batch_size": batch_size},
        show_progress_bar=False,
    )
    return {
        task.task_name: {entry["hf_subset"]: entry for entry in task.scores[SPLIT]}
        for task in result.task_results
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of a model, or a hub id")
    parser.add_argument("--recipe", required=True, help="recipe whose limits of inputs the model has")
    parser.add_argument(
        "--tasks", nargs="+", required=True, help=f"SeaHelp, SeaHelpFromEnglish, SeaDoc, {VIDORE}"
    )
    parser.add_argument("--seahelp", type=Path, help="folder that benchmarks.seahelp made")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    tasks = named_tasks(arguments.tasks, arguments.seahelp)
    backbone = load_backbone(arguments.model, get_recipe(arguments.recipe).backbone)
    encoder = BackboneEncoder(backbone, name=f"local/{Path(arguments.model).name}")
    scores = run_benchmarks(encoder, tasks, batch_size=arguments.batch_size)
    arguments.output.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    for task, subsets in scores.items():
        for subset, entry in subsets.items():
            print(f"{task} {subset}: nDCG@10 {entry['ndcg_at_10']:.3f}")


if __name__ == "__main__":
    main()
