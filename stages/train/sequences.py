"""From samples to token sequences: prompts through the chat template, images through the PIL processor.

Text is cut to its limit before it is put beside an image, so that a cut never goes through an image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from stages.backbones.backbone import REPEAT_TEXT, TRANSCRIBE_IMAGE, Backbone

_CONTENT = "\x00content\x00"


@dataclass(frozen=True, kw_only=True)
class TokenSequence:
    """One sequence before it is batched: token ids, where its labels start, and its image if it has one."""

    ids: list[int]
    label_start: int
    """Index of the first token to be predicted; `len(ids)` where nothing is generated."""
    positions: np.ndarray
    """[axes, len(ids)], as many axes as the family's rotations have (M-RoPE: time, row, column)."""
    content: range = range(0)
    """Places of the image's visual tokens, or of the text's, between the parts of the prompt."""
    patches: np.ndarray | None = None
    """[patches, channels * patch_size ** 2] float32."""
    grid: tuple[int, int, int] | None = None
    """(frames, rows, columns) of patches."""
    visual_tokens: int = 0
    """How many of `ids` stand for the image: its patches after the merger."""

    def __len__(self) -> int:
        return len(self.ids)


class SequenceBuilder:
    """Builds token sequences for one backbone; the only place where prompts are put together."""

    def __init__(self, backbone: Backbone) -> None:
        self.tokenizer = backbone.tokenizer
        self._text_tokenizer = backbone.text_tokenizer
        self._image_processor = backbone.image_processor
        self._contract = backbone.contract
        self._family = backbone.family
        self._image_token = backbone.tokenizer.convert_tokens_to_ids(self._family.IMAGE_TOKEN)
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

    def kept_text(self, text: str) -> str:
        """The beginning of a text that a sequence holds: its first `max_text_tokens` tokens.

        What is not predicted must not count where nats are divided by bytes, or errors by characters.
        """
        limit = self._contract.max_text_tokens
        encoded = self._text_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoded["offset_mapping"]]
        return text if len(ends) <= limit else text[: ends[limit - 1]]

    def filler(self, *, with_image: bool) -> TokenSequence:
        """The smallest sequence there is, with nothing to learn: for a rank that has no such input."""
        side = self._contract.pixel_multiple
        return self.summarize_image(Image.new("L", (side, side))) if with_image else self.summarize_text("")

    def _of_image(self, image: Image.Image, prompt: str, *, answer: str | None) -> TokenSequence:
        patches, grid, tokens = self._family.image_inputs(self._image_processor, image)
        before, after = self._frame(prompt, with_image=True)
        ids = before + [self._image_token] * tokens + after
        content = range(len(before), len(before) + tokens)
        return self._with_answer(
            ids, answer, content=content, patches=patches, grid=grid, visual_tokens=tokens
        )

    def _of_text(self, text: str, prompt: str, *, answer: str | None) -> TokenSequence:
        before, after = self._frame(prompt, with_image=False)
        text_ids = self._text_ids(text)
        content = range(len(before), len(before) + len(text_ids))
        return self._with_answer(before + text_ids + after, answer, content=content)

    def _with_answer(
        self, ids: list[int], answer: str | None, *, content: range, **image: Any
    ) -> TokenSequence:
        answer_ids = [] if answer is None else [*self._text_ids(answer), self._end_token]
        length = len(ids) + len(answer_ids)
        positions = self._family.positions(self._image_processor, length, content.start, image.get("grid"))
        return TokenSequence(
            ids=ids + answer_ids, label_start=len(ids), positions=positions, content=content, **image
        )

    def _text_ids(self, text: str) -> list[int]:
        ids = self._text_tokenizer.encode(text, add_special_tokens=False)
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
            before, after = rendered.split(self._family.IMAGE_TOKEN if with_image else _CONTENT)
            self._frames[prompt] = tuple(
                self.tokenizer.encode(part, add_special_tokens=False) for part in (before, after)
            )
        return self._frames[prompt]
