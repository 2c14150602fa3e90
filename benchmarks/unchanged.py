"""Proof that a change of the code changes no number: two epochs of thirteen configurations, compared to the bit.

    python benchmarks/unchanged.py record [--data DIR] [--only NAME ...]     before the change
    python benchmarks/unchanged.py check  [--data DIR] [--only NAME ...]     after it, on the same machine

`record` writes every number of `metrics.jsonl` except seconds, and a SHA-256 of the final weights, with the
configuration as TOML. `check` trains the recorded configurations again, prints the largest difference of each, and
ends with 1 where one differs. Bits repeat on one kind of processor only, so the record names its processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from methods import BASE, METHODS
from record import flags
from safetensors import safe_open

RECORD = Path(__file__).parent / "records" / "unchanged.json"
RECIPES = (
    "digits", "mlp-sigma", "mlp-tanh-binary", "conv-2d", "conv-bn-128", "fashion-mlp", "mnist-vae",
    "vq-vae", "hierarchical-vae", "factor-vae", "vamp-prior", "iaf",
)  # fmt: skip
FLAGS = {
    name: [BASE, *shlex.split(" ".join(flags(METHODS[name].changes)))] if name in METHODS else [name]
    for name in RECIPES
} | {"fashion-mlp-compiled": ["fashion-mlp", "--compile", "on"]}


def nelbo(*arguments: str, data: str) -> str:
    """Run a verb in a process of its own and return what it prints."""
    command = [sys.executable, "-m", "nelbo", *arguments, *(["--data-dir", data] if data else [])]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def trained(config: str, data: str) -> dict[str, Any]:
    """Train a configuration given as TOML; return its logged numbers, a hash of its weights and its processor."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.toml"
        file.write_text(config, encoding="utf8")
        nelbo("train", str(file), "--no-figures", "--json", "--runs", folder, "--name", "run", data=data)
        run = Path(folder) / "run"
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
        environment = json.loads((run / "env.json").read_text(encoding="utf8"))
        return {
            "processor": environment["processor"],
            "torch": environment["packages"]["torch"],
            "git": environment["git"],
            "rows": [{key: value for key, value in row.items() if key != "seconds"} for row in rows],
            "weights": hash_of_weights(run / "checkpoints" / "last.safetensors"),
        }


def hash_of_weights(file: Path) -> str:
    """SHA-256 over the names and the bytes of the model's tensors in a checkpoint, in order of their names."""
    digest = hashlib.sha256()
    with safe_open(file, framework="np") as tensors:
        for name in sorted(key for key in tensors.keys() if key.startswith("model.")):  # noqa: SIM118
            digest.update(name.encode() + tensors.get_tensor(name).tobytes())
    return digest.hexdigest()


def numbers(row: Any, path: str = "") -> dict[str, float]:
    """Flatten a row of `metrics.jsonl` to its numbers by path."""
    if isinstance(row, dict):
        return {
            key: value for name, item in row.items() for key, value in numbers(item, f"{path}.{name}").items()
        }
    if isinstance(row, list):
        return {
            key: value for i, item in enumerate(row) for key, value in numbers(item, f"{path}[{i}]").items()
        }
    return {path: float(row)} if isinstance(row, int | float) else {}


def difference(before: dict[str, Any], after: dict[str, Any]) -> tuple[float, str]:
    """Return the largest relative difference of two logs, and where it is; infinite where a number is missing."""
    old, new = numbers(before["rows"]), numbers(after["rows"])
    if old.keys() != new.keys():
        return float("inf"), f"only in one of them: {', '.join(sorted(old.keys() ^ new.keys()))}"
    return max(
        ((abs(old[key] - new[key]) / max(abs(old[key]), 1e-30), key) for key in old), default=(0.0, "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["record", "check"])
    parser.add_argument("--data", default=os.environ.get("NELBO_DATA", ""), help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=list(FLAGS), default=list(FLAGS))
    options = parser.parse_args()
    record = json.loads(RECORD.read_text(encoding="utf8")) if RECORD.is_file() else {}
    changed = []
    for name in options.only:
        if options.action == "record":
            words = [*FLAGS[name], "--epochs", "2", "--dry-run"]
            config = nelbo("train", *words, data=options.data)
            record[name] = {"config": config} | trained(config, options.data)
            RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
            print(f"{name}: recorded on {record[name]['processor']}", flush=True)
            continue
        after = trained(record[name]["config"], options.data)
        largest, place = difference(record[name], after)
        same = largest == 0 and after["weights"] == record[name]["weights"]
        if not same:
            changed.append(name)
        weights = "weights equal" if after["weights"] == record[name]["weights"] else "weights differ"
        verdict = "equal to the bit" if same else f"differs by {largest:.2g} at {place}; {weights}"
        print(
            f"{name}: {verdict} (recorded on {record[name]['processor']}, now {after['processor']})",
            flush=True,
        )
    if changed:
        raise SystemExit(f"changed: {', '.join(changed)}")


if __name__ == "__main__":
    main()
