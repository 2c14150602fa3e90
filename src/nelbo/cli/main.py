"""The command line, a thin coat over the library. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

import gc
import importlib
import json
import os
import sys

from nelbo import __version__
from nelbo.cli import streams
from nelbo.errors import ConfigError, NelboError


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    streams.make_safe()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        from nelbo.cli.overview import overview

        print(overview(), end="")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"nelbo {__version__}")
        return 0
    try:
        from nelbo.cli.parsing import parse

        command = parse(words[0], words[1:])  # a wrong flag is refused before torch is imported
        _import_the_rest()
        command.execute()
        return 0
    except NelboError as error:
        return _report(error, words)
    except KeyboardInterrupt:
        print("nelbo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `nelbo recipes | head -1`
        # Python flushes stdout once more at its end, and would print a traceback there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise  # torch's own error of a full memory is a RuntimeError; any other one is a fault of ours
        message = f"out of memory: {str(error).splitlines()[0] if str(error) else 'the machine has no more'}"
        return _report(
            NelboError(f"{message}; try a smaller --batch-size, model, or number of samples"), words
        )
    except OSError as error:
        wrong_path = (
            FileNotFoundError,
            FileExistsError,
            NotADirectoryError,
            IsADirectoryError,
            PermissionError,
        )
        kind = ConfigError if isinstance(error, wrong_path) else NelboError  # code 2, or 1 as for a full disk
        parts = [str(part) for part in (error.filename, error.strerror) if part]
        return _report(kind(": ".join(parts) or repr(error)), words)
    except SystemExit as stop:  # how the flag parser ends after --help (0) or a wrong flag (2)
        code = stop.code if isinstance(stop.code, int) else 2
        if code and "--json" in words:
            print(json.dumps({"error": f"wrong usage of nelbo {words[0]}; see stderr", "exit_code": code}))
        return code


def _import_the_rest() -> None:
    """Import torch and the rest without garbage collection: what imports make stays, and looking takes 0.2 s."""
    if "nelbo.training.api" in sys.modules:
        return
    gc.disable()
    try:
        importlib.import_module("nelbo.training.api")
    finally:
        gc.freeze()  # later collections skip it too
        gc.enable()


def _report(error: NelboError, words: list[str]) -> int:
    if "--json" in words:
        print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
    print(f"nelbo: {error}", file=sys.stderr)
    return error.exit_code
