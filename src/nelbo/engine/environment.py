"""The environment that a run ran in: versions, hardware, git commit."""

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from nelbo.core.layout import Environment

CHANGES = "+changes"  # ends a commit that is not all of the code
CACHE = "NELBO_CACHE"


def describe(device: torch.device | None = None) -> Environment:
    """Return versions and hardware, for `env.json` and `nelbo env`."""
    facts: Environment = {
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processor": processor("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {},
    }
    for package in ("nelbo", "torch", "numpy", "pydantic", "scikit-learn", "matplotlib"):
        with contextlib.suppress(PackageNotFoundError):
            facts["packages"][package] = version(package)
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if device is not None:
        facts["device"] = str(device)
    commit = _git_commit()
    return facts | ({"git": commit, "uncommitted": commit.endswith(CHANGES)} if commit else {})


def cache_folder() -> Path:
    """Return the folder for files that can be made again: NELBO_CACHE, else the user's cache folder."""
    if folder := os.environ.get(CACHE):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("nelbo"))


def processor(field: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; empty where there is no such file or field."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""


def _git_commit() -> str | None:
    """Return the commit of the package's own checkout, with `CHANGES` when its files differ from it."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=5)

    try:
        if git("ls-files", "--error-unmatch", __file__).returncode:
            return None  # an installed copy inside somebody else's repository
        head, dirty = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + (CHANGES if dirty.stdout.strip() else "")


def command_line() -> str:
    """Return the command that started this process, as a person would type it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
