"""FID, with a small scripted module in the place of the network: what it is fed, and what is made of its features."""

from __future__ import annotations

import hashlib
import warnings

import pytest
import torch
from torch import Tensor, nn

from nelbo.core.registry import lookup
from nelbo.data import Images, Splits
from nelbo.metrics import Split, fid, frechet
from nelbo.models import BuiltModel

CPU = torch.device("cpu")


class StandIn(nn.Module):
    """Four numbers an image; refuses what the published network would read otherwise than it is meant."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert return_features
        assert x.dtype == torch.uint8
        assert x.shape[1] == 3
        pixels = x.float()
        corner, middle = pixels[:, :, 0, 0].mean(1), pixels[:, 1, 2, 1]
        return torch.stack([pixels.mean(dim=[1, 2, 3]), corner, middle, pixels[:, 2, 1, 2]], dim=1)


class Inverted(BuiltModel):
    """Generates the images it holds; reconstructs the negative."""

    def __init__(self, x_NCHW: Tensor) -> None:
        super().__init__()
        self.x_NCHW = x_NCHW

    def encode(self, x_BCHW):
        raise AssertionError("no metric of this file asks for it")

    def sample_prior(self, n: int) -> Tensor:
        return torch.arange(n)[:, None]

    def decode(self, z: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.x_NCHW[z[:, 0]], 0.1)

    def reconstruct(self, x_BCHW: Tensor) -> Tensor:
        return 1 - x_BCHW


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The stand-in as a file, taken for the published one."""
    file = tmp_path / fid.FILE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is deprecated
        torch.jit.script(StandIn()).save(str(file))
    monkeypatch.setattr(fid, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setenv("NELBO_INCEPTION", str(file))
    return file


def pixels(n: int, channels: int, seed: int) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, 5, 4), generator=stream, dtype=torch.uint8)


def split_of(levels: Tensor, **more) -> Split:
    images = Images(levels)
    return Split(images, Splits("made", images, None, images, "0" * 16, "grey", (0.0, 1.0)), CPU, **more)


def measured(model: BuiltModel | None, split: Split) -> dict:
    return dict(lookup("metric", "fid")(model, split))


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_distance_of_the_networks_features(weights, channels):
    real, made = pixels(120, channels, 0), pixels(120, channels, 1) // 2
    heard: list[tuple[int, int]] = []
    split = split_of(real, batch_size=50, tell=lambda *row: heard.append(row))
    found = measured(Inverted(made / 255), split)

    def features(levels: Tensor) -> Tensor:
        return StandIn()(levels.expand(-1, 3, -1, -1), return_features=True)

    expected = frechet.distance(features(made), features(real))
    assert found["fid"].value == pytest.approx(
        expected, rel=1e-9
    )  # the very levels came back: nothing is rounded twice
    assert found["fid"].unit == "FID"
    assert "n = 120" in found["fid"].note
    again = frechet.distance(features(255 - real), features(real))
    assert found["fid_reconstructions"].value == pytest.approx(again, rel=1e-9)
    assert heard[-1] == (360, 360)
    assert found["fid"].standard_error > 0


def test_a_range_is_mapped_to_256_levels(weights):
    network = fid.load(weights, CPU)
    x = torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(4, 1, 1, 1).expand(4, 1, 5, 4)
    means = fid.inception_features(network, x, (-1.0, 1.0))[:, 0]
    assert means.tolist() == [0.0, 128.0, 255.0, 255.0]
    assert means.dtype == torch.float64


def test_without_the_variable_it_is_silent_unless_asked(monkeypatch):
    monkeypatch.delenv("NELBO_INCEPTION", raising=False)
    assert measured(None, split_of(pixels(20, 1, 0))) == {}
    found = measured(None, split_of(pixels(20, 1, 0), named=True))
    assert list(found) == ["fid"]
    assert found["fid"].value is None
    assert found["fid"].missing == "no weights"
    assert found["fid"].note.startswith("set NELBO_INCEPTION")


@pytest.mark.parametrize("asked", [True, False])
def test_a_wrong_file_is_named(weights, tmp_path, monkeypatch, asked):
    split = split_of(pixels(20, 1, 0), named=asked)
    monkeypatch.setenv("NELBO_INCEPTION", str(tmp_path / "absent.pt"))
    value = measured(None, split)["fid"]
    assert value.missing == "no file"
    assert "absent.pt" in value.note
    (tmp_path / "other.pt").write_bytes(weights.read_bytes() + b"x")
    monkeypatch.setenv("NELBO_INCEPTION", str(tmp_path / "other.pt"))
    value = measured(None, split)["fid"]
    assert value.missing == "another file"
    assert fid.SHA256 in value.note


def test_only_grey_and_rgb_images_have_one(weights):
    value = measured(None, split_of(pixels(20, 2, 0)))["fid"]
    assert value.missing == "not an image in RGB"
    assert value.note.startswith("2 channels")


def test_a_few_images_are_too_few(weights):
    assert measured(None, split_of(pixels(3, 1, 0)))["fid"].missing == "too few images"
    assert measured(None, split_of(pixels(3, 1, 0)))["fid"].note.startswith("3")
