"""The picture of a comparison: rate against distortion."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nelbo.evaluation.comparison.values import Comparison
from nelbo.evaluation.comparison.words import listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(comparison: Comparison) -> tuple[Figure | None, str]:
    """Draw the rate-distortion plane of the groups that can be compared; return it, or None with the reason.

    If not all groups can be compared with each other, the largest set that can is drawn, on a tie the first. There is
    no plane where no run has both a KL and a reconstruction.
    """
    distortion, rate = comparison.metric("reconstruction"), comparison.metric("kl")
    if distortion is None or rate is None:
        return None, "no rate-distortion plane: the cards hold no bound (--metrics bound)"
    rated, distorted = (
        {name for name, cell in row.cells.items() if cell.mean is not None} for row in (rate, distortion)
    )
    numbered = [[name for name in names if name in rated & distorted] for names in distortion.classes]
    names = max(numbered, key=len)  # of equally many the first, with which the baseline is compared
    if not names:
        return None, "no rate-distortion plane: no run has both a KL and a reconstruction"
    from nelbo.plots import rate_distortion  # here: matplotlib takes long to import

    apart = [name for comparable in numbered for name in comparable if name not in names]
    without = [group.name for group in comparison.groups if group.name not in rated & distorted]
    several = any(len(comparison.group(name).runs) > 1 for name in names)
    notes = [
        "Dashed: equal NELBO = rate + distortion; lower left is better."
        + (" Large: the mean of a group's runs; small: one run." if several else ""),
        f"log p(x | z): {kind}." if (kind := comparison.group(names[0]).log_px) else "",
        f"Not drawn, because it cannot be compared: {listed(apart)}." if apart else "",
        f"Not drawn, because it has no KL: {listed(without)}." if without else "",
    ]
    points = {}
    for name in names:
        pairs = zip(rate.cells[name].values, distortion.cells[name].values, strict=True)
        points[comparison.group(name).title] = [(x, y) for x, y in pairs if x is not None and y is not None]
    title = f"rate and distortion · {comparison.checkpoint} · {comparison.split}"
    return rate_distortion(points, title=title, notes=notes), ""


def default_file(comparison: Comparison) -> Path:
    """Return comparisons/{name}/rate-distortion.png beside the first run; other runs have another folder."""
    runs = [run for group in comparison.groups for run in group.runs]
    # Sorted, so that the file is the same in whatever order the runs are named.
    paths = sorted(str(Path(run.path).resolve()) for run in runs)
    compared = [paths, comparison.split, comparison.checkpoint]
    digest = hashlib.sha256(json.dumps(compared).encode()).hexdigest()[:6]
    folder = f"{runs[0].name.rpartition('/')[2]}-and-{len(runs) - 1}-{digest}"
    return Path(runs[0].path).parent / "comparisons" / folder / "rate-distortion.png"
