"""The vision-language backbone and its embedding contract: the same inputs in training, evaluation, search.

`load_backbone` opens a model from a folder or a hub id: weights, tokenizer and the PIL image processor. What
depends on the class of the model lies in one module, its *family*: everybody else asks `Backbone.family`.

Processor classes of transformers need torchvision (for videos), so inputs are assembled from the tokenizer
and the PIL image processor: the same pixels whatever is installed.
"""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from stages.backbones import qwen2_5_vl
from stages.backbones.config import BackboneConfig, ModelShape

CONTRACT_FILE = "embedding.json"
SUMMARIZE_IMAGE = "\nSummarize the above image in one word:"
SUMMARIZE_TEXT = "\nSummarize the above text in one word:"
TRANSCRIBE_IMAGE = "\nTranscribe the above image:"
REPEAT_TEXT = "\nRepeat the above text:"


FAMILIES: dict[str, ModuleType] = {"qwen2_5_vl": qwen2_5_vl}
"""Family by `model_type` in config.json. A further one is a file with the names of qwen2_5_vl.py, and a line
here."""


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
        fields = json.loads(path.read_text(encoding="utf-8"))
        expected = set(cls.__dataclass_fields__)
        if set(fields) != expected:
            raise ContractMismatch(f"{path}: fields differ by {sorted(set(fields) ^ expected)}")
        return cls(**fields | {"adapter_keys": tuple(fields["adapter_keys"])})


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A model with what turns pages and text into its inputs."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    image_processor: Any
    contract: EmbeddingContract

    @property
    def family(self) -> ModuleType:
        return family_of(self.model)

    @property
    def shape(self) -> ModelShape:
        return self.family.shape(self.model.config)

    @property
    def vocabulary(self) -> int:
        """How many logits a position has: of many models more than their tokenizer has tokens."""
        return self.shape.vocabulary

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


def family_of(model: PreTrainedModel) -> ModuleType:
    """Return the family of a model, with or without a LoRA wrapper."""
    return FAMILIES[model.config.model_type]


def contract_for(
    config: BackboneConfig, tokenizer: PreTrainedTokenizerFast, pixel_multiple: int
) -> EmbeddingContract:
    """Return the contract that a backbone starts with."""
    return EmbeddingContract(
        chat_template_sha256=hashlib.sha256(tokenizer.chat_template.encode()).hexdigest(),
        pixel_multiple=pixel_multiple,
        max_pixels=config.max_pixels,
        max_text_tokens=config.max_text_tokens,
    )


def load_backbone(location: str | Path, config: BackboneConfig) -> Backbone:
    """Open a backbone from a folder or a hub id, in float32 and evaluation mode.

    Raises:
        ContractMismatch: the folder's contract does not fit its tokenizer or image processor, or the model is
            of no known family.
        OSError: nothing is there.
    """
    family = _family_at(location)
    model, report = family.model_class.from_pretrained(
        location, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    wrong = {kind: sorted(keys) for kind in ("missing_keys", "unexpected_keys") if (keys := report[kind])}
    if wrong:
        raise ContractMismatch(f"{location}: weights and model differ: {wrong}")
    tokenizer = AutoTokenizer.from_pretrained(location)
    image_processor = AutoImageProcessor.from_pretrained(location, backend="pil")
    expected = contract_for(config, tokenizer, family.pixel_multiple(image_processor))
    contract = expected
    if (Path(location) / CONTRACT_FILE).is_file():
        contract = EmbeddingContract.load(Path(location))
        for name in set(EmbeddingContract.__dataclass_fields__) - {"adapter_keys"}:
            if getattr(contract, name) != getattr(expected, name):
                raise ContractMismatch(f"{location}: {name} is not the one that {CONTRACT_FILE} names")
    return Backbone(
        model=model.eval(), tokenizer=tokenizer, image_processor=image_processor, contract=contract
    )


def _family_at(location: str | Path) -> ModuleType:
    model_type = PreTrainedConfig.get_config_dict(location)[0].get("model_type")
    if model_type not in FAMILIES:
        raise ContractMismatch(
            f"{location}: no family for model_type {model_type!r}; there are: {', '.join(FAMILIES)} "
            "(see FAMILIES in stages/backbones/backbone.py)"
        )
    return FAMILIES[model_type]


def model_config(location: str) -> PreTrainedConfig:
    """Return the configuration of a model in a folder, or of a published one, without network.

    Of published models the part of config.json that decides shapes lies beside this file. Raises ValueError
    for a hub id that is not among them.
    """
    published = Path(__file__).with_name(f"{location.replace('/', '--')}.json")
    where = Path(location) if Path(location).is_dir() else published
    if not where.exists():
        raise ValueError(f"the sizes of {location} are not known here: download it and name its folder")
    return _family_at(where).config_class.from_pretrained(where, local_files_only=True)


def parameter_counts(config: PreTrainedConfig) -> tuple[int, int]:
    """Return the parameters of decoder (with embeddings and head) and vision tower (with projector).

    Counted on the meta device: the model is built without memory for its weights.
    """
    family = FAMILIES[config.model_type]
    with torch.device("meta"):
        model = family.model_class(config)
    vision = sum(parameter.numel() for parameter in family.vision(model).parameters())
    return sum(parameter.numel() for parameter in model.parameters()) - vision, vision
