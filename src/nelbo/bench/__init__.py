"""Training speed on this machine, side by side: a tutorial's loop and this project in several ways.

The clock stops for compilation, validation and saving; the first epoch warms up. Beside the times stands what they
mean: the share of the machine's own matrix-product rate, and memory.
"""

from nelbo.bench.lap import Lap
from nelbo.bench.running import SIDES, bench, spread

__all__ = ["SIDES", "Lap", "bench", "spread"]
