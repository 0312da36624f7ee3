import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import distributed

from data_prep.queries import Query
from data_prep.shards import ShardSource, read_queries
from stages.recipes import EngineConfig, get_recipe
from stages.refine.contrastive import info_nce
from stages.refine.loop import RefinementError, add_adapter, refine
from stages.train.engine import start_process_group
from stages.train.sequences import SequenceBuilder, embed

CONFIG = dataclasses.replace(
    get_recipe("tiny").refine, steps=3, batch_size=6, lora_rank=4, lora_alpha=8, learning_rate=1e-2
)


def _unit(rows: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def test_info_nce_equals_a_hand_computation():
    queries, candidates = _unit(3, 0), _unit(5, 1)
    own = torch.tensor([0, 2, 4])
    same = torch.zeros(3, 5, dtype=torch.bool)
    same[0, 1] = same[0, 0] = True
    logits = queries.double().numpy() @ candidates.double().numpy().T / 0.05
    logits[0, 1] = -np.inf
    expected = sum(logsumexp(logits[row]) - logits[row, column] for row, column in enumerate(own.tolist()))
    got = info_nce(queries, candidates, own=own, same=same, temperature=0.05)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_only_the_decoder_gets_an_adapter(backbone):
    model = add_adapter(backbone, CONFIG)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = backbone.model.config.text_config.num_hidden_layers
    assert len(trainable) == 2 * layers * len(CONFIG.lora_targets)
    assert not any("visual" in name for name in trainable)


def test_a_target_outside_the_decoder_is_refused(backbone):
    with pytest.raises((RefinementError, ValueError)):
        add_adapter(backbone, dataclasses.replace(CONFIG, lora_targets=("qkv",)))


@pytest.fixture(scope="module")
def process_group():
    start_process_group()
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("arm", ["text-only", "multimodal-20"])
def test_refining_changes_the_decoder_only_and_is_repeatable(
    process_group, backbone, split_folder, samples, arm
):
    before = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
    losses: list[float] = []
    refined = refine(
        backbone,
        ShardSource(split_folder),
        read_queries(split_folder),
        CONFIG,
        seed=0,
        arm=arm,
        on_step=lambda step: losses.append(step.loss),
    )
    changed = {n for n, p in refined.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(refined.contract.adapter_keys)
    assert all(".language_model.layers." in name for name in changed)
    assert len(losses) == CONFIG.steps and losses[-1] < losses[0] + 1
    builder = SequenceBuilder(refined)
    with torch.no_grad():
        vector = embed(refined, builder.collate([builder.summarize_image(samples[0].image())]))
    assert torch.isfinite(vector).all()


def test_zero_3_is_refused(backbone, split_folder):
    config = dataclasses.replace(CONFIG, engine=EngineConfig(zero_stage=3))
    with pytest.raises(RefinementError, match="zero_stage"):
        source = ShardSource(split_folder)
        refine(backbone, source, [], config, seed=0, arm="text-only", on_step=lambda step: None)


def test_too_few_queries_are_refused(process_group, backbone, split_folder, samples):
    query = Query(identity="q", text="one query", relevant=(samples[0].key,))
    with pytest.raises(RefinementError, match="too few"):
        refine(
            backbone,
            ShardSource(split_folder),
            [query],
            CONFIG,
            seed=0,
            arm="text-only",
            on_step=lambda step: None,
        )
