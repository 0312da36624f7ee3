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

from data_prep.prepare import Prepared, prepare_documents
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
    """One measurement: how much work it did, in which time, and in which calls of the decoder if counted."""

    work: int
    took: Moment
    calls: int = 0
    tokens: int = 0
    positions: int = 0


def in_turn(variants: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield every round's number with each variant; another one begins each round."""
    for number in range(rounds):
        first = number % len(variants)
        yield from ((number, variant) for variant in (*variants[first:], *variants[:first]))


def show(title: str, unit: str, runs: Mapping[str, Sequence[Run]], ours: str) -> None:
    """Print medians, and how many times faster `ours` is; ratios are taken within a round, then the median.

    On a machine with other work the wall's clock says little; the processor's, with one thread, still holds.
    """
    table = Table("", title=f"{title}; ours: {ours}")
    for clock in ("processor", "wall"):
        table.add_column(f"{unit} of {clock}")
        table.add_column("ours is faster by")
    table.add_column("padding")
    table.add_column("calls a run")
    for name, each in runs.items():
        row = []
        for clock in ("processor", "wall"):
            own, rates = ([r.work / getattr(r.took, clock) for r in some] for some in (runs[ours], each))
            ratios = [mine / other for mine, other in zip(own, rates, strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            row += [f"{statistics.median(rates):,.1f}", spread]
        calls, positions = sum(run.calls for run in each), sum(run.positions for run in each)
        if calls:
            padding = 1 - sum(run.tokens for run in each) / positions
            row += [f"{padding:.1%}", f"{calls / len(each):.1f}"]
        table.add_row(name, *row)
    Console(width=150).print(table)


class DecoderCalls:
    """Counts a module's forward calls, their tokens and their positions, while it is hooked."""

    def __init__(self) -> None:
        self.calls = self.tokens = self.positions = 0

    def __call__(self, module: torch.nn.Module, inputs: tuple, keywords: dict) -> None:
        mask = keywords["attention_mask"]
        self.calls += 1
        self.tokens += int(mask.sum())
        self.positions += mask.numel()


def sample_documents() -> Prepared:
    """Return recipe tiny's sample documents, split; the first call does it (a minute)."""
    recipe = get_recipe("tiny")
    folder = Path(recipe.target_documents)
    return prepare_documents(folder, recipe.documents, LocalStore(STORE), lambda *progress: None, workers=2)
