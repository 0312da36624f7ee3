"""The small model that recipes `tiny` and `small` start from: Qwen2.5-VL in small, with its own tokenizer.

Untrained here; `lco bootstrap` trains it.
"""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from stages.backbones import qwen2_5_vl
from stages.backbones.backbone import (
    REPEAT_TEXT,
    SUMMARIZE_IMAGE,
    SUMMARIZE_TEXT,
    TRANSCRIBE_IMAGE,
    Backbone,
    contract_for,
)
from stages.backbones.config import WORD_TOKEN_PREFIX, BackboneConfig, TinyShape

PAD_TOKEN, END_TOKEN = "<|pad|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
# Turns have no role names: with one character a token they would be longer than the page.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|answer|>{% endif %}"
)
# Latin with its extensions, Vietnamese, and general punctuation; anything else is spelled in bytes.
ALPHABET = (
    (0x20, 0x7E),
    (0xA0, 0x17F),
    (0x1A0, 0x1B0),
    (0x1EA0, 0x1EF9),
    (0x2010, 0x2026),
    (0x20AB, 0x20AC),
)


def build_tiny_backbone(shape: TinyShape, config: BackboneConfig, *, seed: int) -> Backbone:
    """Make the untrained tiny model, its tokenizer and its image processor."""
    tokenizer = build_tiny_tokenizer(shape)
    torch.manual_seed(seed)
    model = qwen2_5_vl.model_class(tiny_model_config(shape, tokenizer))
    image_processor = qwen2_5_vl.image_processor_class(
        patch_size=shape.patch_size,
        merge_size=shape.merge_size,
        temporal_patch_size=1,
        size={
            "shortest_edge": (shape.patch_size * shape.merge_size) ** 2,
            "longest_edge": config.max_pixels,
        },
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    contract = contract_for(config, tokenizer, qwen2_5_vl.pixel_multiple(image_processor))
    return Backbone(model=model, tokenizer=tokenizer, image_processor=image_processor, contract=contract)


def build_tiny_tokenizer(shape: TinyShape) -> PreTrainedTokenizerFast:
    """One token a character, bytes for what the alphabet lacks, one token for each prompt and word bucket."""
    characters = [chr(code) for first, last in ALPHABET for code in range(first, last + 1)]
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    vocabulary = {token: index for index, token in enumerate(byte_tokens + characters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    turns = [PAD_TOKEN, "<|im_start|>", END_TOKEN, "<|answer|>"]
    images = [VISION_START, qwen2_5_vl.IMAGE_TOKEN, VISION_END]
    prompts = [SUMMARIZE_IMAGE, SUMMARIZE_TEXT, TRANSCRIBE_IMAGE, REPEAT_TEXT]
    words = [f"{WORD_TOKEN_PREFIX}{number:04d}|>" for number in range(shape.word_tokens)]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in turns + images + prompts + words]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD_TOKEN, eos_token=END_TOKEN, padding_side="left"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model_config(shape: TinyShape, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """The Qwen2.5-VL configuration of the tiny model."""
    token = tokenizer.convert_tokens_to_ids
    head_width = shape.hidden_size // shape.num_heads
    return qwen2_5_vl.config_class(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.num_layers,
            "num_attention_heads": shape.num_heads,
            "num_key_value_heads": shape.num_heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                # Few frequencies must tell columns apart: half of them, and none slower than a line is long.
                # With Qwen's theta and sections the model never learned to read.
                "rope_theta": 30.0,
                "mrope_section": [head_width // 8, head_width // 8, head_width // 4],
            },
            "bos_token_id": None,
            "eos_token_id": token(END_TOKEN),
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
            "initializer_range": shape.initializer_range,
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden_size,
            "intermediate_size": 3 * shape.vision_hidden_size,
            "num_heads": shape.vision_heads,
            "patch_size": shape.patch_size,
            "spatial_merge_size": shape.merge_size,
            "temporal_patch_size": 1,
            "window_size": 8 * shape.patch_size * shape.merge_size,
            "out_hidden_size": shape.hidden_size,
            "fullatt_block_indexes": list(range(shape.vision_layers)),
            "initializer_range": shape.initializer_range,
        },
        image_token_id=token(qwen2_5_vl.IMAGE_TOKEN),
        video_token_id=token(PAD_TOKEN),
        vision_start_token_id=token(VISION_START),
        vision_end_token_id=token(VISION_END),
        tie_word_embeddings=True,
        initializer_range=shape.initializer_range,
    )
