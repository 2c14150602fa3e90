"""The pictures of a run: each says what to draw from which values. `nelbo.plots` says how.

A picture is a function of a View that yields (file name, Figure or encoded bytes); its docstring is the help text, and
`@picture(group=..., order=...)` says where it stands in a report. One function in one file is all it takes to add one:
here, or in a file of your own with `--import`.
"""

from nelbo.pictures.base import GROUPS, Picture, draw, heading, picture

__all__ = ["GROUPS", "Picture", "draw", "heading", "picture"]
