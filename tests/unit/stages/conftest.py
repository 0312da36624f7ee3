"""A random backbone of the tiny recipe's kind and a few page images with text, for the stages' tests."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import distributed

from data_prep.queries import Query, write_queries
from data_prep.samples import Sample, sample_key
from data_prep.write_shards import write_split
from stages.backbones.config import TinyShape
from stages.backbones.tiny import build_tiny_backbone
from stages.cells import Cell
from stages.recipes import get_recipe
from stages.train.engine import start_process_group

TEXTS = (
    "Chọn ô và nhấn Enter",
    "Open the file menu",
    "Bảng tính có nhiều trang",
    "Insert a page break before the heading",
    "Xoá dòng đã chọn",
    "Save",
    "Định dạng trang in",
    "The cell range is empty",
)
SHAPE = TinyShape(
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=2,
    vision_hidden_size=32,
    vision_layers=1,
    vision_heads=2,
    word_tokens=64,
)


def make_sample(number: int, text: str) -> Sample:
    """A white image with the text drawn on it; widths differ, so that batches need padding."""
    width, height = 16 * (4 + number % 5), 16 * (1 + number % 2)
    image = Image.new("L", (width, height), 255)
    ImageDraw.Draw(image).text((1, 1), text.encode("ascii", "replace").decode(), fill=0)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return Sample(
        key=sample_key("a.pdf", number + 1, None),
        document="a.pdf",
        page=number + 1,
        block=None,
        text=text,
        is_heading=False,
        width=width,
        height=height,
        box=(0, 0, width, height),
        ink=(0, 255),
        reason=None,
        png=buffer.getvalue(),
    )


def job_of(
    stage: str,
    settings: Any,
    folder: Path,
    *,
    cells: Mapping[str, Cell],
    inputs: Mapping[str, Path] | None = None,
    own_inputs: Mapping[str, Path] | None = None,
    processes_per_cell: int = 1,
) -> dict:
    """The job file of some cells by fingerprint; store and journal lie in `folder`."""

    def named(paths: Mapping[str, Path] | None) -> dict:
        place = {"digest": "0" * 64, "stage": "any", "cell": Cell().to_json()}
        return {name: {"path": str(path), **place} for name, path in (paths or {}).items()}

    return {
        "stage": stage,
        "settings": asdict(settings),
        "store": str(folder / "store"),
        "journal": str(folder / "journal.jsonl"),
        "inputs": named(inputs),
        "tasks": [
            {"cell": cell.to_json(), "fingerprint": name, "training": name, "inputs": named(own_inputs)}
            for name, cell in cells.items()
        ],
        "processes_per_cell": processes_per_cell,
        "provenance": {},
    }


def relative_difference(expected: Mapping[str, torch.Tensor], actual: Mapping[str, torch.Tensor]) -> float:
    """Distance of two gradients in float64, relative to the length of the expected one."""
    assert expected.keys() == actual.keys()
    differences = [expected[name].double() - actual[name].double() for name in expected]
    distance, length = (
        sum(float(one.double().square().sum()) for one in some) for some in (differences, expected.values())
    )
    return (distance / length) ** 0.5


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    return [make_sample(number, text) for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="session")
def split_folder(samples, tmp_path_factory) -> Path:
    """A split of shards as the stages read it."""
    folder = tmp_path_factory.mktemp("split")
    write_split(folder, samples, per_shard=3)
    return folder


@pytest.fixture(scope="session")
def queries_folder(samples, tmp_path_factory) -> Path:
    """The queries of that split."""
    folder = tmp_path_factory.mktemp("queries")
    queries = [
        Query(identity=f"{s.key}-q0", text=" ".join(s.text.split()[:2]), relevant=(s.key,)) for s in samples
    ]
    write_queries(folder, queries)
    return folder


@pytest.fixture
def backbone():
    """A fresh random backbone; always the same weights."""
    made = build_tiny_backbone(SHAPE, get_recipe("tiny").backbone, seed=0)
    made.model.eval()
    return made


@pytest.fixture(scope="session")  # DeepSpeed keeps the first group that it sees
def process_group() -> Iterator[None]:
    """One rank, for what trains in the test's own process."""
    start_process_group()
    yield
    distributed.destroy_process_group()
