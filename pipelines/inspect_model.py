"""The model that `lco inspect --model` asks what it reads on the pages."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.inspecting import Transcribe
from data_prep.samples import Sample
from pipelines.parameters import BadParameter
from stages.backbones.backbone import ContractMismatch, load_backbone
from stages.evaluate.decoding import greedy_transcriptions
from stages.recipes import Recipe


def model_folder(given: Path) -> Path:
    """Return the folder of a model that is named itself, or by the output folder of a run.

    Of a run it is the checkpoint of the target's pages with the most examples, of several the newest. Raises
    BadParameter where neither is there.
    """
    if (given / "config.json").is_file():
        return given
    found = []
    for manifest in sorted(given.glob("store/pretrain/*/manifest.json")):
        committed = json.loads(manifest.read_text(encoding="utf-8"))
        if committed["configuration"]["cell"]["pages"] == "target":
            found.append((committed["counts"]["examples"], manifest.stat().st_mtime_ns, manifest))
    if not found:
        raise BadParameter(
            f"model {given}: neither a model's folder (with config.json) nor the output folder of a run that "
            "has pretrained; name one of both"
        )
    return max(found)[2].with_name("model")


def transcriber(folder: Path, recipe: Recipe, wrote: Callable[[int], None]) -> Transcribe:
    """Open the model; return what it writes for images, and tells `wrote` of how many after each batch.

    Raises BadParameter where it cannot be opened.
    """
    config = replace(recipe.backbone, location=str(folder))
    try:
        backbone = load_backbone(folder, config)
    except (ContractMismatch, OSError) as error:
        raise BadParameter(f"model {folder} does not fit recipe {recipe.name}: {error}") from error

    def transcribe(samples: Sequence[Sample]) -> Sequence[str]:
        size = recipe.evaluate.batch_size
        batches = iter(range(0, len(samples), size))

        def on_batch() -> None:
            wrote(min(size, len(samples) - next(batches)))

        return greedy_transcriptions(backbone, samples, size, on_batch)

    return transcribe
