"""Building the sample documents never costs a folder that somebody named by mistake."""

import pytest

from benchmarks.sample_documents import write_corpus


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "thesis.pdf").write_text("years of work")
    with pytest.raises(FileExistsError, match=f"{tmp_path} exists: remove it first"):
        write_corpus(tmp_path, {}, [], 1, tmp_path)
    assert (tmp_path / "thesis.pdf").read_text() == "years of work"
