"""The words in which everything is written: Draw, Terms, Progress, Distribution, Model. Imports no torch."""

from nelbo.core.vocabulary import Distribution, Draw, Model, Progress, Terms

__all__ = ["Distribution", "Draw", "Model", "Progress", "Terms"]
