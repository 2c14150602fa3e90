"""The headline of one run: the few numbers that a reader asks for first, each called what it is."""

from __future__ import annotations

import dataclasses

from nelbo.evaluation import labels
from nelbo.report.gathered import Facts

NOT_A_LIKELIHOOD = "grey pixels: a cross-entropy, not a likelihood"


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """A large number with what stands around it; `missing` where there is only a word for why there is none."""

    name: str
    value: str
    spread: str = ""
    unit: str = ""
    note: str = ""
    missing: bool = False


def headline(facts: Facts) -> list[Tile]:
    """Return the tiles of the bound, the estimate, the active units and the speed, as far as they were measured."""
    k = facts.card["samples"]
    names = {
        "nelbo": "Grey cross-entropy + KL" if facts.grey else "NELBO",
        "iw_nll": f"{'Grey importance-weighted estimate' if facts.grey else 'IW-NLL'}, K = {k}",
        "bits_per_dim": "Bits a dimension",
        "active_units": "Active units",
    }
    tiles = [_tile(title, facts, name) for name, title in names.items() if name in facts.metrics]
    speed, threads = facts.summary.get("images_per_second"), facts.summary.get("threads")
    if speed:
        device = f"{facts.summary.get('device', '')}, {threads} thread{'s' if threads != 1 else ''}"
        tiles.append(Tile("Training speed", f"{speed:,.0f}", unit="images/s", note=device if threads else ""))
    return tiles


def _tile(title: str, facts: Facts, name: str) -> Tile:
    entry = facts.metrics[name]
    value, spread, note = labels.shown(entry)
    if entry["value"] is None:
        return Tile(title, value, note=note, missing=True)
    details = entry.get("details", {})
    if name == "active_units":
        of_all = f"of {details['dimensions']} dimensions" if details else entry["unit"]
        return Tile(title, value, unit=of_all)
    if facts.grey:
        note = NOT_A_LIKELIHOOD
    elif name == "iw_nll" and details:
        note = f"{details['at_fewer_samples']:.2f} at K = {details['fewer_samples']}"
    return Tile(title, value, spread, entry["unit"], note)
