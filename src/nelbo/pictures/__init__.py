"""The pictures of a run: what to draw from which values. `plots` knows how.

A picture is a function of a View that yields (file name, Figure or encoded bytes); its docstring is the help
text. One function in one file of this folder is all it takes to add one.
"""

from nelbo.pictures.base import draw, picture

__all__ = ["draw", "picture"]
