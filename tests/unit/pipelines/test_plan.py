"""`lco plan` as a person uses it."""

import io
import re

import pytest
from rich.console import Console

from pipelines.parameters import BadParameter
from pipelines.plan import Plan, plan


def printed(**options: object) -> tuple[int, str]:
    """Status and output of a plan."""
    console = Console(file=io.StringIO(), width=120)
    return plan(Plan(**options), console=console), console.file.getvalue()


def cells(output: str, title: str) -> list[str]:
    """The two cells of the row that begins with `title`."""
    [row] = [line for line in output.splitlines() if line.startswith(f"│ {title}")]
    return [cell.strip() for cell in row.strip("│").split("│")][1:]


def test_the_plan_of_the_papers_recipe():
    status, out = printed(recipe="paper-3b", gpus=8, device="h100", price=2.5)
    assert status == 0
    assert cells(out, "trained parameters") == ["3,754,622,976", "119,734,272"]
    assert cells(out, "frozen parameters") == ["0", "3,754,622,976"]
    assert cells(out, "weights")[0] == f"{2 * 3_754_622_976 / 2**30:.2f}"
    assert cells(out, "optimiser")[0] == f"{12 * 3_754_622_976 / 8 / 2**30:.2f}"
    assert cells(out, "trainings (at once)") == ["1 (1)", "24 (8)"]
    assert cells(out, "steps") == ["1,024", "700"]
    totals = cells(out, "one GPU's memory, GiB")
    assert all(re.fullmatch(r"\d+\.\d\d of 79\.0", cell) for cell in totals)
    parts = ("weights", "gradients", "optimiser", "activations", "logits", "communication", "allowance")
    for column, total in enumerate(totals):
        whole = sum(float(cells(out, part)[column]) for part in parts)
        assert float(total.split()[0]) == pytest.approx(whole, abs=0.04)
    [gpu_hours] = re.findall(r"on 8 x h100, ([\d,]+) GPU-hours", out)
    [cost] = re.findall(r"Cost at 2\.50 a GPU-hour: ([\d,.]+)", out)
    assert float(cost.replace(",", "")) == pytest.approx(2.5 * float(gpu_hours.replace(",", "")), rel=1e-3)
    assert "Assumed: 35% of the peak is reached (--mfu)" in out
    assert "1,280 visual and 1,024 text tokens, the most that the recipe lets pass" in out
    assert "does not fit" not in out


def test_the_plan_of_the_tiny_recipe_on_a_cpu():
    status, out = printed(recipe="tiny", gpus=2, device="cpu", peak_tflops=0.1, mfu=1.0)
    assert status == 0
    assert cells(out, "trained parameters") == ["1,452,832", "36,864"]
    assert cells(out, "precision, ZeRO stage") == ["float32, 1"] * 2
    tera, seconds = (float(cells(out, title)[0]) for title in ("TFLOP a step", "seconds a step"))
    assert seconds == pytest.approx(tera / (2 * 0.1), rel=0.01)
    assert "Cost" not in out and " of " not in cells(out, "one GPU's memory, MiB")[0]


def test_what_does_not_fit_ends_with_status_1():
    status, out = printed(recipe="paper-3b", gpus=8, memory_gib=40, text_tokens=100)
    assert status == 1
    [line] = [line for line in out.splitlines() if "does not fit" in line]
    assert re.match(
        r"pretrain does not fit: needs \d+\.\d GiB a GPU, h100 has 40\.0 GiB; lower pretrain", line
    )
    assert "Pages of 1,280 visual and 100 text tokens\n" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": 0}, "gpus 0"),
        ({"mfu": 0.0}, "mfu 0.0"),
        ({"mfu": 35.0}, "mfu 35.0"),
        ({"price": -1.0}, "price -1.0"),
        ({"text_tokens": -1}, "text_tokens -1"),
        ({"peak_tflops": 0.0}, "peak_tflops 0.0"),
        ({"memory_gib": 0.0}, "memory_gib 0.0"),
        ({"device": "cpu"}, "--peak-tflops"),
    ],
)
def test_what_cannot_be_planned_is_named_before_torch_is_loaded(changes, message, monkeypatch):
    monkeypatch.setattr("pipelines.plan.model_of", lambda recipe: pytest.fail("torch would be loaded"))
    with pytest.raises(BadParameter, match=message) as error:
        plan(Plan(**changes))
    assert "\n" not in str(error.value)
