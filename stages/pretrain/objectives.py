"""The generative objectives of CGP and their loss.

One objective a step, drawn from (seed, step): every rank draws the same one, so that all ranks run the same
modules in the same order.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch

from data_prep.samples import Sample
from stages.backbones.backbone import family_of
from stages.pretrain.config import ObjectiveMixture
from stages.train.batches import Batch, Pass
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


class GenerativeLoss(torch.nn.Module):
    """The root module that the engine trains: a model and the sum of its label tokens' losses."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, passes: Sequence[Pass], words: Sequence[dict[int, float]] | None = None
    ) -> torch.Tensor:
        """Return the summed loss in nats: of label tokens, or of summaries where there are `words`.

        `words`: {token: weight} that the summary of each of this rank's sequences should say.
        """
        losses = [
            label_losses(self.model, one.batch)
            if words is None
            else summary_losses(self.model, one.batch, [words[number] for number in one.numbers])
            for one in passes
        ]
        return torch.stack([loss.sum() for loss in losses]).sum()


def summary_losses(model: torch.nn.Module, batch: Batch, words: Sequence[dict[int, float]]) -> torch.Tensor:
    """Cross-entropy in nats of every sequence's one-word summary [sequences] against its salient words.

    Sequences beyond `words`, fillers, have none: their loss is 0.
    """
    logits = family_of(model).head(model)(last_hidden(model, batch)).float()
    targets = torch.zeros_like(logits)  # [sequences, vocabulary]
    for row, weights in enumerate(words):
        targets[row, list(weights)] = logits.new_tensor(list(weights.values()))
    return -(targets * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
