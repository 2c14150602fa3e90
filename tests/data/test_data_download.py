from __future__ import annotations

import hashlib

import numpy as np
import pytest

from nelbo.data import Data, download, mirrors
from nelbo.data.download import Remote, RemoteFile, data_root, obtain
from nelbo.errors import DataError

BODY = b"some published bytes"


def remote(*urls: str, body: bytes = BODY) -> Remote:
    return Remote("tiny", (RemoteFile("a.bin", hashlib.sha256(body).hexdigest()),), tuple(urls))


def dead_url() -> str:
    import socket

    with socket.socket() as probe:  # a port that was free a moment ago
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def test_a_good_download_is_kept_and_not_asked_for_again(tmp_path, mirror):
    mirror.answers["/m/a.bin"] = (200, BODY, None)
    for _ in range(2):
        (path,) = obtain(remote(f"{mirror.url}/m/"), tmp_path)
        assert path == tmp_path / "tiny" / "a.bin"
        assert path.read_bytes() == BODY
    assert mirror.asked == ["/m/a.bin"]
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize(
    "bad", [(200, b"other bytes", None), (200, BODY[:5], len(BODY)), (503, b"", None), (404, BODY, None)]
)
def test_a_bad_mirror_is_passed_over(tmp_path, mirror, bad):
    mirror.answers["/bad/a.bin"] = bad
    mirror.answers["/good/a.bin"] = (200, BODY, None)
    (path,) = obtain(remote(f"{mirror.url}/bad/", f"{mirror.url}/good/"), tmp_path)
    assert path.read_bytes() == BODY
    assert mirror.asked == ["/bad/a.bin", "/good/a.bin"]
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_a_dead_mirror_is_passed_over(tmp_path, mirror):
    mirror.answers["/a.bin"] = (200, BODY, None)
    (path,) = obtain(remote(dead_url(), f"{mirror.url}/"), tmp_path)
    assert path.read_bytes() == BODY


def test_when_all_fail_the_message_says_how_to_go_on_and_nothing_is_left(tmp_path, mirror):
    mirror.answers["/wrong/a.bin"] = (200, b"other", None)
    mirror.answers["/cut/a.bin"] = (200, BODY[:5], len(BODY))
    urls = [dead_url(), f"{mirror.url}/none/", f"{mirror.url}/wrong/", f"{mirror.url}/cut/"]
    with pytest.raises(DataError) as raised:
        obtain(remote(*urls), tmp_path / "new")
    message = str(raised.value)
    for part in ("no connection", "HTTP 404", "wrong SHA-256", "transfer cut off", "--data digits"):
        assert part in message
    assert hashlib.sha256(BODY).hexdigest() in message
    assert str(tmp_path / "new" / "tiny") in message
    assert list(tmp_path.iterdir()) == []


def test_a_silent_mirror_times_out(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DataError, match="timed out"):
        obtain(remote(f"http://127.0.0.1:{silent.getsockname()[1]}/"), tmp_path)


def test_the_folder_is_argument_then_variable_then_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NELBO_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "variable"
    monkeypatch.delenv("NELBO_DATA")
    assert data_root().name == "nelbo"


@pytest.fixture
def tiny_mnist(monkeypatch, idx_bytes, mirror):
    """A published set in MNIST's layout, of 6 + 4 images."""
    random = np.random.RandomState(0)
    arrays = []
    for n in (6, 4):
        arrays += [random.randint(0, 256, (n, 28, 28)).astype("u1"), np.arange(n).astype("u1")]
    files = []
    for name, array in zip(mirrors.IDX_FILES, arrays, strict=True):
        published = idx_bytes(array, compress=True)
        mirror.answers[f"/{name}"] = (200, published, None)
        content_md5 = hashlib.md5(idx_bytes(array)).hexdigest()
        files.append(RemoteFile(name, hashlib.sha256(published).hexdigest(), content_md5))
    tiny = Remote("mnist", tuple(files), (f"{mirror.url}/",))
    monkeypatch.setitem(mirrors.REMOTES, "mnist", tiny)
    return arrays


def test_mnist_downloads_and_reads(tmp_path, tiny_mnist):
    splits = Data(source="mnist").load(tmp_path)
    np.testing.assert_array_equal(splits.train.pixels_NCHW[:, 0].numpy(), tiny_mnist[0])
    assert splits.test.labels_N.tolist() == [0, 1, 2, 3]
    assert splits.train.class_names == tuple("0123456789")


def test_files_compressed_anew_or_not_at_all_are_accepted(tmp_path, tiny_mnist, idx_bytes, mirror):
    import gzip

    folder = tmp_path / "mnist"
    folder.mkdir()
    for name, array in zip(mirrors.IDX_FILES, tiny_mnist, strict=True):
        if "labels" in name:
            (folder / name.removesuffix(".gz")).write_bytes(idx_bytes(array))
        else:
            (folder / name).write_bytes(gzip.compress(idx_bytes(array), 9, mtime=1))
    assert len(Data(source="mnist").load(tmp_path).train) == 6
    assert mirror.asked == []


def test_a_present_file_with_other_content_is_refused(tmp_path, tiny_mnist, idx_bytes):
    folder = tmp_path / "mnist"
    folder.mkdir()
    other = folder / mirrors.IDX_FILES[0]
    other.write_bytes(idx_bytes(np.zeros((6, 28, 28), "u1"), compress=True))
    with pytest.raises(DataError, match=r"train-images.*not the published file.*Delete it"):
        Data(source="mnist").load(tmp_path)
    assert other.exists()


def test_every_published_file_has_a_hash_and_a_live_kind_of_mirror():
    for entry in mirrors.REMOTES.values():
        assert all(len(file.sha256) == 64 for file in entry.files)
        assert entry.mirrors
        assert not any("yann.lecun.com" in url for url in entry.mirrors)
        assert all(url.endswith("/") for url in entry.mirrors)
