"""Several runs and seeds side by side: what differs, by how much, how sure, and what cannot be compared.

`nelbo.compare(["digits-s0", "digits-s1", ...])` gives a `Comparison`: plain values, `to_dict()` for JSON.
"""

from nelbo.evaluation.comparison.compared import compare
from nelbo.evaluation.comparison.drawing import default_file, draw
from nelbo.evaluation.comparison.values import Comparison

__all__ = ["Comparison", "compare", "default_file", "draw"]
