"""A metric's name and number as people read them: the same on a terminal, in a comparison and in a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SHOUTED = {"nelbo", "kl", "iw", "nll", "mse", "psnr", "ssim", "nmi", "mig", "sap", "dci", "fid", "vae"}
NAMES = {word: word.upper() for word in SHOUTED} | {"frechet": "Fréchet", "knn": "k-NN"}
TWO_NAMES = {"kl": "KL (rate)", "reconstruction": "Reconstruction (distortion)"}  # Alemi et al. 2018
DECIMALS = 8  # at most


def label(name: str) -> str:
    """`iw_nll` -> `IW NLL`, `active_units` -> `Active units`: a metric's name for people."""
    first, *rest = name.split("_")
    return " ".join([NAMES.get(first, first.capitalize()), *(NAMES.get(word, word) for word in rest)])


def on_card(name: str) -> str:
    """The label of a card, where the two halves of the bound have both of their names."""
    return TWO_NAMES.get(name) or label(name)


def decimals(error: float) -> int:
    """Return the number of decimals that show two digits of a standard error."""
    return min(DECIMALS, max(0, 1 - math.floor(math.log10(error))))


def rounded(value: float, error: float | None = None) -> str:
    """To the second digit of its standard error; to four digits where there is none."""
    if error:
        return f"{value:.{decimals(error)}f}"
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def spread(error: float | None) -> str:
    """The standard error to two digits, or nothing."""
    return "" if error is None else f"± {error:.{decimals(error)}f}" if error else "± 0"


def shown(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    """Value, spread and note of one metric; where there is no value, what its note calls it."""
    value, note = entry["value"], entry["note"]
    if value is None:
        word, _, rest = note.partition(": ")
        return word or "none", "", rest
    if isinstance(value, list):
        if not value:
            return "none", "", note
        return f"{rounded(min(value))} to {rounded(max(value))}", "", note
    return rounded(value, entry["standard_error"]), spread(entry["standard_error"]), note
