"""The training loop of stage 2: light contrastive refinement (CL), as a rule with LoRA on the decoder.

Anchors are queries. Positives are the texts of the pages that answer them and, for a share of the rows, the
page images. Vision tower and projector stay frozen unless the recipe trains the whole model.
"""

from collections.abc import Collection, Iterator

import torch

from stages.backbones.adapters import Refinement, choose_trained, trained_weights
from stages.backbones.backbone import Backbone
from stages.refine.config import RefineConfig
from stages.refine.gradcache import Embedder, contrastive_step
from stages.refine.pairs import TrainSplit, draw_batches
from stages.train.checkpoint import Checkpoints
from stages.train.engine import Optimization, gathered, plan_passes, rank, schedule
from stages.train.flops import TrainedParts
from stages.train.ledger import Step, counts_of
from stages.train.loop import Training
from stages.train.sequences import SequenceBuilder


def begin(backbone: Backbone, config: RefineConfig, *, seed: int) -> Embedder:
    """Return what the engine trains, with gradients on what `config` says."""
    torch.manual_seed(seed)
    return Embedder(backbone, choose_trained(backbone, config), config.loss).train()


def refine_steps(
    root: Embedder,
    split: TrainSplit,
    config: RefineConfig,
    *,
    seed: int,
    milestones: Collection[int],
    checkpoints: Checkpoints | None = None,
) -> Iterator[Step]:
    """Train `root` up to the last milestone; yield every step, on every rank: see `stages.train.loop`.

    Raises RefinementError: there are too few queries, an anchor has no negative, or a sample is over the
    token budget. Raises stages.train.divergence.DivergenceError: too many steps could not be made.
    """
    builder = SequenceBuilder(root.backbone)
    optimization = Optimization(
        learning_rate=config.learning_rate,
        schedule=schedule(config.warmup_steps),
        weight_decay=0.0,
        max_gradient_norm=config.max_gradient_norm,
    )
    training = Training.begin(root, config.engine, optimization, milestones, checkpoints)
    yield from list(training.ledger)
    train_vision = config.trained == "model"
    parts = TrainedParts(
        vision=train_vision,
        lora_rank=config.lora_rank if config.trained == "adapter" else 0,
        lora_targets=config.lora_targets,
    )
    batches = draw_batches(builder, split, config, seed=seed, steps=training.remaining)
    for sequences, rows in training.steps(batches):
        micro_batches = plan_passes(sequences, builder, config.engine, always_an_image=train_vision)
        loss, made = contrastive_step(training.engine, micro_batches, rows)
        counts = counts_of(
            sequences,
            micro_batches,
            root.backbone.model,
            parts,
            label_tokens=rows.anchors[rank()],
            logits=0,
        )
        yield training.record(
            objective="contrastive", loss=loss, made=made, examples=sum(rows.anchors), counts=counts
        )


def trained(root: Embedder) -> tuple[Refinement, dict[str, float]]:
    """Copy what was trained, and what the loss says of its own parameters; every rank calls it."""
    with gathered(root), torch.no_grad():
        return trained_weights(root.model), root.loss.facts(root.loss.values(root.loss_parameters))
