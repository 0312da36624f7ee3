"""The model that `lco inspect --model` asks what it reads on the pages."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from data_prep.inspecting import Transcribe, Written
from data_prep.samples import Sample
from infra.settings import Settings
from pipelines.parameters import BadParameter
from stages.backbones.backbone import ContractMismatch, load_backbone
from stages.evaluate.decoding import greedy_transcriptions
from stages.evaluate.generation import character_edits
from stages.recipes import Recipe
from stages.train.sequences import SequenceBuilder


def model_folder(given: Path) -> Path:
    """Return the folder of a model that is named itself, or by the output folder of a run.

    Of a run it is the checkpoint of the target's pages that was committed last: that of the highest dose.
    Raises BadParameter where neither is there.
    """
    if (given / "config.json").is_file():
        return given
    store = Settings.from_environment(output=given).store_folder
    found = []
    for manifest in store.glob("pretrain/*/manifest.json"):
        committed = json.loads(manifest.read_text(encoding="utf-8"))
        if committed["configuration"]["cell"]["pages"] == "target":
            found.append((manifest.stat().st_mtime_ns, manifest))
    if not found:
        raise BadParameter(
            f"model {given}: neither a model's folder (with config.json) nor the output folder of a run that "
            "has pretrained; name one of both"
        )
    return max(found)[1].with_name("model")


def transcriber(folder: Path, recipe: Recipe, wrote: Callable[[int], None]) -> Transcribe:
    """Open the model; return what it writes for images, and tells `wrote` of how many after each batch.

    Raises BadParameter where it cannot be opened.
    """
    config = replace(recipe.backbone, location=str(folder))
    try:
        backbone = load_backbone(folder, config)
    except (ContractMismatch, OSError, ValueError, AttributeError, SafetensorError) as error:
        raise BadParameter(
            f"model {folder} cannot be opened with the settings of recipe {recipe.name}: {error}"
        ) from error
    builder, size = SequenceBuilder(backbone), recipe.evaluate.batch_size

    def transcribe(samples: Sequence[Sample]) -> Sequence[Written]:
        batches = iter(range(0, len(samples), size))

        def on_batch() -> None:
            wrote(min(size, len(samples) - next(batches)))

        texts = greedy_transcriptions(backbone, samples, size, on_batch)
        wanted = [builder.kept_text(sample.text) for sample in samples]
        edits = (edits for edits, _ in character_edits(wanted, texts))
        return [
            Written(text=text, wanted=whole, edits=count)
            for text, whole, count in zip(texts, wanted, edits, strict=True)
        ]

    return transcribe
