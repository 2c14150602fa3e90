"""Made-up files: no test of this folder touches the network or the user's cache."""

from __future__ import annotations

import gzip
import http.server
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _private_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_data" in request.fixturenames:
        return
    monkeypatch.setenv("NELBO_DATA", str(request.getfixturevalue("tmp_path") / "cache"))


@pytest.fixture
def real_data() -> Path:
    """The folder of real MNIST files; skips where the variable NELBO_DATA names none."""
    import os

    root = Path(os.environ.get("NELBO_DATA", ""))
    if not (root / "mnist" / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("NELBO_DATA names no folder with mnist/train-images-idx3-ubyte.gz")
    return root


@pytest.fixture
def idx_bytes() -> Callable[..., bytes]:
    """(array, compress) -> the bytes of an IDX file."""
    codes = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}

    def encode(array: np.ndarray[Any, Any], compress: bool = False) -> bytes:
        header = struct.pack(">HBB", 0, codes[array.dtype.str[1:]], array.ndim)
        header += struct.pack(f">{array.ndim}I", *array.shape)
        content = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
        return gzip.compress(content, 1, mtime=0) if compress else content

    return encode


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """(path, height, width, mode, value) -> writes one plain image."""

    def write(path: Path, height: int = 5, width: int = 7, mode: str = "L", value: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = value if len(Image.new(mode, (1, 1)).getbands()) == 1 else (value, 10, 20, 255)[: len(mode)]
        Image.new(mode, (width, height), colour).save(path)
        return path

    return write


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = self.server.answers  # type: ignore[attr-defined]
        status, body, length = answers.get(self.path, (404, b"", None))
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Mirror:
    """A local web server: `answers[path] = (status, body, announced length or None)`."""

    def __init__(self) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, bytes, int | None]] = {}
        self.asked: list[str] = []
        self.server.answers = self.answers  # type: ignore[attr-defined]
        self.server.asked = self.asked  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    yield server
    server.server.shutdown()
    server.thread.join()
    server.server.server_close()
