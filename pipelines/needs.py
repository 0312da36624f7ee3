"""What the later stages of a flow need of its documents, asked before anything is trained. Loads no torch.

The numbers are those of the stages themselves.
"""

from collections.abc import Callable, Mapping

from data_prep.errors import NoUsableDocuments
from data_prep.queries import read_queries
from data_prep.shards import ShardSource
from pipelines.documents import Documents
from stages.evaluate.search_task import (
    FEWEST_CANDIDATES,
    SearchTask,
    build_task,
    candidates_of,
    training_task,
)
from stages.pretrain.controls import FEWEST_SHUFFLED
from stages.recipes import Recipe
from stages.refine.anchors import too_few_anchors, usable_queries, without_negatives

ADVICE = "add documents or search queries"


def require_enough_to_run(recipe: Recipe, documents: Documents) -> None:
    """Raises NoUsableDocuments where a stage of the flow `lco` would fail for what these documents lack."""
    folder, refine = recipe.target_documents, recipe.refine
    source = ShardSource(documents["target_train"].path, trainable_only=True)
    usable = usable_queries(read_queries(documents["target_train_queries"].path), set(source.keys()))
    if reason := too_few_anchors(len(usable), batch_size=refine.batch_size, ranks=refine.engine.processes):
        raise NoUsableDocuments(f"{folder}: {reason}: {ADVICE}")
    alone = without_negatives(usable, source, same_document_negatives=refine.same_document_negatives)
    if alone:
        of_it = "" if refine.same_document_negatives else ", or come from the same document"
        raise NoUsableDocuments(
            f"{folder}: the training query {alone.text!r} has no negative: all samples answer it, or equal "
            f"one that does{of_it}: {ADVICE}"
        )
    _searched(recipe, documents, "target_test", folder)


def require_enough_to_sweep(recipe: Recipe, documents: Documents, others: Mapping[str, Documents]) -> None:
    """The same of the flow `sweep`. `others`: folders that are only searched, by name."""
    require_enough_to_run(recipe, documents)
    folder = recipe.target_documents
    for lack in (_too_few_to_shuffle(documents), _too_few_candidates(recipe, documents)):
        if lack:
            raise NoUsableDocuments(f"{folder}: {lack}: {ADVICE} (`lco run` does without)")
    _searched(recipe, documents, "target_validation", folder)
    if recipe.sweep.linear_maps:
        folders = (documents[name].path for name in ("target_train", "target_train_queries"))
        _task(lambda: training_task(*folders, recipe.evaluate.linear_map.samples), folder)
    for name, other in others.items():
        _searched(recipe, other, f"{name}_test", name)


def _too_few_to_shuffle(documents: Documents) -> str | None:
    pages = len(ShardSource(documents["target_train"].path, trainable_only=True))
    if pages >= FEWEST_SHUFFLED:
        return None
    return f"{pages} training page(s) cannot swap their texts, which is a control of the sweep"


def _too_few_candidates(recipe: Recipe, documents: Documents) -> str | None:
    """For the bound, which the critic measures."""
    search = _searched(recipe, documents, "target_test", recipe.target_documents)
    candidates = candidates_of(search, recipe.evaluate.search.critic_candidates)
    if len(candidates) >= FEWEST_CANDIDATES:
        return None
    return f"{len(candidates)} test page(s) have a text and a query, and the bound needs {FEWEST_CANDIDATES}"


def _searched(recipe: Recipe, documents: Documents, split: str, folder: str) -> SearchTask:
    """What retrieval will search."""
    folders = (documents[name].path for name in (split, f"{split}_queries"))
    return _task(lambda: build_task(*folders, recipe.evaluate.search), folder)


def _task(build: Callable[[], SearchTask], folder: str) -> SearchTask:
    try:
        return build()
    except ValueError as error:
        raise NoUsableDocuments(f"{folder}: what is left of it cannot be searched: {error}") from error
