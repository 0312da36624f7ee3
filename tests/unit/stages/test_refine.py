import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from data_prep.queries import Query, read_queries
from data_prep.shards import ShardSource
from stages.backbones.adapters import RefinementError, put_weights
from stages.losses import info_nce
from stages.recipes import ARMS, get_recipe
from stages.refine.config import with_changes
from stages.refine.loop import begin, refine_steps, trained
from stages.refine.pairs import Pair, TrainSplit, answers, by_rank, draw_pairs

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


@pytest.fixture
def split(split_folder, queries_folder) -> TrainSplit:
    return TrainSplit(source=ShardSource(split_folder), queries=read_queries(queries_folder))


def trained_with(backbone, split, config=CONFIG, *, milestones=(3,), seed=0) -> list:
    """What was trained at each milestone, what the loss says of itself, and the losses up to there."""
    root = begin(copy.deepcopy(backbone), config, seed=seed)
    found, losses = [], []
    for step in refine_steps(root, split, config, seed=seed, milestones=milestones):
        losses.append(step.loss)
        if step.number in milestones:
            found.append((*trained(root), list(losses)))
    return found


@pytest.mark.parametrize(
    ("name", "changed_parts"),
    [
        ("text-only", {"language_model"}),
        ("multimodal-20", {"language_model"}),
        ("full fine-tuning", {"language_model"}),
        ("CLIP-style", {"language_model", "visual"}),
    ],
)
def test_an_arm_trains_what_it_says_and_again_the_same(process_group, backbone, split, name, changed_parts):
    config = with_changes(CONFIG, {**ARMS[name].changes, "learning_rate": 1e-2})
    passed = trained_with(backbone, split, config, milestones=(1, 3))
    for steps, (refinement, _, _) in zip((1, 3), passed, strict=True):
        [(alone, _, _)] = trained_with(backbone, split, config, milestones=(steps,))
        assert refinement.weights.keys() == alone.weights.keys()
        assert all(torch.equal(refinement.weights[name], value) for name, value in alone.weights.items())
    refinement, _, losses = passed[-1]
    assert len(losses) == 3 and all(map(math.isfinite, losses)) and losses[-1] < losses[0] + 1
    refined, weight_change = put_weights(copy.deepcopy(backbone), refinement)
    before = dict(backbone.model.named_parameters())
    moved = {
        name: float((value.detach().double() - before[name].detach().double()).square().sum())
        for name, value in refined.model.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert {name.split(".")[1] for name in moved} == changed_parts
    assert weight_change == pytest.approx(sum(moved.values()) ** 0.5)
    whole = config.trained != "adapter"
    assert set(refined.contract.adapter_keys) == (set() if whole else set(moved))
    assert whole or all(".language_model.layers." in name for name in moved)


@pytest.mark.parametrize("learned", [False, True])
def test_a_learned_temperature_moves_and_a_fixed_one_stays(process_group, backbone, split, learned):
    config = with_changes(CONFIG, {"loss.learn_temperature": learned})
    [(_, facts, _)] = trained_with(backbone, split, config)
    assert (facts["temperature"] == pytest.approx(CONFIG.loss.temperature, rel=1e-4)) != learned


def test_batches_without_negatives_are_refused(process_group, backbone, split, samples):
    query = Query(identity="q", text="one query", relevant=(samples[0].key,))
    with pytest.raises(RefinementError, match="too few"):
        trained_with(backbone, dataclasses.replace(split, queries=[query]))
    config = dataclasses.replace(CONFIG, same_document_negatives=False)  # all are of one document
    with pytest.raises(RefinementError, match="same_document_negatives"):
        trained_with(backbone, split, config)


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
