"""The run folder: the only interface between training and everything after it.

    runs/<name>/  config.toml  env.json  metrics.jsonl  summary.json
                  checkpoints/{first,best,last}.safetensors
                  model/{config.json,model.safetensors}      what is shared
                  evaluation/*.json   figures/

Every file is written to a temporary name and moved into place, so that a reader never sees half of one.
Each file says its `format`, but metrics.jsonl, whose rows are of the format of config.toml. Nothing here is pickled.
"""

import contextlib
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nelbo.core import config
from nelbo.core.files import atomic, finite, read_tensors, write_tensors
from nelbo.core.format import FORMAT, with_format, without_format
from nelbo.core.layout import Summary
from nelbo.core.vocabulary import Shape
from nelbo.errors import ConfigError, RunError, did_you_mean
from nelbo.models import BuiltModel, Model
from nelbo.training.recipe import Recipe

CHECKPOINTS = ("first", "best", "last")
DAMAGED = "the run is damaged: train again with --overwrite"


class Run:
    """A run folder. Constructing one reads nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def recipe(self) -> Recipe:
        """The resolved configuration; raises RunError when the folder is damaged."""
        file = self.path / "config.toml"
        if not file.is_file():
            raise RunError(f"{self.path} is not a run: it has no config.toml")
        try:
            return config.build(Recipe, config.read_toml(file), str(file))
        except ConfigError as error:
            raise RunError(
                f"{error}\nif it was trained with --import FILE, give that again; otherwise it was written by another "
                "version of nelbo, or is damaged"
            ) from None

    @property
    def summary(self) -> Summary:
        """The summary that training wrote at its end, or an empty table before that."""
        summary: Summary = self.read_json("summary.json", missing={})
        return summary

    @property
    def quoted(self) -> str:
        """The folder as a word of a command line, for the commands of messages: 'my runs/a'."""
        return shlex.quote(str(self.path))

    @property
    def finished(self) -> bool:
        return bool(self.summary.get("finished"))

    def read_json(self, name: str, missing: dict[str, object] | None = None) -> Any:
        file = self.path / name
        if not file.is_file() and missing is not None:
            return missing
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error  # the system's words, without the path once more
            raise RunError(f"{file} cannot be read ({why}); {DAMAGED}") from None
        if not isinstance(table, dict):
            raise RunError(f"{file} holds no table; {DAMAGED}")
        return without_format(table, file)

    def write_json(self, name: str, table: Mapping[str, object]) -> Path:
        file = self.path / name
        text = json.dumps(with_format(table), indent=2, allow_nan=False)
        with atomic(file) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return file

    # --- metrics.jsonl ---

    def log(self, row: Mapping[str, object]) -> None:
        """Append one line to metrics.jsonl; numbers that are not finite become null."""
        line = json.dumps(finite(row), allow_nan=False)
        # Not `atomic`: a long training would write the whole file again after every epoch.
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def history(self, event: str = "epoch") -> list[Any]:
        """Return the logged rows of one kind, oldest first."""
        file = self.path / "metrics.jsonl"
        if not file.is_file():
            return []
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines[:-1]]  # a last line without its end is being written
        except ValueError:
            raise RunError(f"{file} is damaged; train again with --overwrite") from None
        return [row for row in rows if row.get("event") == event]

    def forget_after(self, epoch: int) -> None:
        """Drop the logged rows later than `epoch`, which a crash left after the last checkpoint."""
        file = self.path / "metrics.jsonl"
        if not file.is_file():
            return
        lines = []
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a line cut off by the crash
                if json.loads(line).get("epoch", 0) <= epoch:
                    lines.append(line + "\n")
        with atomic(file) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")

    # --- tensors ---

    def resume(self, unpack: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
        """Hand the last checkpoint to `unpack`; raises RunError when it does not fit the configuration."""
        try:
            unpack(*self.load("last"))
        except (RuntimeError, KeyError, ValueError) as error:
            file = self.checkpoint_path("last")
            raise RunError(f"{file} does not fit the run's config.toml ({error}); {DAMAGED}") from None

    def epoch(self, checkpoint: str) -> int:
        """Return the number of epochs that a checkpoint has finished; `last` may hold a part of one more."""
        about = self.load(checkpoint)[1]
        ahead = 1 if checkpoint == "last" else 0  # `last` counts the next epoch already
        return int(about["epoch"]) - ahead

    def checkpoint_path(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.safetensors"

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
        """Write a checkpoint: named tensors, and a table of plain values in its header."""
        write_tensors(self.checkpoint_path(name), tensors, about)

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a checkpoint back; raises RunError when it is absent or damaged."""
        file = self.checkpoint_path(name)
        if name not in CHECKPOINTS:
            raise RunError(f"no checkpoint is called {name!r}; {did_you_mean(name, CHECKPOINTS)}")
        if not file.is_file():
            have = [other for other in CHECKPOINTS if self.checkpoint_path(other).is_file()]
            raise RunError(f"{self.path} has no checkpoint {name!r}; it has {', '.join(have) or 'none yet'}")
        return read_tensors(file)


# --- finding and starting runs ----------------------------------------------------------------


def find(name: str | Path | Run, runs: Path = Path("runs")) -> Run:
    """Return a run by its folder, its name under `runs`, or `latest`; raise RunError with the nearest name."""
    if isinstance(name, Run):
        return name
    folders = [path for path in runs.iterdir() if (path / "config.toml").is_file()] if runs.is_dir() else []
    if str(name) == "latest":
        if not folders:
            raise RunError(f"there is no run under {runs}; start one with: nelbo train digits")
        # The configuration is written once, so its time is that of the start; a folder's changes with its files.
        return Run(max(folders, key=lambda path: (path / "config.toml").stat().st_mtime))
    for path in (Path(name), runs / str(name)):
        if (path / "config.toml").is_file():
            return Run(path)
    if Path(name).is_dir() or (runs / str(name)).is_dir():
        raise RunError(f"{name} is not a run: it has no config.toml")
    hint = f"there is none under {runs}; start one with: nelbo train digits"
    if folders:
        hint = did_you_mean(str(name), [path.name for path in folders])
    raise RunError(f"no run is called {str(name)!r}; {hint}")


def default_name(recipe: Recipe, plain: Recipe | None, data: str = "") -> str:
    """Return `fashion-mlp-s0`; a run that differs from its recipe in more than the seed gets a short hash.

    data   the name of the data, for a recipe that is another one for each: `images-photos-s0`
    """
    stem = "-".join(filter(None, [recipe.recipe, data, f"s{recipe.seed}"]))
    if plain is not None and recipe == plain.model_copy(update={"seed": recipe.seed}):
        return stem
    # By content, so that the same command finds its own folder again.
    digest = hashlib.sha256(config.dumps(recipe).encode()).hexdigest()[:6]
    return f"{stem}-{digest}"


def check_name(name: str) -> str:
    """Raise ConfigError unless the name is that of one folder."""
    if name == "latest":
        raise ConfigError("--name latest: that is the word for the newest run of all; choose another name")
    if name in ("", ".", "..") or Path(name).name != name:
        raise ConfigError(f"--name {name!r}: expected a plain folder name; say where with --runs")
    return name


def check_folder(path: Path, flag: str) -> None:
    """Raise ConfigError where no folder can be: something on the way to it is a file."""
    place = next((place for place in (path, *path.parents) if place.exists()), path)
    if place.exists() and not place.is_dir():
        raise ConfigError(f"{flag}: {place} is a file, so nothing can be written in a folder of that name")


def check_free(recipe: Recipe, path: Path, *, overwrite: bool = False) -> None:
    """Refuse a path that holds something else, before any work is done and without writing.

    Raises RunError when it belongs to another configuration and `overwrite` is false, or is no run at all.
    """
    if (path / "config.toml").is_file():
        if overwrite:
            # Somebody else's folder may have a config.toml too, and would be deleted.
            ours = any((path / part).exists() for part in ("env.json", "checkpoints", "metrics.jsonl"))
            foreign = {file.name for file in path.iterdir()} - {"config.toml"}
            if foreign and not ours:
                raise RunError(
                    f"{path} holds a config.toml and is no run; it is not overwritten. Choose another --name"
                )
            return
        differ = config.differences(config.to_dict(Run(path).recipe), config.to_dict(recipe))
        if differ:
            lines = "\n".join(f"  {line}" for line in differ)
            raise RunError(
                f"{path} already holds a run of another configuration:\n{lines}\n"
                "choose another --name, or replace it with --overwrite"
            )
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} exists and is not a run folder, so nothing is written there; choose another --name"
        )
    check_folder(path.parent, "--runs")


def start(recipe: Recipe, path: Path, *, overwrite: bool = False) -> Run:
    """Make a run folder, or return the one that is there, to go on with; see `check_free`."""
    check_free(recipe, path, overwrite=overwrite)
    if overwrite and path.exists():
        shutil.rmtree(path)  # `check_free` has made sure that it is a run
    if not (path / "config.toml").is_file():
        with atomic(path / "config.toml") as temporary:
            temporary.write_text(f"format = {FORMAT}\n{config.dumps(recipe)}", encoding="utf-8")
    return Run(path)


def share(run: Run, model: BuiltModel, shape: Shape, about: Mapping[str, object]) -> None:
    """Write `model/`: the weights and the configuration that rebuilds the module around them."""
    table = {"model": config.to_dict(run.recipe.model), "shape": list(shape), **about}
    write_tensors(run.path / "model" / "model.safetensors", model.state_dict(), {})
    run.write_json("model/config.json", table)


def shared(folder: Path) -> BuiltModel:
    """Return the module in a `model/` folder, which may be a copy outside of its run; raise RunError."""
    file = folder / "model.safetensors"
    table = Run(folder).read_json("config.json")
    try:
        spec: Model = config.build(Model, table["model"], str(folder / "config.json"))
        shape = (int(table["shape"][0]), int(table["shape"][1]), int(table["shape"][2]))
    except (KeyError, IndexError, TypeError, ValueError):
        file = folder / "config.json"
        raise RunError(f"{file} does not describe a model; copy the whole folder again") from None
    return rebuild(spec, shape, read_tensors(file)[0], file)


def rebuild(spec: Model, shape: Shape, tensors: Mapping[str, Tensor], file: Path) -> BuiltModel:
    """Return the module of a checkpoint, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):  # building draws initial weights; the caller's stream stays
        module = spec.build(shape)
    try:
        module.load_state_dict(dict(tensors))  # strictly: no weight may be left as it was initialised
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()  # torch begins with a headline of no use
        raise RunError(
            f"{file} does not fit the run's config.toml ({reason}); the run is of another version of nelbo, or damaged"
        ) from None
    return module.eval()
