"""The course of training and what the latent carries, as charts."""

from nelbo.core.layout import LatentRow, Logged, number, numbers
from nelbo.report import charts
from nelbo.report.charts import Chart
from nelbo.report.gathered import Facts

SPLITS: dict[Logged, str] = {"train": "training", "validation": "validation"}
NOTHING_NATS = 0.01  # of KL: a dimension below it carries next to nothing
FIRST = ("bound", "reconstruction", "kl", "total")  # then the parts of an objective, by name
Points = list[tuple[float, float]]


def curves(facts: Facts, prefix: str) -> list[Chart]:
    """Draw every logged quantity by epoch, then the weight of the KL and the active units where they change."""
    best = facts.summary.get("best_epoch")
    titled = [(f"{name}, nats an image", series) for name, series in quantities(facts).items()]
    beta = [(float(row["epoch"]), float(row["beta"])) for row in facts.history if row.get("beta") is not None]
    if len({value for _, value in beta}) > 1:  # a constant needs no chart
        titled.append(("β, the weight of the KL", {"beta": beta}))
    latents: list[tuple[int, LatentRow]] = [
        (row["epoch"], row["latent"]) for row in facts.history if "latent" in row
    ]
    if len(latents) > 1:
        active = [(float(epoch), float(latent["active_units"])) for epoch, latent in latents]
        titled.append((f"Active units, of {latents[-1][1]['dimensions']}", {"active units": active}))
    return [
        charts.curves(f"{prefix}curve{place}", title, series, best)
        for place, (title, series) in enumerate(titled)
    ]


def legend(facts: Facts) -> list[str]:
    """Return the names of the two lines of a chart, or none where there is only training."""
    return list(SPLITS.values()) if any("validation" in row for row in facts.history) else []


def quantities(facts: Facts) -> dict[str, dict[str, Points]]:
    """Return {name: {split: (epoch, value) of each epoch}}, without the total where it is the bound itself."""
    logged = dict.fromkeys(key for row in facts.history for split in SPLITS for key in row.get(split, {}))
    series_of: dict[str, dict[str, Points]] = {}
    for key in sorted(logged, key=lambda key: (FIRST.index(key) if key in FIRST else len(FIRST), key)):
        sign = -1.0 if key == "bound" else 1.0
        series = {}
        for split, name in SPLITS.items():
            rows = [row for row in facts.history if row.get(split, {}).get(key) is not None]
            if rows:
                series[name] = [(float(row["epoch"]), sign * row[split][key]) for row in rows]
        if series:
            series_of[_name(key, facts)] = series
    bound, total = (series_of.get(_name(key, facts)) for key in ("bound", "total"))
    if bound is not None and bound == total:  # an ELBO at beta 1 minimises the bound itself
        del series_of[_name("total", facts)]
    return series_of


def _name(key: str, facts: Facts) -> str:
    if key == "bound":
        return "Cross-entropy + KL" if facts.grey else facts.recipe.objective.bound_name
    return {"kl": "KL", "total": "Loss (what is minimised)"}.get(key, key.replace("_", " ").capitalize())


def estimates(facts: Facts, prefix: str) -> list[Chart]:
    """Draw the importance-weighted estimate over K and the KL of each dimension, as far as they were measured."""
    drawn = []
    if facts.curve:
        nelbo = number(facts.metrics.get("nelbo"))
        name = "Importance-weighted cross-entropy" if facts.grey else "Importance-weighted NLL"
        title = f"{name} over the number of samples, nats an image"
        bound = None if nelbo is None else (_name("bound", facts), nelbo)
        drawn.append(charts.estimate(f"{prefix}estimate", title, facts.curve, bound))
    kl_Z = numbers(facts.metrics.get("kl_per_dimension"))
    if kl_Z:
        empty = sum(kl < NOTHING_NATS for kl in kl_Z)
        pale = f"; pale: {empty} below {NOTHING_NATS} nats" if empty else ""
        title = f"KL of each latent dimension, nats{pale}"
        drawn.append(charts.bars(f"{prefix}kl", title, kl_Z, NOTHING_NATS))
    return drawn
