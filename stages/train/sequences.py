"""From samples to model inputs: prompts through the chat template, images through the PIL processor.

Sequences are padded on the left, as the embedding contract says, so that the last position of every row is
the one that is embedded, summarised from, or decoded from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration

from stages.backbone import IMAGE_TOKEN, REPEAT_TEXT, TRANSCRIBE_IMAGE, Backbone

_CONTENT = "\x00content\x00"


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """One row before padding: token ids, where its labels start, and its image if it has one."""

    ids: list[int]
    label_start: int
    """Index of the first token to be predicted; `len(ids)` where nothing is generated."""
    patches: np.ndarray | None = None
    """[patches, channels * patch_size ** 2] float32."""
    grid: tuple[int, int, int] | None = None
    """(frames, rows, columns) of patches."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded rows. `rows` x `length` unless said otherwise."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    """[3, rows, length]: time, row, column (M-RoPE)."""
    labels: torch.Tensor
    """The token to predict *at* each position, -100 where there is none; already shifted by one."""
    pixel_values: torch.Tensor | None
    image_grid_thw: torch.Tensor | None

    def model_inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of `Qwen2_5_VLModel.forward`."""
        inputs = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }
        if self.pixel_values is not None:
            inputs |= {"pixel_values": self.pixel_values, "image_grid_thw": self.image_grid_thw}
        return inputs


class SequenceBuilder:
    """Builds token sequences for one backbone; the only place where prompts are put together."""

    def __init__(self, backbone: Backbone) -> None:
        self.tokenizer = backbone.tokenizer
        self._image_processor = backbone.image_processor
        self._contract = backbone.contract
        self._merge_size = backbone.image_processor.merge_size
        self._image_token = backbone.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self._end_token = backbone.tokenizer.eos_token_id
        self.pad_token = backbone.tokenizer.pad_token_id
        self._frames: dict[str, tuple[list[int], list[int]]] = {}

    def summarize_image(self, image: Image.Image) -> TokenSequence:
        """An image and the one-word-summary prompt: what is embedded."""
        return self._of_image(image, self._contract.image_prompt, answer=None)

    def summarize_text(self, text: str) -> TokenSequence:
        """A text and the one-word-summary prompt: what is embedded."""
        return self._of_text(text, self._contract.text_prompt, answer=None)

    def transcribe_image(self, image: Image.Image, text: str | None) -> TokenSequence:
        """An image, the prompt to transcribe it, and the text to learn (None: to be decoded)."""
        return self._of_image(image, TRANSCRIBE_IMAGE, answer=text)

    def repeat_text(self, text: str) -> TokenSequence:
        """A text, the prompt to repeat it, and the text again."""
        return self._of_text(text, REPEAT_TEXT, answer=text)

    def _of_image(self, image: Image.Image, prompt: str, *, answer: str | None) -> TokenSequence:
        patches, grid = self._patches(image)
        before, after = self._frame(prompt, with_image=True)
        tokens = grid[1] * grid[2] // self._merge_size**2
        ids = before + [self._image_token] * tokens + after
        return self._with_answer(ids, answer, patches=patches, grid=grid)

    def _of_text(self, text: str, prompt: str, *, answer: str | None) -> TokenSequence:
        before, after = self._frame(prompt, with_image=False)
        ids = before + self._text_ids(text) + after
        return self._with_answer(ids, answer)

    def _with_answer(self, ids: list[int], answer: str | None, **image) -> TokenSequence:
        if answer is None:
            return TokenSequence(ids=ids, label_start=len(ids), **image)
        answer_ids = [*self._text_ids(answer), self._end_token]
        return TokenSequence(ids=ids + answer_ids, label_start=len(ids), **image)

    def _text_ids(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return ids[: self._contract.max_text_tokens]

    def _frame(self, prompt: str, *, with_image: bool) -> tuple[list[int], list[int]]:
        """Token ids before and after the content, from the chat template with its generation prompt."""
        if prompt not in self._frames:
            content = (
                [{"type": "image"}, {"type": "text", "text": prompt}] if with_image else _CONTENT + prompt
            )
            rendered = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            before, after = rendered.split(IMAGE_TOKEN if with_image else _CONTENT)
            self._frames[prompt] = tuple(
                self.tokenizer.encode(part, add_special_tokens=False) for part in (before, after)
            )
        return self._frames[prompt]

    def _patches(self, image: Image.Image) -> tuple[np.ndarray, tuple[int, int, int]]:
        features = self._image_processor(images=[image.convert("RGB")], return_tensors="np")
        return features["pixel_values"], tuple(int(side) for side in features["image_grid_thw"][0])

    def collate(self, sequences: Sequence[TokenSequence]) -> Batch:
        """Pad sequences on the left to the longest; see `Batch`."""
        length = max(len(sequence.ids) for sequence in sequences)
        rows = len(sequences)
        input_ids = np.full((rows, length), self.pad_token, dtype=np.int64)
        labels = np.full((rows, length), -100, dtype=np.int64)
        mask = np.zeros((rows, length), dtype=np.int64)
        positions = np.zeros((3, rows, length), dtype=np.int64)
        for row, sequence in enumerate(sequences):
            start = length - len(sequence.ids)
            input_ids[row, start:] = sequence.ids
            mask[row, start:] = 1
            positions[:, row, start:] = self._positions(sequence)
            labels[row, start + sequence.label_start - 1 : -1] = sequence.ids[sequence.label_start :]
        images = [sequence for sequence in sequences if sequence.patches is not None]
        return Batch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(mask),
            position_ids=torch.from_numpy(positions),
            labels=torch.from_numpy(labels),
            pixel_values=torch.from_numpy(np.concatenate([s.patches for s in images])) if images else None,
            image_grid_thw=torch.tensor([s.grid for s in images]) if images else None,
        )

    def _positions(self, sequence: TokenSequence) -> np.ndarray:
        """M-RoPE positions [3, length], as `Qwen2_5_VLModel.get_rope_index` gives them for one image."""
        length = len(sequence.ids)
        if sequence.grid is None:
            return np.broadcast_to(np.arange(length), (3, length))
        rows, columns = (side // self._merge_size for side in sequence.grid[1:])
        begin = sequence.ids.index(self._image_token)
        end = begin + rows * columns
        positions = np.empty((3, length), dtype=np.int64)
        positions[:, :begin] = np.arange(begin)
        positions[0, begin:end] = begin
        positions[1, begin:end] = begin + np.repeat(np.arange(rows), columns)
        positions[2, begin:end] = begin + np.tile(np.arange(columns), rows)
        positions[:, end:] = begin + max(rows, columns) + np.arange(length - end)
        return positions


def embed(backbone: Backbone, batch: Batch) -> torch.Tensor:
    """Return a backbone's embedding of every row; see `embed_with`."""
    return embed_with(backbone.model.model, batch)


def embed_with(base_model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return one L2-normalised vector a row [rows, hidden]: last token, after the final norm.

    `base_model` is the one below the generation class: no logits are computed.
    """
    hidden = base_model(**batch.model_inputs(), use_cache=False).last_hidden_state
    return torch.nn.functional.normalize(hidden[:, -1].float(), dim=-1)


def label_logits(
    model: Qwen2_5_VLForConditionalGeneration, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [labels, vocabulary] (float32) and labels [labels], at label positions, in row order."""
    hidden = model.model(**batch.model_inputs(), use_cache=False).last_hidden_state
    places = batch.labels != -100
    return model.lm_head(hidden[places]).float(), batch.labels[places]
