"""Named files from a list of mirrors into a cache, checked against their hashes."""

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nelbo.data.idx import gunzip, read_bytes
from nelbo.errors import DataError

TIMEOUT_SECONDS = 30  # without a byte from the mirror


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A published file. `content_md5` is of the uncompressed content, where that is known too."""

    name: str
    sha256: str
    content_md5: str | None = None


@dataclass(frozen=True, slots=True)
class Remote:
    """Files that belong together, the folder they live in, and the base URLs that have them."""

    folder: str
    files: tuple[RemoteFile, ...]
    mirrors: tuple[str, ...]


def data_root(data_dir: Path | str | None = None) -> Path:
    """Return the folder of data sets: the argument, else the variable NELBO_DATA, else the user's cache folder."""
    if folder := data_dir or os.environ.get("NELBO_DATA"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("nelbo"))


def find(remote: Remote, file: RemoteFile, root: Path) -> Path | None:
    """Return the path of a file that is present, as published or uncompressed; None where it is not."""
    path = root / remote.folder / file.name
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return next((option for option in (path, plain) if option.is_file()), None)


def is_present(remote: Remote, root: Path) -> bool:
    """Return True if every file is there (their content is checked when they are read)."""
    return all(find(remote, file, root) for file in remote.files)


def obtain(remote: Remote, data_dir: Path | None) -> list[Path]:
    """Return the paths of the files, in their order; download what is missing. Raises DataError."""
    root = data_root(data_dir)
    return [find(remote, file, root) or _download(remote, file, root) for file in remote.files]


def verified_content(path: Path, file: RemoteFile) -> bytes:
    """Return the file's uncompressed content; raise DataError where it is not what was published."""
    raw = read_bytes(path)
    content = gunzip(raw, path)
    if hashlib.sha256(raw).hexdigest() == file.sha256:  # seldom another, and six times as fast as the other
        return content
    if file.content_md5 == hashlib.md5(content, usedforsecurity=False).hexdigest():
        return content  # of a file that was compressed anew
    raise _differs(path, file)


def verify(path: Path, file: RemoteFile) -> None:
    """Raise DataError unless the file's SHA-256 is the published one."""
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            raise _differs(path, file)


def _differs(path: Path, file: RemoteFile) -> DataError:
    return DataError(
        f"{path}: is not the published file (SHA-256 {file.sha256}). "
        "Delete it and run again to download it anew"
    )


def _download(remote: Remote, file: RemoteFile, root: Path) -> Path:
    """Try each mirror; the file appears in its folder complete and checked, or not at all."""
    folder = root / remote.folder
    missing = [other for other in remote.files if not find(remote, other, root)]
    created = [path for path in (folder, root) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be created ({error.strerror}); choose another folder with --data-dir"
        ) from None
    failures = []
    for mirror in remote.mirrors:
        failure = _from_mirror(mirror + file.name, file, folder)
        if failure is None:
            return folder / file.name
        failures.append(f"{urlsplit(mirror).netloc}: {failure}")
    with contextlib.suppress(OSError):  # another process may have put something there meanwhile
        for path in created:
            path.rmdir()
    hashes = "\n".join(f"  {other.name}  SHA-256 {other.sha256}" for other in missing)
    raise DataError(
        f"{file.name} of {remote.folder} could not be downloaded ({'; '.join(failures)}).\n"
        f"Put these files into {folder} yourself:\n{hashes}\n"
        f"or use --data digits, which works offline"
    )


def _from_mirror(url: str, file: RemoteFile, folder: Path) -> str | None:
    """Return None when the file is in place; otherwise why this mirror failed, in a few words."""
    import pooch
    import requests

    fetch = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=folder)
        os.close(handle)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror})") from None
    part = Path(name)
    try:
        fetch(url, str(part), None)
        if pooch.file_hash(str(part)) != file.sha256:
            return "wrong SHA-256"
        part.chmod(0o644)  # temporary files are private; a cache may be shared
        part.replace(folder / file.name)
    except requests.RequestException as error:
        if isinstance(error, requests.HTTPError) and error.response is not None:
            return f"HTTP {error.response.status_code}"
        words = {
            requests.Timeout: "timed out",  # first: one while connecting is a ConnectionError too
            requests.exceptions.ChunkedEncodingError: "transfer cut off",
            requests.ConnectionError: "no connection",
        }
        return next((text for kind, text in words.items() if isinstance(error, kind)), type(error).__name__)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
    return None
