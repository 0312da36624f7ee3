"""Simulated runs: generation.json and retrieval.json contents with a known truth."""

import io

import matplotlib.font_manager
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import norm

from stages.law.evidence import cells_of_the_law, read_evidence
from stages.recipes import LawConfig

DOSES = (0, 300, 900, 2400)
LOSSES = (4.1, 0.9, 0.42, 0.21)
STEPS = 30
LAW = LawConfig(bootstrap_resamples=400)


def read_run(run):
    """The evidence of a simulated run, read as the stage reads it."""
    cells = cells_of_the_law(run.generation, run.retrieval, STEPS)
    return read_evidence(*cells, minimum_documents=LAW.minimum_documents)


def scores_json(values):
    means = {name: float(column.mean()) for name, column in values.items()}
    return {"means": means, "per_query": {name: column.tolist() for name, column in values.items()}}


def from_ranks(ranks):
    """Every metric of a query with one relevant page at ``ranks`` (counted from 1)."""
    return {
        "ndcg@10": np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0),
        **{f"recall@{k}": (ranks <= k).astype(float) for k in (1, 5, 10)},
        "mrr": 1 / ranks,
    }


class Run:
    """A run with known retrieval strength per dose; the pages that do not answer score N(0, 1)."""

    def __init__(
        self, *, strengths, doses=DOSES, losses=LOSSES, queries=400, seeds=(0, 1), rng=0, corpus=400
    ):
        self.rng = np.random.default_rng(rng)
        self.doses, self.losses, self.seeds, self.corpus, self.queries = doses, losses, seeds, corpus, queries
        self.difficulty = self.rng.normal(0, 1, queries)
        self.bm25 = scores_json(from_ranks(self.ranks(2.6)))
        self.strengths = dict(zip(doses, strengths, strict=True))
        self.generation = [self.generation_cell(dose, loss) for dose, loss in zip(doses, losses, strict=True)]
        self.retrieval = [self.retrieval_cell(dose, None, None) for dose in doses]
        for arm in ("text-only", "multimodal-20"):
            self.retrieval += [self.retrieval_cell(dose, seed, arm) for dose in doses for seed in seeds]

    def generation_cell(self, dose, loss):
        def corpus(level, error):
            sizes = self.rng.integers(20, 80, 300)
            nats = sizes * level * self.rng.gamma(20, 1 / 20, 300)
            rng = np.random.default_rng(7)
            right, wrong = rng.binomial(10, np.exp(-level / 3), 300), rng.binomial(100, error, 64)
            blocks = [
                {"key": f"b{i}", "nats": n, "bytes": int(b), "tokens": 10, "correct": int(c)}
                for i, (n, b, c) in enumerate(zip(nats, sizes, right, strict=True))
            ]
            decoded = [{"key": f"b{i}", "edits": int(e), "characters": 100} for i, e in enumerate(wrong)]
            return {
                "nats_per_byte": float(nats.sum() / sizes.sum()), "token_accuracy": float(right.mean() / 10),
                "character_error_rate": float(wrong.mean() / 100),
                "per_block": blocks, "per_decoded_block": decoded, "examples": [],
            }  # fmt: skip

        base = 0.08 + 0.02 * self.doses.index(dose)
        return {
            "dose": dose, "pages": "target", "seed": None, "arm": None, "steps": None,
            "corpora": {"target": corpus(loss, min(0.95, loss / 4)), "base": corpus(base, base / 3)},
        }  # fmt: skip

    def ranks(self, strength, noise=0.3):
        score = strength + self.difficulty + self.rng.normal(0, noise, self.queries)
        return 1 + self.rng.binomial(self.corpus - 1, norm.sf(score))

    def retrieval_cell(self, dose, seed, arm):
        after = {None: -0.1, "text-only": 0.0, "multimodal-20": 0.15}[arm]
        strength = self.strengths[dose] + after
        ids = [f"q{i}" for i in range(self.queries)]
        layers = [
            {"layer": layer, "anisotropy_image": 0.8 - 0.1 * layer, "anisotropy_text": 0.7 - 0.1 * layer,
             "mutual_knn": 0.03 + 0.02 * layer * (1 + self.doses.index(dose)),
             "cka": 0.1 + 0.05 * layer * (1 + self.doses.index(dose))}
            for layer in range(4)
        ]  # fmt: skip
        layers[0] |= dict.fromkeys(("anisotropy_image", "anisotropy_text", "mutual_knn", "cka"))
        random = {
            name: np.full(self.queries, level)
            for name, level in zip(
                ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr"),
                (0.0114, 0.0025, 0.0125, 0.025, 0.0164),
                strict=True,
            )
        }
        return {
            "dose": dose, "pages": "target", "seed": seed, "arm": arm, "steps": STEPS if arm else None,
            "split": "test", "corpus_size": self.corpus, "query_ids": ids,
            "corpus_pages": self.corpus // 2, "corpus_documents": self.corpus // 4,
            "query_documents": [f"document-{i // 4}" for i in range(self.queries)],
            "directions": {
                "query_to_image": scores_json(from_ranks(self.ranks(strength))),
                "query_to_text": scores_json(from_ranks(self.ranks(2.0))),
                "text_to_image": scores_json(from_ranks(self.ranks(strength + 1.5))) | {"ids": ids},
            },
            "baselines": {"random": scores_json(random), "bm25": self.bm25},
            "geometry": layers, "chance_mutual_knn": 10 / (self.corpus - 1), "examples": [],
        }  # fmt: skip


@pytest.fixture(scope="session")
def simulate():
    return Run


TEXTS = (
    "Chèn một bảng tính vào tài liệu văn bản",
    "Định dạng đoạn văn được chọn, chẳng hạn như thụt lề",
    "Bấm vào đây để xoá mọi dòng trống khỏi bảng",
    "Hàm này trả về số ngày giữa hai ngày tháng",
    "Mở hộp thoại để chọn phông chữ và kích cỡ",
    "Lưu tài liệu hiện thời với một tên tập tin khác",
)


@pytest.fixture(scope="session")
def illustrated(simulate):
    """A rising run with example transcriptions and searches: (run, image_of, inventories)."""
    run = simulate(strengths=(0.9, 1.05, 1.25, 1.6))
    for cell in run.generation:
        broken = {0: "Chon mot bang tenh the document is", 2400: "{}"}.get(cell["dose"], "{}").format
        cell["corpora"]["target"]["examples"] = [
            {"key": f"k{i}", "text": text, "decoded": broken(text.replace("ố", "ổ").replace(" và", ""))}
            for i, text in enumerate(TEXTS)
        ]
    for cell in run.retrieval:
        top = [{"key": f"k{i}", "score": 0.9 - i / 10} for i in range(5)]
        place = 0 if cell["dose"] == 2400 else 4
        cell["examples"] = [
            {
                "query": f"{text.split()[1]} {text.split()[3]}",
                "relevant": [f"k{(place + i) % 5}"],
                "rank": place + 1 if i != 2 else 1 + (cell["dose"] == 2400) * 8,
                "top": top[i:] + top[:i],
            }
            for i, text in enumerate(TEXTS[:5])
        ]
    return run, image_of, {"target": inventory(REFUSED, ["notes.docx"]), "base": inventory([], [])}


REFUSED = [
    {"path": "old/scan.pdf", "status": "quarantined", "reason": "encrypted: it needs a password",
     "pages": 0, "samples": 0, "splits": []},
    {"path": "old/empty.pdf", "status": "quarantined", "reason": "empty file (0 bytes)",
     "pages": 0, "samples": 0, "splits": []},
]  # fmt: skip


def inventory(refused, unsupported):
    """Contents of an inventory.json."""
    splits = ("train", "train", "train", "test", "validation")
    used = [
        {"path": f"help/topic-{i:02d}.pdf", "status": "used", "reason": None, "pages": 4, "samples": 21,
         "splits": [splits[i % 5]]} for i in range(25)
    ]  # fmt: skip
    counts = {"samples": 105, "trainable": 101, "shards": 1, "queries": 200, "text_bytes": 9000,
              "exact_duplicates": 4, "near_duplicates_of_other_splits": 3}  # fmt: skip
    return {
        "documents": used + refused,
        "unsupported": unsupported,
        "warnings": ["Only 3 document(s) with text: the scores are optimistic."] if refused else [],
        "counts": {"used": 25, "quarantined": len(refused), "unsupported": len(unsupported)},
        "splits": dict.fromkeys(("train", "validation", "test"), counts),
    }


def image_of(key):
    """A PNG of the sample's text, as a page block would look."""
    image = Image.new("L", (448, 96), 255)
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans Mono"), 22)
    text = TEXTS[int(key[1:])]
    for line in range(3):
        draw.text((6, 4 + 30 * line), text[line * 33 : (line + 1) * 33], 20, font)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
