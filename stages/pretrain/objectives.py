"""The generative objectives of CGP and their loss.

One objective a step, drawn from (seed, step): every rank draws the same one, so that all ranks run the same
modules in the same order.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from data_prep.shards import Sample
from stages.recipes import ObjectiveMixture
from stages.train.sequences import Batch, SequenceBuilder, label_logits
from stages.train.words import SalientWords


def objective_of_step(mixture: ObjectiveMixture, *, seed: int, step: int) -> str:
    """Return the objective that the batch of `step` trains."""
    shares = asdict(mixture)
    probabilities = np.array(list(shares.values())) / sum(shares.values())
    return str(np.random.default_rng((seed, step, 1)).choice(list(shares), p=probabilities))


def build_batch(builder: SequenceBuilder, samples: Sequence[Sample], objective: str) -> Batch:
    """Turn samples into the inputs and labels of one objective."""
    match objective:
        case "transcribe_image":
            return builder.collate([builder.transcribe_image(s.image(), s.text) for s in samples])
        case "repeat_text":
            return builder.collate([builder.repeat_text(s.text) for s in samples])
        case "summarize_image":
            return builder.collate([builder.summarize_image(s.image()) for s in samples])
        case "summarize_text":
            return builder.collate([builder.summarize_text(s.text) for s in samples])
    raise ValueError(f"unknown objective {objective!r}")


def summary_targets(words: SalientWords, samples: Sequence[Sample], vocabulary: int) -> torch.Tensor:
    """Return the distributions [rows, vocabulary] that the one-word summaries should match."""
    targets = torch.zeros(len(samples), vocabulary)
    for row, sample in enumerate(samples):
        for token, weight in words.targets(sample.text).items():
            targets[row, token] = weight
    return targets


class GenerativeLoss(torch.nn.Module):
    """The root module that the engine trains: a model and the sum of its label tokens' losses."""

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, targets: torch.Tensor | None) -> torch.Tensor:
        """Return the summed loss in nats: of label tokens, or of summaries where `targets` are given."""
        losses = (
            token_losses(self.model, batch) if targets is None else summary_losses(self.model, batch, targets)
        )
        return losses.sum()


def token_losses(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood in nats of every label token [labels], in row order."""
    logits, labels = label_logits(model, batch)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def summary_losses(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch, targets: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy in nats of every row's one-word summary [rows] against its salient words."""
    hidden = model.model(**batch.model_inputs(), use_cache=False).last_hidden_state[:, -1]
    log_probabilities = torch.log_softmax(model.lm_head(hidden).float(), dim=-1)
    return -(targets * log_probabilities).sum(dim=-1)
