"""Configurations of the models that recipes start from, known without network, and how large they are."""

from pathlib import Path

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from stages.backbone import build_tiny_tokenizer, tiny_model_config
from stages.recipes import BOOTSTRAPS, Recipe

# The text parts of the published config.json files, without what the classes have by default. The vision
# towers are alike but for the width that they write to.
PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "vocab_size": 151_936,
        "hidden_size": 2_048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "vocab_size": 152_064,
        "hidden_size": 3_584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
}
PUBLISHED_VISION = {
    "depth": 32,
    "hidden_size": 1_280,
    "intermediate_size": 3_420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}


def model_config(recipe: Recipe) -> Qwen2_5_VLConfig:
    """Return the configuration of the model that a recipe starts from; a base need not be trained yet.

    Raises ValueError for a hub id whose sizes are not known here.
    """
    location = recipe.backbone.location
    if Path(location).is_dir():
        return Qwen2_5_VLConfig.from_pretrained(location, local_files_only=True)
    if recipe.name in BOOTSTRAPS:
        shape = BOOTSTRAPS[recipe.name].shape
        return tiny_model_config(shape, build_tiny_tokenizer(shape))
    if location in PUBLISHED:
        return published_config(location)
    raise ValueError(f"the sizes of {location} are not known here: download it and name its folder")


def published_config(hub_id: str) -> Qwen2_5_VLConfig:
    """Return the configuration of a published model, as far as it decides shapes and positions."""
    text = PUBLISHED[hub_id]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    return Qwen2_5_VLConfig(
        text_config=text | {"rope_parameters": rope, "max_position_embeddings": 128_000},
        vision_config=PUBLISHED_VISION | {"out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=text["tie_word_embeddings"],
    )


def parameter_counts(config: Qwen2_5_VLConfig) -> tuple[int, int]:
    """Return the parameters of decoder (with embeddings and head) and vision tower (with projector).

    Counted on the meta device: the model is built without memory for its weights.
    """
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    vision = sum(parameter.numel() for parameter in model.model.visual.parameters())
    return sum(parameter.numel() for parameter in model.parameters()) - vision, vision
