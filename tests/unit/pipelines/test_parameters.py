"""What a run is made of, from what a person chose."""

from pathlib import Path

from pipelines.parameters import check_parameters, chosen_recipe, folder_digest
from stages.recipes import get_recipe


def chosen(documents: Path | None) -> str:
    parameters = check_parameters(recipe="tiny", documents=documents, doses=None, seeds=None, output=None)
    return chosen_recipe(parameters).target_documents


def test_the_recipe_names_the_documents_that_are_read(tmp_path: Path) -> None:
    assert chosen(tmp_path) == str(tmp_path)
    assert chosen(None) == get_recipe("tiny").target_documents


def test_a_base_model_is_the_same_whenever_it_was_trained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = folder_digest(tmp_path)
    (tmp_path / "training.json").write_text('{"minutes": 12}')
    (tmp_path / "README.md").write_text("a card")
    assert folder_digest(tmp_path) == before
    (tmp_path / "config.json").write_text('{"layers": 2}')
    assert folder_digest(tmp_path) != before
