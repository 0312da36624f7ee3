"""How well a checkpoint writes held-out pages: nats per byte, token accuracy, character error rate.

    python -m stages.evaluate.generation JOB.json

Measured on the target language and on the base language (forgetting). Nats per *byte*, so that languages and
tokenizers can be compared.
"""

import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from rapidfuzz.distance import Levenshtein

from data_prep.samples import Sample
from data_prep.shards import ShardSource
from stages.backbones.adapters import open_model
from stages.backbones.backbone import Backbone
from stages.evaluate.config import GenerationSettings
from stages.evaluate.search_task import choose
from stages.evaluate.transcription import read_transcriptions
from stages.program import read_job
from stages.train.batches import IGNORED_LABEL, collate
from stages.train.forward import label_logits
from stages.train.sequences import SequenceBuilder

CORPORA = {"target": "target_test", "base": "base_test"}
SHOWN_EXAMPLES = 12


def main(job_path: Path) -> None:
    """Measure and commit this worker's cells of the job."""
    job = read_job(job_path, GenerationSettings)
    count = job.settings.generation.samples
    samples = {
        corpus: choose(ShardSource(job.inputs[name].path, trainable_only=True), count)
        for corpus, name in CORPORA.items()
    }
    for task, progress in job.cells("reading with the true text", parts=len(samples)):
        backbone = open_model(task.inputs, job.settings.backbone)
        corpora = {}
        for corpus, chosen in samples.items():
            progress.report(len(corpora))
            written = read_transcriptions(task.inputs["transcription"], CORPORA[corpus])
            corpora[corpus] = measure_generation(
                backbone, chosen, written, job.settings.batch_size, progress.alive
            )
        job.commit(task, {"generation.json": {"corpora": corpora}})


def measure_generation(
    backbone: Backbone,
    samples: Sequence[Sample],
    written: Mapping[str, str],
    batch_size: int,
    on_batch: Callable[[], None] = lambda: None,
) -> dict:
    """Return one corpus's entry of generation.json. `on_batch` is called after each batch.

    `written`: transcriptions by key; samples without one have no character error rate. Raises ValueError
    where none has one.
    """
    read = teacher_forced(backbone, samples, batch_size, on_batch)
    builder = SequenceBuilder(backbone)
    texts = [builder.kept_text(sample.text) for sample in samples]
    byte_counts = [len(text.encode()) for text in texts]
    shown = [sample for sample in samples if sample.key in written]
    references = [text for sample, text in zip(samples, texts, strict=True) if sample.key in written]
    if not shown:
        raise ValueError(
            f"none of {len(samples)} samples with text was transcribed, of {len(written)} that were: too few "
            "pages have text; add such documents, or transcribe more (max_corpus, decoded_samples)"
        )
    decoded = [written[sample.key] for sample in shown]
    edits = character_edits(references, decoded)
    return {
        "nats_per_byte": sum(one["nats"] for one in read) / sum(byte_counts),
        "token_accuracy": sum(one["correct"] for one in read) / sum(one["tokens"] for one in read),
        "character_error_rate": sum(wrong for wrong, _ in edits) / sum(length for _, length in edits),
        "per_block": [
            {"key": sample.key, "bytes": count, **one}
            for sample, count, one in zip(samples, byte_counts, read, strict=True)
        ],
        "per_decoded_block": [
            {"key": sample.key, "edits": wrong, "characters": length}
            for sample, (wrong, length) in zip(shown, edits, strict=True)
        ],
        "examples": [
            {"key": sample.key, "text": reference, "decoded": text}
            for sample, reference, text in zip(shown, references, decoded, strict=True)
        ][:SHOWN_EXAMPLES],
    }


@torch.no_grad()
def teacher_forced(
    backbone: Backbone,
    samples: Sequence[Sample],
    batch_size: int,
    on_batch: Callable[[], None] = lambda: None,
) -> list[dict[str, float]]:
    """Return how well each sample's text is predicted from its image, token by token.

    By sample: its negative log-likelihood in `nats`, the number of its `tokens`, how many are `correct`.
    Raises ValueError for a likelihood that is not finite.
    """
    builder = SequenceBuilder(backbone)
    read: dict[str, dict[str, float]] = {}
    for rows in _by_length(samples, batch_size):
        sequences = [builder.transcribe_image(sample.image(), sample.text) for sample in rows]
        batch = collate(sequences, pad_token=builder.pad_token)
        logits, labels = label_logits(backbone.model, batch)
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
        right = (logits.argmax(dim=-1) == labels).double()
        row_of_label = (batch.labels != IGNORED_LABEL).nonzero()[:, 0]
        values = torch.stack([losses, torch.ones_like(losses), right], dim=1)
        per_row = torch.zeros(len(rows), 3, dtype=torch.float64).index_add_(0, row_of_label, values)
        if not bool(per_row.isfinite().all()):
            raise ValueError("log-likelihoods hold NaN or infinity: the model is broken; look at its loss")
        for sample, (nats, tokens, correct) in zip(rows, per_row.tolist(), strict=True):
            read[sample.key] = {"nats": nats, "tokens": int(tokens), "correct": int(correct)}
        on_batch()
    return [read[sample.key] for sample in samples]


def character_edits(references: Sequence[str], written: Sequence[str]) -> list[tuple[int, int]]:
    """Edit distance and length of each reference, both NFC; a rambling model needs more edits than length."""
    wanted, found = ([unicodedata.normalize("NFC", text) for text in side] for side in (references, written))
    return [(Levenshtein.distance(*pair), len(pair[0])) for pair in zip(wanted, found, strict=True)]


def _by_length(samples: Sequence[Sample], batch_size: int) -> list[list[Sample]]:
    ordered = sorted(samples, key=lambda sample: (len(sample.text), sample.key))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
