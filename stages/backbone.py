"""The vision-language backbone and its embedding contract.

`load_backbone` opens any Qwen2.5-VL-shaped model, from a folder or a hub id, the same way: model, tokenizer
and the PIL image processor. `build_tiny_backbone` makes the untrained model of recipes `tiny` and `small`;
the trained one comes from `lco bootstrap`.

The processor class of Qwen2.5-VL cannot be built without torchvision (its video processor needs it), so
inputs are assembled from the tokenizer and the PIL image processor: the same pixels in training, evaluation
and serving, whatever is installed.
"""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from stages.recipes import BackboneConfig, TinyShape

CONTRACT_FILE = "embedding.json"
IMAGE_TOKEN = "<|image_pad|>"
END_TOKEN = "<|im_end|>"
SUMMARIZE_IMAGE = "\nSummarize the above image in one word:"
SUMMARIZE_TEXT = "\nSummarize the above text in one word:"
TRANSCRIBE_IMAGE = "\nTranscribe the above image:"
REPEAT_TEXT = "\nRepeat the above text:"
WORD_TOKEN_PREFIX = "<|word_"

# The tiny model's turns have no role names: with one character a token they would be longer than the page.
TINY_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|answer|>{% endif %}"
)
# Latin with its extensions, Vietnamese, and general punctuation; anything else is spelled in bytes.
TINY_ALPHABET = (
    (0x20, 0x7E),
    (0xA0, 0x17F),
    (0x1A0, 0x1B0),
    (0x1EA0, 0x1EF9),
    (0x2010, 0x2026),
    (0x20AB, 0x20AC),
)


class ContractMismatch(Exception):
    """A model and its embedding contract, or two contracts, do not agree. The message names the field."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingContract:
    """Everything that decides a vector besides the weights; saved beside them as `embedding.json`."""

    image_prompt: str = SUMMARIZE_IMAGE
    text_prompt: str = SUMMARIZE_TEXT
    chat_template_sha256: str
    padding_side: str = "left"
    pooling: str = "last-token"
    norm_position: str = "after-final-norm"
    normalisation: str = "l2"
    pixel_multiple: int
    max_pixels: int
    max_text_tokens: int
    dtype: str = "float32"
    adapter_keys: tuple[str, ...] = ()
    """Parameters that a LoRA adapter changed before it was merged, sorted; empty before refinement."""

    def save(self, folder: Path) -> None:
        (Path(folder) / CONTRACT_FILE).write_text(json.dumps(asdict(self), indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: Path) -> "EmbeddingContract":
        """Read a contract. Raises ContractMismatch for a missing file and for missing or unknown fields."""
        path = Path(folder) / CONTRACT_FILE
        if not path.is_file():
            raise ContractMismatch(f"{path} is missing: save the model with `Backbone.save`")
        fields = json.loads(path.read_text())
        expected = set(cls.__dataclass_fields__)
        if set(fields) != expected:
            raise ContractMismatch(f"{path}: fields differ by {sorted(set(fields) ^ expected)}")
        return cls(**fields | {"adapter_keys": tuple(fields["adapter_keys"])})


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model with what turns pages and text into its inputs."""

    model: Qwen2_5_VLForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    image_processor: Qwen2VLImageProcessorPil
    contract: EmbeddingContract

    @property
    def vocabulary(self) -> int:
        """How many logits a position has: of many models more than their tokenizer has tokens."""
        return self.model.config.text_config.vocab_size

    @cached_property
    def text_tokenizer(self) -> PreTrainedTokenizerFast:
        """Reads a page's text: to the model it is words, also where it prints `<|image_pad|>`.

        A copy, since splitting control tokens is the tokenizer's state; one for all who read with this model.
        """
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.split_special_tokens = True
        return tokenizer

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), tokenizer, image processor and contract, for `load_backbone`."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        self.contract.save(folder)


def contract_for(
    config: BackboneConfig, tokenizer: PreTrainedTokenizerFast, image_processor: Qwen2VLImageProcessorPil
) -> EmbeddingContract:
    """Return the contract that a backbone starts with."""
    return EmbeddingContract(
        chat_template_sha256=hashlib.sha256(tokenizer.chat_template.encode()).hexdigest(),
        pixel_multiple=image_processor.patch_size * image_processor.merge_size,
        max_pixels=config.max_pixels,
        max_text_tokens=config.max_text_tokens,
    )


def load_backbone(location: str | Path, config: BackboneConfig) -> Backbone:
    """Open a backbone from a folder or a hub id, in float32 and evaluation mode.

    Raises:
        ContractMismatch: the folder's contract does not fit its tokenizer or image processor.
        OSError: nothing is there.
    """
    model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        location, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    wrong = {kind: sorted(keys) for kind in ("missing_keys", "unexpected_keys") if (keys := report[kind])}
    if wrong:
        raise ContractMismatch(f"{location}: weights and model differ: {wrong}")
    tokenizer = AutoTokenizer.from_pretrained(location)
    image_processor = AutoImageProcessor.from_pretrained(location, backend="pil")
    expected = contract_for(config, tokenizer, image_processor)
    contract = expected
    if (Path(location) / CONTRACT_FILE).is_file():
        contract = EmbeddingContract.load(Path(location))
        for name in set(EmbeddingContract.__dataclass_fields__) - {"adapter_keys"}:
            if getattr(contract, name) != getattr(expected, name):
                raise ContractMismatch(f"{location}: {name} is not the one that {CONTRACT_FILE} names")
    return Backbone(
        model=model.eval(), tokenizer=tokenizer, image_processor=image_processor, contract=contract
    )


def build_tiny_backbone(shape: TinyShape, config: BackboneConfig, *, seed: int) -> Backbone:
    """Make the untrained tiny model, its tokenizer and its image processor."""
    tokenizer = build_tiny_tokenizer(shape)
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(tiny_model_config(shape, tokenizer))
    image_processor = Qwen2VLImageProcessorPil(
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
    contract = contract_for(config, tokenizer, image_processor)
    return Backbone(model=model, tokenizer=tokenizer, image_processor=image_processor, contract=contract)


def build_tiny_tokenizer(shape: TinyShape) -> PreTrainedTokenizerFast:
    """One token a character, bytes for what the alphabet lacks, one token for each prompt and word bucket."""
    characters = [chr(code) for first, last in TINY_ALPHABET for code in range(first, last + 1)]
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    vocabulary = {token: index for index, token in enumerate(byte_tokens + characters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    special = [
        "<|pad|>",
        "<|im_start|>",
        END_TOKEN,
        "<|answer|>",
        "<|vision_start|>",
        IMAGE_TOKEN,
        "<|vision_end|>",
    ]
    prompts = [SUMMARIZE_IMAGE, SUMMARIZE_TEXT, TRANSCRIBE_IMAGE, REPEAT_TEXT]
    words = [f"{WORD_TOKEN_PREFIX}{number:04d}|>" for number in range(shape.word_tokens)]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special + prompts + words]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token=END_TOKEN, padding_side="left"
    )
    fast.chat_template = TINY_CHAT_TEMPLATE
    return fast


def tiny_model_config(shape: TinyShape, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The Qwen2.5-VL configuration of the tiny model."""
    token = tokenizer.convert_tokens_to_ids
    head_width = shape.hidden_size // shape.num_heads
    return Qwen2_5_VLConfig(
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
        image_token_id=token(IMAGE_TOKEN),
        video_token_id=token("<|pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        initializer_range=shape.initializer_range,
    )
