"""Greedy decoding by transformers' own `generate`: what ours is compared with, in tests and benches."""

from collections.abc import Sequence

import torch

from stages.backbones.backbone import Backbone
from stages.train.batches import collate
from stages.train.sequences import TokenSequence


def answers_of_transformers(backbone: Backbone, prompts: Sequence[TokenSequence], limit: int) -> torch.Tensor:
    """Tokens after each prompt [rows, at most `limit`]; what follows a row's end token is padding."""
    batch = collate(prompts, pad_token=backbone.tokenizer.pad_token_id)
    generated = backbone.model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        mm_token_type_ids=(batch.input_ids == backbone.model.config.image_token_id).int(),
        max_new_tokens=limit,
        do_sample=False,
    )
    return generated[:, batch.input_ids.shape[1] :]
