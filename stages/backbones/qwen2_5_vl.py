"""Qwen2.5-VL: everything that depends on the class of the model. Other families have the same names.

M-RoPE gives a token three positions: time, row and column. Of text all three are alike; a visual token has
those of its place in the image. `model` is the generation class, `batch` a stages.train.batches.Batch.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from stages.backbones.config import ModelShape

if TYPE_CHECKING:
    from stages.train.batches import Batch

model_class = Qwen2_5_VLForConditionalGeneration
config_class = Qwen2_5_VLConfig
image_processor_class = Qwen2VLImageProcessorPil

IMAGE_TOKEN = "<|image_pad|>"
"""Stands for an image in the chat template, and for each of its visual tokens in a sequence."""
DECODER_LAYERS = r"model\.language_model\.layers\.\d+\."
"""Pattern of the names of the decoder's layers: where LoRA goes."""


def shape(config: config_class) -> ModelShape:
    """Return the sizes that formulas take."""
    text, vision = config.text_config, config.vision_config
    window = vision.window_size // vision.spatial_merge_size // vision.patch_size
    return ModelShape(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner_width=text.intermediate_size,
        heads=text.num_attention_heads,
        key_value_heads=text.num_key_value_heads,
        vocabulary=text.vocab_size,
        vision_layers=vision.depth,
        vision_width=vision.hidden_size,
        vision_inner_width=vision.intermediate_size,
        vision_heads=vision.num_heads,
        full_attention_layers=sum(index < vision.depth for index in set(vision.fullatt_block_indexes)),
        window_side=window * vision.spatial_merge_size,
        patch_values=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        merge_size=vision.spatial_merge_size,
        vision_output=vision.out_hidden_size,
    )


def decoder(model: model_class) -> torch.nn.Module:
    """Return the language model, without its head."""
    return model.model.language_model


def vision(model: model_class) -> torch.nn.Module:
    """Return the vision tower with its projector."""
    return model.model.visual


def head(model: model_class) -> torch.nn.Module:
    """Return what makes logits of hidden states."""
    return model.lm_head


def pixel_multiple(image_processor: image_processor_class) -> int:
    """Return the side of one visual token in pixels."""
    return image_processor.patch_size * image_processor.merge_size


def image_inputs(
    image_processor: image_processor_class, image: Image.Image
) -> tuple[np.ndarray, tuple[int, int, int], int]:
    """Return patches [patches, values], (frames, rows, columns) of them, and the number of visual tokens."""
    features = image_processor(images=[image.convert("RGB")], return_tensors="np")
    grid = tuple(int(side) for side in features["image_grid_thw"][0])
    return features["pixel_values"], grid, grid[1] * grid[2] // image_processor.merge_size**2


def positions(
    image_processor: image_processor_class, length: int, begin: int, grid: tuple[int, int, int] | None
) -> np.ndarray:
    """Return positions [3, length] of a sequence, as `get_rope_index` of transformers gives them.

    `begin`: where its image stands, of `grid` patches; None: it has none.
    """
    if grid is None:
        return np.broadcast_to(np.arange(length), (3, length))
    rows, columns = (side // image_processor.merge_size for side in grid[1:])
    end = begin + rows * columns
    made = np.empty((3, length), dtype=np.int64)
    made[:, :begin] = np.arange(begin)
    made[0, begin:end] = begin
    made[1, begin:end] = begin + np.repeat(np.arange(rows), columns)
    made[2, begin:end] = begin + np.tile(np.arange(columns), rows)
    made[:, end:] = begin + max(rows, columns) + np.arange(length - end)
    return made


def model_inputs(batch: "Batch") -> dict[str, torch.Tensor | None]:
    """Return keyword arguments of the forward pass."""
    places = batch.position_ids
    if batch.attention_mask is None:
        # The decoder finds the boundaries of packed sequences where these text positions start again.
        places = torch.cat([batch.text_positions[None], places])
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "position_ids": places}
    if batch.pixel_values is not None:
        inputs |= {"pixel_values": batch.pixel_values, "image_grid_thw": batch.image_grid_thw}
    return inputs


def hidden_states(model: model_class, batch: "Batch", *, images: Any = None, **options: Any) -> Any:
    """Run a batch through everything below the head; `.last_hidden_state` is [rows, length, hidden].

    `images`: what `image_features` gave, instead of the vision tower. `options` go to the forward pass.
    """
    inputs = model_inputs(batch)
    if images is not None:
        inputs |= {"pixel_values": None, "mm_encoder_outputs": {"image": images}}
    return model.model(**inputs, **{"use_cache": False} | options)


def image_features(model: model_class, batch: "Batch") -> BaseModelOutputWithPooling:
    """Run the vision tower alone, on a batch with images."""
    tower = model.model.get_image_features(batch.pixel_values, batch.image_grid_thw, return_dict=True)
    # Only what the decoder takes: the states before the merger are several times as large.
    return BaseModelOutputWithPooling(pooler_output=tower.pooler_output)


def continued(
    model: model_class,
    ids: torch.Tensor,
    first: np.ndarray | torch.Tensor,
    cache: DynamicCache,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the hidden states [rows, length, hidden] of text ids [rows, length] after what `cache` holds.

    Args:
        first: positions of their first token: [3] for all rows alike, or [3, rows].
        mask: [rows, tokens in the cache + length], 0 for padding; None where there is none.
    """
    start = torch.as_tensor(first, device=ids.device).reshape(3, -1, 1)
    places = (start + torch.arange(ids.shape[1], device=ids.device)).expand(3, *ids.shape)
    return model.model.language_model(
        input_ids=ids, position_ids=places, attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state
