import copy
import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from data_prep.queries import Query
from data_prep.shards import ShardSource, read_queries
from stages.backbones.adapters import (
    Refined,
    Refinement,
    RefinementError,
    add_adapter,
    open_refinement,
    put_weights,
    soup,
)
from stages.losses import info_nce
from stages.recipes import ARMS, get_recipe
from stages.refine.config import RefineConfig, with_changes
from stages.refine.loop import begin, refine_steps, trained
from stages.refine.pairs import Pair, TrainSplit, answers, by_rank, draw_pairs
from stages.train.batches import collate
from stages.train.forward import embed, probe_of
from stages.train.sequences import SequenceBuilder

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
    got = info_nce(queries, candidates, own=own, same=same, temperature=torch.tensor([0.05]))
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    refinement: Refinement
    temperature: float
    losses: list[float]


def trained_with(
    backbone, split_folder, config=CONFIG, *, queries=None, seed=0, milestones=(CONFIG.steps,)
) -> list[Trained]:
    """What was trained, at each milestone."""
    split = TrainSplit(source=ShardSource(split_folder), queries=queries or read_queries(split_folder))
    root = begin(copy.deepcopy(backbone), config, seed=seed)
    found, losses = [], []
    for step in refine_steps(root, split, config, seed=seed, milestones=milestones):
        losses.append(step.loss)
        if step.number in milestones:
            refinement, facts = trained(root)
            found.append(Trained(refinement=refinement, temperature=facts["temperature"], losses=losses))
    assert len(losses) == max(milestones)
    return found


def refined_with(backbone, split_folder, config=CONFIG, **options) -> Refined:
    [learned] = trained_with(backbone, split_folder, config, **options)
    source = ShardSource(split_folder)
    probe = probe_of([source[position] for position in range(len(source))])
    return put_weights(copy.deepcopy(backbone), learned.refinement, probe)


def arm(name: str, **changes) -> RefineConfig:
    return with_changes(CONFIG, {**ARMS[name].changes, **changes})


@pytest.mark.parametrize("name", ["text-only", "multimodal-20"])
def test_refining_changes_the_decoder_only_and_is_repeatable(
    process_group, backbone, split_folder, samples, name
):
    [learned] = trained_with(backbone, split_folder, arm(name))
    refined = put_weights(copy.deepcopy(backbone), learned.refinement)
    before = dict(backbone.model.named_parameters())
    after = dict(refined.backbone.model.named_parameters())
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == set(refined.backbone.contract.adapter_keys)
    assert all(".language_model.layers." in name for name in changed)
    assert learned.losses[-1] < learned.losses[0] + 1
    again = dict(refined_with(backbone, split_folder, arm(name)).backbone.model.named_parameters())
    assert all(torch.equal(after[parameter], again[parameter]) for parameter in after)
    builder = SequenceBuilder(refined.backbone)
    batch = collate([builder.summarize_image(samples[0].image())], pad_token=builder.pad_token)
    with torch.no_grad():
        assert torch.isfinite(embed(refined.backbone, batch)).all()


@pytest.mark.parametrize(
    ("name", "changed_parts"),
    [("full fine-tuning", {"language_model"}), ("CLIP-style", {"language_model", "visual"})],
)
def test_whole_weights_are_trained_where_the_arm_says_so(
    process_group, backbone, split_folder, name, changed_parts
):
    config = arm(name, learning_rate=1e-3)
    refined = refined_with(backbone, split_folder, config, milestones=(2,))
    before = dict(backbone.model.named_parameters())
    after = dict(refined.backbone.model.named_parameters())
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name.split(".")[1] for name in changed} == changed_parts
    change = sum(
        float((after[name].detach().double() - before[name].detach().double()).square().sum())
        for name in after
    )
    assert refined.weight_change == pytest.approx(change**0.5)
    assert refined.backbone.contract.adapter_keys == ()
    unknown = Refinement(weights={"model.nothing": torch.zeros(1)}, lora=None)
    with pytest.raises(RefinementError, match="it has no model"):
        put_weights(copy.deepcopy(backbone), unknown)


def test_a_training_that_passes_its_milestones_equals_one_for_each(process_group, backbone, split_folder):
    passed = trained_with(backbone, split_folder, milestones=(1, 3))
    for steps, learned in zip((1, 3), passed, strict=True):
        [alone] = trained_with(backbone, split_folder, milestones=(steps,))
        weights = learned.refinement.weights
        assert weights.keys() == alone.refinement.weights.keys()
        assert all(torch.equal(weights[name], value) for name, value in alone.refinement.weights.items())


def test_the_weight_change_is_that_of_the_merged_weights(process_group, backbone, split_folder):
    refined = refined_with(backbone, split_folder)
    before = dict(backbone.model.named_parameters())
    change = sum(
        float((after.double() - before[name].double()).square().sum())
        for name, after in refined.backbone.model.named_parameters()
    )
    assert change > 0 and refined.weight_change == pytest.approx(change**0.5)


def test_a_soup_is_the_mean_of_the_merged_weights(process_group, backbone, split_folder, tmp_path):
    adapters = [trained_with(backbone, split_folder, seed=seed)[0].refinement for seed in (0, 1)]
    soup(adapters).save(tmp_path)
    models = [
        put_weights(copy.deepcopy(backbone), part).backbone for part in (*adapters, open_refinement(tmp_path))
    ]
    assert models[2].contract == models[0].contract
    one, two, mixed = (dict(model.model.named_parameters()) for model in models)
    for name in models[2].contract.adapter_keys:
        assert not torch.equal(one[name], two[name])
        assert torch.allclose(mixed[name].double(), (one[name].double() + two[name].double()) / 2, atol=1e-6)


def test_an_adapter_of_another_shape_is_refused(process_group, backbone, split_folder):
    [learned] = trained_with(backbone, split_folder)
    weights = {
        name.replace("layers.0", "layers.7"): value for name, value in learned.refinement.weights.items()
    }
    with pytest.raises(RefinementError, match="does not fit"):
        put_weights(backbone, dataclasses.replace(learned.refinement, weights=weights))


def test_a_learned_temperature_moves_and_a_fixed_one_stays(process_group, backbone, split_folder):
    [fixed] = trained_with(backbone, split_folder)
    [learned] = trained_with(backbone, split_folder, with_changes(CONFIG, {"loss.learn_temperature": True}))
    assert fixed.temperature == pytest.approx(CONFIG.loss.temperature)
    assert learned.temperature != pytest.approx(CONFIG.loss.temperature, rel=1e-3)


def test_too_few_queries_are_refused(process_group, backbone, split_folder, samples):
    query = Query(identity="q", text="one query", relevant=(samples[0].key,))
    with pytest.raises(RefinementError, match="too few"):
        trained_with(backbone, split_folder, queries=[query])


def test_a_batch_of_one_document_has_no_negatives(process_group, backbone, split_folder):
    config = dataclasses.replace(CONFIG, same_document_negatives=False)
    with pytest.raises(RefinementError, match="same_document_negatives"):
        trained_with(backbone, split_folder, config)


# Documents, texts and images by one letter each.
FACTS = {"p": "a1x", "copy": "b1y", "scan": "b2x", "same": "a3z", "other": "c4w"}


class Entries:
    """A source of index entries only."""

    def entry(self, position):
        document, text, image = list(FACTS.values())[position]
        return {"document_digest": document, "text_digest": text, "image_digest": image}


@pytest.mark.parametrize("same_document_negatives", [False, True])
def test_answers_are_masked_and_nothing_else(same_document_negatives):
    positions = {key: number for number, key in enumerate(FACTS)}
    anchor = Pair(
        query=Query(identity="q", text="q", relevant=("p", "late")), key="p", negatives=(), as_image=False
    )
    far = Pair(
        query=Query(identity="r", text="r", relevant=("other",)),
        key="other",
        negatives=("copy", "scan", "same", "p"),
        as_image=False,
    )
    found = answers([[anchor], [far]], Entries(), positions, same_document_negatives=same_document_negatives)
    # Columns: p | other, copy (same text), scan (same image), same (same document), p again.
    assert found[0].tolist() == [True, False, True, True, not same_document_negatives, True]
    assert found[1].tolist() == [False, True, False, False, False, False]


def test_pairs_are_a_pure_function_and_deal_out_without_loss():
    queries = [Query(identity=f"q{n}", text="t", relevant=(f"k{n}", f"m{n}")) for n in range(7)]
    positions = {f"k{n}": n for n in range(7)} | {f"m{n}": n for n in range(3)}
    drawn = draw_pairs(queries, positions, {"q2": ("k5", "k6")}, image_rows=2, seed=3, step=4)
    assert drawn == draw_pairs(queries, positions, {"q2": ("k5", "k6")}, image_rows=2, seed=3, step=4)
    assert sorted(pair.query.identity for pair in drawn) == sorted(query.identity for query in queries)
    assert all(pair.key in pair.query.relevant and pair.key in positions for pair in drawn)
    assert [pair.as_image for pair in drawn] == [True] * 2 + [False] * 5
    [mined] = [pair for pair in drawn if pair.negatives]
    assert mined.query.identity == "q2"
    dealt = by_rank(drawn, 3)
    assert [len(pairs) for pairs in dealt] == [3, 2, 2]
    assert sorted(pair.key for pairs in dealt for pair in pairs) == sorted(pair.key for pair in drawn)
