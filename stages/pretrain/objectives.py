"""The generative objectives of CGP and their loss.

One objective a step, drawn from (seed, step): every rank draws the same one, so that all ranks run the same
modules in the same order.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from data_prep.samples import Sample
from stages.backbones.backbone import family_of
from stages.pretrain.config import ObjectiveMixture
from stages.train.batches import Batch
from stages.train.forward import label_losses, last_hidden
from stages.train.sequences import SequenceBuilder, TokenSequence


def objective_of_step(mixture: ObjectiveMixture, *, seed: int, step: int) -> str:
    """Return the objective that the batch of `step` trains."""
    shares = asdict(mixture)
    probabilities = np.array(list(shares.values())) / sum(shares.values())
    return str(np.random.default_rng((seed, step, 1)).choice(list(shares), p=probabilities))


def build_sequence(builder: SequenceBuilder, sample: Sample, objective: str) -> TokenSequence:
    """Turn a sample into the input, and the labels if there are any, of one objective."""
    match objective:
        case "transcribe_image":
            return builder.transcribe_image(sample.image(), sample.text)
        case "repeat_text":
            return builder.repeat_text(sample.text)
        case "summarize_image":
            return builder.summarize_image(sample.image())
        case "summarize_text":
            return builder.summarize_text(sample.text)
    raise ValueError(f"unknown objective {objective!r}")


@dataclass(frozen=True, kw_only=True)
class GenerativeBucket:
    """One forward pass: a batch and, for the one-word summary, what its sequences should say."""

    batch: Batch
    targets: torch.Tensor | None
    """[sequences, vocabulary] distributions; None where the batch has labels."""


def summary_targets(words: Sequence[dict[int, float]], *, rows: int, vocabulary: int) -> torch.Tensor:
    """Return the distributions [rows, vocabulary] of {token: weight}; rows beyond `words` have none."""
    targets = torch.zeros(rows, vocabulary)
    for row, weights in enumerate(words):
        targets[row, list(weights)] = torch.tensor(list(weights.values()))
    return targets


class GenerativeLoss(torch.nn.Module):
    """The root module that the engine trains: a model and the sum of its label tokens' losses."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, buckets: Sequence[GenerativeBucket]) -> torch.Tensor:
        """Return the summed loss in nats: of label tokens, or of summaries where there are targets."""
        return torch.stack([self._losses(bucket).sum() for bucket in buckets]).sum()

    def _losses(self, bucket: GenerativeBucket) -> torch.Tensor:
        if bucket.targets is None:
            return label_losses(self.model, bucket.batch)
        return summary_losses(self.model, bucket.batch, bucket.targets)


def summary_losses(model: torch.nn.Module, batch: Batch, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of every sequence's one-word summary [sequences] against its salient words."""
    logits = family_of(model).head(model)(last_hidden(model, batch)).float()
    return -(targets * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
