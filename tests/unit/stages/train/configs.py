"""Configurations whose every size differs from every other: a formula that mixes two up is found out."""

from transformers import Qwen2_5_VLConfig

IMAGE = 2  # token id


def config_of(*, layers: int, vision: dict, **options) -> Qwen2_5_VLConfig:
    """Grouped queries; full attention in one block of the vision tower, windows in the others."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 176,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]},
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        vision_config={
            "num_heads": 3,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "window_size": 64,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
        }
        | vision,
        image_token_id=IMAGE,
        tie_word_embeddings=True,
        **options,
    )
