"""The writing of a page: from runs to a file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from nelbo.core import files
from nelbo.errors import ConfigError
from nelbo.report.gathered import Request, gather
from nelbo.report.page import GENERATOR, page
from nelbo.training import store
from nelbo.training.events import RunOpened, Tell, quiet
from nelbo.training.store import Run

NAME = "report.html"


@dataclasses.dataclass(frozen=True)
class Written:
    """A page that was written: its file, and for each run the pictures that are not on it, with the reason."""

    file: Path
    left_out: dict[str, dict[str, str]]


def write(
    runs: Sequence[str | Path | Run],
    file: Path | None = None,
    *,
    request: Request | None = None,
    folder: str | Path = "runs",
    tell: Tell = quiet,
) -> Written:
    """Write the page and return its file.

    runs     run folders, their names under `folder`, or `latest`
    file     the page; by default `report.html` in the folder of a single run, in this folder for several
    request  the checkpoint, the split, K and the pictures
    tell     hears `RunOpened`, what `nelbo.evaluate` tells, and `PictureBegun`

    A run without a complete card is measured first. Raises RunError and DataError where a run cannot be.
    """
    opened = [store.find(run, Path(folder)) for run in runs]
    opened = list({run.path.resolve(): run for run in opened}.values())  # a run that is named twice is one
    if not opened:
        raise ConfigError("a report needs a run, as in nelbo report latest")
    target = file or (opened[0].path / NAME if len(opened) == 1 else Path(NAME))
    if target.is_dir():
        raise ConfigError(f"--out {target}: is a folder; name a file in it, as in {target / NAME}")
    store.check_folder(target.parent, "--out")
    # Every page names its generator at its beginning; no other file is overwritten.
    if target.is_file() and GENERATOR.encode() not in target.read_bytes()[:2000]:
        why = "exists and is no report, so it is not overwritten; choose another name"
        raise ConfigError(f"--out {target}: {why}")
    request = request or Request()
    share = dataclasses.replace(request, budget=request.budget // len(opened))
    facts = []
    for run in opened:
        tell(RunOpened(run.name))
        facts.append(gather(run, share, tell))
    text = page(facts)
    with files.atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Written(target, {one.name: dict(one.left_out) for one in facts})
