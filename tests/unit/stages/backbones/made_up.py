"""A family of models that nobody needs, a Llama that sees: all that a second family takes is this file."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stages.backbones.config import ModelShape

IMAGE_TOKEN = "<|image_pad|>"
DECODER_LAYERS = r"model\.layers\.\d+\."


class config_class(LlamaConfig):
    model_type = "made_up"


class model_class(LlamaForCausalLM):
    config_class = config_class

    def __init__(self, config):
        super().__init__(config)
        self.tower = torch.nn.Linear(4 * 192, config.hidden_size)
        self.post_init()


def shape(config):
    return ModelShape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner_width=config.intermediate_size,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        vocabulary=config.vocab_size,
        vision_layers=0,
        vision_width=192,
        vision_inner_width=0,
        vision_heads=1,
        full_attention_layers=0,
        window_side=2,
        patch_values=0,
        merge_size=2,
        vision_output=config.hidden_size,
    )


def decoder(model):
    return model.model


def vision(model):
    return model.tower


def head(model):
    return model.lm_head


def pixel_multiple(image_processor):
    return 16


def image_inputs(image_processor, image):
    features = image_processor(images=[image.convert("RGB")], return_tensors="np")
    grid = tuple(int(side) for side in features["image_grid_thw"][0])
    return features["pixel_values"], grid, grid[1] * grid[2] // 4


def positions(image_processor, length, begin, grid):
    return np.arange(length)[None]


def image_features(model, batch):
    return model.tower(batch.pixel_values.reshape(-1, 4 * 192))


def hidden_states(model, batch, *, images=None, **options):
    embedded = model.model.embed_tokens(batch.input_ids)
    if batch.pixel_values is not None:
        images = image_features(model, batch) if images is None else images
        places = batch.input_ids == model.config.image_token_id
        embedded = embedded.masked_scatter(places[..., None], images)
    inputs = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids[0]}
    return model.model(inputs_embeds=embedded, **inputs, **options)
