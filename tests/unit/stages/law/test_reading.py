"""Which cell of a sweep goes where, and what is refused."""

import numpy as np
import pytest

from stages.cells import BEFORE_CL, Cell
from stages.law.ceiling import read_budgets
from stages.law.comparisons import compare, compare_controls, control_doses
from stages.law.measurements import EvidenceError
from stages.law.report.figures import figure_tables
from stages.law.simulated_sweeps import EQUAL_COMPUTE, PRIMARY, STEPS
from stages.law.statistics import Bootstrap, mean_over_queries
from tests.unit.stages.law.sweeps import BUDGETS, CANDIDATES, FASTER, LAW, MULTIMODAL, SIZES, Sweep


@pytest.fixture
def sweep():
    return Sweep()


def ndcg(sweep, direction="query_to_image", *, split="test", **place):
    """Scores of the cells of a place ``[seeds, queries]``, found the slow way."""
    found = sweep.cells("retrieval", split=split, **place).values()
    return np.array([content["directions"][direction]["per_query"]["ndcg@10"] for content in found])


def test_scores_are_those_of_the_cells(sweep):
    found = sweep.read()
    assert (found.doses, found.seeds, found.arms) == ((0, 300, 900, 2400), (0, 1), (PRIMARY, MULTIMODAL))
    for direction in ("query_to_image", "query_to_text", "text_to_image"):
        expected = ndcg(sweep, direction, pages="target", dose=2400, arm=PRIMARY, steps=STEPS)
        np.testing.assert_array_equal(found.scores(2400, PRIMARY, direction), expected)
        expected = ndcg(sweep, direction, pages="shuffled", dose=2400)
        np.testing.assert_array_equal(found.scores(2400, PRIMARY, direction, pages="shuffled"), expected)
        expected = ndcg(sweep, direction, arm=EQUAL_COMPUTE)
        np.testing.assert_array_equal(found.paired(0, EQUAL_COMPUTE, direction, steps=400), expected)
    assert found.scores(300, FASTER, steps=7) is None and found.scores(300, FASTER, split="few") is None
    assert found.scores(0, BEFORE_CL, metric="recall@5").shape == (1, 400)
    assert (found.equal_compute.steps, control_doses(found, "unrelated")) == (400, [900, 2400])
    assert found.is_sweep and not Sweep(controls=False).read().is_sweep


def test_the_table_has_a_row_for_each_cell_quantity_and_metric(sweep):
    table = sweep.read().table
    assert not table.drop(columns="values").duplicated().any()
    shuffled = table[(table.pages == "shuffled") & (table.stage == "retrieval") & (table.metric == "mrr")]
    assert len(shuffled) == 2 * 2 * 3 and shuffled.groupby(["dose", "seed", "quantity"]).ngroups == 12
    layers = table[(table.quantity == "geometry") & (table.metric == "cka")]["values"]
    assert all(np.isnan(of[0]) and len(of) == 4 for of in layers)


def test_critics_carry_the_losses_of_both(sweep):
    found, place = sweep.read(), {"dose": 2400, "pages": "target"}
    places = [(cell.pages, cell.dose) for cell in found.cells("critic")]
    assert places == [*(("target", dose) for dose in found.doses), ("shuffled", 2400)]
    critic = sweep.contents["critic", Cell(**place)]["query"]["losses"]
    np.testing.assert_array_equal(found.values("critic", "critic query", "loss", **place), [critic])
    cells = sweep.cells("retrieval", arm=PRIMARY, steps=STEPS, split="test", **place).values()
    embeddings = np.array([content["contrastive"]["query"]["losses"] for content in cells])
    assert embeddings.shape == (2, CANDIDATES)
    np.testing.assert_array_equal(found.scores(2400, PRIMARY, "contrastive query", "loss"), embeddings)
    tables = figure_tables(sweep.find())
    sizes = tables["bound_by_size"].query("kind == 'query' and dose == 2400 and candidates == 8")
    (sizes,) = sizes.itertuples()
    assert sizes.generative == pytest.approx(np.mean(critic[:8]))
    assert sizes.contrastive == pytest.approx(embeddings[:, :8].mean())
    saved = tables["critic"].query("kind == 'text' and pages == 'target' and dose == 300")
    assert saved.nats_per_byte.item() == pytest.approx(30 / (1 + 0.9) / 20)


def test_ceilings_take_the_learning_rate_of_the_validation_documents(sweep):
    for dose, curve in read_budgets(sweep.read()).items():
        means = {
            rate: max(ndcg(sweep, split="validation", dose=dose, arm=arm, steps=s).mean() for s in BUDGETS)
            for rate, arm in ((1e-3, PRIMARY), (3e-3, FASTER))
        }
        assert curve.validation == pytest.approx(means)
        assert curve.learning_rate == max(means, key=means.get) == 3e-3
        assert list(curve.scores) == [0, *BUDGETS]
        np.testing.assert_array_equal(curve.scores[10], ndcg(sweep, dose=dose, arm=FASTER, steps=10))


def test_adapters_by_size(sweep):
    small, large = SIZES.values()
    found = figure_tables(sweep.find())["adapters"]
    assert list(found.arm) == [small.name, PRIMARY.name, large.name]
    # The others have the first seed alone; so has the primary one, where there are more.
    expected = [
        ndcg(sweep, dose=2400, arm=arm, pages="target", steps=STEPS) for arm in (small, PRIMARY, large)
    ]
    assert [len(scores) for scores in expected] == [1, 2, 1]
    assert list(found["ndcg@10"]) == pytest.approx([scores[0].mean() for scores in expected])


@pytest.mark.parametrize("count", [4, 5])
def test_other_test_sets_keep_their_own_queries_and_documents(sweep, count):
    for content in sweep.cells("retrieval", split="Khmer").values():
        content["query_documents"] = [f"{i % count}.pdf" for i in range(400)]
    assert sweep.read().other_tests == ("Khmer",)
    other = figure_tables(sweep.find())["other_tests"]
    assert list(other.dose) == [0, 2400]
    documents = None if count == 4 else np.arange(400) % count  # too few to be resampled
    scores = ndcg(sweep, split="Khmer", dose=2400)
    expected = mean_over_queries(scores, Bootstrap.of(LAW), documents)
    assert list(other.iloc[1][["ndcg@10", "ndcg@10_low", "ndcg@10_high"]]) == list(vars(expected).values())


def test_pages_without_text_leave_a_contrastive_loss_unmeasured_and_the_rest_as_it_is(sweep):
    before = figure_tables(sweep.find())
    for content in sweep.cells("retrieval", split="Khmer").values():
        content["contrastive"] = None
    after = figure_tables(sweep.find())
    assert all(after[name].equals(table) for name, table in before.items())


MISSING = [
    ({"pages": "shuffled", "dose": 2400}, "CGP on shuffled pages at dose 2400; run this control"),
    ({"arm": EQUAL_COMPUTE}, r"'equal compute' CL at dose 0 has \[\] steps"),
    ({"pages": "unrelated", "dose": 900, "seed": 1}, r"unrelated pages, seed 0, text-only.* seeds \(0,\)"),
    ({"split": "validation", "dose": 300}, "dose 300 has no retrieval on validation documents"),
    ({"arm": SIZES[4, 1]}, "rank 4, alpha 1 CL at dose 2400, seed 0: needs training, retrieval"),
    ({"arm": FASTER, "split": "test", "dose": 0}, "learning rate 0.003: no retrieval on the test"),
    ({"arm": FASTER, "steps": 10, "seed": 1}, r"seed 0, lr 0.003, 10 steps has seeds \(0,\), the law's"),
    ({"arm": PRIMARY, "split": "Khmer", "seed": 1}, r"Khmer split has seeds \(0,\), the law's"),
    ({"arm": PRIMARY, "pages": "target", "split": "test", "dose": 300}, r"no retrieval at doses \[300\]"),
    ({"arm": MULTIMODAL, "dose": 900, "seed": 1}, "run the same seeds"),
    ({}, "no retrieval cells"),
]
"""Place of retrieval cells that are dropped, and what is said."""


@pytest.mark.parametrize(("place", "message"), MISSING)
def test_a_missing_part_is_named(sweep, place, message):
    with pytest.raises(EvidenceError, match=message):
        figure_tables(sweep.drop("retrieval", **place).find())


@pytest.mark.parametrize(("dose", "message"), [(0, "need each once, and 0"), (2400, r"doses \[2400\] have")])
def test_a_dose_needs_generation_too(sweep, dose, message):
    with pytest.raises(EvidenceError, match=message):
        sweep.drop("generation", dose=dose).read()


@pytest.mark.parametrize("corpus", ["target", "base"])
def test_all_doses_read_the_same_texts(sweep, corpus):
    blocks = sweep.contents["generation", Cell(dose=900)]["corpora"][corpus]["per_block"]
    blocks[0], blocks[1] = blocks[1], blocks[0]  # as many as elsewhere, paired with the wrong ones
    with pytest.raises(EvidenceError, match=f"900 was measured on other {corpus} samples than at dose 0"):
        sweep.read()


def test_cells_on_other_queries_or_candidates_are_refused(sweep):
    critic = sweep.contents["critic", Cell()]
    kept, critic["keys"] = critic["keys"], [*critic["keys"][:-1], "another"]  # as many, but not the same
    with pytest.raises(EvidenceError, match=r"the critic at dose 0, target pages .* other"):
        sweep.read()
    critic["keys"] = kept
    control = next(iter(sweep.cells("retrieval", pages="shuffled").values()))
    for changed in ({"query_ids": ["another"]}, {"corpus_size": 7}):
        original = {name: control[name] for name in changed}
        control |= changed
        with pytest.raises(EvidenceError, match="other queries or pages"):
            sweep.read()
        control |= original


def test_the_order_of_cells_does_not_matter(sweep):
    straight = sweep.find()
    sweep.contents = dict(reversed(sweep.contents.items()))
    turned = sweep.find()
    for name in ("compared", "controls", "checks", "bounds", "ceilings", "ceiling_trend", "generative_order"):
        assert getattr(turned, name) == getattr(straight, name), name
    assert turned.estimates == straight.estimates


def test_an_arm_of_some_doses_is_welcome_and_compared_on_the_same_seeds_alone():
    run = Sweep(controls=False)
    assert compare(run.read(), LAW).arms.keys() == {"multimodal-20"}
    for dose in (300, 900):
        run.drop("retrieval", arm=MULTIMODAL, dose=dose)
    assert {dose for _, _, dose, arm in run.find().estimates if arm == MULTIMODAL.name} == {0, 2400}
    others = run.cells("retrieval", arm=MULTIMODAL)
    run.drop("retrieval", arm=MULTIMODAL)
    for cell, content in others.items():  # as many, but no pairs
        run.contents["retrieval", Cell(**{**vars(cell), "seed": cell.seed + 5})] = content
    assert compare(run.read(), LAW).arms == {}
    assert run.drop("retrieval", arm=MULTIMODAL, dose=2400).find().verdict == "supported"


def test_differences_are_paired_by_query_and_seed(sweep):
    found = sweep.read()
    controls, compared = compare_controls(found, LAW), compare(found, LAW)
    own, shuffled = (
        ndcg(sweep, pages=pages, dose=2400, arm=PRIMARY, steps=STEPS) for pages in ("target", "shuffled")
    )
    assert controls.at_top("shuffled").value == pytest.approx((own - shuffled).mean())
    gain, reproduced = compared.paired.value, controls.gains["shuffled"].value
    assert controls.unexplained["shuffled"].value == pytest.approx(0.5 * gain - reproduced)
    assert controls.unexplained["grounding"].value == pytest.approx(0.75 * gain - compared.text_control.value)
    assert controls.against["shuffled"].keys() == {900, 2400}
