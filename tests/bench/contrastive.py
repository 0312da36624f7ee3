"""Samples per second of our contrastive step, of sentence-transformers' cached loss, and of the plain style.

    .venv/bin/python -m tests.bench.contrastive [--negatives 1]

Recipe tiny's text-only arm: its base, LoRA, 64 queries and the blocks that answer them. Every variant starts
from texts and ends with an AdamW step. First the gradients are shown to be equal; then the variants take
turns, batch by batch.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from data_prep.queries import read_queries
from data_prep.shards import ShardSource
from stages.backbones.adapters import add_adapter
from stages.backbones.backbone import load_backbone
from stages.refine.gradcache import Embedder, Rows, contrastive_step
from stages.train.config import EngineConfig
from stages.train.engine import Optimization, build_engine, plan_passes, start_process_group
from stages.train.sequences import SequenceBuilder
from tests.bench.contrastive_peers import (
    CONFIG,
    RECIPE,
    Columns,
    by_layer,
    plain_step,
    randomize,
    sentence_transformers_step,
)
from tests.bench.measure import DecoderCalls, Moment, Run, in_turn, sample_documents, show
from tests.integration.test_gradients import recorded
from tests.unit.stages.conftest import relative_difference

OURS = "ours"
CACHED = "ours, GradCache forced"
CACHED_TOKENS = 2_048
"""Budget that cuts a batch into two or three chunks; the recipe's own takes it in one."""
PEER = "sentence-transformers, mini-batch "
PEER_SIZES = (16, 32, 64)
UNCACHED = "sentence-transformers, not cached"
PLAIN = "a forward a column, with logits"
WARM_UP = 2

Step = Callable[[Columns], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--negatives", type=int, default=0, choices=(0, 1))
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batches = draw(WARM_UP + arguments.batches, arguments.negatives)
    for line in compare(batches[0]):
        print(line)
    runs = measure(batches)
    title = f"Contrastive step, batch {CONFIG.batch_size}, {arguments.negatives} mined negatives, "
    title += f"{arguments.threads} threads"
    for ours in (CACHED, OURS):
        show(title, "samples/s", runs, ours)


def draw(count: int, negatives: int) -> list[Columns]:
    """Return batches in which every text stands once, so that nothing is masked: peers mask nothing."""
    prepared = sample_documents()
    source = ShardSource(prepared.train.path, trainable_only=True)
    queries = read_queries(prepared.train_queries.path)
    positions = source.positions_of({key for query in queries for key in query.relevant})
    generator = np.random.default_rng(0)
    batches, batch, seen = [], [], set()
    for number in generator.permutation(len(queries)):
        key = next((key for key in queries[number].relevant if key in positions), None)
        if key is None:
            continue
        row = [queries[number].text, source[positions[key]].text]
        row += [source[int(generator.integers(len(source)))].text for _ in range(negatives)]
        if len({*row}) == len(row) and seen.isdisjoint(row):
            batch.append(row)
            seen.update(row)
        if len(batch) == CONFIG.batch_size:
            batches.append([list(column) for column in zip(*batch, strict=True)])
            batch, seen = [], set()
        if len(batches) == count:
            return batches
    raise ValueError(f"the sample documents have queries for {len(batches)} batches, {count} are needed")


def measure(batches: list[Columns]) -> dict[str, list[Run]]:
    """Return a run a batch after the warm-up; every batch goes to all variants in turn, in rotating order."""
    built = {variant: build()[:2] for variant, build in VARIANTS.items()}
    runs: dict[str, list[Run]] = {variant: [] for variant in VARIANTS}
    for number, variant in in_turn(tuple(VARIANTS), len(batches)):
        step, decoder = built[variant]
        calls = DecoderCalls()
        with decoder.register_forward_pre_hook(calls, with_kwargs=True):
            began = Moment.now()
            step(batches[number])
            took = Moment.now() - began
        if number >= WARM_UP:
            work = len(batches[number][0])
            runs[variant].append(Run(work=work, took=took, **vars(calls)))
    return runs


def compare(batch: Columns) -> Iterator[str]:
    """Say how far each variant's loss and gradient are from those of our one-pass step."""
    loss, gradient = VARIANTS[OURS]()[2](batch)
    for name in (CACHED, f"{PEER}{PEER_SIZES[0]}", UNCACHED, PLAIN):
        other_loss, other = VARIANTS[name]()[2](batch)
        yield (
            f"{name}: loss differs by {abs(other_loss / loss - 1):.1e}, "
            f"gradient by {relative_difference(gradient, other):.1e} (relative)"
        )


def our_step(engine_config: EngineConfig):
    if not torch.distributed.is_initialized():
        start_process_group()
    backbone = load_backbone(RECIPE.backbone.location, RECIPE.backbone)
    builder = SequenceBuilder(backbone)
    model = add_adapter(backbone, CONFIG)
    randomize(model)
    engine = build_engine(
        Embedder(backbone, model, CONFIG.loss).train(),
        engine_config,
        Optimization(
            learning_rate=CONFIG.learning_rate,
            schedule=lambda step: 1.0,
            weight_decay=0.0,
            max_gradient_norm=CONFIG.max_gradient_norm,
        ),
    )

    def step(columns: Columns) -> float:
        sequences = [builder.summarize_text(text) for column in columns for text in column]
        anchors, candidates = len(columns[0]), len(sequences) - len(columns[0])
        rows = Rows(
            anchors=[anchors],
            candidates=[candidates],
            answers=torch.eye(anchors, candidates, dtype=torch.bool),
        )
        loss, _ = contrastive_step(engine, plan_passes(sequences, builder, engine_config), rows)
        return loss

    return step, backbone.family.decoder(backbone.model), functools.partial(our_gradient, engine, step)


def our_gradient(engine, step: Step, columns: Columns) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient, taken when the engine is about to step."""
    with recorded(engine) as gradient:
        loss = step(columns)
    return loss, by_layer(gradient)


VARIANTS: dict[str, Callable[[], tuple[Step, torch.nn.Module, Callable]]] = {
    CACHED: lambda: our_step(replace(CONFIG.engine, text_tokens=CACHED_TOKENS)),
    OURS: lambda: our_step(CONFIG.engine),
    **{f"{PEER}{size}": functools.partial(sentence_transformers_step, size) for size in PEER_SIZES},
    UNCACHED: lambda: sentence_transformers_step(None),
    PLAIN: plain_step,
}
"""What builds a variant's step, the module whose calls count, and what gives a batch's loss and gradient."""


if __name__ == "__main__":
    main()
