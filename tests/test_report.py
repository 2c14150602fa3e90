"""The report: sound HTML, all of it escaped, nothing fetched; every number, finding and picture is there or named."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods import recipe_of

from nelbo import cli, report
from nelbo.core import config
from nelbo.core.registry import lookup, names, register
from nelbo.doctor import Diagnosis, Finding
from nelbo.errors import ConfigError, DataError
from nelbo.evaluation import card, labels
from nelbo.pictures import Picture, heading
from nelbo.pictures.view import View
from nelbo.plots.style import BLUE, INK
from nelbo.report import Request, charts, figures, gathered, numbers, rendering
from nelbo.report.gathered import Facts, gather
from nelbo.report.page import page
from nelbo.training import api, events
from nelbo.training.recipe import Recipe, named, resolve
from nelbo.training.store import Run
from tests.conftest import recipes

ROOT = Path(__file__).parent.parent
VOID = {"meta", "img", "br"}
FEW = Request(samples=4, pictures=["samples"], device="cpu")
HOSTILE = "</style></td><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; ünï"


class Page(HTMLParser):
    """A page as its elements, in order: (name, attributes, text inside). Fails where a tag is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), attrs
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for place in self.open:
            self.elements[place][2].append(data)

    def all(self, tag: str, class_: str | None = None) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attrs, " ".join("".join(text).split()))
            for name, attrs, text in self.elements
            if name == tag and (class_ is None or class_ in (attrs.get("class") or "").split())
        ]

    def texts(self, tag: str, class_: str | None = None) -> list[str]:
        return [text for _, text in self.all(tag, class_)]


@pytest.fixture(scope="module")
def own_run(reported: tuple[Run, Facts]) -> Run:
    """The tiny run in a folder of the reports' own, for cards and reports are written into it."""
    return reported[0]


@pytest.fixture(scope="module")
def whole(reported: tuple[Run, Facts]) -> Facts:
    """Everything that a report says of the tiny run, all pictures included."""
    return reported[1]


@pytest.fixture(scope="module")
def text(whole: Facts) -> str:
    return page([whole])


# --- sound HTML -------------------------------------------------------------------------------


def test_a_page_is_sound(text):
    found = Page(text)
    ids = [attrs["id"] for _, attrs, _ in found.elements if "id" in attrs]
    assert len(ids) == len(set(ids)) > 10
    assert found.elements[0][:2] == ("html", {"lang": "en"})
    assert {attrs["href"] for attrs, _ in found.all("a")} <= {f"#{one}" for one in ids}
    assert {attrs["aria-labelledby"] for attrs, _ in found.all("section")} <= set(ids)
    levels = [int(name[1]) for name, _, _ in found.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels.count(1) == 1 == levels[0]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(texts for texts in found.texts("h2") + found.texts("h3"))
    assert len(found.all("title")) == len(found.all("main")) == len(found.all("nav")) == 1


def test_every_table_picture_and_drawing_says_what_it_is(text):
    found = Page(text)
    assert all(attrs.get("scope") in ("col", "row", "rowgroup") for attrs, _ in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table")) >= 2
    assert len(found.all("img")) >= 10
    for attrs, _ in found.all("img"):
        assert attrs["src"].startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
        assert len(attrs["alt"]) > 20
        assert int(attrs["width"]) > 50 < int(attrs["height"])
    drawings = [attrs for attrs, _ in found.all("svg") if "role" in attrs]
    assert len(drawings) >= 5
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 20 for attrs in drawings)
    boxes = found.all("div", "scroll")
    assert all(attrs["tabindex"] == "0" and attrs["aria-label"] for attrs, _ in boxes)


def test_nothing_is_fetched_and_nothing_runs(text):
    found = Page(text)
    names_ = {name for name, _, _ in found.elements}
    assert not names_ & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attrs, _ in found.elements:
        assert not any(key.startswith("on") for key in attrs)
        assert all(
            not (attrs.get(key) or "").startswith(("http:", "https:", "//")) for key in ("src", "href")
        )
    (style,) = found.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    policy = next(attrs["content"] for attrs, _ in found.all("meta") if attrs.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert len(text.encode()) < 5_000_000


def test_the_style_has_the_colours_of_the_plots_and_is_shipped():
    style = resources.files("nelbo.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    assert f"--accent: {BLUE.lower()}" in style
    assert f"--ink: {INK}" in style
    assert style.count("{") == style.count("}")
    for needed in (
        "prefers-color-scheme: dark",
        "@media print",
        "@page",
        "break-inside: avoid",
        "max-width: 30rem",
    ):
        assert needed in style
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/nelbo"]}  # every file of the package that git does not ignore
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", "src/nelbo/report/templates/style.css"],
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert ignored.returncode == 1


# --- escaping ---------------------------------------------------------------------------------


@given(st.text(), st.text())
def test_any_text_comes_back_from_an_element_and_an_attribute(inside, attribute):
    template = rendering.environment().from_string(
        '<p title="{{ attribute }}">{{ inside }}and {{ inside }}</p>'
    )
    (name, attrs, texts), *more = Page(template.render(inside=inside, attribute=attribute)).elements
    readable = rendering.UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", inside)
    expected = f"{readable}and {readable}".replace("\r\n", "\n").replace("\r", "\n")
    assert (name, more) == ("p", [])
    assert "".join(texts).replace("\r\n", "\n").replace("\r", "\n") == expected
    assert attrs["title"] == rendering.UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", attribute)


def test_no_template_switches_escaping_off_and_an_unknown_name_is_an_error():
    folder = resources.files("nelbo.report").joinpath("templates")
    templates = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
    assert {"page.html.j2", "parts.html.j2", "run.html.j2", "compared.html.j2", "style.css"} == set(templates)
    for text in templates.values():
        assert not re.search(r"autoescape|\|\s*safe\b|{%\s*raw", text)
    with pytest.raises(jinja2.UndefinedError):
        rendering.environment().from_string("{{ nothing_of_this_name }}").render()


def test_hostile_names_and_values_stay_text(own_run, whole, tmp_path):
    """A script in every place that a user, a data set or a plugin writes: none becomes an element."""
    run = Run(tmp_path / "<img src=x onerror=alert(3)>&")
    hostile_card = json.loads(json.dumps(whole.card))
    hostile_card["metrics"][HOSTILE] = {
        "value": None,
        "unit": HOSTILE,
        "standard_error": None,
        "note": HOSTILE,
    }
    hostile_card["sections"][HOSTILE] = [HOSTILE]
    environment = whole.environment | {"command": f"nelbo {HOSTILE}", "git": HOSTILE}
    environment["data"] = environment["data"] | {"class_names": [HOSTILE], "name": HOSTILE, "hash": HOSTILE}
    finding = Finding(HOSTILE, "serious", HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    changed = dataclasses.replace(
        whole,
        run=run,
        recipe=resolve(whole.recipe, {"data.source": HOSTILE, "recipe": HOSTILE}),
        promise=HOSTILE,
        changes=[(HOSTILE, HOSTILE, HOSTILE)],
        started_from=whole.recipe,
        card=hostile_card,
        environment=environment,
        history=[{"epoch": 1, "train": {HOSTILE: 2.0}}],
        diagnosis=Diagnosis(HOSTILE, "run", (finding,), (), {HOSTILE: HOSTILE}),
        drawings=[dataclasses.replace(whole.drawings[0], stem=HOSTILE, words=HOSTILE, group=HOSTILE)],
        left_out={HOSTILE: HOSTILE},
        not_measured=HOSTILE,
    )
    for runs in ([changed], [changed, changed]):
        written = page(runs)
        found = Page(written)
        assert not found.all("script")
        assert all("onerror" not in attrs for _, attrs, _ in found.elements)
        assert len(found.all("style")) == 1
        assert len(found.all("img")) == len(runs)
        assert written.count("&lt;script&gt;alert(1)") >= 20 * len(runs)
        assert any(run.name in heading for heading in found.texts("h1") + found.texts("h2"))


# --- what it says -----------------------------------------------------------------------------


def test_every_value_of_the_card_is_on_the_page(whole, text):
    found = Page(text)
    (rows,) = [table for table in [found.texts("table", "card")] if table]
    headings = found.texts("th")
    for name, entry in whole.metrics.items():
        value, spread, note = labels.shown(entry)
        assert any(heading.startswith(labels.label(name)) and note in heading for heading in headings), name
        assert f"{rendering.minus(value)} {spread}".strip() in rows[0], name
        assert entry["unit"] in rows[0]
    for section, values in whole.card["sections"].items():
        assert (labels.section(section) in rows[0]) == bool(values)
    assert set(names("metric")) <= set(whole.card["sections"])


def test_a_cross_entropy_is_called_what_it_is(whole, text):
    assert whole.grey
    (tiles,) = Page(text).texts("ul", "tiles")
    assert "Cross-entropy + KL" in tiles
    assert "Importance-weighted cross-entropy, K = 20" in tiles
    assert tiles.count(numbers.NOT_A_LIKELIHOOD) == 2
    assert "NELBO" not in tiles
    assert "bits/dim" not in tiles
    assert not any("NELBO" in drawing for drawing in Page(text).texts("figcaption"))


def test_binary_pixels_give_a_nelbo_and_bits(tiny_recipe, tmp_path):
    overrides = {"data.transforms": [{"name": "binarise", "threshold": 128}], "epochs": 2}
    run = api.train(tiny_recipe(overrides), runs=tmp_path, name="binary", device="cpu")
    found = gather(run, FEW, events.quiet)
    (tiles,) = Page(page([found])).texts("ul", "tiles")
    assert not found.grey
    for words in ("NELBO", "IW-NLL, K = 4", "Bits a dimension", "bits/dim", "of 3 dimensions", "images/s"):
        assert words in tiles
    value, spread, _ = labels.shown(found.metrics["nelbo"])
    assert f"{value} {spread} nats/image" in tiles


def test_what_is_not_a_bound_says_so(tiny_recipe, tmp_path):
    settings = {"model.posterior.noise": "shared", "epochs": 1}
    run = api.train(tiny_recipe(settings), runs=tmp_path, name="shared", device="cpu")
    found = gather(run, FEW, events.quiet)
    written = Page(page([found]))
    assert found.grey
    tiles = written.texts("li")
    assert any("not a bound" in tile and "noise" in tile for tile in tiles)
    assert written.texts("span", "words") == ["not a bound", "not a bound"]
    assert not any("NELBO" in caption for caption in written.texts("figcaption"))


def test_curves_hold_every_logged_epoch(whole):
    from nelbo.report.training import quantities

    found = quantities(whole)
    assert next(iter(found)) == "Cross-entropy + KL"
    history = whole.run.history()
    for split, key in (("training", "train"), ("validation", "validation")):
        assert found["KL"][split] == [(row["epoch"], row[key]["kl"]) for row in history]
        assert found["Cross-entropy + KL"][split] == [(row["epoch"], -row[key]["bound"]) for row in history]
    assert "Loss (what is minimised)" not in found  # at beta 1 it is the bound once more


def test_the_estimate_over_k_ends_in_the_estimate(whole):
    assert [k for k, _ in whole.curve] == [1, 2, 5, 10, 20]
    assert whole.curve[-1][1] == pytest.approx(whole.metrics["iw_nll"]["value"])


def test_findings_are_on_the_page_with_evidence_and_remedy(whole, monkeypatch):
    found = Finding("The KL is zero.", "serious", "KL 0.00 nats on test", "Warm up.", "nelbo train x", "a")
    less = Finding("It is late.", "worth knowing", "epoch 3", "Sleep.", "", "b")
    diagnosis = Diagnosis(
        "tiny", "run", (found, less), tuple(names("check")), {"c": "there is no test split"}
    )
    written = page([dataclasses.replace(whole, diagnosis=diagnosis)])
    parsed = Page(written)
    (verdict,) = parsed.texts("p", "verdict")
    assert verdict.startswith("2 findings")
    first, second = parsed.texts("div", "finding")
    for words in ("serious", *dataclasses.astuple(found)[:1], found.evidence, found.remedy, found.command):
        assert words in first
    assert "worth knowing" in second
    assert "there is no test split" in written
    assert written.index("The KL is zero") < written.index("It is late")


def test_nothing_found_says_what_was_looked_at(whole):
    diagnosis = Diagnosis("tiny", "run", (), tuple(names("check")), {})
    parsed = Page(page([dataclasses.replace(whole, diagnosis=diagnosis)]))
    (verdict,) = parsed.texts("p", "verdict")
    assert verdict == f"Nothing found; {len(names('check'))} checks were made."
    (looked,) = parsed.texts("details")
    assert all(name in looked for name in names("check"))
    assert "could not be asked: no such" in page([dataclasses.replace(whole, diagnosis="no such run")])


def test_the_doctor_is_asked_about_this_run(whole):
    assert isinstance(whole.diagnosis, Diagnosis)
    assert whole.diagnosis.kind == "run"
    assert set(whole.diagnosis.looked_at) | set(whole.diagnosis.not_looked_at) == set(names("check"))


# --- configuration and reproduction -----------------------------------------------------------


def test_the_configuration_on_the_page_is_the_configuration(whole, text):
    assert tomllib.loads(whole.toml) == config.to_dict(whole.recipe)
    assert "hidden = [32]" in whole.toml
    assert any(config.build(Recipe, tomllib.loads(block)) == whole.recipe
               for block in _blocks(text) if "recipe" in block)  # fmt: skip


def _blocks(text: str) -> list[str]:
    return ["".join(inside) for name, _, inside in Page(text).elements if name == "pre"]


@pytest.mark.parametrize("name", recipes())
def test_any_recipe_can_be_read_back_from_a_page(name, whole):
    recipe = recipe_of(name)
    assert tomllib.loads(dataclasses.replace(whole, recipe=recipe).toml) == config.to_dict(recipe)
    assert [spec.name for _, spec in gathered.components(recipe)][:1] != []
    assert all(field and spec.axis for field, spec in gathered.components(recipe))


def test_changes_from_the_recipe_are_named_field_by_field():
    base = named("digits")
    changed = resolve(base, {"epochs": 7, "model.latent_dim": 3, "objective.beta": 2.0, "clip_norm": 1.0})
    found = gathered._changes(base, changed)
    assert ("epochs", "100", "7") in found
    assert ("model.latent-dim", "2", "3") in found
    assert ("clip-norm", "-", "1") in found
    assert ("objective.beta", "linear(start 0, end 1, epochs 20)", "2") in found
    assert gathered._changes(base, base) == []


def test_a_run_of_a_recipe_says_whether_it_is_the_recipe(own_run, whole):
    base = named("digits")
    same = dataclasses.replace(whole, recipe=base, started_from=base, promise="19.3 +- 0.2", changes=[])
    assert "which promises: 19.3 ± 0.2" in page([same])
    assert "no field was changed" in page([same])
    other = dataclasses.replace(same, changes=[("epochs", "100", "7")])
    written = page([other])
    assert "with 1 field changed" in written
    assert "<mark>7</mark>" in written
    assert "A configuration of its own" in page([whole])


def test_reproduction_has_the_commands_and_the_versions(whole, text):
    blocks = " ".join(_blocks(text))
    packages = whole.environment["packages"]
    assert f"torch=={packages['torch'].partition('+')[0]}" in blocks
    assert "nelbo==" not in blocks
    assert "nelbo train config.toml --name tiny" in blocks
    assert "nelbo evaluate tiny --checkpoint best --split test --samples 20" in blocks
    for words in (whole.environment["data"]["hash"], whole.card["weights"], whole.environment["processor"]):
        assert words in text


def test_the_commands_on_the_page_make_the_run_again(text, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(text)
    Path("config.toml").write_text(next(one for one in blocks if "epochs = " in one), encoding="utf-8")
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("nelbo ")]
    again = [
        line for line in commands if line.split()[1] in ("train", "evaluate") and "/config.toml" not in line
    ]
    assert [line.split()[1] for line in again] == ["train", "evaluate"]
    assert cli.main([*again[0].split()[1:], "--no-figures", "--device", "cpu"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert cli.main([*again[1].split()[1:], "--metrics", "bound,importance", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["weights"] == whole.card["weights"]
    for name in ("nelbo", "kl", "iw_nll"):
        assert made["metrics"][name] == whole.metrics[name]


def test_images_from_python_cannot_come_from_a_command(whole):
    recipe = resolve(whole.recipe, {"data.source": api.FROM_PYTHON})
    blocks = " ".join(_blocks(page([dataclasses.replace(whole, recipe=recipe)])))
    assert "nelbo.train(\"config.toml\", data=..., name='tiny')" in blocks
    assert "nelbo train config.toml" not in blocks


def test_imported_files_are_repeated_in_the_commands(whole):
    request = dataclasses.replace(whole.request, imports=("my file.py",))
    blocks = " ".join(_blocks(page([dataclasses.replace(whole, request=request)])))
    assert "nelbo train config.toml --name tiny --import 'my file.py'" in blocks


# --- measuring and drawing --------------------------------------------------------------------


def test_a_complete_card_is_not_measured_again(own_run, whole, monkeypatch):
    monkeypatch.setattr(card, "evaluate", None)
    again = gather(own_run, Request(device="cpu", pictures=()), events.quiet)
    assert again.card == whole.card
    assert again.not_measured == ""


def test_a_quick_card_is_completed(run_copy, monkeypatch):
    card.evaluate(run_copy, samples=0, metrics=["bound"], device="cpu")
    asked: list[dict[str, Any]] = []
    real = card.evaluate
    monkeypatch.setattr(
        card, "evaluate", lambda *a, **more: asked.append(more) or real(*a, **more | {"samples": 3})
    )
    monkeypatch.setattr(gathered, "SAMPLES", 3)
    found = gather(run_copy, Request(device="cpu", pictures=()), events.quiet)
    assert set(found.card["sections"]) == set(names("metric"))
    assert found.card["samples"] == 3
    assert len(asked) == 1


@pytest.mark.parametrize("stale", [{"weights": "0" * 12}, {"precision": "bf16"}])
def test_a_card_of_other_weights_or_arithmetic_is_not_believed(stale, own_run, run_copy, whole):
    stale = json.loads(json.dumps(whole.card)) | stale
    stale["metrics"]["nelbo"]["value"] = -1.0
    run_copy.write_json(f"{card.stem('test', 'best', 20)}.json", stale)
    found = gather(run_copy, Request(device="cpu", samples=20, pictures=()), events.quiet)
    assert found.metrics["nelbo"]["value"] == pytest.approx(whole.metrics["nelbo"]["value"])


def test_a_card_that_cannot_be_completed_is_measured_anew(run_copy, whole):
    """Its numbers were sampled with another seed, so that what it lacks cannot be put beside them."""
    before = json.loads(json.dumps(whole.card)) | {"seed": 3}
    del before["sections"]["error"]
    run_copy.write_json(f"{card.stem('test', 'best', 20)}.json", before)
    found = gather(run_copy, Request(device="cpu", pictures=()), events.quiet)
    assert set(found.card["sections"]) == set(names("metric"))
    assert (found.card["seed"], found.card["samples"]) == (whole.card["seed"], 20)


def test_without_its_data_a_report_shows_what_was_kept(tiny_recipe, tiny_data, tmp_path):
    file = shutil.copy(tiny_data, tmp_path / "moved.npz")
    run = api.train(
        tiny_recipe({"data.source": str(file), "epochs": 1}), runs=tmp_path, name="moved", device="cpu"
    )
    card.evaluate(run, samples=0, metrics=["bound"], device="cpu")
    Path(file).unlink()
    found = gather(run, Request(device="cpu"), events.quiet)
    assert list(found.card["sections"]) == ["bound"]
    assert "moved.npz" in found.not_measured
    assert set(found.left_out) == set(figures.all_names())
    written = page([found])
    assert "Not completed: " in written
    assert Page(written).all("img") == []
    shutil.rmtree(run.path / "evaluation")
    with pytest.raises(DataError, match=r"moved\.npz"):
        gather(run, Request(device="cpu"), events.quiet)


def test_the_precision_of_the_training_is_the_one_that_was_used(run_copy):
    run_copy.write_json("summary.json", run_copy.summary | {"precision": "bf16"})
    written = page([gather(run_copy, Request(device="cpu", pictures=()), events.quiet)])
    assert "seed 0, bf16" in written
    assert "measures; precision fp32; evaluation seed" in written


def test_a_run_that_has_not_finished_can_be_reported(run_copy):
    (run_copy.path / "summary.json").unlink()
    written = page([gather(run_copy, FEW, events.quiet)])
    assert "Training has not finished." in written
    assert "Training speed" not in written


def test_all_pictures_are_drawn_or_named_with_a_reason(whole):
    drawn = {drawing.picture for drawing in whole.drawings}
    charted = {name for name in names("picture") if lookup("picture", name).in_report == "chart"}
    assert charted == {"curves", "iw-curve"}
    assert drawn | set(whole.left_out) | charted == set(names("picture"))
    assert not drawn & set(whole.left_out)
    assert {"samples", "reconstructions", "kl-history"} <= {drawing.stem for drawing in whole.drawings}
    groups = list(figures.grouped(whole.drawings))
    assert groups == [heading(group) for group in ("images", "latent", "walks", "checkpoints", "training")]


@pytest.mark.usefixtures("_forgotten")
def test_a_picture_that_fails_is_named_and_the_page_is_full_at_its_budget(own_run):
    def broken(view: View) -> Any:
        """A picture of a plugin."""
        raise ZeroDivisionError("by <zero>")

    register("picture", "broken", Picture(broken, "of a plugin", 0, "picture"))
    request = dataclasses.replace(FEW, pictures=["broken", "samples", "data"])
    found = gather(own_run, request, events.quiet)
    assert found.left_out == {"broken": "failed: ZeroDivisionError: by <zero>"}
    assert [drawing.stem for drawing in found.drawings] == ["data", "samples"]
    full = gather(own_run, dataclasses.replace(request, budget=len(found.drawings[0].data)), events.quiet)
    assert [drawing.stem for drawing in full.drawings] == ["data"]
    assert "nelbo plot tiny samples" in full.left_out["samples"]


def test_many_colours_become_a_jpeg_and_few_a_small_png():
    import io

    import numpy as np
    from PIL import Image

    from nelbo import plots

    stream = np.random.RandomState(0)
    noise = figures.encode(plots.image_grid(stream.rand(12, 16, 16, 3), title="noise", columns=6))
    assert noise.kind == "jpeg"
    assert noise.data.startswith(b"\xff\xd8")
    grey = figures.encode(plots.image_grid(stream.rand(12, 16, 16, 1), title="grey", columns=6))
    assert grey.kind == "png"
    with Image.open(io.BytesIO(grey.data)) as image:
        assert image.mode == "P"
        assert image.width == pytest.approx(grey.width * figures.DPI / 96, abs=2)


# --- several runs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(
    own_run: Run, tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory
) -> list[Facts]:
    """Two seeds of one configuration and one run of another."""
    folder = tmp_path_factory.mktemp("three")
    settings = {"a": {"seed": 0}, "b": {"seed": 1}, "c": {"objective.beta": 4.0}}
    runs = [
        api.train(tiny_recipe({"epochs": 2} | more), runs=folder, name=name, device="cpu")
        for name, more in settings.items()
    ]
    return [gather(run, FEW, events.quiet) for run in runs]


def test_several_runs_are_compared_and_then_shown_one_by_one(three):
    found = Page(page(three))
    ids = [attrs["id"] for _, attrs, _ in found.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for attrs, _ in found.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert {"#comparison", "#metrics", "#paired", "#run-1", "#run-3-card", "#run-2-reproduce"} <= set(links)
    assert found.texts("h2") == ["Comparison", "a", "b", "c"]
    assert found.texts("h1") == ["3 runs compared"]
    levels = [int(name[1]) for name, _, _ in found.elements if re.fullmatch(r"h[1-6]", name)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(found.all("ul", "tiles")) == 3
    assert len({attrs["alt"] for attrs, _ in found.all("img")}) == len(found.all("img")) >= 4


def test_the_comparison_on_the_page_is_the_comparison(three):
    """Every cell and note of its tables, in the words that a terminal prints."""
    from nelbo.evaluation import comparison
    from nelbo.evaluation.comparison import tables as of_comparison

    found = comparison.compare([facts_.run for facts_ in three], samples=4)
    assert [len(group.runs) for group in found.groups] == [2, 1]
    written = page(three)
    rows = Page(written).texts("tr")
    configuration = of_comparison.configuration(found)
    assert configuration.sections[0].rows[0].cells[0].text == "objective.beta"
    for table in (configuration, of_comparison.metrics(found), *of_comparison.paired(found)):
        for row in (row for section in table.sections for row in section.rows):
            cells = [rendering.minus(one.text) if one.kind == "number" else one.text for one in row.cells]
            assert any(all(text in words for text in cells) for words in rows), cells
        assert {f"{rendering.sentence(note)}." for note in table.notes} <= set(
            Page(written).texts("p", "soft")
        )
    assert "Rate-distortion plane" in written


def test_what_keeps_runs_from_being_compared_is_said(three, tiny_recipe, tmp_path):
    binary = {"data.transforms": [{"name": "binarise", "threshold": 128}], "epochs": 1}
    other = api.train(tiny_recipe(binary), runs=tmp_path, name="binary", device="cpu")
    both = [three[0], gather(other, FEW, events.quiet)]
    warnings = Page(page(both)).texts("p", "warning")
    assert any("different images" in warning for warning in warnings)
    assert "†" in page(both)
    alone = page([three[0], dataclasses.replace(three[0], run=Run(tmp_path / "gone"))])
    assert "The runs could not be compared: " in alone
    assert Page(alone).texts("h2") == ["Comparison", "a", "gone"]


def test_several_runs_are_written_here_and_share_the_budget(three, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked: list[int] = []
    real = figures.draw
    monkeypatch.setattr(figures, "draw", lambda *given: asked.append(given[2]) or real(*given))
    done = report.write([facts_.run for facts_ in three], request=dataclasses.replace(FEW, budget=3000))
    assert done.file == Path("report.html")
    assert list(done.left_out) == ["a", "b", "c"]
    assert asked == [1000, 1000, 1000]
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


# --- numbers and charts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (19.1257, 0.278, "19.13 ± 0.28"),
        (0.07513, 0.0016466, "0.0751 ± 0.0016"),
        (-3.5, 12.3, "−4 ± 12"),
        (239.2, 0.0999, "239.200 ± 0.100"),
        (2.0, None, "2"),
        (0.0, None, "0"),
        (0.000123456, None, "0.0001235"),
        (123456.7, None, "123457"),
        (5.0, 0.0, "5 ± 0"),
    ],
)
def test_numbers_are_rounded_to_their_standard_error(value, error, expected):
    value, spread, _ = labels.shown({"value": value, "standard_error": error, "note": ""})
    assert f"{rendering.minus(value)} {spread}".strip() == expected


def test_values_that_are_none_or_lists_are_shown_as_such():
    entry = {"value": None, "standard_error": None, "missing": "infinite", "note": "shared noise"}
    assert labels.shown(entry) == ("infinite", "", "shared noise")
    assert labels.shown({"value": None, "standard_error": None, "note": ""})[0] == "none"
    value, spread, note = labels.shown(entry | {"value": [1.5, -2.25], "note": "n"})
    assert (rendering.minus(value), spread, note) == ("−2.250 to 1.500", "", "n")
    assert rendering.minus("-") == "–"
    assert labels.label("iw_nll") == "IW NLL"
    assert labels.label("active_units") == "Active units"
    assert labels.label("knn_accuracy") == "k-NN accuracy"


def drawn(chart: charts.Chart) -> Page:
    return Page(f'<svg viewBox="{chart.box}">{chart.drawing}</svg>')


def line(chart: charts.Chart) -> list[tuple[float, float]]:
    """The points of the first line that a chart draws in the colour of its first series."""
    (path, *_) = [
        attrs["d"]
        for attrs, _ in drawn(chart).all("path")
        if "stroke: var(--c0)" in (attrs.get("style") or "")
    ]
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)]


def test_a_line_is_drawn_to_scale():
    first, middle, last = line(charts.curves("k", "t", {"a": [(1.0, 0.0), (2.0, 5.0), (3.0, 10.0)]}))
    assert (first[0] + last[0]) / 2 == pytest.approx(middle[0], abs=0.1)
    assert (first[1] + last[1]) / 2 == pytest.approx(middle[1], abs=0.1)
    assert first[0] < last[0]
    assert first[1] > last[1]  # upwards
    first, middle, last = line(charts.estimate("k", "t", [(1.0, 1.0), (10.0, 2.0), (100.0, 3.0)], None))
    assert middle[0] - first[0] == pytest.approx(last[0] - middle[0], abs=0.1)


def test_a_chart_has_text_the_colours_of_the_page_and_ids_of_its_own():
    series = {"training": [(1.0, 3.0), (2.0, 1.0)], "validation": [(1.0, 4.0), (2.0, 2.0)]}
    one, other = charts.curves("one", "t", series, best=2), charts.curves("other", "t", series, best=2)
    style = resources.files("nelbo.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    assert "epoch" in drawn(one).texts("text")
    assert not re.search(r"[\"' ]#[0-9a-f]{6}\b", one.drawing)
    names_ = set(re.findall(r"var\((--[a-z0-9]+)\)", one.drawing))
    assert {"--c0", "--c1", "--soft", "--rule"} <= names_
    assert all(style.count(f"{name}: #") == 2 for name in names_), "each has a light and a dark value"
    ids = [{attrs["id"] for _, attrs, _ in drawn(chart).elements if "id" in attrs} for chart in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', one.drawing))
    assert used <= ids[0]
    assert one.words == "training: 3 at 1 to 1 at 2; validation: 4 at 1 to 2 at 2"
    assert charts.curves("one", "t", series, best=2) == one


def test_a_beginning_that_dwarfs_the_rest_is_cut_and_said():
    values = [500.0, 60.0, *[20.0 - 0.1 * epoch for epoch in range(28)]]
    chart = charts.curves("k", "t", {"a": [(float(epoch), value) for epoch, value in enumerate(values, 1)]})
    assert "↑ 500 in epoch 1" in drawn(chart).texts("text")
    even = charts.curves("k", "t", {"a": [(float(x), float(x)) for x in range(30)]})
    assert not any("↑" in text for text in drawn(even).texts("text"))


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [float("nan")], [], [float("inf"), 2.0], [-1.0, -1.0]])
def test_awkward_values_are_drawn_or_said(values):
    chart = charts.curves("k", "t", {"a": [(float(x), y) for x, y in enumerate(values, 1)]})
    assert bool(chart.drawing) == any(abs(value) < float("inf") for value in values)
    assert "nan" not in chart.drawing
    written = rendering.macros("parts").charts([], [chart])
    assert ("no finite value" in written) == (not chart.drawing)
    Page(written)


def test_bars_stand_on_zero_in_proportion():
    chart = charts.bars("k", "t", [1.0, 4.0, 0.0], 0.01)
    paths = [attrs for attrs, _ in drawn(chart).all("path") if "fill: var(--" in (attrs.get("style") or "")]
    tall = []
    for attrs in paths:
        ys = [float(y) for _, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", attrs["d"])]
        tall.append(max(ys) - min(ys))
    assert tall[0] == pytest.approx(4 * tall[1], rel=0.02)
    assert tall[2] == 0
    assert "var(--pale)" in paths[2]["style"]
    assert "z1" in drawn(chart).texts("text")
    assert "z1" not in drawn(charts.bars("k", "t", [1.0] * 30, 0.01)).texts("text")


# --- writing ----------------------------------------------------------------------------------


def test_written_twice_it_is_the_same_file(own_run, tmp_path):
    request = dataclasses.replace(FEW, pictures=["samples", "kl", "scatter"])
    files = [report.write([own_run], tmp_path / f"{i}.html", request=request).file for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_one_run_has_its_report_in_its_folder(own_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    done = report.write([own_run], request=FEW, tell=told.append)
    assert done.file == own_run.path / "report.html"
    assert done.left_out == {"tiny": {}}
    assert told[0] == events.RunOpened("tiny")
    assert any(isinstance(event, events.PictureBegun) for event in told)
    assert report.write([own_run, own_run], request=FEW).file == done.file  # given twice, it is still one run
    assert list(tmp_path.iterdir()) == []
    assert [file.name for file in own_run.path.iterdir() if file.name.startswith("report")] == ["report.html"]


def test_nothing_but_a_report_is_replaced(own_run, tmp_path):
    other = tmp_path / "notes.html"
    other.write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no report"):
        report.write([own_run], other, request=FEW)
    assert other.read_text(encoding="utf-8") == "<p>mine</p>"
    with pytest.raises(ConfigError, match="is a folder"):
        report.write([own_run], tmp_path, request=FEW)
    with pytest.raises(ConfigError, match="is a file"):
        report.write([own_run], other / "x.html", request=FEW)
    with pytest.raises(ConfigError, match="needs a run"):
        report.write([])


@pytest.fixture
def nelbo(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_run: Run
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["report", *map(str, arguments), "--runs", str(own_run.path.parent)])
        return code, *capsys.readouterr()

    return run


def test_the_verb(nelbo, own_run):
    arguments = ("tiny", "--samples", 4, "--pictures", "samples,tsne", "--device", "cpu")
    code, out, err = nelbo(*arguments, "--json")
    table = json.loads(out)
    assert (code, err) == (0, "")
    assert table["file"] == str(own_run.path / "report.html")
    assert table["bytes"] == (own_run.path / "report.html").stat().st_size
    assert table["runs"] == ["tiny"]
    assert nelbo(*arguments) == (0, f"  {own_run.path / 'report.html'}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["a report needs a run"]),
        (("tinny",), ["'tinny'", "'tiny'"]),
        (("tiny", "--pictures", "sampels"), ["'sampels'", "'samples'"]),
        (("tiny", "--pictures", ","), ["--pictures", "none"]),
        (("tiny", "--split", "tset"), ["'tset'", "'test'"]),
        (("tiny", "--samples", "-2"), ["samples"]),
        (("tiny", "--out", "."), ["--out", "is a folder"]),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(arguments, words, nelbo, tmp_path):
    code, out, err = nelbo(*arguments)
    assert (code, out) == (2, "")
    assert all(word in err for word in words), err
    assert list(tmp_path.iterdir()) == []
