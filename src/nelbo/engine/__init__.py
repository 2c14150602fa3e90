"""The ways to run a step: the one place that knows devices, precision, compilation and capture."""

from nelbo.engine.compiling import compiles, why_not
from nelbo.engine.devices import in_pieces, pick_device, place, synchronise, threads_for
from nelbo.engine.environment import CACHE, cache_folder, command_line, describe
from nelbo.engine.interruption import interruption
from nelbo.engine.precision import Precision, autocast, check_precision, pick_precision, products
from nelbo.engine.random import as_found, fixed_seed, random_state, seed_streams, set_random_state
from nelbo.engine.stepping import Gradient, Measured, Now, Step

__all__ = [
    "CACHE",
    "Gradient",
    "Measured",
    "Now",
    "Precision",
    "Step",
    "as_found",
    "autocast",
    "cache_folder",
    "check_precision",
    "command_line",
    "compiles",
    "describe",
    "fixed_seed",
    "in_pieces",
    "interruption",
    "pick_device",
    "pick_precision",
    "place",
    "products",
    "random_state",
    "seed_streams",
    "set_random_state",
    "synchronise",
    "threads_for",
    "why_not",
]
