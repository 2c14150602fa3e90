"""From a configuration to the doctor on images that stay on the disk: the same numbers, and never all at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import nelbo
from nelbo import doctor
from nelbo.cli import main
from nelbo.data import Images, OnDisk, ondisk
from nelbo.doctor.copies import blank, exact_copies, fingerprints
from nelbo.pictures import draw
from nelbo.pictures.view import View
from nelbo.training.recipe import Recipe, resolve

CONFIGURATION = {
    "data.validation": 0.2,
    "model.latent_dim": 3,
    "model.encoder.hidden": [32],
    "model.decoder.hidden": [32],
    "optimizer.lr": 0.01,
    "epochs": 2,
    "batch_size": 40,
}


@pytest.fixture
def array(tmp_path):
    """600 banded images, the last 60 of them copies of the first, and 30 blank ones."""
    stream = np.random.RandomState(0)
    images = stream.randint(0, 90, (600, 8, 8))
    for image, band in zip(images, stream.randint(0, 3, 600), strict=True):
        image[3 * band : 3 * band + 2] += 150
    images[540:] = images[:60]
    images[100:130] = 7
    path = tmp_path / "images.npy"
    np.save(path, images.astype(np.uint8))
    return path


@pytest.fixture
def on_disk(monkeypatch):
    """Whatever is read from now on stays on the disk, and asking for all of it at once fails."""

    def begin():
        for limit in ("THRESHOLD", "RESIDENT"):
            monkeypatch.setattr(ondisk, limit, 0)

        def refuse(images):
            raise AssertionError("all images were asked for at once")

        monkeypatch.setattr(OnDisk, "read", refuse)

    return begin


@pytest.mark.parametrize("transforms", [[], ["dynamic-binarise"]], ids=["grey", "binarised"])
def test_a_run_is_the_same(tmp_path, array, on_disk, transforms):
    recipe = resolve(
        resolve(Recipe(), {"data": str(array), **CONFIGURATION}), {"data.transforms": transforms}
    )
    resident = nelbo.train(recipe, runs=tmp_path, name="resident", device="cpu")
    before = nelbo.evaluate(resident, samples=20)
    on_disk()
    run = nelbo.train(recipe, runs=tmp_path, name="on-disk", device="cpu")
    for was, found in zip(resident.history(), run.history(), strict=True):
        assert found["train"] == was["train"]  # the same batches, to the last bit
        if not transforms:  # frozen noise of a large set is another draw
            assert found["validation"] == was["validation"]
    card = nelbo.evaluate(run, samples=20)
    assert card["n"] == 120
    if not transforms:
        assert card["metrics"] == before["metrics"]
    view = View.open(run, device="cpu")
    assert view.images_at(3).shape == (1, 8, 8)
    assert torch.equal(view.images_at([5, 3])[1], view.images_at(3))
    assert torch.equal(view.images_at(slice(6))[3], view.images_at(3))
    some = ["data", "reconstructions"] if transforms else []  # all of them of the grey ones
    files, _ = draw(view, some, tmp_path / "figures")
    assert len(files) > (0 if transforms else 5)


def test_the_doctor_finds_what_it_finds_in_memory(array, on_disk):
    def findings():
        found = doctor.diagnose(str(array), device="cpu").findings
        return {finding.check: (finding.severity, finding.evidence) for finding in found}

    resident = findings()
    on_disk()
    assert {"repeated-images", "leaked-images", "blank-images"} <= set(resident)
    assert findings() == resident


def test_near_copies_of_many_images_are_looked_for_among_some_and_it_says_so(array, monkeypatch):
    monkeypatch.setattr("nelbo.doctor.images.COMPARED", 100)
    found = {finding.check: finding for finding in doctor.diagnose(str(array), device="cpu").findings}
    assert "looked for among 100 training images" in found["repeated-images"].evidence
    assert "looked for among 100 training images" in found["leaked-images"].evidence


def test_what_checks_look_at_is_read_in_parts(array, monkeypatch):
    pixels = torch.from_numpy(np.load(array))[:, None]
    images = Images(pixels)
    whole = exact_copies(images), blank(images).tolist(), fingerprints(images).tolist()
    assert whole[0][-1] == 599
    assert sum(whole[1]) == 30
    monkeypatch.setattr("nelbo.data.images.CHUNK", 1000)
    assert (exact_copies(images), blank(images).tolist(), fingerprints(images).tolist()) == whole
    assert images.extremes() == (float(pixels.min()), float(pixels.max()))
    assert images.same_pixels(Images(pixels.clone()))
    assert not images.same_pixels(images.select(torch.arange(599, -1, -1)))
    assert not images.same_pixels(images.select(torch.arange(599)))


def test_data_check_reads_no_more_than_it_must(array, on_disk, capsys):
    main(["data", "check", str(array), "--json"])
    resident = json.loads(capsys.readouterr().out)
    on_disk()
    main(["data", "check", str(array), "--json"])
    found = json.loads(capsys.readouterr().out)
    (note,) = found.pop("notes")
    assert resident.pop("notes") == []
    assert found == resident
    assert note == f"0.0 GB of training images stay on the disk, in {array}"
    assert resident["n"] == {"train": 480, "validation": 0, "test": 120}
