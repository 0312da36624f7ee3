"""Documents and outputs in a bucket: what one machine computed, another one finds.

Real S3 server, Prefect and MLflow; made-up stages.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.bucket import Bucket, open_bucket
from tests.e2e.conftest import start_lco
from tests.integration.s3_server import ACCESS, SECRET, S3Server, s3_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
ADDRESS = "s3://lco-test/team"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        open_bucket(ADDRESS).client.create_bucket(Bucket="lco-test")
        yield running


@pytest.fixture(scope="module")
def bucket(server: S3Server) -> Bucket:
    return open_bucket(f"{ADDRESS}/out")


def run(machine: Path, server: S3Server) -> str:
    options = ["--documents", f"{ADDRESS}/documents", "--output", f"{ADDRESS}/out", "--doses", "0", "32"]
    command = [sys.executable, "-m", "tests.e2e.small_run", "run", *options, "--seeds", "0"]
    environment = server.environment | {"LCO_OUTPUT": str(machine)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with start_lco(command, environment=environment, **streams) as process:
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said[-3000:]
    return said


def test_a_second_machine_computes_nothing_and_reports_the_same(server, bucket, tmp_path):
    open_bucket(f"{ADDRESS}/documents").write("deep/a.txt", b"trang")
    said = run(tmp_path / "one", server)
    assert "computed" in said and f"{ADDRESS}/out" in said
    commits = [one.key for one in bucket.listed() if one.key.endswith("manifest.json")]
    stages = {key.split("/")[0] for key in commits}
    assert {"pretrain", "refine", "retrieval", "law"} <= stages
    report = bucket.read("report.html")
    assert report == (tmp_path / "one" / "report.html").read_bytes()
    again = run(tmp_path / "two", server)
    assert "computed" not in again and "reused" in again
    assert (tmp_path / "two" / "report.html").read_bytes() == report
    assert [one.key for one in bucket.listed() if one.key.endswith("manifest.json")] == commits
    for machine in ("one", "two"):
        for path in (tmp_path / machine).rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert SECRET.encode() not in content and ACCESS.encode() not in content, path
