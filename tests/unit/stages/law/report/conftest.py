"""Findings of one simulated run and one simulated sweep, and pages of them."""

import re
from dataclasses import replace

import pytest

from stages.law.config import LawSettings
from stages.law.report.figures import figure_tables
from stages.law.report.page import render
from stages.law.simulated_sweeps import STEPS
from tests.unit.stages.law.conftest import INVENTORIES, WRITTEN, sample_of
from tests.unit.stages.law.sweeps import LAW, Sweep

PICTURE = b"\x89PNG\r\n\x1a\n"
SETTINGS = LawSettings(
    law=LAW,
    refine_steps=STEPS,
    item="page",
    target_documents="help-pages",
    recipe={"name": "tiny", "law": {"confidence": 0.95}},
)
PROVENANCE = {"recipe": "tiny", "date": "2026-01-02 03:04 UTC", "machine": "2 CPU cores"}


@pytest.fixture(scope="session")
def plain():
    """A rising run: no controls."""
    return Sweep(controls=False).find()


@pytest.fixture(scope="session")
def swept():
    """A rising sweep with every arm, two further test sets and short budgets."""
    return Sweep(other_arms=True, other_tests=("Khmer", "Lao")).find()


@pytest.fixture(scope="session")
def pages(plain, swept):
    """The page of the run and that of the sweep, with empty pictures: drawing takes seconds."""
    return {"run": page_of(plain), "sweep": page_of(swept)}


def page_of(findings, **changes):
    tables = figure_tables(findings)
    beside = {"settings": SETTINGS, "inventories": INVENTORIES, "provenance": PROVENANCE, "inputs": {}}
    beside |= {"samples": sample_of, "written": WRITTEN}
    return render(findings, tables, dict.fromkeys(tables, PICTURE), **(beside | changes))


def with_numbers(findings, **compared):
    """The same findings with other numbers in `compared`."""
    return replace(findings, compared=replace(findings.compared, **compared))


def masked(text):
    """Prose with # for every number: its wording is what a snapshot holds."""
    return re.sub(r"[+−]?\d+(,\d{3})*(\.\d+)?(e-\d+)?", "#", text)
