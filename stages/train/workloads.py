"""What one example of each training stage puts through the model. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.recipes import ARMS, Recipe
from stages.train.flops import Workload, window_side

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig

PROMPT_TOKENS = 32  # chat template and prompt around a text or an image
QUERY_TOKENS = 32


@dataclass(frozen=True, kw_only=True)
class PageSizes:
    """Tokens of one page, or of one block."""

    visual_tokens: int
    """Of its image, after the merger."""
    text_tokens: int


def largest_page(recipe: Recipe) -> PageSizes:
    """The largest page that the recipe lets pass; a block is taken to have a token a character at most."""
    documents, text = recipe.documents, recipe.backbone.max_text_tokens
    if documents.unit == "block":
        text = min(text, documents.max_block_characters)
    return PageSizes(visual_tokens=documents.max_pixels // documents.pixel_multiple**2, text_tokens=text)


def pretrain_workload(recipe: Recipe, config: Qwen2_5_VLConfig, page: PageSizes) -> Workload:
    """Mean workload of an example of CGP, over the mixture of objectives."""
    image, text, mixture = page.visual_tokens, page.text_tokens, recipe.pretrain.mixture
    parts = [
        (mixture.transcribe_image, _sequence(config, text=text, image=image, labels=text)),
        (mixture.summarize_image, _sequence(config, image=image, labels=1)),
        (mixture.summarize_text, _sequence(config, text=text, labels=1)),
        (mixture.repeat_text, _sequence(config, text=2 * text, labels=text)),
    ]
    return _mean(parts)


def refine_workload(recipe: Recipe, config: Qwen2_5_VLConfig, page: PageSizes, arm: str) -> Workload:
    """Mean workload of an anchor of CL with its positive and its mined negatives."""
    image_share = ARMS[arm].get("image_share", recipe.refine.image_share)
    candidate = _mean(
        [
            (1 - image_share, _sequence(config, text=page.text_tokens)),
            (image_share, _sequence(config, image=page.visual_tokens)),
        ]
    )
    return _sequence(config, text=QUERY_TOKENS) + candidate * (1 + recipe.refine.hard_negatives)


def _sequence(config: Qwen2_5_VLConfig, *, text: int = 0, image: int = 0, labels: int = 0) -> Workload:
    patches = image * config.vision_config.spatial_merge_size**2
    length = PROMPT_TOKENS + text + image
    return Workload(
        tokens=length,
        squared_lengths=length**2,
        label_positions=labels,
        patches=patches,
        squared_images=patches**2,
        squared_windows=patches * min(patches, window_side(config) ** 2),
    )


def _mean(parts: Sequence[tuple[float, Workload]]) -> Workload:
    """Mean of workloads by weight."""
    total = sum(weight for weight, _ in parts)
    nothing = Workload(tokens=0, squared_lengths=0)
    return sum((work * (weight / total) for weight, work in parts), start=nothing)
