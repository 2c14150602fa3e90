"""Samplers of a run: from Python and the command line, the choice of one, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import nelbo as library
from nelbo import cli, pictures
from nelbo.core import config
from nelbo.core.registry import lookup, names
from nelbo.errors import ConfigError, UnknownName
from nelbo.evaluation import card, samplers
from nelbo.metrics import fid
from nelbo.metrics.quality import quality
from nelbo.pictures.view import View
from nelbo.samplers import Prior, Sampler
from nelbo.samplers.density import Density
from nelbo.samplers.exemplars import Exemplars
from nelbo.samplers.gaussian_mixture import GaussianMixture
from nelbo.training import api
from nelbo.training.store import Run

QUICK = {"density.steps": 30, "two-stage.steps": 60, "two-stage.hidden": [8], "riemannian.moves": 6}
MAIN = "frechet_classifier_distance"


@pytest.fixture(scope="module")
def compared(tiny_run, tmp_path_factory):
    """(a copy of the run, what `compare` says of it): shared, to be read."""
    folder = tmp_path_factory.mktemp("compared") / "tiny"
    run = Run(shutil.copytree(tiny_run.path, folder))
    return run, samplers.compare(run, settings=QUICK, device="cpu")


# --- from Python --------------------------------------------------------------------------------


def test_a_sampler_gives_images_and_latents_and_repeats_itself(tiny_run):
    drawn = library.sampler(tiny_run, "gaussian-mixture", {"components": 3}, device="cpu")
    assert drawn.spec == GaussianMixture(components=3)
    images = drawn.sample(7)
    assert images.shape == (7, 1, 8, 8)
    assert images.dtype == torch.float32
    assert torch.equal(images, drawn.sample(7))
    assert not torch.equal(images, drawn.sample(7, seed=1))
    torch.manual_seed(99)
    np.random.seed(99)
    again = library.sampler(tiny_run, GaussianMixture(components=3), device="cpu")
    assert torch.equal(images, again.sample(7)), "whatever else is random"
    other = library.sampler(tiny_run, GaussianMixture(components=3), seed=5, device="cpu")
    assert not torch.equal(images, other.sample(7)), "another seed fits another mixture"


def test_the_callers_random_stream_stays_where_it_was(tiny_run):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    library.sampler(tiny_run, "two-stage", {"steps": 3}, device="cpu").sample(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_prior_draws_what_a_view_always_drew(tiny_run):
    view = View.open(tiny_run, device="cpu")
    with samplers.engine.fixed_seed(0, view.device):
        z_NZ = view.model.sample_prior(6)
    assert torch.equal(view.samples(6)[0], z_NZ)
    assert torch.equal(library.sampler(tiny_run, "prior", device="cpu").latents(6), z_NZ)
    assert torch.equal(view.samples(6, 0.5)[0], 0.5 * z_NZ)


def test_the_prior_encodes_nothing(tiny_run, monkeypatch):
    view = View.open(tiny_run, device="cpu")
    monkeypatch.setattr(view.model, "encode", None)
    view.samples(3)


def test_a_view_draws_from_any_sampler(tiny_run):
    view = View.open(tiny_run, device="cpu")
    z_NZ, x_NCHW = view.samples(6, sampler=Exemplars())
    assert torch.equal(z_NZ, library.sampler(tiny_run, "exemplars", device="cpu").latents(6))
    assert torch.equal(x_NCHW, view.decode(z_NZ))


def test_encoded_latents_are_those_of_the_training_images(tiny_run):
    view = View.open(tiny_run, device="cpu")
    encoded = samplers.Encoded(view.model, view.split)
    train = view.split.of(view.splits.train)
    means = torch.cat([view.model.encode(x).mean for x in train.batches()])
    assert torch.equal(encoded.train.mean_NZ, means)
    assert len(encoded.validation) == len(view.splits.validation)
    assert not torch.equal(encoded.train.z_NZ[:5], means[:5]), "samples, not means"
    at = torch.tensor([4, 2, 4])
    again = encoded.train.again(at)
    away = ((again - means[at]) / encoded.train.std_NZ[at]).abs()
    assert away.max() < 5
    assert not torch.equal(again[0], again[2]), "fresh noise"
    batch = next(train.batches(7))
    noise = encoded.validation.z_NZ[0] - encoded.validation.mean_NZ[0]
    assert batch.shape[0] == 7
    assert not torch.allclose(noise, encoded.train.z_NZ[0] - encoded.train.mean_NZ[0]), "noise of its own"


def test_more_images_than_are_needed_are_not_encoded(tiny_run):
    view = View.open(tiny_run, device="cpu")
    latents = samplers.Encoded(view.model, view.split, most=30).train
    assert len(latents) == 30
    assert latents.again(torch.tensor([29])).shape == (1, 3)


def test_binarised_images_are_seen_as_evaluation_sees_them(tiny_recipe, tmp_path):
    recipe = tiny_recipe({"data.transforms": [{"name": "dynamic-binarise"}], "epochs": 1})
    run = api.train(recipe, runs=tmp_path, device="cpu")
    view = View.open(run, device="cpu")
    encoded = samplers.Encoded(view.model, view.split)
    seen = []
    encode = view.model.encode
    view.model.encode = lambda x: (seen.append(x), encode(x))[1]
    encoded.train.again(torch.tensor([3, 1]))
    everything = torch.cat(list(view.split.of(view.splits.train).batches()))
    assert torch.equal(seen[-1], everything[[3, 1]])


def test_every_sampler_works_where_posteriors_are_points(tiny_run, monkeypatch):
    from nelbo.posteriors.dirac import Point

    view = View.open(tiny_run, device="cpu")
    encode = view.model.encode
    monkeypatch.setattr(view.model, "encode", lambda x: Point(encode(x).mean))
    encoded = samplers.Encoded(view.model, view.split)
    assert torch.equal(encoded.train.z_NZ, encoded.train.mean_NZ)
    for name in names("sampler"):
        spec = config.build(
            Sampler, {"name": name, **({"steps": 9} if name in ("density", "two-stage") else {})}
        )
        drawn = encoded.fit(spec).sample(5)
        assert drawn.shape == (5, 3)
        assert drawn.isfinite().all(), name


# --- the choice ---------------------------------------------------------------------------------


def test_every_sampler_is_measured_and_the_nearest_chosen(compared):
    run, table = compared
    assert set(table["samplers"]) == set(names("sampler"))
    distances = {
        name: entry["metrics"][MAIN]["value"]
        for name, entry in table["samplers"].items()
        if not entry["copies"]
    }
    assert set(distances) == set(names("sampler")) - {"exemplars"}
    assert table["chosen"] == min(distances, key=distances.get)
    assert table["by"] == MAIN
    assert table["validation"]["n"] == 24
    assert table["test"]["n"] == 40
    for entry in (*table["samplers"].values(), table["test"]):
        assert {MAIN, "precision", "recall", "density", "coverage"} <= set(entry["metrics"])
    assert table["samplers"]["two-stage"]["config"]["steps"] == 60
    assert set(table["samplers"]["prior"]["seconds"]) == {"fit", "draw"}
    references = table["validation"]["references"]
    assert set(references) == {"frechet_classifier_reconstructions", "frechet_classifier_train"}
    assert json.loads((run.path / samplers.FILE).read_text()) == {"format": 1} | table
    assert not (run.path / "evaluation" / "unfinished").exists()


def test_copies_of_training_images_are_not_chosen_for_their_distance(run_copy):
    def near(value, copies):
        return {"copies": copies, "metrics": {MAIN: {"value": value}}}

    table = {"exemplars": near(0.1, True), "prior": near(0.3, False), "density": near(0.2, False)}
    assert samplers._best(table, MAIN) == "density"
    assert samplers.compare(run_copy, ["exemplars"], device="cpu")["chosen"] == "exemplars", "the only one"
    assert not Exemplars(noise=0.1).copies


def test_without_a_classifier_fid_judges_where_its_weights_are(tiny_recipe, tmp_path, tiny_data, monkeypatch):
    with np.load(tiny_data) as arrays:
        np.savez(tmp_path / "bare.npz", images=arrays["images"], x_test=arrays["x_test"])
    run = api.train(tiny_recipe({"data.source": str(tmp_path / "bare.npz"), "epochs": 1}), runs=tmp_path)
    monkeypatch.setattr(fid, "why_not", lambda path: None)
    monkeypatch.setattr(fid, "load", lambda file, device: lambda x, **_: x.float().flatten(1)[:, :7])
    table = samplers.compare(run, ["prior", "gaussian-mixture"], device="cpu")
    assert table["by"] == "fid"
    values = {name: entry["metrics"]["fid"]["value"] for name, entry in table["samplers"].items()}
    assert table["chosen"] == min(values, key=values.get)
    assert set(table["validation"]["references"]) == {"fid_reconstructions"}
    assert table["test"]["metrics"]["fid"]["note"].startswith(f"means of p(x|z), z ~ {table['chosen']}")


def test_the_prior_gets_what_the_card_says(compared):
    """One function measures both: on the validation split the numbers are those of `nelbo evaluate`."""
    run, table = compared
    found = card.evaluate(run, split="validation", metrics=["quality"], device="cpu")["metrics"]
    for name, entry in table["samplers"]["prior"]["metrics"].items():
        assert entry["value"] == found[name]["value"], name
        assert entry["standard_error"] == found[name]["standard_error"]
    for name, entry in table["validation"]["references"].items():
        assert entry["value"] == found[name]["value"], name


def test_the_same_comparison_gives_the_same_numbers(compared, run_copy):
    _, table = compared
    again = samplers.compare(run_copy, settings=QUICK, device="cpu")
    for name, entry in table["samplers"].items():
        assert again["samplers"][name]["metrics"] == entry["metrics"]
    assert again["chosen"] == table["chosen"]
    assert again["test"] == table["test"]


def test_chosen_is_what_was_chosen(compared):
    run, table = compared
    drawn = library.sampler(run, device="cpu")
    assert drawn.spec == config.build(Sampler, table["samplers"][table["chosen"]]["config"])


def test_chosen_is_of_these_weights(compared):
    run, _ = compared
    with pytest.raises(ConfigError, match=r"other weights .*checkpoint best, epoch .*nelbo samplers"):
        library.sampler(run, checkpoint="first", device="cpu")


def test_an_interrupted_comparison_goes_on(run_copy, monkeypatch):
    fits = []
    fit = samplers.Encoded.fit

    def interrupted(self, spec):
        fits.append(spec.name)
        if len(fits) == 3:
            raise KeyboardInterrupt
        return fit(self, spec)

    asked = ["prior", "exemplars", "gaussian-mixture"]
    monkeypatch.setattr(samplers.Encoded, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        samplers.compare(run_copy, asked, device="cpu")
    assert not (run_copy.path / samplers.FILE).exists()
    table = samplers.compare(run_copy, asked, device="cpu")
    assert fits[3:] == ["gaussian-mixture", table["chosen"]], "what was measured is not measured again"
    samplers.compare(run_copy, asked, device="cpu")
    assert len(fits) == 9, "what is finished is measured anew when asked for"


def test_one_that_cannot_be_fitted_is_left_out_with_its_reason(run_copy):
    settings = {"gaussian-mixture.components": 1000}
    table = samplers.compare(run_copy, ["prior", "gaussian-mixture"], settings, device="cpu")
    assert "1000 training latents" in table["samplers"]["gaussian-mixture"]["refused"]
    assert table["chosen"] == "prior"


def test_a_setting_of_a_sampler_that_is_not_asked_for_is_refused(run_copy):
    with pytest.raises(ConfigError, match="--exemplars: this sampler is not among"):
        samplers.compare(run_copy, ["prior"], {"exemplars.noise": 0.1}, device="cpu")


def test_without_labels_an_untrained_network_judges(tiny_recipe, tmp_path, tiny_data):
    with np.load(tiny_data) as arrays:
        np.savez(tmp_path / "bare.npz", images=arrays["images"], x_test=arrays["x_test"])
    run = api.train(tiny_recipe({"data.source": str(tmp_path / "bare.npz"), "epochs": 1}), runs=tmp_path)
    table = samplers.compare(
        run, ["prior", "gaussian-mixture"], {"gaussian-mixture.components": 2}, device="cpu"
    )
    assert table["by"] == "frechet_untrained_distance"
    assert all(table["by"] in row["metrics"] for row in table["samplers"].values())
    assert table["chosen"] in table["samplers"]


def test_a_judge_of_a_split_measures_any_latents(tiny_run):
    """The metric is the judge with latents of the prior."""
    from nelbo.metrics.quality import Judge

    view = View.open(tiny_run, device="cpu")
    judge = Judge.of(view.split)
    sets = judge.generated(view.model, view.model.sample_prior)
    mine = dict(judge.distances(sets)) | dict(judge.neighbours(sets))
    for name, value in quality(view.model, view.split):
        if name in mine:
            assert dataclasses.replace(mine[name], conditions=value.conditions) == value
    far = judge.generated(view.model, lambda n: torch.full((n, 3), 50.0))
    assert dict(judge.distances(far))[MAIN].value > mine[MAIN].value


# --- command line -------------------------------------------------------------------------------


@pytest.fixture
def at(run_copy):
    return ("tiny", "--runs", run_copy.path.parent, "--device", "cpu")


def test_sample_with_a_sampler_and_its_settings(nelbo, at, run_copy, tmp_path):
    out = tmp_path / "made"
    arguments = ("--sampler", "gaussian-mixture", "--sampler.components", "4", "-n", "3", "--out", out)
    code, found, err = nelbo("sample", *at, *arguments, "--json")
    assert code == 0, err
    table = json.loads(found)
    assert table["sampler"]["components"] == 4
    latents = np.load(out / "samples-latents.npy")
    expected = library.sampler(run_copy, "gaussian-mixture", {"components": 4}, device="cpu").latents(3)
    np.testing.assert_array_equal(latents, expected.numpy())
    code, _, err = nelbo("sample", *at, "--sampler.components=3", "--sampler=gaussian-mixture", "-n", "2")
    assert code == 0, err


def test_sample_without_a_sampler_is_the_prior_with_its_temperature(nelbo, at, run_copy, tmp_path):
    for number, flags in enumerate((("--temperature", "0.5"), ("--sampler.temperature", "0.5"))):
        code, _, err = nelbo("sample", *at, *flags, "-n", "2", "--out", tmp_path / str(number))
        assert code == 0, err
    cold = library.sampler(run_copy, Prior(temperature=0.5), device="cpu").latents(2).numpy()
    for number in (0, 1):
        np.testing.assert_array_equal(np.load(tmp_path / str(number) / "samples-latents.npy"), cold)


def test_samplers_prints_a_table_and_sample_uses_the_chosen(nelbo, at, run_copy):
    code, out, err = nelbo("samplers", *at, "--samplers", "prior,gaussian-mixture")
    assert code == 0, err
    assert "gaussian-mixture" in out
    assert "validation, n = 24" in out
    assert "on 40 test images" in out
    table = run_copy.read_json(samplers.FILE)
    assert f"chosen: {table['chosen']}" in out
    code, found, err = nelbo("sample", *at, "--sampler", "chosen", "-n", "2", "--json")
    assert code == 0, err
    assert json.loads(found)["sampler"]["name"] == table["chosen"]


def test_samplers_as_json(nelbo, at, run_copy):
    words = (
        "--samplers",
        "exemplars,two-stage",
        "--two-stage.steps",
        "20",
        "--two-stage.hidden",
        "8,",
        "--json",
    )
    code, out, err = nelbo("samplers", *at, *words)
    assert code == 0, err
    table = json.loads(out)
    assert table == run_copy.read_json(samplers.FILE)
    assert table["samplers"]["two-stage"]["config"] == {
        "name": "two-stage", "steps": 20, "batch_size": 250, "lr": 5e-3, "hidden": [8],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sample", "--sampler", "gausian-mixture"), ("gausian-mixture", "did you mean", "gaussian-mixture")),
        (
            ("sample", "--sampler", "gaussian-mixture", "--sampler.component", "3"),
            ("unknown field", "components"),
        ),
        (("sample", "--sampler", "gaussian-mixture", "--sampler.components", "0"), ("components", "1")),
        (
            ("sample", "--sampler", "gaussian-mixture", "--sampler.components", "500"),
            ("500 training latents",),
        ),
        (("sample", "--smapler.components", "3"), ("--smapler.components", "sampler")),
        (("sample", "--sampler", "exemplars", "--temperature", "0.5"), ("--temperature", "exemplars")),
        (("sample", "--sampler", "exemplars", "--like", "0"), ("--like",)),
        (("sample", "--sampler", "chosen"), ("no sampler has been chosen for tiny", "nelbo samplers ")),
        (("samplers", "--samplers", "prior,exemplar"), ("exemplar", "exemplars")),
        (("samplers", "--exemplar.noise", "1"), ("exemplar", "exemplars")),
        (("samplers", "--exemplars.nose", "1"), ("nose", "noise")),
    ],
)
def test_mistakes_are_refused_in_words(nelbo, at, arguments, words):
    verb, *rest = arguments
    code, out, err = nelbo(verb, *at, *rest)
    assert (code, out) == (2, ""), err
    assert err.startswith("nelbo: ")
    for word in words:
        assert word in err, err
    assert "Traceback" not in err


def test_without_a_validation_split_there_is_a_way_out(nelbo, tiny_recipe, tmp_path):
    api.train(
        tiny_recipe({"data.validation": 0, "epochs": 1}), runs=tmp_path / "runs", name="bare", device="cpu"
    )
    code, out, err = nelbo("samplers", "bare", "--json")
    assert code == 2
    assert json.loads(out)["exit_code"] == 2
    assert "--data.validation 0.1" in err
    assert "--sampler gaussian-mixture" in err
    code, _, err = nelbo("sample", "bare", "--sampler", "two-stage", "--sampler.steps", "5", "-n", "2")
    assert code == 0, err


def test_a_latent_space_that_is_not_real_is_refused(tiny_recipe, tmp_path):
    parts = {"model.posterior": "vmf", "model.prior": "uniform-sphere", "epochs": 1}
    run = api.train(tiny_recipe(parts), runs=tmp_path, device="cpu")
    with pytest.raises(
        ConfigError, match=r"points of the unit sphere; use one of these samplers: .*exemplars, prior"
    ):
        library.sampler(run, "gaussian-mixture", device="cpu")
    for spec in (Exemplars(), Prior(), Density(prior=lookup("prior", "uniform-sphere")())):
        z_NZ = library.sampler(run, spec, device="cpu").latents(50)
        assert torch.allclose(z_NZ.norm(dim=1), torch.ones(50), atol=1e-5)
    table = samplers.compare(run, ["prior", "exemplars", "two-stage"], device="cpu")
    assert "unit sphere" in table["samplers"]["two-stage"]["refused"]


def test_unknown_names_say_the_nearest(tiny_run):
    with pytest.raises(UnknownName, match="two-stage"):
        library.sampler(tiny_run, "two-stages", device="cpu")


PAGES = Path(__file__).parent.parent / "docs" / "samplers"


def test_every_sampler_has_a_page_that_names_its_settings():
    assert {page.stem for page in PAGES.glob("*.md")} - {"README"} == set(names("sampler"))
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    for name in names("sampler"):
        text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        assert f"({name}.md)" in index
        assert f"--sampler {name}" in text
        for field in lookup("sampler", name).model_fields:
            assert f"`{field}`" in text, f"{name}: {field}"


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The run that the pages speak of. Shared: copy it."""
    folder = tmp_path_factory.mktemp("digits")
    return api.train("digits", overrides={"epochs": 2}, runs=folder, name="digits-s0", device="cpu")


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
@pytest.mark.usefixtures("_forgotten")
def test_the_pages_run(page, digits_run, tmp_path, monkeypatch, capsys):
    """Their Python as it stands, their commands as a user types them."""
    monkeypatch.chdir(tmp_path)
    text = (PAGES / page).read_text(encoding="utf-8")
    shutil.copytree(digits_run.path, tmp_path / "runs" / "digits-s0")
    for block in re.findall(r"^```python\n(.*?)^```$", text, flags=re.S | re.M):
        exec(compile(block, page, "exec"), {})
    if page == "README.md":
        assert "breaks the law 'samples follow the latents" in capsys.readouterr().out
    for line in re.findall(r"^nelbo .*$", text, flags=re.M):
        words = shlex.split(line, comments=True)[1:]
        everything = words[0] == "samplers" and "--samplers" not in words
        quick = ["--two-stage.steps", "20", "--density.steps", "20"] if everything else []
        assert cli.main([*words, *quick]) == 0, f"{line}\n{capsys.readouterr().err}"


# --- after every training ---------------------------------------------------------------------


def row(value, error, copies=False):
    metrics = {"d": {"value": value, "unit": "", "standard_error": error, "note": ""}}
    return {"config": {}, "copies": copies, "metrics": metrics}


@pytest.mark.parametrize(
    ("prior", "mixture", "chosen"),
    [
        ((1.0, 0.1), (0.5, 0.1), "mixture"),
        ((1.0, 0.1), (0.9, 0.1), "prior"),  # within the errors of both
        ((0.5, 0.0), (0.6, 0.0), "prior"),
        ((1.0, None), (0.9, None), "mixture"),
    ],
)
def test_the_prior_is_kept_unless_a_sampler_is_clearly_nearer(prior, mixture, chosen):
    assert samplers._clearly_better({"prior": row(*prior), "mixture": row(*mixture)}, "d") == chosen


def test_a_sampler_that_cannot_be_fitted_leaves_the_prior():
    refused = {"config": {}, "copies": False, "refused": "too few"}
    assert samplers._clearly_better({"prior": row(1.0, 0.1), "mixture": refused}, "d") == "prior"


@pytest.mark.parametrize("chosen", ["prior", "gaussian-mixture"])
def test_samples_of_a_chosen_sampler_stand_beside_those_of_the_prior(run_copy, tmp_path, chosen):
    settings = {"gaussian-mixture.components": 2}
    table = samplers.compare(run_copy, samplers.QUICK, settings, device="cpu", quick=True)
    assert table["by"] == "frechet_untrained_distance"
    run_copy.write_json(samplers.FILE, table | {"chosen": chosen})
    view = View.open(run_copy, device="cpu")
    files, _ = pictures.draw(view, ["samples"], tmp_path / "figures")
    assert [file.stem for file in files] == ["samples", "samples-fitted"][: 1 if chosen == "prior" else 2]
    other = view.at("first")  # of other weights nothing was chosen
    assert len(pictures.draw(other, ["samples"], tmp_path / "first")[0]) == 1


def test_training_says_which_sampler_draws_better(tiny_data, tmp_path, monkeypatch, nelbo):
    """The command line compares after training, once, and says so where the mixture is nearer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(samplers, "_clearly_better", lambda rows, criterion: "gaussian-mixture")
    command = (
        "train", "digits", "--data", str(tiny_data), "--data.transforms", "binarise", "--data.validation", "24",
        "--encoder.hidden", "8,", "--decoder.hidden", "8,", "--epochs", "1", "--device", "cpu", "--name", "t",
    )  # fmt: skip
    code, _, err = nelbo(*command)
    assert code == 0
    assert "a gaussian-mixture fitted to the latents draws nearer" in err
    assert "--sampler chosen" in err
    assert (tmp_path / "runs/t/figures/samples-fitted.png").is_file()
