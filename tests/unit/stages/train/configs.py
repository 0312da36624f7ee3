"""Models whose every size differs from every other (a formula that mixes two up is found out), and what they
hold."""

from collections.abc import Iterable

import peft
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from stages.train.flops import TrainedParts

IMAGE = 2  # token id
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


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


def training(
    model: Qwen2_5_VLForConditionalGeneration, trained: TrainedParts
) -> Qwen2_5_VLForConditionalGeneration:
    """The model with gradients on what is trained, adapters inside it if there are any."""
    model.model.visual.requires_grad_(trained.vision)
    if not trained.lora_rank:
        return model
    targets = rf".*language_model\.layers\.\d+\..*({'|'.join(trained.lora_targets)})"
    lora = peft.LoraConfig(r=trained.lora_rank, target_modules=targets)
    return peft.get_peft_model(model, lora, autocast_adapter_dtype=False).get_base_model()


def sizes(tensors: Iterable[torch.Tensor | None]) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def moments(optimizer: torch.optim.Optimizer) -> int:
    return sum(sizes([state["exp_avg"], state["exp_avg_sq"]]) for state in optimizer.state.values())
