"""An output of 1 GiB to a bucket and back, beside plain boto3 with the same bytes, in the same run.

    python -m tests.bench.bucket [--mib 1024]

A SeaweedFS of its own on loopback. Ours: files with checksums of their parts, the commit, and back with every
byte verified against the manifest and synced to disk; boto3: `upload_file` and `download_file` with their
defaults. Rounds in turn."""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.bucket import open_bucket
from infra.mirrored_store import MirroredStore
from infra.store import LocalStore
from tests.integration.s3_server import s3_server

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    size = parser.parse_args().mib * 2**20
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with s3_server(folder / "s3") as server:
            os.environ |= server.environment
            open_bucket("s3://bench").client.create_bucket(Bucket="bench")
            _measure(folder, size)


def _measure(folder: Path, size: int) -> None:
    local = LocalStore(folder / "store")
    with local.attempt("pretrain", "f1") as attempt:
        with (attempt.path / "weights.bin").open("wb") as file:
            for _ in range(size // 2**20):
                file.write(os.urandom(2**20))
        committed = attempt.commit(inputs={}, configuration={}, counts={})
    path = committed.path / "weights.bin"
    seconds: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        bucket = open_bucket(f"s3://bench/{number}")
        plain = f"plain-{number}"
        other = LocalStore(folder / f"other-{number}")
        steps: dict[str, Callable[[], object]] = {
            "ours, there": lambda bucket=bucket: MirroredStore(local, bucket).publish(committed),
            "boto3, there": lambda bucket=bucket, plain=plain: bucket.client.upload_file(
                str(path), "bench", plain
            ),
            "ours, back": lambda bucket=bucket, other=other: MirroredStore(other, bucket).find(
                "pretrain", "f1"
            ),
            "boto3, back": lambda bucket=bucket, plain=plain: bucket.client.download_file(
                "bench", plain, str(folder / "plain")
            ),
        }
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds.setdefault(name, []).append(time.perf_counter() - began)
        bucket.remove("")
        bucket.client.delete_object(Bucket="bench", Key=plain)
        shutil.rmtree(other.root)
        (folder / "plain").unlink()
    table = Table("", "s", "MiB/s", title=f"{size // 2**20:,} MiB")
    for name, taken in seconds.items():
        took = statistics.median(taken)
        table.add_row(name, f"{took:.1f}", f"{size / 2**20 / took:,.0f}")
    console = Console(width=100)
    console.print(table)
    for way in ("there", "back"):
        ratios = [
            plain / ours
            for ours, plain in zip(seconds[f"ours, {way}"], seconds[f"boto3, {way}"], strict=True)
        ]
        console.print(f"{way}: {statistics.median(ratios):.2f} times boto3 (goal 0.9); each: {ratios}")


if __name__ == "__main__":
    main()
