"""What belongs to one user of a machine is open to that user only."""

import os
import stat
from pathlib import Path

import pytest

from infra.credential import Credential, NotPrivate
from infra.settings import Settings


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def open_umask():
    """The usual one of a shared group."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def test_a_credential_is_random_new_each_time_and_for_its_owners_eyes_only(tmp_path):
    path = tmp_path / "credential"
    for _ in range(2):
        credential = Credential.new()
        credential.write(path)
        assert path.read_text() == f"{credential.pair}\n" and mode(path) == 0o600
        assert len(credential.password) >= 32 and credential.password not in repr(credential)
    assert Credential.new() != Credential.new()
    assert [one.name for one in tmp_path.iterdir()] == ["credential"]


def test_a_file_that_others_have_put_there_is_replaced_and_not_written_to(tmp_path):
    path, theirs = tmp_path / "credential", tmp_path / "theirs"
    theirs.touch(mode=0o666)
    path.symlink_to(theirs)
    Credential.new().write(path)
    assert not path.is_symlink() and mode(path) == 0o600 and theirs.read_text() == ""


def test_where_no_file_can_be_private_the_credential_is_not_written(tmp_path, monkeypatch):
    """As on FAT, or a mounted folder of another system: every file has the same mode."""

    true = os.fstat

    def status(descriptor):
        known = true(descriptor)
        return os.stat_result((0o100777, *known[1:]))

    monkeypatch.setattr(os, "fstat", status)
    with pytest.raises(NotPrivate, match="keeps no file to its owner: name a folder on another"):
        Credential.new().write(tmp_path / "credential")
    assert list(tmp_path.iterdir()) == []


def test_the_header_is_that_of_basic_authentication():
    # RFC 7617, section 2.
    header = Credential("Aladdin", "open sesame").header
    assert header == {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}


def test_an_output_folder_is_made_for_its_owner_and_so_is_what_is_written_later(tmp_path):
    settings = Settings(output=tmp_path / "new" / "output")
    settings.make_private()
    (settings.output / "runs").mkdir()
    (settings.output / "report.html").touch()
    assert mode(settings.output) == mode(settings.runs) == 0o700
    assert mode(settings.output / "report.html") == 0o600


def test_what_an_earlier_version_left_open_is_closed_and_what_is_not_ours_is_left(tmp_path):
    settings = Settings(output=tmp_path)
    tmp_path.chmod(0o755)
    for name in ("store", "runs", "logs", "prefect", "mlflow-artifacts", "of-the-user"):
        (tmp_path / name).mkdir(mode=0o755)
    for name in ("mlflow.db", "report.html", ".lock", "notes.txt"):
        (tmp_path / name).touch(mode=0o664)
    settings.make_private()
    left = {path.name: mode(path) for path in tmp_path.iterdir() if mode(path) & 0o077}
    assert left == {"of-the-user": 0o755, "notes.txt": 0o664}
    assert mode(tmp_path) == 0o755, "the folder was there before: others may need it"
