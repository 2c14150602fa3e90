"""The headline of one run: the few numbers that a reader asks for first, each called what it is."""

import dataclasses

from nelbo.evaluation import labels
from nelbo.report.gathered import Facts

NOT_A_LIKELIHOOD = "pixels between black and white: a cross-entropy, not a likelihood"


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """A large number with its name, unit and note; `missing` if there is none, and `value` is the word for why."""

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
        "nelbo": "Cross-entropy + KL" if facts.grey else "NELBO",
        "iw_nll": f"{'Importance-weighted cross-entropy' if facts.grey else 'IW-NLL'}, K = {k}",
        "bits_per_dim": "Bits a dimension",
        "active_units": "Active units",
    }
    tiles = []
    for name, title in names.items():
        entry = facts.metrics.get(name)
        if entry is None:
            continue
        value, spread, note = labels.shown(entry)
        details = entry.get("details", {})
        if entry["value"] is None:
            tiles.append(Tile(title, value, note=note, missing=True))
        elif name == "active_units":
            unit = f"of {details['dimensions']} dimensions" if details else entry["unit"]
            tiles.append(Tile(title, value, unit=unit))
        else:
            if facts.grey:
                note = NOT_A_LIKELIHOOD
            elif name == "iw_nll" and details:  # where the two differ, K is still too small
                note = f"{details['at_fewer_samples']:.2f} at K = {details['fewer_samples']}"
            tiles.append(Tile(title, value, spread, entry["unit"], note))
    speed, threads = facts.summary.get("images_per_second"), facts.summary.get("threads")
    if speed:
        device = f"{facts.summary.get('device', '')}, {threads} thread{'s' if threads != 1 else ''}"
        tiles.append(Tile("Training speed", f"{speed:,.0f}", unit="images/s", note=device if threads else ""))
    return tiles
