"""Writes the tables of the README, docs/tutorials.md and docs/metrics/ from benchmarks/records/, between markers.

    python benchmarks/tables.py [--check]

--check changes nothing and fails when a table is not what the records say.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import axes_pages
import disentangle
import speed_pages

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "records"
ORDER = [
    "digits",
    "conv-2d",
    "mlp-sigma-as-published",
    "mlp-sigma",
    "conv-bn-128",
    "mlp-tanh-binary-as-published",
    "mlp-tanh-binary",
    "fashion-mlp",
    "shapes",
]


def rows_of(recipe: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((RECORDS / f"{recipe}.json").read_text())
    return rows


def cell(rows: list[dict[str, Any]], metric: str, checkpoint: str = "best", digits: int = 1) -> str:
    """Mean over seeds ± their standard deviation; the word for why where there is no number."""
    found = [row["test"][checkpoint]["metrics"].get(metric) for row in rows]
    if any(entry is None for entry in found):
        return ""
    values = [entry["value"] for entry in found]
    if any(value is None for value in values):
        return str(found[0]["missing"])
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def precisions() -> str:
    """What the recipes were trained in; evaluation is always in float32."""
    in_bf16 = [recipe for recipe in ORDER if {row["precision"] for row in rows_of(recipe)} == {"bf16"}]
    if not in_bf16:
        return "float32"
    names = ", ".join(f"`{recipe}`" for recipe in in_bf16)
    return f"Trained in bfloat16 ({names}) or float32 (the others), all measured in float32"


def recipes_table() -> str:
    lines = [
        "| recipe | test NELBO, nats | reconstruction | KL | IW-NLL (K) | active | pixels | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for recipe in ORDER:
        rows = rows_of(recipe)
        metrics = rows[0]["test"]["best"]["metrics"]
        importance = metrics.get("iw_nll")
        k = "" if not importance or importance["value"] is None else importance["conditions"]["K"]
        iw = f"{importance['value']:.1f} ({k})" if k else ""
        kind = "binary" if "bits_per_dim" in metrics else "grey" if "grey_cross_entropy" in metrics else ""
        kind = kind or ("binary" if "binary" in recipe else "grey, Gaussian")
        nelbo = cell(rows, "nelbo")
        nelbo = f"**{nelbo}**" if nelbo[:1].isdigit() or nelbo[:1] == "-" else f"*{nelbo}*"
        lines.append(
            f"| `{recipe}` | {nelbo} | {cell(rows, 'reconstruction')} | {cell(rows, 'kl')} | {iw} "
            f"| {cell(rows, 'active_units', digits=0)} | {kind} | {len(rows)} |"
        )
    first = rows_of(ORDER[0])[0]
    commits = sorted({row["commit"] for recipe in ORDER for row in rows_of(recipe)})
    measured = sorted({row.get("measured_at") or "" for recipe in ORDER for row in rows_of(recipe)})
    hashes = sorted({row["data_hash"] for recipe in ORDER for row in rows_of(recipe)})
    hardware = sorted({row["hardware"] for recipe in ORDER for row in rows_of(recipe)})
    lines.append(
        f"\nTest split, best checkpoint, mean ± standard deviation over seeds (0, 1, 2); IW-NLL of seed 0. "
        f"{precisions()}, torch {first['torch']}, {'; '.join(hardware)}, data {', '.join(hashes)}, "
        f"trained at commit {', '.join(commits)}, measured at {', '.join(filter(None, measured))}; "
        "made by `python benchmarks/record.py`, written by `python benchmarks/tables.py`."
    )
    return "\n".join(lines)


def first_best_table() -> str:
    rows = rows_of("fashion-mlp")
    lines = ["| | reconstruction | KL | NELBO | bits/pixel of grey cross-entropy |", "|---|---|---|---|---|"]
    lines.append("| published, first | 537.49 | 5.85 | 543.33 | 0.9998 |")
    lines.append("| published, best | 516.20 | 7.96 | 524.16 | 0.9645 |")
    for checkpoint in ("first", "best"):
        cells = [cell(rows, name, checkpoint, 2) for name in ("reconstruction", "kl", "nelbo")]
        bits = cell(rows, "grey_cross_entropy", checkpoint, 4)
        lines.append(f"| here, {checkpoint} (n = {len(rows)}) | {' | '.join(cells)} | {bits} |")
    return "\n".join(lines)


def beside(recipes: dict[str, str], metrics: dict[str, tuple[str, int]]) -> str:
    """Metrics down, recipes across."""
    lines = [f"| | {' | '.join(recipes.values())} |", "|---" * (len(recipes) + 1) + "|"]
    for metric, (words, digits) in metrics.items():
        cells = [cell(rows_of(recipe), metric, digits=digits) or "the NELBO above" for recipe in recipes]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sigma_table() -> str:
    return beside(
        {"mlp-sigma-as-published": "as published", "mlp-sigma": "corrected"},
        {
            "reconstruction": ("reconstruction, nats", 1),
            "kl": ("KL, nats", 1),
            "nelbo": ("NELBO, nats of grey cross-entropy", 1),
            "active_units": ("active units of 20", 0),
        },
    )


def conv_bn_table() -> str:
    lines = [
        "| | MSE a pixel, scale [-1, 1] | KL, nats |",
        "|---|---|---|",
        "| measured elsewhere | 0.016 | 35.6 |",
    ]
    rows = rows_of("conv-bn-128")
    lines.append(f"| here (n = {len(rows)}) | {cell(rows, 'mse', digits=4)} | {cell(rows, 'kl')} |")
    return "\n".join(lines)


def not_a_bound_table() -> str:
    return beside(
        {"mlp-tanh-binary-as-published": "as published", "mlp-tanh-binary": "corrected"},
        {
            "reconstruction": ("reconstruction, nats", 1),
            "kl": ("KL, nats", 1),
            "nelbo": ("NELBO, nats", 1),
            "nelbo_independent_noise": ("NELBO of the same networks, each dimension with its own noise", 1),
        },
    )


PAGES = {
    "bound": {
        "nelbo": ("NELBO = rate + distortion", 1),
        "kl": ("KL: rate", 1),
        "reconstruction": ("reconstruction: distortion", 1),
        "bits_per_dim": ("bits/dim", 3),
        "grey_cross_entropy": ("grey cross-entropy", 3),
    },
    "latent": {"kl": ("KL, nats", 1), "active_units": ("active units", 0)},
    "information": {
        "mutual_information": ("I(x; z)", 2),
        "aggregate_kl": ("KL(q(z) to p(z))", 2),
        "total_correlation": ("total correlation", 2),
        "dimension_wise_kl": ("dimension-wise KL", 2),
    },
    "error": {"mse": ("MSE", 4), "psnr": ("PSNR, dB", 1), "ssim": ("SSIM", 3)},
    "quality": {
        "frechet_classifier_distance": ("distance", 3),
        "frechet_classifier_draws": ("of draws", 3),
        "frechet_classifier_means": ("of means", 3),
        "frechet_classifier_reconstructions": ("of reconstructions", 3),
        "frechet_classifier_train": ("of training images", 4),
        "precision": ("precision", 2),
        "recall": ("recall", 2),
        "density": ("density", 2),
        "coverage": ("coverage", 2),
        "classifier_accuracy": ("classifier", 3),
    },
    "probes": {
        "linear_probe_accuracy": ("linear probe", 3),
        "knn_accuracy": ("k-NN", 3),
        "clustering_nmi": ("clustering NMI", 3),
        "clustering_accuracy": ("clustering accuracy", 3),
    },
    "factors": {
        "mig": ("MIG", 2),
        "sap": ("SAP", 2),
        "dci_disentanglement": ("DCI-D", 2),
        "dci_completeness": ("DCI-C", 2),
        "dci_informativeness": ("DCI-I", 2),
        "factor_vae_score": ("FactorVAE", 2),
        "modularity": ("modularity", 2),
    },
}
"""What the tables of docs/metrics/ show: page -> metric -> (heading, digits)."""
NOT_RECORDED = "*Not recorded yet: `python benchmarks/record.py`.*"
MADE = "made by `python benchmarks/record.py`, written by `python benchmarks/tables.py`."


def page_table(page: str) -> str:
    """Recipes down, the metrics of one page across; a recipe without any of the page's own is left out."""
    metrics = PAGES[page]
    lines = [
        f"| recipe | {' | '.join(words for words, _ in metrics.values())} | seeds |",
        "|---" * (len(metrics) + 2) + "|",
    ]
    for recipe in ORDER:
        rows = rows_of(recipe)
        cells = [cell(rows, metric, digits=digits) for metric, (_, digits) in metrics.items()]
        if any(cells):
            lines.append(f"| `{recipe}` | {' | '.join(cells)} | {len(rows)} |")
    if len(lines) == 2:
        return NOT_RECORDED
    return "\n".join([*lines, f"\nTest split, best checkpoint, mean ± standard deviation over seeds; {MADE}"])


def importance_table() -> str:
    """What the importance-weighted estimate gains over the NELBO, where it was measured."""
    lines = ["| recipe | NELBO | IW-NLL | K | at K/10 | NELBO - IW-NLL |", "|---|---|---|---|---|---|"]
    for recipe in ORDER:
        for row in rows_of(recipe):
            metrics = row["test"]["best"]["metrics"]
            estimate = metrics.get("iw_nll", {})
            if estimate.get("value") is None:
                continue
            nelbo, value = metrics["nelbo"]["value"], estimate["value"]
            samples, fewer = estimate["conditions"]["K"], estimate["details"]["at_fewer_samples"]
            lines.append(
                f"| `{recipe}`, seed {row['seed']} | {nelbo:.1f} | {value:.1f} ± {estimate['standard_error']:.1f} "
                f"| {samples} | {fewer:.2f} | {nelbo - value:.1f} |"
            )
    return "\n".join([*lines, f"\nTest split, best checkpoint, ± standard error over images; {MADE}"])


def importance_speed_table() -> str:
    """Seconds and memory of the estimate on 10,000 images."""
    lines = ["| K | seconds | samples a second | peak memory |", "|---|---|---|---|"]
    table = json.loads((RECORDS / "importance-cpu.json").read_text())
    for samples, row in table["k"].items():
        every = ", ".join(f"{seconds:.1f}" for seconds in row["seconds"]["all"])
        lines.append(
            f"| {samples} | {row['seconds']['median']:.1f} ({every}) "
            f"| {row['samples_per_second']:,} | {row['peak_mb']} MB |"
        )
    about = table["environment"]
    return "\n".join(
        [*lines, f"\n10,000 MNIST test images, the network of `fashion-mlp` after one epoch; median (all runs); "
         f"{about['processor']}, {about['threads']} threads, torch {about['packages']['torch']}, commit "
         f"{about.get('git')}; `python benchmarks/importance.py`."]
    )  # fmt: skip


def encode_table() -> str:
    """Seconds of encoding, reconstructing and sampling, inside a program and as commands."""
    table = speed_pages.record("encode")
    if table is None:
        return speed_pages.missing("encode.py")
    verbs = ("encode", "reconstruct", "sample")
    lines = [
        f"| network | {' | '.join(verbs)} | {' | '.join(f'`nelbo {verb}`' for verb in verbs)} |",
        "|---" * (1 + 2 * len(verbs)) + "|",
    ]
    for recipe, row in table["recipes"].items():
        cells = [
            f"{row[part][verb]['median']:.3g} ({', '.join(f'{one:.3g}' for one in row[part][verb]['all'])})"
            for part in ("seconds", "commands")
            for verb in verbs
        ]
        lines.append(f"| `{recipe}` | {' | '.join(cells)} |")
    return "\n".join(
        [*lines, f"\nSeconds for {table['images']:,} images of 28 x 28, median (all): left inside a program whose "
         "model is loaded, right as commands of their own, from the start of Python to the last file (`encode` "
         f"writes one, the others a PNG an image); float32, {speed_pages.hardware(table)}, commit "
         f"{table['environment'].get('git')}; `{table['command']}`."]
    )  # fmt: skip


def baselines_table() -> str:
    found = json.loads((RECORDS / "baselines.json").read_text())
    lines = [
        "| data | 1/2 everywhere | the mean image | the image itself | MSE, PSNR, SSIM of the mean image |",
        "|---|---|---|---|---|",
    ]
    for words, row in found["data"].items():
        lines.append(
            f"| {words} | {row['half']:.1f} | {row['mean_image']:.1f} | {row['itself']:.1f} "
            f"| {row['mse']:.4f}, {row['psnr']:.1f} dB, {row['ssim']:.3f} |"
        )
    return "\n".join([*lines, f"\nTest splits; `{found['command']}`, commit {found['commit']}."])


def probe_baselines_table() -> str:
    found, columns = json.loads((RECORDS / "baselines.json").read_text()), PAGES["probes"]
    lines = [
        f"| data | probes of | {' | '.join(words for words, _ in columns.values())} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for words, row in found["data"].items():
        for name, of in (("pixels", "the pixels"), ("untrained", "an untrained encoder")):
            cells = [f"{row['probes'][name][metric]:.3f}" for metric in columns]
            lines.append(f"| {words} | {of} | {' | '.join(cells)} |")
    return "\n".join([*lines, f"\nTest splits; `{found['command']}`, commit {found['commit']}."])


def spread(rows: list[dict[str, Any]], key: str, digits: int = 1) -> str:
    """Mean over seeds ± their standard deviation."""
    values = [row[key] for row in rows]
    error = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{error}"


def faults_table() -> str:
    """Seven faults, one thing changed at a time: what the text prints or does, and what is so."""
    file = RECORDS / "faults.json"
    if not file.is_file():
        return NOT_RECORDED.replace("record.py", "faults.py")
    table = json.loads(file.read_text())
    found = table["faults"]
    sixty, half, whole = found["sixty-one"], found["half"], found["whole"]
    printed = [{"sum": row["reconstruction"] + row["kl"]} for row in sixty]
    doubled = [{"sum": row["reconstruction"] + 2 * row["kl"]} for row in half]
    published, faster = found["sigma as published"], found["sigma at 1e-3"]
    ended = sum("stopped" in row for row in faster)
    chosen, grey = found["selection"], found["grey"]
    floor = json.loads((RECORDS / "baselines.json").read_text())["data"]["Fashion-MNIST, grey"]["itself"]
    weights = "; ".join(f"{row['beta']:.3g} at sigma = {row['words']}" for row in found["hidden weight"])
    negative = f"{100 * statistics.mean(row['negative'] for row in published):.0f} %"
    real = "; ".join(
        f"{words}: **{found[words][0]['bits_per_dim']:.3f}** bits/dim (n = 1)"
        for words in ("discretised logistic", "dequantised, Gaussian")
    )
    (twice,) = found["squashed twice"]
    rows = [
        ("the bound of 61 nats", "`mlp-tanh-binary`", f"{spread(printed, 'sum')} printed",
         f"{spread(sixty, 'independent', 0)} when every dimension has its own noise; "
         f"{cell(rows_of('mlp-tanh-binary'), 'nelbo')} trained so"),
        ("the missing half of the KL", "`mlp-sigma`", f"{spread(doubled, 'sum')} printed",
         f"{spread(half, 'nelbo')} is its NELBO; {spread(whole, 'nelbo')} trained with the whole bound"),
        ("sigma through zero", "`mlp-sigma`",
         f"{negative} of sigmas negative, {spread(published, 'both_signs', 0)} of 20 dimensions with both signs, "
         f"smallest \\|sigma\\| {min(row['smallest'] for row in published):.1e}",
         f"at the corrected rate {ended} of {len(faster)} runs end in numbers that are not finite; "
         "none with a positive sigma"),
        ("the hidden weight of the KL", "`conv-bn-128`", "0.1", f"beta {weights}"),
        ("best by a moving loss", "`fashion-mlp`",
         f"epoch {spread(chosen, 'moving_epoch', 0)} (beta {spread(chosen, 'moving_beta', 2)}): loss "
         f"{spread(chosen, 'moving_loss')}, NELBO {spread(chosen, 'moving_nelbo')}",
         f"epoch {spread(chosen, 'best_epoch', 0)}: NELBO {spread(chosen, 'best_nelbo')}"),
        ("bits/dim of grey pixels", "`fashion-mlp`",
         f"{spread(grey, 'grey_cross_entropy', 3)}, of which {floor / (784 * math.log(2)):.3f} are the pixels' own "
         "entropy and not to be won", f"real likelihoods of the levels, same networks, 20 epochs: {real}"),
        ("524 nats on Fashion-MNIST", "`fashion-mlp`",
         "537.5 + 5.9 in the first epoch, 516.2 + 8.0 at the best",
         "likely a sigmoid taken for logits. Planted, one trial, validation: "
         f"{twice['first_reconstruction']:.1f} + {twice['first_kl']:.1f}, then {twice['picked_reconstruction']:.1f} + "
         f"{twice['picked_kl']:.1f} at the lowest moving loss (epoch {twice['picked_epoch']})"),
    ]  # fmt: skip
    lines = ["| fault | recipe | as published | what is so |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    about = f"Nats an image; test split, n = {len(sixty)} seeds, mean ± standard deviation; selection on validation"
    return "\n".join([*lines, f"\n{about}; `{table['command']}`, commit {table['commit']}."])


def planted_table() -> str:
    """What codes of known make score in disentanglement."""
    found, columns = json.loads((RECORDS / "planted.json").read_text()), PAGES["factors"]
    lines = [
        f"| codes | {' | '.join(words for words, _ in columns.values())} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for words, row in found["codes"].items():
        lines.append(f"| {words} | {' | '.join(f'{row[metric]:.2f}' for metric in columns)} |")
    about = f"`{found['command']}`, data {found['data_hash']}, n = {found['n']}, commit {found['commit']}"
    return "\n".join([*lines, f"\nTest split of `shapes`; {about}."])


TABLES: dict[str, Callable[[], str]] = {
    "faults": faults_table,
    **{f"metric-{page}": functools.partial(page_table, page) for page in PAGES},
    "metric-importance": importance_table,
    "importance-speed": importance_speed_table,
    "baselines": baselines_table,
    "planted": planted_table,
    "disentangle": disentangle.table,
    "probe-baselines": probe_baselines_table,
    "recipes": recipes_table,
    **speed_pages.TABLES,
    **axes_pages.TABLES,
    "encode": encode_table,
    "first-best": first_best_table,
    "sigma": sigma_table,
    "conv-bn": conv_bn_table,
    "not-a-bound": not_a_bound_table,
}


def written(text: str) -> str:
    """The text with every table between its markers made anew."""
    for name, make in TABLES.items():
        opening, closing = f"<!-- table: {name} -->", f"<!-- end: {name} -->"
        if opening in text:
            head, _, rest = text.partition(opening)
            _, _, tail = rest.partition(closing)
            text = f"{head}{opening}\n{make()}\n{closing}{tail}"
    return text


def main() -> int:
    stale = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        now = file.read_text(encoding="utf-8")
        new = written(now)
        if new != now:
            stale.append(file.name)
            if "--check" not in sys.argv:
                file.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print("not what the records say:", ", ".join(stale))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
