"""The words in which everything is written: Draw, Terms, Progress. Imports no torch."""

from nelbo.core.vocabulary import Draw, Progress, Terms

__all__ = ["Draw", "Progress", "Terms"]
