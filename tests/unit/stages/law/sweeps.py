"""The committed JSON of a simulated sweep: the product's simulator, and what that leaves out."""

import numpy as np

from stages.cells import BEFORE_CL, Arm, Cell
from stages.law.config import LawConfig
from stages.law.reading import measurements_of
from stages.law.simulated_sweeps import EQUAL_COMPUTE, PRIMARY, STEPS, Design, Noise, Queries
from stages.law.verdict import find

LAW = LawConfig(bootstrap_resamples=400)
QUIET = Noise(checkpoint=0.0)
SMALL = Design(
    doses=(0, 300, 900, 2400),
    control_doses=(900, 2400),
    seeds=2,
    queries_of_documents=(4,) * 100,
    corpus=400,
    nats_per_byte=(4.1, 0.9, 0.42, 0.21),
)
GAIN = 0.3
BUDGETS = (5, 10, STEPS, 60)
CANDIDATES = 16
KEYS = [f"k{number}" for number in range(CANDIDATES)]
METRICS = ("recall@1", "recall@5", "recall@10", "mrr")
MULTIMODAL = Arm(name="multimodal-20", kind="refinement", changes={"image_share": 0.2})
FASTER = Arm(name="lr 0.003", kind="learning rate", changes={"learning_rate": 3e-3})
OTHER_ARMS = {
    Arm(name="full fine-tuning", kind="refinement"): -0.03,
    Arm(name="CLIP-style", kind="refinement"): -0.08,
    Arm(name="adapter soup", kind="soup"): 0.01,
    Arm(name="whitening", kind="linear map"): -0.06,
    Arm(name="projection", kind="linear map"): -0.05,
}
SIZES = {
    (rank, alpha): Arm(name=f"rank {rank}, alpha {alpha}", kind="adapter")
    for rank, alpha in ((4, 1), (64, 16))
}
READINGS = {"lexical": -0.05, "fused": 0.2, "fused equally": 0.15}
"""nDCG@10 over that of the vectors."""
READ_BEFORE_CL = {"transcribed": 0.15, "trigrams": 0.1, "late interaction": -0.2}
TEXTS = (
    "Chèn một bảng tính vào tài liệu văn bản",
    "Định dạng đoạn văn được chọn, chẳng hạn như thụt lề",
    "Bấm vào đây để xoá mọi dòng trống khỏi bảng",
    "Hàm này trả về số ngày giữa hai ngày tháng",
    "Mở hộp thoại để chọn phông chữ và kích cỡ",
    "Lưu tài liệu hiện thời với một tên tập tin khác",
)


class Sweep:
    """A run, or with `controls` a sweep: `contents`, (stage, cell) -> JSON, to be changed by a test.

    Gains are those of nDCG@10 over dose 0: of the own pages at the highest dose, and of each control.
    """

    def __init__(
        self, *, gain=GAIN, text=0.0, multimodal=0.04, controls=True, shuffled=0.01, unrelated=0.0,
        compute=0.01, design=SMALL, rng=0, other_arms=False, other_tests=("Khmer",), budgets=BUDGETS,
        readings=True,
    ):  # fmt: skip
        self.design, self.rng, self.contents = design, np.random.default_rng(rng), {}
        self.queries = Queries(QUIET, design, self.rng)
        self.reading_queries = Queries(QUIET, design, np.random.default_rng(1000 + rng)) if readings else None
        self.ids = {}
        first, top = design.doses[0], design.doses[-1]
        self.gains = {dose: gain * share for dose, share in zip(design.doses, design.shares, strict=True)}
        seeds = range(design.seeds)
        for dose, loss in zip(design.doses, design.nats_per_byte, strict=True):
            self.contents["generation", Cell(dose=dose)] = self.generation(dose, loss)
            self.contents["pretrain", Cell(dose=dose)] = {
                "label_tokens": 9, "loss_repeat_text": 0.5, "padding_share": 0.125, "flops": 1e9 * dose,
            }  # fmt: skip
            after = {BEFORE_CL: [None], PRIMARY: seeds, MULTIMODAL: seeds}
            for arm, change in {BEFORE_CL: -0.1, PRIMARY: 0.0, MULTIMODAL: multimodal}.items():
                gains = (self.gains[dose] + change, text * self.gains[dose] / gain if gain else 0.0)
                self.search(gains, after[arm], dose=dose, arm=arm)
            for arm, change in OTHER_ARMS.items() if other_arms and dose in (first, top) else ():
                of = seeds[:1] if arm.kind == "soup" or arm.name == "whitening" else seeds
                self.search((self.gains[dose] + change, 0.0), of, dose=dose, arm=arm)
        if not controls:
            return
        for pages, reached in (("shuffled", shuffled), ("unrelated", unrelated)):
            for dose in design.control_doses:
                gains = (reached * self.gains[dose] / gain, 0.0)
                self.search(gains, seeds, dose=dose, pages=pages, arm=PRIMARY)
        self.search((compute, 0.0), seeds, arm=EQUAL_COMPUTE, steps=400)
        for dose, loss in zip(design.doses, design.nats_per_byte, strict=True):
            self.budgets(dose, budgets)
            self.contents["critic", Cell(dose=dose)] = self.critic(loss)
        self.contents["critic", Cell(dose=top, pages="shuffled")] = self.critic(3.0)
        self.adapters(top)
        for split in other_tests:
            for dose in (first, top):
                self.search((self.gains[dose] - 0.2, 0.0), seeds, dose=dose, arm=PRIMARY, split=split)

    def read(self, law=LAW):
        return measurements_of(
            ((stage, cell, content) for (stage, cell), content in self.contents.items()),
            primary_arm=law.primary_arm,
            steps=STEPS,
            minimum_documents=law.minimum_documents,
        )

    def find(self, law=LAW):
        return find(self.read(law), law)

    def cells(self, stage, **place):
        """Contents whose cells have this place, first seeds first."""
        found = [
            (cell, content)
            for (of, cell), content in self.contents.items()
            if of == stage and all(getattr(cell, name) == value for name, value in place.items())
        ]
        return dict(sorted(found, key=lambda one: one[0].seed or 0))

    def drop(self, stage, **place):
        """The sweep without these cells."""
        for cell in self.cells(stage, **place):
            del self.contents[stage, cell]
        return self

    def search(self, gains, seeds, *, arm, split="test", **place):
        """Add the retrieval of every seed, and the training of an arm with CL."""
        trained = arm.kind not in ("none", "linear map")
        place = {"steps": STEPS if trained else None} | place
        is_read = self.reading_queries and (split, arm.kind == "none" or arm == PRIMARY) == ("test", True)
        is_read = is_read and "pages" not in place and place["steps"] in (None, STEPS)
        scores, pages = (self.queries.scores(*of, pretrained=False) for of in (gains, (gains[0] + 0.3, 0.0)))
        for number, seed in enumerate(seeds):
            cell = Cell(arm=arm, seed=seed, split=split, **place)
            directions = {name: scores_json(values[number]) for name, values in scores.items()}
            directions["text_to_image"] = scores_json(pages["query_to_image"][number])
            self.contents["retrieval", cell] = self.retrieval(cell, directions)
            if is_read:
                self.contents["retrieval", cell] |= self.read_otherwise(gains[0], number, before=not trained)
            if trained:
                self.train(Cell(**{**vars(cell), "split": None}), rank=16, alpha=4)

    def read_otherwise(self, gain, number, *, before):
        ahead = READINGS | (READ_BEFORE_CL if before else {})
        scores = {
            name: self.reading_queries.scores(gain + more, 0.0, pretrained=False)["query_to_image"][number]
            for name, more in ahead.items()
        }
        validation = {"pooled": 0.4, "lexical": 0.3, "transcribed": 0.6, "trigrams": 0.5, "fused": 0.7}
        return {
            "readings": {name: scores_json(values) for name, values in scores.items()},
            "fusion": {"weights": {"pooled": 0.4, "transcribed": 0.6}, "validation": validation},
        }

    def train(self, cell, *, rank, alpha):
        rate = 3e-3 if cell.arm == FASTER else 1e-3
        self.contents["refine", cell] = {
            "learning_rate": rate, "lora_rank": rank, "lora_alpha": alpha, "weight_change": 1.5,
            "last_loss": 1.5, "padding_share": 0.25, "trained": "adapter", "flops": 1.0e9,
        }  # fmt: skip

    def retrieval(self, cell, directions):
        count, corpus = len(self.design.documents), self.design.corpus
        top = self.design.doses[-1]
        share = self.design.doses.index(cell.dose) / max(len(self.design.doses) - 1, 1)
        cone = (1 - 0.2 * share) * (0.7 if cell.arm.kind != "none" else 1.0)
        layers = [
            {"layer": layer, "anisotropy_image": cone * (0.8 - 0.1 * layer),
             "anisotropy_text": cone * (0.7 - 0.1 * layer),
             "mutual_knn": 0.03 + 0.08 * layer * share, "cka": 0.2 + 0.15 * layer * (0.5 + share)}
            for layer in range(4)
        ]  # fmt: skip
        layers[0] = {"layer": 0} | dict.fromkeys(tuple(layers[0])[1:])
        losses = self.rng.gamma(4, 0.1, CANDIDATES)
        by_size = {"8": losses[:8].mean(), "16": losses.mean()}
        ndcg = self.rng.random(CANDIDATES).tolist()
        kind = {"losses": losses.tolist(), "by_size": by_size, "ndcg@10": ndcg}
        levels = zip(("ndcg@10", *METRICS), (0.0114, 0.0025, 0.0125, 0.025, 0.0164), strict=True)
        examples = [
            {"query": " ".join(text.split()[1:4:2]), "relevant": [f"k{number}"],
             "rank": 1 if cell.dose == top else 5 + number,
             "top": [{"key": f"k{(number + i) % 5}", "score": 0.9 - i / 10} for i in range(5)]}
            for number, text in enumerate(TEXTS[:5])
        ]  # fmt: skip
        return {
            "corpus_size": corpus, "corpus_pages": corpus // 2, "corpus_documents": corpus // 4,
            "query_ids": [f"{cell.split}-q{number}" for number in range(count)],
            "query_documents": [f"document-{document:03d}" for document in self.design.documents],
            "directions": directions,
            "baselines": {
                "random": {"per_query": {name: [level] * count for name, level in levels}},
                "bm25": scores_json(np.where(np.arange(count) % 8, 1.0, 0.5)),
            },
            "contrastive": {"keys": KEYS, "text": kind, "query": kind},
            "geometry": layers, "chance_mutual_knn": 10 / (corpus - 1), "examples": examples,
        }  # fmt: skip

    def generation(self, dose, loss):
        """At dose 0 another language is read, at the highest dose every character."""
        number, top = self.design.doses.index(dose), self.design.doses[-1]
        own = (lambda text: text) if dose == top else lambda text: text.replace("ố", "ổ").replace(" và", "")
        if dose == 0:
            own = lambda text: "Chon mot bang tenh the document is"  # noqa: E731
        base = 0.08 + 0.02 * number
        corpora = {"target": (loss, min(0.95, loss / 4), own), "base": (base, base / 3, str)}
        return {"corpora": {name: self.read_blocks(*how) for name, how in corpora.items()}}

    def read_blocks(self, level, error, decoded):
        sizes, rng = self.rng.integers(20, 80, 300), np.random.default_rng(7)
        nats = sizes * level * self.rng.gamma(20, 1 / 20, 300)
        right, wrong = rng.binomial(10, np.exp(-level / 3), 300), rng.binomial(100, error, 64)
        blocks = [
            {"key": f"b{i}", "nats": n, "bytes": int(b), "tokens": 10, "correct": int(c)}
            for i, (n, b, c) in enumerate(zip(nats, sizes, right, strict=True))
        ]
        return {
            "nats_per_byte": float(nats.sum() / sizes.sum()),
            "per_block": blocks,
            "per_decoded_block": [{"key": "", "edits": int(edits), "characters": 100} for edits in wrong],
            "examples": [
                {"key": f"k{i}", "text": text, "decoded": decoded(text)} for i, text in enumerate(TEXTS)
            ],
        }

    def budgets(self, dose, budgets):
        """Validation chooses the rate 0.003, and it alone has every budget and seed on the test split."""
        for arm, worse in ((PRIMARY, 0.05), (FASTER, 0.0)):
            for steps in budgets:
                gains = (self.gains[dose] + 0.1 * (1 - np.exp(-steps / 8)) - worse, 0.0)
                self.search(gains, [0], dose=dose, arm=arm, steps=steps, split="validation")
                if arm == FASTER:
                    self.search(gains, range(self.design.seeds), dose=dose, arm=arm, steps=steps)

    def critic(self, loss):
        losses = self.rng.gamma(4, loss / 8, CANDIDATES)
        ranks = 1 + self.rng.binomial(CANDIDATES - 1, 0.05, CANDIDATES)
        by_size = {"8": {"loss": losses[:8].mean()}, "16": {"loss": losses.mean()}}
        kind = {"losses": losses.tolist(), "by_size": by_size, "slack": 0.02}
        kind["scores"] = scores_json(1 / np.log2(ranks + 1))
        nats = {"nats": [10.0] * CANDIDATES, "nats_blank": [10.0 + 30 / (1 + loss)] * CANDIDATES}
        return {"keys": KEYS, "text": kind | nats | {"bytes": [20] * CANDIDATES}, "query": kind}

    def adapters(self, top):
        """Two sizes beside the primary one, first seed; generation after each, and after the primary."""
        for (rank, alpha), arm in SIZES.items():
            self.search((self.gains[top], 0.0), [0], dose=top, arm=arm)
            self.train(Cell(dose=top, arm=arm, seed=0, steps=STEPS), rank=rank, alpha=alpha)
        before = self.contents["generation", Cell(dose=top)]
        for arm in (PRIMARY, *SIZES.values()):
            self.contents["generation", Cell(dose=top, arm=arm, seed=0, steps=STEPS)] = before


def scores_json(ndcg):
    """Every metric of queries with one relevant page, of nDCG@10 ``[queries]``; below rank 10, rank 50."""
    ranks = np.full(len(ndcg), 50.0)
    ranks[ndcg > 0] = 2 ** (1 / ndcg[ndcg > 0]) - 1
    others = (*((ranks <= k + 1e-6) * 1.0 for k in (1, 5, 10)), 1 / ranks)
    columns = zip(("ndcg@10", *METRICS), (ndcg, *others), strict=True)
    return {"per_query": {name: column.tolist() for name, column in columns}}
