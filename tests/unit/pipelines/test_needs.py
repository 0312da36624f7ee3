"""What a later stage would fail for is refused when the documents are prepared, and nothing else is."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import NoUsableDocuments
from data_prep.queries import Query, write_queries
from data_prep.samples import Sample, sample_key
from data_prep.shards import ShardSource
from data_prep.write_shards import write_split
from infra.store import LocalStore
from pipelines.needs import require_enough_to_run, require_enough_to_sweep
from pipelines.parameters import Sweep
from pipelines.stage_table import Output
from stages.cells import Cell
from stages.evaluate.config import SearchConfig
from stages.pretrain.controls import ShuffledTexts
from stages.recipes import Recipe, get_recipe
from stages.refine.anchors import without_negatives
from tests.unit.pipelines.conftest import Workplace

RECIPE = get_recipe("tiny")
PAGES = replace(RECIPE, refine=replace(RECIPE.refine, same_document_negatives=False))


def sample(document: str, text: str, number: int, *, trainable: bool = True) -> Sample:
    return Sample(
        key=sample_key(document, number, None),
        document=document,
        page=number,
        block=None,
        text=text,
        is_heading=False,
        width=16,
        height=16,
        box=(0, 0, 16, 16),
        ink=(0, 255),
        reason=None if trainable else "short",
        png=f"{document} {text}".encode(),
    )


def query(text: str, *relevant: Sample) -> Query:
    return Query(identity=text, text=text, relevant=tuple(one.key for one in relevant))


A, B, C, D = (sample("a.pdf", "đỏ", 1), sample("a.pdf", "xanh", 2), sample("c.pdf", "tím", 1),
              sample("d.pdf", "tím", 2))  # fmt: skip
SCAN = sample("scan.pdf", "", 1, trainable=False)
ENOUGH = ([A, B, C], [query("a", A), query("b", B), query("c", C)])


@pytest.fixture
def prepared(tmp_path: Path):
    """prepared(train=(samples, queries), ...): the documents of a folder; what is not given is enough."""
    store, number = LocalStore(tmp_path / "store"), iter(range(1000))

    def documents(which: str = "target", **given: tuple[list[Sample], list[Query]]) -> dict[str, Output]:
        splits = dict.fromkeys(("train", "validation", "test"), ENOUGH) | given
        made = {}
        for split, (samples, queries) in splits.items():
            with store.attempt(f"documents-{split}", f"{next(number)}") as attempt:
                counts = write_split(attempt.path, samples, per_shard=2)
                committed = attempt.commit(inputs={}, configuration={}, counts=counts)
            made[f"{which}_{split}"] = Output.of(committed, Cell())
            with store.attempt(f"documents-{split}-queries", f"{next(number)}") as attempt:
                write_queries(attempt.path, queries)
                committed = attempt.commit(inputs={}, configuration={}, counts={})
            made[f"{which}_{split}_queries"] = Output.of(committed, Cell())
        return made

    return documents


def test_enough_is_enough_for_both_flows(prepared) -> None:
    for recipe in (RECIPE, PAGES):
        require_enough_to_run(recipe, prepared())
        require_enough_to_sweep(recipe, prepared(), {"more": prepared("more")})


ONE_SAMPLE = ([A], [query("a", A), query("b", A)])
ONE_DOCUMENT = ([A, B], [query("a", A), query("b", B)])
ONE_TEXT = ([C, D], [query("c", C), query("d", D)])
ONE_ANSWERS_ALL = ([A, B, C], [query("a", A), query("all", A, B, C)])
SCANS_ONLY = ([SCAN], [query("s", SCAN)])


@pytest.mark.parametrize("flow", ["run", "sweep"])
@pytest.mark.parametrize(
    ("recipe", "splits", "message"),
    [
        (RECIPE, {"train": ONE_SAMPLE}, "query 'a' has no negative"),
        (RECIPE, {"train": ONE_TEXT}, "query 'c' has no negative"),
        (RECIPE, {"train": ONE_ANSWERS_ALL}, "query 'all' has no negative"),
        (PAGES, {"train": ONE_DOCUMENT}, "or come from the same document"),
        (RECIPE, {"train": ([A, B], [query("a", A)])}, "1 training queries are too few"),
        (RECIPE, {"train": ([A, SCAN], [query("a", A), query("s", SCAN)])}, "1 training queries are too few"),
        (RECIPE, {"test": ([A, B], [query("c", C)])}, "no query for any of 2 samples"),
    ],
)
def test_what_refinement_or_search_would_fail_for_is_refused(
    prepared, flow: str, recipe: Recipe, splits: dict, message: str
) -> None:
    with pytest.raises(NoUsableDocuments, match=message) as error:
        if flow == "run":
            require_enough_to_run(recipe, prepared(**splits))
        else:
            require_enough_to_sweep(recipe, prepared(**splits), {})
    assert "add documents" in str(error.value) and "\n" not in str(error.value)


def test_batches_that_do_not_reach_every_rank_are_refused(prepared) -> None:
    engine = replace(RECIPE.refine.engine, processes=4)
    recipe = replace(RECIPE, refine=replace(RECIPE.refine, engine=engine))
    with pytest.raises(NoUsableDocuments, match=r"3 training queries are too few .* needs 4"):
        require_enough_to_run(recipe, prepared())


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"validation": ([A, B], [])}, "no query for any of 2 samples"),
        ({"test": ([A, B], [query("a", A), query("again", A)])}, r"1 test page\(s\) have a text and a query"),
        ({"test": ([A, SCAN], [query("a", A), query("s", SCAN)])}, r"1 test page\(s\) have a text"),
    ],
)
def test_what_only_a_sweep_would_fail_for_is_refused_of_a_sweep(prepared, splits: dict, message: str) -> None:
    documents = prepared(**splits)
    require_enough_to_run(RECIPE, documents)
    with pytest.raises(NoUsableDocuments, match=message):
        require_enough_to_sweep(RECIPE, documents, {})


def test_other_documents_need_queries_too(prepared) -> None:
    with pytest.raises(NoUsableDocuments, match="no query for any of 1 samples"):
        require_enough_to_sweep(RECIPE, prepared(), {"more": prepared("more", test=([A], []))})


def test_a_corpus_that_is_cut_may_leave_no_query(prepared) -> None:
    """The user's queries name few pages, and none of them is among those that are searched."""
    samples = [sample("a.pdf", f"chữ {number}", number) for number in range(1, 40)]
    two = SearchConfig(max_corpus=2, max_queries=600)
    cut = replace(RECIPE, evaluate=replace(RECIPE.evaluate, search=two))
    tests = [prepared(test=(samples, [query("one", one)])) for one in samples]
    refused = 0
    for documents in tests:
        try:
            require_enough_to_run(cut, documents)
        except NoUsableDocuments:
            refused += 1
    assert refused == len(samples) - 2


def test_one_page_cannot_swap_its_text(prepared, tmp_path: Path) -> None:
    documents = prepared(train=([A], []))
    with pytest.raises(ValueError, match="cannot swap their texts"):
        ShuffledTexts(ShardSource(documents["target_train"].path), seed=0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_query_without_negatives_is_found_exactly_where_there_is_one(tmp_path_factory, data) -> None:
    """Against every pair of samples, one by one."""
    count = data.draw(st.integers(1, 5))
    samples = [
        sample(f"{data.draw(st.integers(0, 1))}.pdf", data.draw(st.sampled_from("xy")), number)
        for number in range(count)
    ]
    some = st.lists(st.sampled_from(samples), min_size=1, max_size=count, unique_by=lambda one: one.key)
    queries = [query(str(n), *data.draw(some)) for n in range(data.draw(st.integers(1, 4)))]
    same = data.draw(st.booleans())
    folder = tmp_path_factory.mktemp("split")
    write_split(folder, samples, per_shard=2)
    answering = {key for one in queries for key in one.relevant}

    def hopeless(one: Query) -> bool:
        def unlike(a: Sample, b: Sample) -> bool:
            return (
                (a.text, a.png) != (b.text, b.png) and a.text != b.text and (same or a.document != b.document)
            )

        positives = [sample for sample in samples if sample.key in one.relevant]
        others = [s for s in samples if s.key in answering and s.key not in one.relevant]
        return any(not any(unlike(positive, other) for other in others) for positive in positives)

    found = without_negatives(queries, ShardSource(folder), same_document_negatives=same)
    assert found == next((one for one in queries if hopeless(one)), None)


@pytest.mark.parametrize("sweeps", [False, True])
def test_both_flows_ask_when_all_documents_are_prepared_and_before_anything_is_trained(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, sweeps: bool
) -> None:
    asked: list[tuple] = []

    def refuse(*needed: object) -> None:
        asked.append(needed)
        raise NoUsableDocuments("not enough")

    monkeypatch.setattr(f"pipelines.flow.require_enough_to_{'sweep' if sweeps else 'run'}", refuse)
    workplace.write("more", "a.txt", "trang")
    with pytest.raises(NoUsableDocuments, match="not enough"):
        if sweeps:
            workplace.sweep(Sweep(output=workplace.root / "out", other_documents=(workplace.root / "more",)))
        else:
            workplace.run()
    assert workplace.jobs() == {}
    [(recipe, documents, *others)] = asked
    assert recipe.target_documents == str(workplace.root / "target")
    assert {"target_train", "target_test", "base_train"} <= set(documents)
    assert [set(one) for one in others] == ([{"more"}] if sweeps else [])
