"""MSE, PSNR and SSIM against their formulas, written out slowly."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nelbo.core.registry import lookup
from nelbo.data import Images, Scale, Splits
from nelbo.metrics import Split, error
from nelbo.metrics.error import ssim, window_for
from nelbo.models import BuiltModel

CPU = torch.device("cpu")


class Changed(BuiltModel):
    """Reconstructs x as change(x). Counts the batches it sees."""

    def __init__(self, shape, change) -> None:
        super().__init__()
        self.shape, self.change, self.batches = shape, change, 0

    def encode(self, x_BCHW):
        self.batches += 1
        return SimpleNamespace(mean=x_BCHW.flatten(1), mean_is="posterior mean")

    def decode(self, z):
        return SimpleNamespace(mean=self.change(z.view(-1, *self.shape)))


def split_of(pixels_NCHW, transforms=(), **more) -> Split:
    low, high = 0.0, 1.0
    for transform in transforms:
        low, high = transform.range(low, high)
    images = Images(pixels_NCHW)
    splits = Splits("made", images, None, images, "0" * 16, "grey", (low, high), transforms)
    return Split(images, splits, CPU, **more)


def pixels_of(n=7, shape=(1, 14, 13), seed=0):
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def measured(pixels_NCHW, change, transforms=(), **more):
    split = split_of(pixels_NCHW, transforms, **more)
    return dict(lookup("metric", "error")(Changed(tuple(pixels_NCHW.shape[1:]), change), split))


def slow_ssim(a_HW, b_HW, window=11, span=1.0):
    """Wang et al. 2004, eqs. 13-16, one position at a time, in two dimensions."""
    half = window // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    w = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    w /= w.sum()
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    values = []
    for i in range(half, a_HW.shape[0] - half):
        for j in range(half, a_HW.shape[1] - half):
            a = a_HW[i - half : i + half + 1, j - half : j + half + 1]
            b = b_HW[i - half : i + half + 1, j - half : j + half + 1]
            mean_a, mean_b = (w * a).sum(), (w * b).sum()
            var_a, var_b = (w * (a - mean_a) ** 2).sum(), (w * (b - mean_b) ** 2).sum()
            both = (w * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
            values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(values))


# --- structural similarity --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "window"), [(28, 28, 11), (11, 12, 11), (14, 9, 9), (8, 8, 7), (2, 5, 1), (1, 1, 1)]
)
def test_structural_similarity_is_its_formula(height, width, window):
    stream = np.random.RandomState(0)
    a = stream.rand(3, 1, height, width)
    b = np.clip(a + 0.3 * stream.randn(*a.shape), 0, 1)
    found = ssim(torch.from_numpy(a), torch.from_numpy(b))
    assert window_for(height, width) == window
    assert found.dtype == torch.float64
    expected = [slow_ssim(a[n, 0], b[n, 0], window) for n in range(3)]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_an_image_is_like_itself_and_likeness_is_symmetric():
    a, b = torch.rand(2, 4, 2, 13, 13).double()
    assert ssim(a, a).tolist() == pytest.approx([1.0] * 4, abs=1e-12)
    torch.testing.assert_close(ssim(a, b), ssim(b, a), rtol=1e-12, atol=0)
    assert (ssim(a, b) < 0.5).all()
    assert (ssim(a, 1 - a) < 0).all()  # a negative differs in the sign of its structure


def test_two_flat_images_differ_in_luminance_alone():
    for grey, shift in [(0.2, 0.3), (0.0, 1.0), (0.5, 0.01)]:
        a, b = torch.full((1, 1, 15, 15), grey).double(), torch.full((1, 1, 15, 15), grey + shift).double()
        g, s = float(a[0, 0, 0, 0]), float(b[0, 0, 0, 0])
        expected = (2 * g * s + 1e-4) / (g * g + s * s + 1e-4)
        assert float(ssim(a, b)) == pytest.approx(expected, rel=1e-9)


def test_channels_are_averaged():
    a, b = torch.rand(2, 4, 3, 12, 15)
    each = torch.stack([ssim(a[:, c : c + 1], b[:, c : c + 1]) for c in range(3)])
    torch.testing.assert_close(ssim(a, b), each.mean(0), rtol=1e-12, atol=0)


# --- the three numbers ------------------------------------------------------------------------


def test_the_three_numbers_are_their_formulas_image_by_image():
    pixels = pixels_of()
    found = measured(pixels, lambda x: 0.9 * x + 0.02)
    x = pixels.double().numpy() / 255
    guess = 0.9 * x + 0.02
    mse = ((guess - x) ** 2).mean((1, 2, 3))
    expected = {
        "mse": mse,
        "psnr": 10 * np.log10(1 / mse),
        "ssim": [slow_ssim(a[0], b[0]) for a, b in zip(x, guess, strict=True)],
    }
    assert list(found) == list(expected)
    for name, each in expected.items():
        assert found[name].per_image_N.tolist() == pytest.approx(list(each), rel=1e-5), name
        assert found[name].value == pytest.approx(float(np.mean(each)), rel=1e-5), name
        error_of_mean = float(np.std(each, ddof=1) / math.sqrt(7))
        assert found[name].standard_error == pytest.approx(error_of_mean, rel=1e-4), name
    assert [value.unit for value in found.values()] == ["squared/pixel", "dB", ""]
    assert found["psnr"].value > 10 * math.log10(1 / found["mse"].value)  # a mean of dB, not dB of a mean


def test_an_error_of_a_tenth_is_twenty_decibels():
    found = measured(torch.full((3, 1, 12, 12), 51, dtype=torch.uint8), lambda x: x + 0.1)
    assert found["psnr"].value == pytest.approx(20.0, abs=1e-5)
    assert found["psnr"].note == "from the posterior mean, mean over images of dB; data range [0, 1]"


def test_decibels_and_similarity_do_not_depend_on_the_scale_that_the_model_sees():
    pixels = pixels_of()
    here = measured(pixels, lambda x: 0.8 * x)
    scaled = measured(pixels, lambda x: 0.8 * (x + 1) - 1, transforms=(Scale(low=-1, high=1),))
    for name in ("psnr", "ssim"):
        torch.testing.assert_close(scaled[name].per_image_N, here[name].per_image_N, rtol=1e-5, atol=1e-6)
        assert "data range [-1, 1]" in scaled[name].note
    assert scaled["mse"].value == pytest.approx(4 * here["mse"].value, rel=1e-5)


def test_one_pass_over_the_data():
    pixels = pixels_of(10)
    model = Changed((1, 14, 13), lambda x: 0.9 * x)
    assert len(dict(lookup("metric", "error")(model, split_of(pixels, batch_size=4)))) == 3
    assert model.batches == 3 + 1, "two images more, to say what their mean is"


@pytest.mark.parametrize(("size", "at_once"), [(1, 10**9), (3, 1), (500, 14 * 13 * 2)])
def test_the_numbers_do_not_depend_on_the_batches(size, at_once, monkeypatch):
    pixels, change = pixels_of(), lambda x: (0.9 * x + 0.02).sqrt()
    expected = measured(pixels, change)
    monkeypatch.setattr(error, "PIXELS_AT_ONCE", at_once)
    for name, value in measured(pixels, change, batch_size=size).items():
        torch.testing.assert_close(value.per_image_N, expected[name].per_image_N, rtol=1e-12, atol=1e-12)


# --- perfect, small and hopeless --------------------------------------------------------------


def test_images_reconstructed_without_error_have_no_mean_of_decibels():
    pixels = torch.full((4, 1, 12, 12), 51, dtype=torch.uint8)
    pixels[:3] = 0
    found = measured(pixels, lambda x: 1.5 * x)  # black stays black, 0.2 becomes 0.3
    psnr = found["psnr"]
    assert psnr.value is None
    assert psnr.missing == "infinite"
    assert psnr.note.startswith("3 of 4 images are reconstructed without error; 20.00 dB over the others")
    assert found["mse"].value == pytest.approx(0.01 / 4)
    perfect = measured(pixels, lambda x: x)
    assert perfect["psnr"].value is None
    assert perfect["psnr"].missing == "infinite"
    assert perfect["psnr"].note.startswith("4 of 4 images are reconstructed without error; from")
    assert perfect["mse"].value == 0.0
    assert perfect["ssim"].value == pytest.approx(1.0, abs=1e-12)


def test_a_smaller_window_is_said():
    assert "window 7 x 7" in measured(pixels_of(shape=(1, 8, 8)), lambda x: 0.9 * x)["ssim"].note
    assert "window" not in measured(pixels_of(), lambda x: 0.9 * x)["ssim"].note


def test_a_decoder_that_has_diverged_is_not_finite():
    found = measured(pixels_of(), lambda x: x * math.nan)
    for name in ("mse", "psnr", "ssim"):
        table = found[name].to_dict()
        assert table["value"] is None
        assert table["missing"] == "not finite", name
