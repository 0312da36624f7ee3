"""`lco plan`: what the two trainings of a recipe will need, printed before anything is launched."""

import functools
from dataclasses import dataclass, fields, replace
from typing import Literal

from rich.console import Console
from rich.table import Column, Table

from infra.devices import DEVICES, GIB, Device
from pipelines.console import clock_time, print_table
from pipelines.parameters import BadParameter, RecipeName
from pipelines.run import EXIT_FAILED
from stages.recipes import get_recipe
from stages.train.cost import Memory
from stages.train.forecast import (
    ASSUMED_MFU,
    StagePlan,
    largest_page,
    misfit,
    model_of,
    plan_pretrain,
    plan_refine,
)

DeviceName = Literal[tuple(DEVICES)]  # type: ignore[valid-type]

TITLES = {"pretrain": "pretrain (CGP)", "refine": "refine (CL)"}
MEMORY_ROWS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimiser, with float32 weights",
    "activations": "activations of a micro-batch",
    "logits": "logits",
    "vision_features": "vision features kept",
    "buckets": "communication buffers",
    "reserved": "allowance for CUDA and fragmentation",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Predict memory, time and cost of a recipe's training before it is launched. Downloads nothing.

    For example
      lco plan --recipe paper-3b --gpus 8 --device h100 --price 2.50
      lco plan --recipe paper-7b --gpus 8 --visual-tokens 900 --text-tokens 400
      lco plan --recipe tiny --gpus 2 --device cpu --peak-tflops 0.05

    Ends with status 1 if a stage does not fit into a GPU's memory.
    """

    recipe: RecipeName = "tiny"
    """Named configuration."""
    gpus: int = 1
    """Number of GPUs; of processes with `--device cpu`."""
    device: DeviceName = "h100"
    """Kind of GPU, or cpu."""
    mfu: float = ASSUMED_MFU
    """Assumed share of the peak that is reached (model FLOPs utilisation), above 0 and up to 1."""
    price: float | None = None
    """Price of a GPU-hour, in any currency. Default: no cost is shown."""
    visual_tokens: int | None = None
    """Mean visual tokens of your page images. Default: the most that the recipe lets pass."""
    text_tokens: int | None = None
    """Mean tokens of your pages' text. Default: the most that the recipe lets pass."""
    peak_tflops: float | None = None
    """Peak of one device in TFLOP/s. Default: its data sheet's; needed for cpu."""
    memory_gib: float | None = None
    """Memory of one device in GiB. Default: its data sheet's; cpu: not checked."""


def plan(command: Plan, *, console: Console | None = None) -> int:
    """Print the plan; return the exit status: 0 if both stages fit into memory. Raises BadParameter."""
    console = console or Console()
    _check(command)
    recipe, device = get_recipe(command.recipe), _device(command)
    given = {"visual_tokens": command.visual_tokens, "text_tokens": command.text_tokens}
    sizes = {name: size for name, size in given.items() if size is not None}
    page = replace(largest_page(recipe), **sizes)
    model = model_of(recipe)
    plans = [
        plan_stage(recipe, model, gpus=command.gpus, device=device, mfu=command.mfu, page=page)
        for plan_stage in (plan_pretrain, plan_refine)
    ]
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    say(f"Recipe {recipe.name} on {command.gpus} x {device.name}")
    print_table(console, _table(plans, device, gpus=command.gpus))
    seconds = sum(one.seconds for one in plans)
    gpu_hours = seconds * command.gpus / 3600
    together = f"Together: {clock_time(seconds)} on {command.gpus} x {command.device}"
    say(f"{together}, {_amount(gpu_hours)} GPU-hours")
    if command.price is not None:
        say(f"Cost at {command.price:,.2f} a GPU-hour: {gpu_hours * command.price:,.2f}")
    say(f"Assumed: {command.mfu:.0%} of the peak is reached (--mfu)")
    most = ", the most that the recipe lets pass: give your means (--visual-tokens, --text-tokens)"
    told = most if page == largest_page(recipe) else ""
    say(f"Pages of {page.visual_tokens:,} visual and {page.text_tokens:,} text tokens{told}")
    say("Not included: data preparation, evaluation, start-up")
    reasons = [reason for reason in (misfit(one, device) for one in plans) if reason]
    for reason in reasons:
        say(reason, style="bold red")
    return EXIT_FAILED if reasons else 0


def _check(command: Plan) -> None:
    if command.gpus < 1:
        raise BadParameter(f"gpus {command.gpus}: give 1 or more")
    if not 0 < command.mfu <= 1:
        raise BadParameter(f"mfu {command.mfu}: give a share above 0 and up to 1, 0.35 for example")
    for name in ("price", "visual_tokens", "text_tokens"):
        value = getattr(command, name)
        if value is not None and value < 0:
            raise BadParameter(f"{name} {value}: give 0 or more")
    for name in ("peak_tflops", "memory_gib"):
        value = getattr(command, name)
        if value is not None and value <= 0:
            raise BadParameter(f"{name} {value}: give a value above 0")


def _device(command: Plan) -> Device:
    device = DEVICES[command.device]
    if command.peak_tflops is not None:
        peak = command.peak_tflops * 1e12
        device = replace(device, peak_flops={"bfloat16": peak, "float32": peak})
    elif not device.peak_flops:
        raise BadParameter(f"device {device.name}: its peak is not known here, give it with --peak-tflops")
    if command.memory_gib is not None:
        device = replace(device, memory=int(command.memory_gib * GIB))
    return device


def _table(plans: list[StagePlan], device: Device, *, gpus: int) -> Table:
    table = Table("", *(Column(TITLES[one.stage], justify="right") for one in plans))
    row = table.add_row
    row("trained parameters", *(f"{one.trained_parameters:,}" for one in plans))
    row("frozen parameters", *(f"{one.frozen_parameters:,}" for one in plans))
    row("precision, ZeRO stage", *(f"{one.engine.precision}, {one.engine.zero_stage}" for one in plans))
    row("trainings (at once)", *(f"{one.cells} ({one.cells_at_once})" for one in plans))
    row("GPUs of a training", *(str(one.processes) for one in plans), end_section=True)
    unit, name = (GIB, "GiB") if any(one.memory.total > GIB for one in plans) else (2**20, "MiB")
    for field in fields(Memory):
        sizes = [getattr(one.memory, field.name) for one in plans]
        if any(sizes):
            row(f"{MEMORY_ROWS[field.name]}, {name}", *(f"{size / unit:.2f}" for size in sizes))
    limit = "" if device.memory is None else f" of {device.memory / unit:.1f}"
    totals = (f"{one.memory.total / unit:.2f}{limit}" for one in plans)
    row(f"one GPU's memory, {name}", *totals, end_section=True)
    row("examples a step", *(f"{one.examples_per_step:,}" for one in plans))
    row("TFLOP a step", *(_amount(one.flops_per_step / 1e12) for one in plans))
    row("seconds a step", *(_amount(one.step_seconds) for one in plans))
    row("steps", *(f"{one.steps:,}" for one in plans))
    row("all trainings, h:mm:ss", *(clock_time(one.seconds) for one in plans))
    row("GPU-hours", *(_amount(one.seconds * gpus / 3600) for one in plans))
    return table


def _amount(value: float) -> str:
    """Three digits below a hundred, whole numbers above."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
