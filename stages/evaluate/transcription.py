"""What a checkpoint writes for every page that is searched, and for some of the base language's.

    python -m stages.evaluate.transcription JOB.json

Committed once a checkpoint: generation quality and retrieval both read it. A page without a text layer is
transcribed too.
"""

import json
import sys
from pathlib import Path

from data_prep.shards import ShardSource
from stages.backbones.adapters import open_model
from stages.evaluate.config import TranscriptionSettings
from stages.evaluate.decoding import greedy_transcriptions
from stages.evaluate.search_task import choose
from stages.program import Input, read_job

TRANSCRIPTIONS = "transcription.json"


def main(job_path: Path) -> None:
    """Transcribe and commit this worker's cells of the job."""
    job = read_job(job_path, TranscriptionSettings)
    settings = job.settings
    counts = {
        "target_test": settings.test_samples,
        "target_validation": settings.validation_samples,
        "base_test": settings.base_samples,
    }
    samples = {
        # Only of the target's pages those without text are searched too.
        split: choose(ShardSource(job.inputs[split].path, trainable_only=split == "base_test"), count)
        for split, count in counts.items()
    }
    for task, progress in job.cells("transcribing", parts=len(samples)):
        backbone, written = open_model(task.inputs, settings.backbone), {}
        for split, chosen in samples.items():
            progress.report(len(written))
            texts = greedy_transcriptions(backbone, chosen, settings.batch_size, progress.alive)
            written[split] = dict(zip((one.key for one in chosen), texts, strict=True))
        job.commit(task, {TRANSCRIPTIONS: written}, counts={name: len(of) for name, of in written.items()})


def read_transcriptions(output: Input, split: str) -> dict[str, str]:
    """Return what was written for each sample of a split, by key."""
    return json.loads((output.path / TRANSCRIPTIONS).read_text(encoding="utf-8"))[split]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
