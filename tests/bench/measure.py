"""What the benches of training share: clocks, their table, the sample documents, gradients that are equal."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from data_prep.prepare import prepare_documents
from infra.store import LocalStore
from stages.recipes import get_recipe

STORE = Path(tempfile.gettempdir()) / "lco-pipeline-bench"
"""Keeps the prepared sample documents for the next bench; safe to delete."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Now, on two clocks in seconds: the wall's, and that of the processor in all threads of this process."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> "Moment":
        return cls(wall=time.perf_counter(), processor=time.process_time())

    def __sub__(self, earlier: "Moment") -> "Moment":
        return Moment(wall=self.wall - earlier.wall, processor=self.processor - earlier.processor)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measurement: how much work it did, in which time, in how many calls of the decoder."""

    work: int
    took: Moment
    calls: int
    tokens: int
    positions: int


def in_turn(variants: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield every round's number with each variant; another one begins each round."""
    for number in range(rounds):
        first = number % len(variants)
        yield from ((number, variant) for variant in (*variants[first:], *variants[:first]))


def show(title: str, unit: str, runs: Mapping[str, Sequence[Run]], ours: str) -> None:
    """Print medians, and how many times faster `ours` is; ratios are taken within a round, then the median.

    On a machine with other work the wall's clock says little; the processor's, with one thread, still holds.
    """
    table = Table(
        "", f"{unit} of processor", "lowest to highest", "ours is faster by", f"{unit} of wall", "by",
        "padding", "calls a run", title=f"{title}; ours: {ours}",
    )  # fmt: skip
    for name, each in runs.items():
        rates = [run.work / run.took.processor for run in each]
        table.add_row(
            name,
            f"{statistics.median(rates):,.1f}",
            f"{min(rates):,.1f} to {max(rates):,.1f}",
            f"{_ratio(runs[ours], each, 'processor'):.2f}",
            f"{statistics.median(run.work / run.took.wall for run in each):,.1f}",
            f"{_ratio(runs[ours], each, 'wall'):.2f}",
            f"{1 - sum(run.tokens for run in each) / sum(run.positions for run in each):.1%}",
            f"{statistics.mean(run.calls for run in each):.1f}",
        )
    Console(width=150).print(table)


def _ratio(ours: Sequence[Run], theirs: Sequence[Run], clock: str) -> float:
    return statistics.median(
        (mine.work / getattr(mine.took, clock)) / (run.work / getattr(run.took, clock))
        for mine, run in zip(ours, theirs, strict=True)
    )


class DecoderCalls:
    """Counts a module's forward calls, their tokens and their positions, while it is hooked."""

    def __init__(self) -> None:
        self.calls = self.tokens = self.positions = 0

    def __call__(self, module: torch.nn.Module, inputs: tuple, keywords: dict) -> None:
        mask = keywords["attention_mask"]
        self.calls += 1
        self.tokens += int(mask.sum())
        self.positions += mask.numel()


def training_split() -> Path:
    """Return the training split of recipe tiny's sample documents; the first call makes it (a minute)."""
    recipe = get_recipe("tiny")
    folder = Path(recipe.target_documents)
    return prepare_documents(
        folder, recipe.documents, LocalStore(STORE), lambda *progress: None, workers=2
    ).train.path


def relative_difference(expected: Mapping[str, torch.Tensor], actual: Mapping[str, torch.Tensor]) -> float:
    """Return the distance of two gradients over the length of the first.

    Raises ValueError for other names.
    """
    if expected.keys() != actual.keys():
        raise ValueError(f"not the same parameters: {sorted(expected.keys() ^ actual.keys())[:4]}")
    distance = sum(float((expected[name] - actual[name]).square().sum()) for name in expected)
    return (distance / sum(float(tensor.square().sum()) for tensor in expected.values())) ** 0.5
