"""Recipes: named, complete configurations of a run. Importing this module loads no torch."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.config import DocumentsConfig
from stages.backbones.config import BackboneConfig, TinyShape
from stages.bootstrap.config import BootstrapConfig
from stages.cells import Arm
from stages.evaluate.config import EvaluateConfig, GenerationConfig, SearchConfig
from stages.law.config import LawConfig
from stages.losses import InfoNCE
from stages.pretrain.config import ObjectiveMixture, PretrainConfig
from stages.refine.config import MiningConfig, RefineConfig
from stages.train.config import EngineConfig

SAMPLE_DOCUMENTS = Path(__file__).parent.parent / "data_prep" / "sample_documents"
TINY_BASE = Path(__file__).parent / "base" / "tiny"
SMALL_BASE = TINY_BASE.with_name("small")

_FULL = {"trained": "decoder", "learning_rate": 2e-4}
_CLIP = {"anchors": "texts", "image_share": 1.0, "trained": "model", "learning_rate": 2e-4}
ARMS = {
    arm.name: arm
    for arm in (
        Arm(name="text-only", kind="refinement"),
        Arm(name="multimodal-20", kind="refinement", changes={"image_share": 0.2}),
        Arm(name="full fine-tuning", kind="refinement", changes=_FULL),
        Arm(name="CLIP-style", kind="refinement", changes=_CLIP | {"loss.symmetric": True}),
        Arm(name="whitening", kind="linear map", changes={"map": "whitening"}),
        Arm(name="projection", kind="linear map", changes={"map": "projection", "drawn": True}),
    )
}
"""What the paper compares: ways to refine, and linear maps of the vectors before refinement."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What `lco sweep` adds to a run. Doses here are examples seen in CGP."""

    doses: tuple[int, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    budgets: tuple[int, ...]
    """CL steps after which retrieval is measured, for the ceiling; `refine.steps` is among them."""
    learning_rates: tuple[float, ...]
    """CL at every dose tries each, with the first seed; validation documents choose one."""
    arms: tuple[str, ...] = ("multimodal-20", "full fine-tuning", "CLIP-style")
    """Further ways to refine, names of `ARMS`, beside the law's primary arm."""
    linear_maps: tuple[str, ...] = ("whitening", "projection")
    """Names of `ARMS` of the kind "linear map"."""
    compared_doses: tuple[int, ...]
    """Doses at which arms and linear maps are measured; 0 and the highest are among them."""
    control_doses: tuple[int, ...]
    """Doses above 0 of CGP on shuffled and on unrelated pages; the highest is among them."""
    adapters: tuple[tuple[int, int], ...]
    """Other (LoRA rank, alpha) than the recipe's, tried at the highest dose."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One complete run, from documents to verdict."""

    name: str
    target_documents: str = str(SAMPLE_DOCUMENTS / "vi")
    """Default documents folder."""
    base_documents: str = str(SAMPLE_DOCUMENTS / "en")
    """Documents in the language that the base reads: replay, and the measure of forgetting."""
    documents: DocumentsConfig
    backbone: BackboneConfig
    pretrain: PretrainConfig
    refine: RefineConfig
    mining: MiningConfig = field(default_factory=MiningConfig)
    evaluate: EvaluateConfig
    law: LawConfig = field(default_factory=LawConfig)
    sweep: SweepConfig


def tiny() -> Recipe:
    """The CPU default: a model of about one million parameters, minutes on two cores."""
    documents = DocumentsConfig(test_share=0.15)
    return Recipe(
        name="tiny",
        documents=documents,
        backbone=BackboneConfig(
            location=str(TINY_BASE), max_pixels=documents.max_pixels, max_text_tokens=704
        ),
        pretrain=PretrainConfig(
            doses=(0, 4_800, 9_600, 19_200),
            batch_size=32,
            learning_rate=6e-4,
            warmup_steps=100,
            replay_share=0.25,
            # Validation documents, dose 19,200: half as much transcription finds no more by vector and reads
            # worse; half as much again reads no better and finds less by vector (tests/bench/RESULTS.md).
            mixture=ObjectiveMixture(
                transcribe_image=0.35, summarize_image=0.35, summarize_text=0.25, repeat_text=0.05
            ),
            engine=EngineConfig(processes=2),
        ),
        refine=RefineConfig(
            seeds=(0, 1),
            arms=("text-only", "multimodal-20"),
            steps=30,
            batch_size=64,
            learning_rate=1e-3,
            warmup_steps=5,
            loss=InfoNCE(temperature=0.05),
            lora_rank=16,
            lora_alpha=4,
            lora_targets=("q_proj", "v_proj", "o_proj"),
            # Blocks of one document are different answers; equal ones are masked by their digests.
            same_document_negatives=True,
        ),
        evaluate=EvaluateConfig(
            search=SearchConfig(max_corpus=600, max_queries=600),
            generation=GenerationConfig(samples=400, decoded_samples=64),
        ),
        sweep=SweepConfig(
            doses=(0, 1_600, 3_200, 4_800, 6_400, 9_600, 12_800, 19_200),
            budgets=(5, 10, 30, 60),
            learning_rates=(3e-4, 1e-3, 3e-3),
            compared_doses=(0, 19_200),
            control_doses=(4_800, 19_200),
            adapters=((4, 1), (16, 16), (64, 16)),
        ),
    )


def smoke() -> Recipe:
    """`tiny` with next to no training: whether all works on these documents. It cannot reach a verdict."""
    recipe = tiny()
    return replace(
        recipe,
        name="smoke",
        pretrain=replace(recipe.pretrain, doses=(0, 64), warmup_steps=1),
        refine=replace(recipe.refine, seeds=(0,), steps=4, batch_size=16, warmup_steps=1),
        evaluate=replace(
            recipe.evaluate,
            search=SearchConfig(max_corpus=200, max_queries=64),
            generation=GenerationConfig(samples=40, decoded_samples=8),
        ),
        sweep=SweepConfig(
            doses=(0, 64),
            seeds=(0, 1),
            budgets=(2, 4),
            learning_rates=(3e-4, 1e-3),
            compared_doses=(0, 64),
            control_doses=(64,),
            adapters=((4, 1),),
        ),
    )


def small() -> Recipe:
    """One GPU: a model of about 57 million parameters, trained from random weights by `lco bootstrap`.

    Its blocks are paragraphs of several lines. Nobody has trained it to the end yet: expect to tune it.
    """
    recipe = tiny()
    documents = DocumentsConfig(max_pixels=640 * 192, max_block_characters=320, test_share=0.15)
    engine = EngineConfig(precision="bfloat16", text_tokens=32_768, visual_tokens=16_384)
    doses = (0, 12_800, 25_600, 51_200, 102_400, 204_800, 409_600, 819_200)
    return replace(
        recipe,
        name="small",
        documents=documents,
        backbone=BackboneConfig(
            location=str(SMALL_BASE), max_pixels=documents.max_pixels, max_text_tokens=1_280
        ),
        pretrain=replace(
            recipe.pretrain, doses=doses, batch_size=128, learning_rate=3e-4, warmup_steps=200, engine=engine
        ),
        refine=replace(
            recipe.refine,
            seeds=(0, 1, 2),
            steps=200,
            batch_size=256,
            learning_rate=4e-4,
            warmup_steps=20,
            lora_rank=32,
            lora_alpha=8,
            engine=engine,
        ),
        evaluate=EvaluateConfig(
            search=SearchConfig(max_corpus=2_000, max_queries=1_000),
            generation=GenerationConfig(samples=500, decoded_samples=100),
        ),
        sweep=SweepConfig(
            doses=doses,
            budgets=(25, 50, 100, 200, 400),
            learning_rates=(1e-4, 4e-4, 1e-3),
            compared_doses=(0, 102_400, 819_200),
            control_doses=(102_400, 819_200),
            adapters=((8, 2), (32, 32), (128, 32)),
        ),
    )


PAPER_ENGINE = EngineConfig(processes=8, precision="bfloat16", packing=True)


def paper_3b() -> Recipe:
    """Qwen2.5-VL-3B on eight GPUs of 80 GB; see `paper`."""
    engine = replace(PAPER_ENGINE, zero_stage=2, text_tokens=4_096, visual_tokens=2_560)
    return paper("paper-3b", "Qwen/Qwen2.5-VL-3B-Instruct", engine)


def paper_7b() -> Recipe:
    """Qwen2.5-VL-7B on eight GPUs of 80 GB; see `paper`."""
    engine = replace(PAPER_ENGINE, zero_stage=3, text_tokens=3_072, visual_tokens=1_280)
    return paper("paper-7b", "Qwen/Qwen2.5-VL-7B-Instruct", engine)


def paper(name: str, location: str, engine: EngineConfig) -> Recipe:
    """A published backbone on whole pages, with CL as in LCO-Emb (arXiv 2510.11693): text-only LoRA.

    The paper's settings of CGP are not public: those here are ours. `lco plan` tells what a run costs.
    """
    documents = DocumentsConfig(unit="page", pixel_multiple=28, max_pixels=1_280 * 28**2)
    doses = (0, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072, 262_144)
    return Recipe(
        name=name,
        documents=documents,
        backbone=BackboneConfig(location=location, max_pixels=documents.max_pixels, max_text_tokens=1_024),
        pretrain=PretrainConfig(
            doses=doses,
            batch_size=256,
            learning_rate=1e-5,
            warmup_steps=50,
            replay_share=0.2,
            mixture=ObjectiveMixture(
                transcribe_image=0.6, summarize_image=0.2, summarize_text=0.15, repeat_text=0.05
            ),
            engine=engine,
        ),
        refine=RefineConfig(
            seeds=(0, 1, 2),
            arms=("text-only",),
            # Two epochs of the paper's 370,000 pairs.
            steps=700,
            batch_size=1_056,
            learning_rate=4e-4,
            warmup_steps=100,
            loss=InfoNCE(temperature=0.03),
            lora_rank=64,
            lora_alpha=16,
            lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
            # One GPU a cell, and as many cells side by side as there are GPUs: nothing to communicate.
            engine=replace(engine, processes=1, zero_stage=1),
        ),
        mining=MiningConfig(hard_negatives=1),
        evaluate=EvaluateConfig(
            search=SearchConfig(max_corpus=5_000, max_queries=1_000),
            generation=GenerationConfig(samples=500, decoded_samples=64),
            batch_size=8,
        ),
        sweep=SweepConfig(
            doses=doses,
            budgets=(100, 350, 700, 1_400),
            learning_rates=(2e-4, 4e-4, 8e-4),
            compared_doses=(0, 262_144),
            control_doses=(65_536, 262_144),
            adapters=((16, 16), (64, 128), (256, 16)),
        ),
    )


RECIPES = {"tiny": tiny, "smoke": smoke, "small": small, "paper-3b": paper_3b, "paper-7b": paper_7b}

BOOTSTRAPS: dict[str, BootstrapConfig] = {
    "tiny": BootstrapConfig(shape=TinyShape(), steps=12_000, batch_size=32, learning_rate=2e-3),
    "small": BootstrapConfig(
        shape=TinyShape(
            hidden_size=512,
            intermediate_size=1_536,
            num_layers=12,
            num_heads=8,
            vision_hidden_size=384,
            vision_layers=6,
            vision_heads=6,
            initializer_range=0.04,
        ),
        steps=30_000,
        batch_size=128,
        learning_rate=5e-4,
    ),
}
"""Recipes whose base `lco bootstrap` makes. `smoke` shares tiny's; others are published models."""


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name. Raises KeyError naming the recipes there are."""
    if name not in RECIPES:
        raise KeyError(f"no recipe {name!r}; there are: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()
