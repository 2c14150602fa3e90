"""The command line: one file a verb. Imports no torch."""

from nelbo.cli.main import main

__all__ = ["main"]
