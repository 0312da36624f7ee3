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


def test_doses_and_seeds_have_one_order(tmp_path: Path) -> None:
    parameters = check_parameters(
        recipe="tiny", documents=None, doses=[64, 0, 32], seeds=[2, 0, 1], output=tmp_path
    )
    assert parameters.doses == (0, 32, 64)
    assert parameters.seeds == (0, 1, 2)  # the first one trains what only one seed trains
