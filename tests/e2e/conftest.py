import shutil
from pathlib import Path

import pytest

from stages.recipes import get_recipe

DOCUMENTS = 6  # enough to be split by document, one of them for validation


@pytest.fixture(scope="module")
def few_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest sample documents: minutes become seconds."""
    samples = sorted(
        Path(get_recipe("smoke").target_documents).glob("*.pdf"), key=lambda path: path.stat().st_size
    )
    folder = tmp_path_factory.mktemp("documents")
    for sample in samples[:DOCUMENTS]:
        shutil.copy(sample, folder)
    return folder
