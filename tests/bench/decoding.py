"""Transcribing passages: tokens a second beside transformers' own `generate`, in the same run.

    python -m tests.bench.decoding --model lco-output [--documents ~/pdfs]

The same passages, model and number of rows at once, greedy, up to the end token, one thread. `generate` gets
the passages by size too and each batch's own limit, so that what differs is how tokens follow one another.
Rounds in turn; medians."""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from data_prep.inspecting import given_documents
from data_prep.reading import read_each
from data_prep.samples import Sample
from pipelines.inspect_model import model_folder
from stages.backbones.backbone import Backbone, load_backbone
from stages.evaluate.decoding import MOST_TOKENS_A_VISUAL_TOKEN, ROOM, greedy_transcriptions
from stages.recipes import get_recipe
from stages.train.sequences import SequenceBuilder
from tests.unit.stages.evaluate.transformers_decoding import answers_of_transformers

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--documents", type=Path, default=Path(get_recipe("tiny").target_documents))
    parser.add_argument("--passages", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = get_recipe("tiny")
    backbone = load_backbone(model_folder(arguments.model), recipe.backbone)
    files, _ = given_documents([arguments.documents])
    samples: list[Sample] = []
    for _, content in read_each(files, recipe.documents.reading, lambda done, label: None, workers=2):
        samples += [one for one in content if isinstance(one, Sample) and one.trainable]
        if len(samples) >= arguments.passages:
            break
    samples, rows = samples[: arguments.passages], recipe.evaluate.batch_size
    ways: dict[str, Callable[[], list[str]]] = {
        "transformers' generate": lambda: by_transformers(backbone, samples, rows),
        "ours": lambda: greedy_transcriptions(backbone, samples, rows),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.process_time()
            texts = way()
            seconds[name].append(time.process_time() - began)
    tokens = sum(len(backbone.tokenizer.encode(text, add_special_tokens=False)) + 1 for text in texts)
    table = Table("", "s", "passages/s", "tokens/s", title=f"{len(samples)} passages, {tokens:,} tokens")
    for name, taken in seconds.items():
        took = statistics.median(taken)
        table.add_row(name, f"{took:.2f}", f"{len(samples) / took:.0f}", f"{tokens / took:,.0f}")
    console = Console(width=100)
    console.print(table)
    slow, fast = (statistics.median(taken) for taken in seconds.values())
    console.print(f"ours: {slow / fast:.2f} times as fast; seconds of each round: {seconds}")


@torch.inference_mode()
def by_transformers(backbone: Backbone, samples: list[Sample], rows: int) -> list[str]:
    builder, written = SequenceBuilder(backbone), []
    order = sorted(samples, key=lambda sample: (sample.width * sample.height, sample.key))
    for start in range(0, len(order), rows):
        prompts = [builder.transcribe_image(one.image(), None) for one in order[start : start + rows]]
        most = max(one.visual_tokens for one in prompts) * MOST_TOKENS_A_VISUAL_TOKEN + ROOM
        answers = answers_of_transformers(backbone, prompts, min(most, backbone.contract.max_text_tokens + 1))
        written += backbone.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return written


if __name__ == "__main__":
    main()
