"""What a checkpoint writes for page images, token by token: greedy decoding with keys and values kept.

Not transformers' `generate`: that applies what a published model's generation_config.json says (sampling,
penalties), computes rows that have ended to the end of the longest, and copies all keys and values at every
token.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from data_prep.samples import Sample
from stages.backbones.backbone import Backbone
from stages.train.batches import collate
from stages.train.forward import hidden_states
from stages.train.sequences import SequenceBuilder, TokenSequence

MOST_TOKENS_A_VISUAL_TOKEN = 4
"""Tokens that are written for an image, at most, by visual token: a passage has about 1.2 characters for
each, of up to three tokens where the tokenizer spells a script in bytes, and a model that cannot read may
write for ever."""
ROOM = 8
"""Tokens beyond that: the end token, and a few for the smallest images."""
FEWEST_ENDED = 0.25
"""Share of a batch's rows that have ended before they are taken out: taking out copies the others."""


def greedy_transcriptions(
    backbone: Backbone,
    samples: Sequence[Sample],
    batch_size: int,
    on_batch: Callable[[], None] = lambda: None,
) -> list[str]:
    """Return what the model writes for each image, always its likeliest next token, up to the end token.

    `on_batch` is called after each batch: rows of similar size.
    """
    builder = SequenceBuilder(backbone)
    written: list[str] = [""] * len(samples)
    order = sorted(range(len(samples)), key=lambda row: (samples[row].width * samples[row].height, row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        prompts = [builder.transcribe_image(samples[row].image(), None) for row in rows]
        most = backbone.contract.max_text_tokens + 1
        limits = [min(one.visual_tokens * MOST_TOKENS_A_VISUAL_TOKEN + ROOM, most) for one in prompts]
        answers = greedy_answers(backbone, prompts, limits)
        texts = backbone.tokenizer.batch_decode(answers, skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            written[row] = text
        on_batch()
    return written


@torch.inference_mode()
def greedy_answers(
    backbone: Backbone, prompts: Sequence[TokenSequence], limits: Sequence[int]
) -> list[list[int]]:
    """Return the tokens after each prompt, up to its end token, which is not returned, or to its limit."""
    model, head, end = backbone.model, backbone.family.head(backbone.model), backbone.tokenizer.eos_token_id
    batch = collate(prompts, pad_token=backbone.tokenizer.pad_token_id)
    cache = _RoomyCache(backbone.shape.layers, batch.input_ids.shape[1] + max(limits))
    states = hidden_states(model, batch, use_cache=True, past_key_values=cache).last_hidden_state[:, -1]
    places = batch.position_ids[:, :, -1]
    mask = None if bool(batch.attention_mask.all()) else batch.attention_mask
    rows, answers, ended = list(range(len(prompts))), [[] for _ in prompts], [False] * len(prompts)
    while True:
        tokens = head(states).argmax(dim=-1)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not ended[row] and token != end:
                answers[row].append(token)
            ended[row] = ended[row] or token == end or len(answers[row]) == limits[row]
        going = [place for place, row in enumerate(rows) if not ended[row]]
        if not going:
            break
        if len(going) < (1 - FEWEST_ENDED) * len(rows):
            rows, tokens, places = [rows[place] for place in going], tokens[going], places[:, going]
            mask = None if mask is None else mask[going]
            cache.keep(going)
        mask = None if mask is None else torch.nn.functional.pad(mask, (0, 1), value=1)
        places = places + 1
        states = backbone.family.continued(model, tokens[:, None], places, cache, mask)[:, -1]
    return answers


class _RoomyCache(DynamicCache):
    """Keys and values of all layers in memory that has `room` for all tokens from the start."""

    def __init__(self, layers: int, room: int) -> None:
        super().__init__()
        self.layers = [_RoomyLayer(room) for _ in range(layers)]

    def keep(self, rows: Sequence[int]) -> None:
        """Forget the other rows."""
        for layer in self.layers:
            layer.keep(rows)


class _RoomyLayer(DynamicLayer):
    def __init__(self, room: int) -> None:
        super().__init__()
        self._room, self._both = room, None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append; return all keys and values [rows, heads, tokens, width]."""
        if self._both is None:
            rows, heads, _, width = key_states.shape
            self._both = key_states.new_empty(2, rows, heads, self._room, width)
            self.is_initialized, begin = True, 0
        else:
            begin = self.keys.shape[-2]
        self._show(begin + key_states.shape[-2])
        self.keys[..., begin:, :], self.values[..., begin:, :] = key_states, value_states
        return self.keys, self.values

    def keep(self, rows: Sequence[int]) -> None:
        self._both = self._both[:, rows]
        self._show(self.keys.shape[-2])

    def _show(self, tokens: int) -> None:
        self.keys, self.values = self._both[..., :tokens, :]
