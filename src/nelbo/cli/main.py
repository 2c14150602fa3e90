"""The command line: a thin coat over the library. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys

from nelbo import __version__
from nelbo.errors import ConfigError, NelboError, did_you_mean

OVERVIEW = """\
nelbo: train, measure and explore variational autoencoders

  nelbo recipes                     every recipe, with its promise
  nelbo train RECIPE | FILE.toml    train; the same command resumes an interrupted run
  nelbo evaluate RUN                bound, importance-weighted NLL and more, with standard errors
  nelbo compare RUN RUN ...         several runs and seeds side by side, with confidence intervals
  nelbo report RUN ...              one HTML page of a run, or of several side by side
  nelbo doctor RUN | CONFIG | DATA  what is wrong, with evidence, and the command that changes it
  nelbo plot RUN [WHAT ...]         reconstructions, samples, latents, curves, animations
  nelbo sample RUN                  images from the prior or a fitted sampler, or like given images
  nelbo samplers RUN                fits every sampler to a run, and chooses by validation images
  nelbo reconstruct RUN [IMAGE ...] images through the model and back
  nelbo encode RUN                  latents of a split, to .npy or .npz
  nelbo interpolate RUN A B         a line between two images or class means
  nelbo traverse RUN A              latent dimensions moved one at a time
  nelbo data [list | get | check]   data sets: what there is, downloads, checks
  nelbo list [AXIS]                 every objective, prior, likelihood, net, ... with its fields
  nelbo env                         versions and hardware
  nelbo bench [RECIPE ...]          training speed here, beside a tutorial's loop

A RUN is a run folder, its name under runs/, or latest. Start with: nelbo train digits
nelbo VERB --help says more; nelbo --version prints the version.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(OVERVIEW, end="")
        return 0
    if given[0] in ("-V", "--version"):
        print(f"nelbo {__version__}")
        return 0
    try:
        return _run(given[0], given[1:])
    except NelboError as error:
        return _report(error, given)
    except KeyboardInterrupt:
        print("nelbo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `nelbo recipes | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        message = f"out of memory: {str(error).splitlines()[0] if str(error) else 'the machine has no more'}"
        return _report(
            NelboError(f"{message}; try a smaller --batch-size, model, or number of samples"), given
        )
    except OSError as error:
        return _report(_system_error(error), given)
    except SystemExit as stop:  # how the flag parser ends after --help (0) or a wrong flag (2)
        code = stop.code if isinstance(stop.code, int) else 2
        if code and "--json" in given:
            print(json.dumps({"error": f"wrong usage of nelbo {given[0]}; see stderr", "exit_code": code}))
        return code


def _run(verb: str, arguments: list[str]) -> int:
    from nelbo.cli.parsing import VERBS, parse

    if verb not in VERBS:
        raise ConfigError(f"no verb is called {verb!r}; {did_you_mean(verb, VERBS)}")
    command = parse(VERBS[verb], verb, arguments)  # a wrong flag is refused before torch is imported
    _import_the_rest()
    command.run()
    return 0


def _import_the_rest() -> None:
    """Imports what every verb needs, without looking for garbage: what imports make stays, and looking takes 0.2 s."""
    if "nelbo.training.api" in sys.modules:
        return
    gc.disable()
    try:
        importlib.import_module("nelbo.training.api")
    finally:
        gc.freeze()  # later collections skip it too
        gc.enable()


def _system_error(error: OSError) -> NelboError:
    """What the system refused, in one line: 2 where the path is wrong, 1 where it is not (a full disk)."""
    wrong_path = FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError
    kind = ConfigError if isinstance(error, wrong_path) else NelboError
    return kind(": ".join(str(part) for part in (error.filename, error.strerror) if part) or repr(error))


def _report(error: NelboError, given: list[str]) -> int:
    if "--json" in given:
        print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
    print(f"nelbo: {error}", file=sys.stderr)
    return error.exit_code
