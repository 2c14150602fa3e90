"""The README and CONTRIBUTING run: their Python as it stands, their commands as a user types them."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from nelbo.cli import main

ROOT = Path(__file__).parent.parent


def blocks(file: str, language: str) -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.S | re.M)
    return [body for name, body in fences if name == language]


def test_readme_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert "nats/image" in capsys.readouterr().out
    assert tuple(names["images"].shape) == (200, 20, 14, 3)
    assert names["model"].sample(2).shape == (2, 3, 20, 14)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"first-steps", "arrays"}


def test_readme_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "path" / "to" / "images"
    images.mkdir(parents=True)
    Image.new("L", (40, 30), 120).save(images / "a.png")
    lines = [
        line
        for block in blocks("README.md", "bash")
        for line in block.splitlines()
        if line.startswith("nelbo")
    ]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "train" and "--dry-run" not in words:
            second = ["--name", "digits-s1", "--no-figures"]  # the first has drawn them all
            words += ["--epochs", "3", *(second if "--seed" in words else ["--name", "digits-s0"])]
        if words[0] == "report":
            words += ["--pictures", "samples,kl"]  # all of them are in the report of tests/test_report.py
        if words[0] == "bench":
            # One side of those that compile; each of the others compiles as it does, once more.
            words += ["--epochs", "2", "--repeat", "1", "--sides", "plain,nelbo,nelbo-compiled"]
        if words[0] == "evaluate":
            words[-1] = "50"
        assert main(words) == 0, f"{line}\n{capsys.readouterr().err}"
    assert (tmp_path / "runs" / "digits-s0" / "figures" / "manifold.png").is_file()


def test_contributing_example_is_an_objective(tmp_path, monkeypatch, capsys):
    """The documented IWAE trains from outside the package, by name, and is a bound: K = 1 is the ELBO."""
    from nelbo.core import Progress
    from nelbo.core.registry import lookup
    from nelbo.models import VAE
    from nelbo.objectives import ELBO

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_file.py").write_text(blocks("CONTRIBUTING.md", "python")[0], encoding="utf-8")
    arguments = ["train", "digits", "--import", "my_file.py", "--objective", "my-iwae", "--objective.k", "3"]
    assert main([*arguments, "--epochs", "1", "--no-figures"]) == 0, capsys.readouterr().err
    iwae = lookup("objective", "my-iwae")
    model = VAE(latent_dim=2).build((1, 4, 4)).double()
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64).round()
    torch.manual_seed(0)
    one = iwae(k=1)(model.draw(x), Progress()).bound_B
    torch.manual_seed(0)
    elbo = ELBO(kl="monte-carlo")(model.draw(x), Progress()).bound_B
    assert torch.allclose(one, elbo)
    draw = model.draw(x, 3)
    assert math.isclose(
        float(iwae(k=3)(draw, Progress()).bound_B.sum().detach()),
        float((draw.log_px_KB + draw.log_pz_KB - draw.log_qz_KB).exp().mean(0).log().sum().detach()),
    )
    exec(compile(blocks("CONTRIBUTING.md", "python")[1], "CONTRIBUTING.md", "exec"), {"MyIWAE": iwae})


def test_readme_tree_names_what_is_there():
    tree = blocks("README.md", "")[-1]
    inside = {part for line in tree.splitlines() for part in line.split()[:1] if part.endswith((".py", "/"))}
    real = {path.name + ("/" if path.is_dir() else "") for path in (ROOT / "src" / "nelbo").iterdir()}
    real -= {"__pycache__/", "__init__.py", "__main__.py", "py.typed"}
    assert real <= inside, f"not in the README's tree: {real - inside}"
    assert inside - {"src/nelbo/", "tests/", "benchmarks/", "docs/"} <= real


@pytest.mark.parametrize("file", ["README.md", "docs/tutorials.md", "CONTRIBUTING.md"])
def test_links_and_pictures_exist(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r'src="([^":]+)"', text)
    for target in targets:
        assert ((ROOT / file).parent / target).exists(), target


def test_commands_in_the_tutorials_page_parse(tmp_path, monkeypatch, capsys):
    """Every `nelbo train NAME` of the page is a recipe, every picture and flag exists."""
    from nelbo.core.registry import names

    text = " ".join((ROOT / "docs" / "tutorials.md").read_text(encoding="utf-8").split())
    commands = re.findall(r"`nelbo ([a-z]+) ([^`]*)`", text)
    assert len(commands) > 8
    for verb, rest in commands:
        words = shlex.split(rest)
        if verb == "train":
            assert main(["train", *words, "--dry-run", "--runs", str(tmp_path)]) == 0, capsys.readouterr().err
        elif verb == "plot":
            assert set(words[1:]) <= set(names("picture")), words
