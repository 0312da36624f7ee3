"""What tests/bench/contrastive.py compares our step with: sentence-transformers, and the plain style."""

import tempfile
from collections.abc import Callable, Mapping

import peft
import torch
from transformers import AutoTokenizer

from stages.backbones.backbone import SUMMARIZE_TEXT, load_backbone
from stages.recipes import get_recipe

RECIPE = get_recipe("tiny")
CONFIG = RECIPE.refine

Columns = list[list[str]]
"""Queries, positives and, with mined negatives, those: as many of each."""


def sentence_transformers_step(mini_batch_size: int | None):
    """Its loss on its own model class, without its trainer: only what our step does too."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.modules import Pooling

    tokenizer = AutoTokenizer.from_pretrained(RECIPE.backbone.location)
    frame, tokenizer.chat_template = chat_frame(tokenizer), None
    # Beside the image processor's files it would ask for torchvision, and with a template render twice.
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        transformer = Transformer(RECIPE.backbone.location, tokenizer_name_or_path=folder)
    transformer.model = with_lora(transformer.model)
    width = transformer.model.config.text_config.hidden_size
    model = SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode="lasttoken"), Normalize()])
    model.train()
    scale = 1 / CONFIG.loss.temperature
    loss = (
        losses.CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=mini_batch_size)
        if mini_batch_size
        else losses.MultipleNegativesRankingLoss(model, scale=scale)
    )
    step, gradient = plain_optimizer(
        model, lambda columns: loss([model.preprocess(list(map(frame, column))) for column in columns], None)
    )
    return step, transformer.model.get_base_model().language_model, gradient


def plain_step():
    """The generation class a column, rows as long as the batch's longest: the style of many repositories."""
    backbone = load_backbone(RECIPE.backbone.location, RECIPE.backbone)
    model, tokenizer = with_lora(backbone.model).train(), backbone.tokenizer
    frame = chat_frame(tokenizer)

    def loss(columns: Columns) -> torch.Tensor:
        texts = [frame(text) for column in columns for text in column]
        inputs = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        vectors = []
        for ids, mask in zip(
            inputs["input_ids"].split(CONFIG.batch_size),
            inputs["attention_mask"].split(CONFIG.batch_size),
            strict=True,
        ):
            output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
            vectors.append(torch.nn.functional.normalize(output.hidden_states[-1][:, -1], dim=-1))
        scores = vectors[0] @ torch.cat(vectors[1:]).T / CONFIG.loss.temperature
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(scores)))

    step, gradient = plain_optimizer(model, loss)
    return step, model.get_base_model().model.language_model, gradient


def plain_optimizer(model: torch.nn.Module, loss_of: Callable[[Columns], torch.Tensor]):
    """Return a step, and what gives the loss and its gradient."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=CONFIG.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )

    def step(columns: Columns) -> float:
        optimizer.zero_grad()
        loss = loss_of(columns)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), CONFIG.max_gradient_norm)
        optimizer.step()
        return float(loss.detach())

    def gradient(columns: Columns) -> tuple[float, dict[str, torch.Tensor]]:
        loss = loss_of(columns)
        loss.backward()
        return float(loss.detach()), by_layer({name: p.grad for name, p in parameters.items()})

    return step, gradient


def with_lora(model: torch.nn.Module) -> peft.PeftModel:
    """The recipe's adapter on a base model or a generation class, with our weights."""
    wrapped = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=CONFIG.lora_rank,
            lora_alpha=CONFIG.lora_alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=rf".*language_model\.layers\.\d+\..*({'|'.join(CONFIG.lora_targets)})",
        ),
    )
    randomize(wrapped)
    return wrapped


@torch.no_grad()
def randomize(model: torch.nn.Module) -> None:
    """The same weights in every variant, and none of them zero: a fresh adapter's gradient half vanishes."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(by_layer(dict(model.named_parameters())).items()):
        if "lora_" in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)


def by_layer(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name tensors from the decoder on, whatever wraps it."""
    return {name.rpartition("language_model.")[2]: tensor for name, tensor in tensors.items()}


def chat_frame(tokenizer) -> Callable[[str], str]:
    """What puts a text into the chat template with its prompt, as our sequence builder does."""
    before, after = tokenizer.apply_chat_template(
        [{"role": "user", "content": f"\x00{SUMMARIZE_TEXT}"}], add_generation_prompt=True, tokenize=False
    ).split("\x00")
    return lambda text: f"{before}{text}{after}"
