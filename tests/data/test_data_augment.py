"""Random augmentation: allowed images, anew in every epoch of training, and never in evaluation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import nelbo
from nelbo.cli import main
from nelbo.core.config import dumps
from nelbo.data import (
    Affine,
    Batches,
    Crop,
    Data,
    Dequantise,
    DynamicBinarise,
    Flip,
    Images,
    Jitter,
    Resize,
    Scale,
    Shift,
    materialise,
    ondisk,
)
from nelbo.data.transforms import augments, check_order
from nelbo.errors import ConfigError, DataError
from nelbo.training.recipe import resolve

CPU = torch.device("cpu")
PIXELS = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (60, 3, 9, 7)).astype(np.uint8))
X = PIXELS / 255
AUGMENTATIONS = [
    Flip(vertical=True),
    Shift(pixels=3),
    Crop(padding=2),
    Affine(rotation=40, scale=0.3, shear=20),
    Jitter(brightness=0.6, contrast=0.6),
]
each = pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda transform: transform.name)


def drawn(transform, x=X, seed=0):
    return transform.batch(x.clone(), torch.Generator().manual_seed(seed))


def epoch(number, transforms, *, seed=5, start=0, images=None):
    images = images or Images(PIXELS)
    batches = Batches(images, transforms, 16, device=CPU, shuffle_seed=seed, training=True)
    return torch.cat(list(batches.epoch(number, start)))


# --- what an augmented image is -------------------------------------------------------------------


def which(results, x):
    """For each image the one of its allowed versions (a list of whole batches) that it became; all must be one."""
    same = torch.stack([(result == x).flatten(1).all(1) for result in results])
    assert same.any(0).all(), "an image that none of the allowed ones is"
    return same.float().argmax(0)


def test_a_flip_is_exactly_the_mirrored_image_for_half_of_them():
    chosen = which([X, X.flip(3)], drawn(Flip()))
    assert 15 < int(chosen.sum()) < 45
    both = which([X, X.flip(3), X.flip(2), X.flip(2, 3)], drawn(Flip(vertical=True)))
    assert set(both.tolist()) == {0, 1, 2, 3}, "the two directions are independent"
    assert set(which([X, X.flip(2)], drawn(Flip(horizontal=False, vertical=True))).tolist()) == {0, 1}


@pytest.mark.parametrize(("transform", "mode"), [(Shift(pixels=2), "edge"), (Crop(padding=2), "constant")])
def test_a_shift_and_a_crop_are_exact_windows_of_the_padded_image(transform, mode):
    padded = torch.from_numpy(np.pad(X.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode=mode))
    windows = [padded[:, :, i : i + 9, j : j + 7] for i in range(5) for j in range(5)]
    x = torch.cat([drawn(transform, seed=seed) for seed in range(5)])
    chosen = which([window.repeat(5, 1, 1, 1) for window in windows], x)
    assert set(chosen.tolist()) == set(range(25)), "every place, the corners included"


def affine_at(monkeypatch, numbers, **fields):
    from nelbo.data import augment

    monkeypatch.setattr(augment, "_uniform", lambda x, n, generator: torch.tensor([numbers] * len(x)).float())
    return Affine(**fields)


def test_affine_turns_grows_and_shears_as_it_says(monkeypatch):
    square = X[:, :, :7, :7]
    quarter = affine_at(monkeypatch, [0.5, 0, 0], rotation=180, scale=0).batch(square, None)
    assert torch.equal(quarter, square.rot90(1, (2, 3))) or torch.equal(quarter, square.rot90(-1, (2, 3)))
    half = affine_at(monkeypatch, [1, 0, 0], rotation=180, scale=0).batch(X, None)
    assert torch.equal(half, X.flip(2, 3)), "of a rectangle, too"
    still = affine_at(monkeypatch, [0, 0, 0], rotation=180, scale=0.5, shear=30).batch(X, None)
    assert torch.equal(still, X)
    # A square of 8 x 8 in the middle of 32 x 16 grows to 12 x 12, whatever the image's sides.
    square = torch.zeros(1, 1, 32, 16)
    square[:, :, 12:20, 4:12] = 1
    grown = affine_at(monkeypatch, [0, 1, 0], rotation=0, scale=0.5).batch(square, None)
    assert grown[0, 0].sum(0).max() == grown[0, 0].sum(1).max() == 12
    # Sheared by 45 degrees a row moves by its distance from the centre; turned by 45 it is a diamond.
    leant = affine_at(monkeypatch, [0, 0, 1], rotation=0, scale=0, shear=45).batch(square, None)
    starts = [int(row.nonzero()[0]) for row in leant[0, 0] if row.any()]
    assert len(starts) == 8
    assert {abs(a - b) for a, b in itertools.pairwise(starts)} <= {1, 2}  # half a pixel falls to either side
    assert abs(starts[-1] - starts[0]) in (6, 7, 8)
    diamond = affine_at(monkeypatch, [1, 0, 0], rotation=45, scale=0).batch(square, None)[0, 0]
    assert 60 <= diamond.sum() <= 68, "a turn keeps the area"
    assert diamond.sum(1).max() in (10, 11, 12)
    assert diamond.sum(0).max() in (10, 11, 12)


def test_affine_is_within_what_it_says():
    line = torch.zeros(200, 1, 31, 31)
    line[:, :, 15] = 1
    turned = drawn(Affine(rotation=20, scale=0), line)
    right = turned[:, 0, :, 28].argmax(1) - 15.0  # 13 columns from the centre
    degrees = torch.rad2deg(torch.atan2(right, torch.tensor(13.0)))
    assert degrees.abs().max() < 22.5
    assert degrees.min() < -15
    assert degrees.max() > 15


def test_jitter_is_its_formula(monkeypatch):
    from nelbo.data import augment

    monkeypatch.setattr(augment, "_uniform", lambda x, n, generator: torch.tensor([[0.5, -1.0]] * len(x)))
    x = torch.rand(4, 3, 5, 6)
    lit = (x * 1.1).clamp(0, 1)
    expected = (lit - lit.mean((1, 2, 3), keepdim=True)) * 0.6 + lit.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(Jitter(brightness=0.2, contrast=0.4).batch(x, None), expected)


@each
def test_pixels_stay_of_their_kind(augmentation):
    levels = drawn(augmentation)
    assert torch.equal((levels * 255).round() / 255, levels), "levels / 255, to the last bit"
    assert levels.min() >= 0
    assert levels.max() <= 1
    binary = drawn(augmentation, (X > 0.5).float())
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    between = drawn(augmentation, torch.rand(60, 1, 9, 9))
    assert not torch.equal((between * 255).round() / 255, between), "numbers between levels are not rounded"


@each
def test_each_image_has_its_own_draw_and_is_changed_alone(augmentation):
    same = drawn(augmentation, X[:1].repeat(40, 1, 1, 1))
    assert len({image.numpy().tobytes() for image in same}) >= 4
    mixed = torch.cat([X[:20], torch.rand(20, 3, 9, 7)])  # levels beside numbers between them
    assert torch.equal(drawn(augmentation, mixed)[:20], drawn(augmentation, torch.cat([X[:20], X[:20]]))[:20])


# --- when ------------------------------------------------------------------------------------------


@each
def test_epochs_differ_and_seeds_and_a_resumed_epoch_agree(augmentation):
    first = epoch(1, (augmentation,))
    assert torch.equal(first, epoch(1, (augmentation,)))
    assert not torch.equal(first, epoch(1, (augmentation,), seed=6))
    assert torch.equal(first[32:], epoch(1, (augmentation,), start=2))
    plain = [Batches(Images(PIXELS), (augmentation,), 60, device=CPU, training=True) for _ in range(2)]
    one, two = (next(batches.epoch(number)) for batches, number in zip(plain, (1, 2), strict=True))
    assert not torch.equal(one, two), "the same images in the same order, drawn anew"


@each
def test_evaluation_sees_the_images_and_the_hash_is_theirs(augmentation):
    assert augments(augmentation)
    assert torch.equal(materialise(Images(PIXELS), (augmentation,)), X)
    assert torch.equal(torch.cat(list(Batches(Images(PIXELS), (augmentation,), 16, device=CPU).epoch())), X)
    for others in ((), (DynamicBinarise(),), (Dequantise(),)):
        plain, augmented = (Data(transforms=each).load() for each in (others, (augmentation, *others)))
        assert (augmented.hash, augmented.pixels, augmented.range, augmented.eight_bit) == (
            plain.hash,
            plain.pixels,
            plain.range,
            plain.eight_bit,
        )
        evaluated = [materialise(splits.test, splits.transforms) for splits in (plain, augmented)]
        assert torch.equal(*evaluated)


@each
def test_it_goes_before_noise_and_can_be_compiled(augmentation):
    x = epoch(1, (augmentation, DynamicBinarise()))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    levels = (epoch(1, (augmentation, Dequantise())) * 256).floor()
    assert torch.equal(levels, (epoch(1, (augmentation,)) * 255).round()), "the noise goes on top"
    compiled = torch.compile(lambda x: augmentation.batch(x, None), backend="eager", fullgraph=True)
    torch.manual_seed(0)
    changed = compiled(X)
    torch.manual_seed(0)
    assert torch.equal(changed, augmentation.batch(X, None))


def test_images_on_the_disk_are_augmented_alike(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", PIXELS.numpy())
    transforms = (Flip(), Affine(), Scale(low=-1))
    data = Data(source=str(tmp_path / "images.npy"), transforms=transforms)
    resident = data.load()
    monkeypatch.setattr(ondisk, "THRESHOLD", 0)
    monkeypatch.setattr(ondisk, "RESIDENT", 0)
    streamed = data.load()
    assert isinstance(streamed.train.pixels, ondisk.OnDisk)
    assert streamed.hash == resident.hash
    x, y = (epoch(2, transforms, images=splits.train) for splits in (resident, streamed))
    assert torch.equal(x, y)
    assert torch.equal(*(materialise(splits.test, transforms) for splits in (resident, streamed)))


def test_two_runs_of_one_seed_are_the_same_and_one_without_augmentation_is_not(tmp_path):
    overrides = {"data.transforms": ["flip", "affine", "dynamic-binarise"], "epochs": 2, "batch_size": 500}
    recipe = resolve("digits", {**overrides, "model.latent_dim": 2})
    plain = resolve(recipe, {"data.transforms": ["dynamic-binarise"]})
    runs = [nelbo.train(recipe, runs=tmp_path, device="cpu") for recipe in (recipe, recipe, plain)]
    assert [transform.name for transform in runs[0].recipe.data.transforms] == overrides["data.transforms"]
    first, again, other = ([line["train"] for line in run.history()] for run in runs)
    assert first == again
    assert first != other


def test_a_configuration_holds_them_and_the_command_line_takes_them_by_name(tmp_path, capsys):
    recipe = resolve("digits", {"data.transforms": AUGMENTATIONS})
    (tmp_path / "recipe.toml").write_text(dumps(recipe), encoding="utf-8")
    assert resolve(tmp_path / "recipe.toml").data.transforms == tuple(AUGMENTATIONS)
    fields = 'recipe = "digits"\n[data]\ntransforms = ["flip", {name = "shift", pixels = 4}]'
    (tmp_path / "some.toml").write_text(fields, encoding="utf-8")
    assert resolve(tmp_path / "some.toml").data.transforms == (Flip(), Shift(pixels=4))
    command = ["train", "digits", "--dry-run", "--runs", str(tmp_path), "--data.transforms"]
    assert main([*command, "flip,affine"]) == 0, capsys.readouterr().err
    assert 'name = "affine"' in capsys.readouterr().out
    assert main([*command, "flop"]) == 2
    assert "flip" in capsys.readouterr().err


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Flip(horizontal=False), "nothing would be flipped"),
        (lambda: Affine(rotation=0, scale=0), "nothing would change"),
        (lambda: Jitter(brightness=0, contrast=0), "nothing would change"),
        (lambda: Shift(pixels=0), "greater than or equal to 1"),
        (lambda: Crop(padding=-1), "greater than or equal to 1"),
        (lambda: Affine(scale=1), "less than 1"),
        (lambda: Affine(rotation=181), "less than or equal to 180"),
        (lambda: Affine(shear=90), "less than 90"),
        (lambda: Jitter(contrast=1.5), "less than or equal to 1"),
        (lambda: Shift(pixels=1.5), "valid integer"),
    ],
)
def test_wrong_values_are_refused(made, message):
    with pytest.raises(ValidationError, match=message):
        made()


def test_orders_that_cannot_happen_are_refused():
    check_order((Resize(height=4), Flip(), Affine(), DynamicBinarise(), Scale(low=-1)))
    with pytest.raises(ConfigError, match="resize happens when data are loaded, so it cannot follow flip"):
        check_order((Flip(), Resize(height=4)))
    for noise in (DynamicBinarise(), Dequantise(), Scale(low=-1)):
        with pytest.raises(ConfigError, match="affine needs the pixels as they were loaded; write it before"):
            check_order((noise, Affine()))


def test_images_that_cannot_be_augmented_so_are_refused():
    with pytest.raises(
        DataError, match="shift: 8 pixels would move an image of 8 x 8 out of sight; give at most 7"
    ):
        Data(transforms=(Shift(pixels=8),)).load()
    with pytest.raises(
        DataError, match="jitter changes the light of an image, and these are only black and white"
    ):
        Data(transforms=("binarise", "jitter", "dynamic-binarise")).load()
    standardised = np.random.RandomState(0).randn(30, 8, 8).astype(np.float32)
    for name in ("jitter", "crop"):
        with pytest.raises(DataError, match=f"{name} .*--data.range"):
            Data(transforms=(name,)).load(obj=standardised)
    assert Data(transforms=("shift", "affine")).load(obj=standardised).pixels == "real"


def test_the_list_shows_them(capsys):
    assert main(["list", "transform"]) == 0
    text = capsys.readouterr().out
    assert all(transform.name in text for transform in AUGMENTATIONS)


@pytest.mark.gpu
@each
def test_on_a_device(augmentation):
    cuda = torch.device("cuda")
    batches = [
        Batches(Images(PIXELS), (augmentation,), 16, device=cuda, shuffle_seed=1, training=True) for _ in "ab"
    ]
    x, y = (torch.cat(list(each.epoch(3))) for each in batches)
    assert torch.equal(x, y)
    assert torch.equal((x * 255).round() / 255, x)
