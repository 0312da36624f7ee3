"""Late interaction against a loop over tokens."""

import numpy as np
import pytest
import torch

from stages.evaluate.config import SearchConfig
from stages.evaluate.encoding import TaskEncoder
from stages.evaluate.late_interaction import late_interaction
from stages.evaluate.search_task import build_task
from stages.train.batches import collate
from stages.train.forward import hidden_states
from stages.train.sequences import SequenceBuilder


@torch.no_grad()
def test_each_token_of_a_query_takes_its_best_visual_token(backbone, split_folder, queries_folder):
    task = build_task(split_folder, queries_folder, SearchConfig(max_corpus=5, max_queries=4))
    builder, image = SequenceBuilder(backbone), backbone.model.config.image_token_id

    def unit_states(sequence):
        states = hidden_states(backbone.model, collate([sequence], pad_token=0)).last_hidden_state[0].numpy()
        return states / np.linalg.norm(states, axis=1, keepdims=True)

    expected = np.zeros((len(task.queries), len(task.corpus)))
    for row, query in enumerate(task.queries):
        sequence = builder.summarize_text(query.text)
        length = len(backbone.text_tokenizer.encode(query.text, add_special_tokens=False))
        before = next(at for at in range(len(sequence)) if at_content(sequence, at, backbone, query.text))
        asked = unit_states(sequence)[before : before + length]
        for column, page in enumerate(task.corpus):
            prompt = builder.summarize_image(page.image())
            shown = unit_states(prompt)[[token == image for token in prompt.ids]]
            expected[row, column] = sum(max(float(word @ patch) for patch in shown) for word in asked)
    assert late_interaction(TaskEncoder(task, batch_size=3), backbone) == pytest.approx(expected, abs=1e-4)


def at_content(sequence, at, backbone, text):
    ids = backbone.text_tokenizer.encode(text, add_special_tokens=False)
    return sequence.ids[at : at + len(ids)] == ids
