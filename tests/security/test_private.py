"""What belongs to one user of a machine is open to that user only."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.credential import Credential, CredentialError, read_credential
from infra.settings import Settings, SettingsError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def open_umask():
    """The usual one of a shared group."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def test_a_credential_is_random_kept_and_for_its_owner_only(tmp_path):
    path = tmp_path / "new" / "credential"
    credential = read_credential(path)
    assert mode(path) == 0o600
    assert read_credential(path) == credential
    assert len(credential.password) >= 32 and credential.password not in repr(credential)
    assert read_credential(tmp_path / "other").password != credential.password
    assert [one.name for one in path.parent.iterdir()] == ["credential"]


def test_processes_that_start_at_once_agree_on_the_credential(tmp_path):
    path = tmp_path / "credential"
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: read_credential(path), range(64)))
    assert found == {read_credential(path)}


@pytest.mark.parametrize("open_mode", [0o640, 0o604, 0o620, 0o666])
def test_a_credential_that_others_can_read_or_write_is_refused(tmp_path, open_mode):
    settings = Settings(output=tmp_path)
    _ = settings.credential
    settings.credential_path.chmod(open_mode)
    with pytest.raises(SettingsError, match=r"credential is open to other users.*: delete it"):
        _ = settings.credential


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_credential_that_somebody_else_has_written_is_refused(tmp_path):
    path = tmp_path / "credential"
    path.write_text("lco:chosen by another user")
    path.chmod(0o600)
    os.chown(path, 65534, 65534)
    with pytest.raises(CredentialError, match="open to other users"):
        read_credential(path)


@pytest.mark.parametrize("content", ["", "lco", "lco:", ":password", "\n"])
def test_a_damaged_credential_is_refused(tmp_path, content):
    path = tmp_path / "credential"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(CredentialError, match="does not hold user:password: delete it"):
        read_credential(path)


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
