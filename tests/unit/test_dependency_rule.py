"""The rooms of the house: who may import whom, and what stays light."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("benchmarks", "pipelines", "stages", "data_prep", "infra")
HEAVY = ("torch", "deepspeed", "transformers", "peft", "mlflow")


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after a statement, in a fresh interpreter."""
    program = f"{statement}; import sys; print('\\n'.join(sorted({{n.split('.')[0] for n in sys.modules}})))"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return set(answer.stdout.split())


def test_imports_keep_the_contracts():
    answer = lint_imports(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("room", "statement"),
    [
        ("infra", "import stages"),
        ("stages/law", "import stages.refine"),
        ("stages", "import prefect"),
        ("pipelines", "def late():\n    import torch"),
        ("data_prep", "import transformers"),
        ("infra", "import torch"),
        ("stages", "import benchmarks.seahelp"),
    ],
)
def test_a_broken_contract_is_seen(tmp_path, room, statement):
    for name in ROOMS:
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            ignore=lambda folder, names: [n for n in names if "." in n and not n.endswith(".py")],
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / room / "intruder.py").write_text(statement + "\n")
    answer = lint_imports(tmp_path)
    assert answer.returncode != 0
    assert "intruder" in answer.stdout


def test_every_folder_with_code_is_a_package():
    # The linter sees packages only: a folder without __init__.py would escape it.
    sources = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    assert sources
    missing = {file.parent for file in sources if not (file.parent / "__init__.py").exists()}
    assert not missing


@pytest.mark.parametrize(
    ("statement", "slow"),
    [
        ("import pipelines.cli", {*HEAVY, "prefect", "webdataset", "pypdfium2"}),
        ("import pipelines.flow, pipelines.up, pipelines.serve", set(HEAVY) - {"mlflow"}),
        ("import stages.recipes", set(HEAVY)),
        ("import infra.launcher", set(HEAVY)),
        ("import infra.store, infra.fingerprint, infra.process", {*HEAVY, "prefect", "numpy"}),
    ],
)
def test_what_starts_often_loads_nothing_slow(statement, slow, monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert not loaded_by(statement) & slow
