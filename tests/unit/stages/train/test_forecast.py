"""Plans: time is FLOPs over rate, memory is bounded by the budgets, and what does not fit is said."""

import dataclasses

import pytest

from infra.devices import DEVICES, GIB
from stages.pretrain.config import ObjectiveMixture
from stages.recipes import Recipe, get_recipe
from stages.train.flops import TrainedParts, forward_flops, training_flops, workload
from stages.train.forecast import (
    Model,
    PageSizes,
    largest_page,
    misfit,
    model_of,
    plan_pretrain,
    plan_refine,
    pretrain_workload,
    refine_workload,
)

H100 = DEVICES["h100"]
PAPER = get_recipe("paper-3b")
MODEL = model_of(PAPER)


def with_part(recipe: Recipe, stage: str, **changes) -> Recipe:
    return dataclasses.replace(recipe, **{stage: dataclasses.replace(getattr(recipe, stage), **changes)})


def with_engine(recipe: Recipe, stage: str, **changes) -> Recipe:
    return with_part(recipe, stage, engine=dataclasses.replace(getattr(recipe, stage).engine, **changes))


SHARES = ("transcribe_image", "summarize_image", "summarize_text", "repeat_text")


def only(recipe: Recipe, objective: str) -> Recipe:
    mixture = ObjectiveMixture(**{name: float(name == objective) for name in SHARES})
    return with_part(recipe, "pretrain", mixture=mixture)


def both(recipe: Recipe = PAPER, model: Model = MODEL, *, gpus=8, device=H100, mfu=0.5, page=None):
    page = page or largest_page(recipe)
    return [
        plan(recipe, model, gpus=gpus, device=device, mfu=mfu, page=page)
        for plan in (plan_pretrain, plan_refine)
    ]


def test_the_whole_time_is_flops_over_rate():
    page = PageSizes(visual_tokens=1_000, text_tokens=500)
    pretrain, refine = both(page=page)
    rate = 8 * 989e12 * 0.5
    work = pretrain_workload(PAPER, MODEL.shape, page) * 262_144
    assert pretrain.seconds == pytest.approx(training_flops(MODEL.shape, work, TrainedParts()) / rate)
    # 8 doses x 3 seeds; every row is embedded twice, the second time with a graph.
    adapters = TrainedParts(vision=False, lora_rank=64, lora_targets=PAPER.refine.lora_targets)
    work = refine_workload(PAPER, MODEL.shape, page, "text-only") * (24 * 700 * 1_056)
    flops = training_flops(MODEL.shape, work, adapters) + forward_flops(MODEL.shape, work).decoder
    assert refine.cells == 24
    assert refine.seconds == pytest.approx(flops / rate)


def test_training_costs_about_six_flops_a_parameter_and_token():
    """Text alone, short against the width: PaLM's and Chinchilla's rule of thumb, head at half of it."""
    page = PageSizes(visual_tokens=0, text_tokens=200)
    [plan, _] = both(only(PAPER, "repeat_text"), page=page)
    tokens = 256 * (32 + 2 * 200)
    assert plan.flops_per_step == pytest.approx(6 * MODEL.decoder_parameters * tokens, rel=0.07)


def test_a_mixture_is_the_mean_of_its_objectives():
    page = PageSizes(visual_tokens=100, text_tokens=50)
    works = {name: pretrain_workload(only(PAPER, name), MODEL.shape, page) for name in SHARES}
    assert {name: (work.tokens, work.label_positions, work.patches) for name, work in works.items()} == {
        "transcribe_image": (182, 50, 400),
        "summarize_image": (132, 1, 400),
        "summarize_text": (82, 1, 0),
        "repeat_text": (132, 50, 0),
    }
    mean = pretrain_workload(PAPER, MODEL.shape, page)
    assert mean.tokens == pytest.approx(0.6 * 182 + 0.2 * 132 + 0.15 * 82 + 0.05 * 132)


def test_images_stand_in_for_a_share_of_the_texts():
    page = PageSizes(visual_tokens=100, text_tokens=50)
    text_only = refine_workload(PAPER, MODEL.shape, page, "text-only")
    multimodal = refine_workload(PAPER, MODEL.shape, page, "multimodal-20")
    assert (text_only.tokens, text_only.patches) == (64 + 2 * 82, 0)
    assert multimodal.tokens == pytest.approx(64 + 2 * (0.8 * 82 + 0.2 * 132))
    assert multimodal.patches == pytest.approx(2 * 0.2 * 400)


def test_a_page_image_is_the_workload_of_its_grid():
    page = PageSizes(visual_tokens=32 * 24, text_tokens=0)
    work = pretrain_workload(only(PAPER, "summarize_image"), MODEL.shape, page)
    grid = (1, 64, 48)  # whole windows of 8 x 8 patches
    assert work == workload(MODEL.shape, lengths=[32 + 32 * 24], label_positions=1, grids=[grid])


def test_the_largest_page_is_what_the_documents_and_the_contract_allow():
    assert largest_page(get_recipe("paper-3b")) == PageSizes(visual_tokens=1_280, text_tokens=1_024)
    assert largest_page(get_recipe("tiny")) == PageSizes(visual_tokens=144, text_tokens=84)


def test_cells_run_side_by_side():
    rounds = {gpus: both(gpus=gpus)[1] for gpus in (1, 5, 8, 100)}
    cell = rounds[1].steps * rounds[1].step_seconds
    assert {gpus: round(plan.seconds / cell) for gpus, plan in rounds.items()} == {1: 24, 5: 5, 8: 3, 100: 1}
    wide = with_engine(PAPER, "refine", processes=4)
    assert both(wide, gpus=8)[1].seconds == pytest.approx(rounds[8].seconds)


def test_mean_pages_change_the_time_and_not_the_memory():
    largest, mean = both(), both(page=PageSizes(visual_tokens=500, text_tokens=200))
    for long, short in zip(largest, mean, strict=True):
        assert long.step_seconds > short.step_seconds
        assert long.memory == short.memory


def test_the_budgets_bound_the_activations():
    [plan, _] = both()
    [less, _] = both(with_engine(PAPER, "pretrain", text_tokens=3_000))
    [least, _] = both(with_engine(PAPER, "pretrain", text_tokens=3_000, visual_tokens=1_280))
    assert plan.memory.activations > less.memory.activations > least.memory.activations
    assert plan.memory.weights == least.memory.weights
    [one_row, _] = both(with_part(PAPER, "pretrain", batch_size=8))
    assert one_row.memory.activations < plan.memory.activations


def test_a_batch_that_fits_one_micro_batch_is_embedded_once():
    recipe = with_part(PAPER, "refine", batch_size=8)
    page = PageSizes(visual_tokens=0, text_tokens=100)  # 8 x (64 + 2 x 132) positions
    fits = both(with_engine(recipe, "refine", text_tokens=2_624), page=page)[1]
    does_not = both(with_engine(recipe, "refine", text_tokens=2_623), page=page)[1]
    # Forward and the gradients of inputs, which cost as much; then another forward.
    assert does_not.flops_per_step / fits.flops_per_step == pytest.approx(3 / 2, rel=0.04)


def test_what_does_not_fit_is_said_with_what_to_change():
    pretrain, refine = both()
    assert misfit(pretrain, H100) is None and misfit(refine, H100) is None
    small = DEVICES["l40s"]
    pretrain, refine = both(device=small)
    message = misfit(pretrain, small)
    needed = pretrain.memory.total / GIB
    assert message.startswith(f"pretrain does not fit: needs {needed:.1f} GiB a GPU, l40s has 44.0 GiB; ")
    assert "lower pretrain.engine.text_tokens" in message and "raise pretrain.engine.zero_stage" in message
    smaller = DEVICES["l4"]  # the weights alone are too many: fewer tokens would not help
    assert "text_tokens" not in misfit(pretrain, smaller)
    assert "raise refine.engine.processes" in misfit(refine, smaller)
    edge = dataclasses.replace(H100, memory=pretrain.memory.total)
    assert misfit(pretrain, edge) is None
    assert misfit(pretrain, dataclasses.replace(edge, memory=edge.memory - 1)) is not None
    assert misfit(pretrain, DEVICES["cpu"]) is None


@pytest.mark.parametrize(("name", "device"), [("paper-3b", "h100"), ("paper-7b", "h100"), ("small", "l4")])
def test_recipes_fit_the_gpus_that_they_are_made_for(name, device):
    recipe = get_recipe(name)
    gpus = recipe.pretrain.engine.processes
    for plan in both(recipe, model_of(recipe), gpus=gpus, device=DEVICES[device]):
        assert misfit(plan, DEVICES[device]) is None
