"""Folders that are decoded into a file: whole or not at all, going on after a kill, on all cores."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.data import Data, decode, filelist, folder, ondisk
from nelbo.data.cache import cache_path
from nelbo.data.folder import load_folder
from nelbo.data.imagefile import Decoding
from nelbo.data.ondisk import OnDisk
from nelbo.errors import DataError

N = 150  # files: several blocks


@pytest.fixture
def large(monkeypatch):
    """Every folder is large, and so is every selection."""
    monkeypatch.setattr(ondisk, "THRESHOLD", 0)
    monkeypatch.setattr(ondisk, "RESIDENT", 0)


@pytest.fixture
def pictures(tmp_path, write_image):
    """150 files in two classes; the first pixel of file i is i."""
    for i in range(N):
        write_image(tmp_path / "in" / ("a" if i < 100 else "b") / f"{i:03}.png", mode="RGB", value=i)
    return tmp_path / "in"


def entries(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "folders").iterdir())


def test_a_large_folder_is_read_from_its_file(tmp_path, monkeypatch, pictures):
    resident = Data(source=str(pictures), validation=20).load()
    (path,) = (tmp_path / "cache" / "folders").iterdir()
    content = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(ondisk, "THRESHOLD", 0)
    monkeypatch.setattr(ondisk, "RESIDENT", 0)
    large = Data(source=str(pictures), validation=20).load()
    assert isinstance(large.train.pixels, OnDisk)
    assert resident.notes == ()
    assert large.notes[0].partition("disk, ")[2] == f"decoded, once for all runs, into {path}"
    assert large.hash == resident.hash
    assert torch.equal(large.train.pixels_NCHW, resident.train.pixels_NCHW)
    assert torch.equal(large.validation.labels_N, resident.validation.labels_N)
    assert path.read_bytes() == content  # the same file, whichever way it was written
    assert entries(tmp_path) == [path.name]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(folder, "decode_folder", refuse)
    monkeypatch.setattr(filelist, "read_headers", refuse)
    again = Data(source=str(pictures), validation=20).load()
    assert again.hash == resident.hash
    assert again.notes[0].endswith(f"disk, decoded earlier into {path}")


def test_a_killed_decoding_leaves_no_cache_and_goes_on(tmp_path, monkeypatch, large, pictures):
    program = """
        import os, signal, sys
        from pathlib import Path
        from nelbo.data import folder, ondisk

        def killed(*arguments, **more):
            for number, block in enumerate(decoded(*arguments, **more)):
                if number == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield block

        decoded, folder.decode_folder, ondisk.THRESHOLD = folder.decode_folder, killed, 0
        folder.load_folder(Path(sys.argv[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (part,) = entries(tmp_path)
    assert part.startswith(".")
    assert part.endswith(".part")
    with (tmp_path / "cache" / "folders" / part).open("ab") as stream:
        stream.write(b"half a row")
    asked = []

    def noticed(where, files, *arguments):
        asked.extend(files)
        return decode.decode_folder(where, files, *arguments)

    monkeypatch.setattr(folder, "decode_folder", noticed)
    images = load_folder(pictures).train
    assert images.pixels_NCHW[:, 0, 0, 0].tolist() == list(range(N))
    assert len(asked) == N - 2 * decode.BLOCK
    assert not any(name.startswith(".") for name in entries(tmp_path))


def test_a_part_of_something_else_is_begun_anew(tmp_path, large, pictures):
    load_folder(pictures)
    (path,) = (tmp_path / "cache" / "folders").iterdir()
    path.rename(path.with_name(f".{path.stem}.part"))
    with path.with_name(f".{path.stem}.part").open("r+b") as stream:
        stream.write(b"something else")
    assert load_folder(pictures).train.pixels_NCHW[:, 0, 0, 0].tolist() == list(range(N))


def test_an_unreadable_image_is_named_and_leaves_nothing(tmp_path, large, pictures):
    bad = pictures / "b" / "120.png"
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)).save(bad)
    bad.write_bytes(bad.read_bytes()[:5000])  # the header is whole
    with pytest.raises(DataError, match=r"120\.png: cannot be read as an image"):
        load_folder(pictures, Decoding((5, 7)))
    assert entries(tmp_path) == []


def test_a_changed_file_replaces_the_old_cache(tmp_path, large, pictures, write_image):
    load_folder(pictures)
    before = entries(tmp_path)
    write_image(pictures / "a" / "000.png", mode="RGB", value=77)
    os.utime(pictures / "a" / "000.png", ns=(1, 1))
    assert load_folder(pictures).train.pixels_NCHW[0, 0, 0, 0] == 77
    assert len(entries(tmp_path)) == 1
    assert entries(tmp_path) != before


def test_a_cache_that_was_cut_off_is_decoded_again(tmp_path, large, pictures):
    load_folder(pictures)
    (path,) = (tmp_path / "cache" / "folders").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert load_folder(pictures).train.pixels_NCHW[:, 0, 0, 0].tolist() == list(range(N))


def test_two_at_once_decode_once(tmp_path, monkeypatch, large, pictures):
    asked = []

    def noticed(where, files, *arguments):
        asked.append(len(files))
        return decode.decode_folder(where, files, *arguments)

    monkeypatch.setattr(folder, "decode_folder", noticed)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(load_folder(pictures).train.hash())) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [N]
    assert len(found) == 2
    assert len(set(found)) == 1
    assert len(entries(tmp_path)) == 1


def test_without_room_the_way_out_is_named(tmp_path, monkeypatch, large, pictures):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("nelbo.data.cache.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"cannot be written there.*free.*--data-dir"):
        load_folder(pictures)
    assert not any(name.endswith(".npy") for name in entries(tmp_path))


def test_without_a_place_for_it_the_way_out_is_named(tmp_path, monkeypatch, large, pictures):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NELBO_DATA", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written there.*--data-dir"):
        load_folder(pictures)


def test_large_images_come_in_small_blocks(monkeypatch, pictures):
    monkeypatch.setattr(decode, "BLOCK_BYTES", 250)
    entries = [decode.Entry(file) for file in filelist.Listing.of(pictures).files]
    blocks = list(decode.decode_folder(pictures, entries, (3, 5, 7), Decoding()))
    assert {len(block) for block in blocks} == {2}
    assert np.concatenate(blocks)[:, 0, 0, 0].tolist() == list(range(N))


def test_results_come_in_order_and_few_wait(monkeypatch):
    monkeypatch.setattr(decode, "cores", lambda: 2)
    begun = []
    results = decode.in_order(lambda i: begun.append(i) or i * i, range(1000))
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(begun) <= 5 + 4 * 2 + 1
    results.close()
    assert list(decode.in_order(lambda i: i, [])) == []


def test_the_names_of_caches_stay(tmp_path, write_image):
    """A folder is not decoded anew because of another version of nelbo: the name is that of the listing as JSON."""
    for name in ("b/1.png", "a-b/2.png", "a/3.png"):
        write_image(tmp_path / "in" / name)
        os.utime(tmp_path / "in" / name, ns=(5, 7))
    files = filelist.Listing.of(tmp_path / "in").files
    assert files == ["a/3.png", "a-b/2.png", "b/1.png"]  # folder by folder
    listing = [[file, 7, (tmp_path / "in" / file).stat().st_size] for file in files]
    digest = [
        hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
        for of in ([str(tmp_path / "in"), [4, 5]], [2, listing])
    ]
    assert (
        cache_path(tmp_path / "in", files, Decoding((4, 5)), tmp_path)
        == tmp_path / f"{digest[0]}-{digest[1]}.npy"
    )
