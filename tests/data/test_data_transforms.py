from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from nelbo.core.config import to_dict
from nelbo.data import Batches, Binarise, Data, Dequantise, DynamicBinarise, Images, Resize, Scale, Transform
from nelbo.data.transforms import check_order
from nelbo.errors import ConfigError, DataError

PIXELS = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (20, 3, 9, 7)).astype(np.uint8))


@pytest.mark.parametrize("size", [(4, 5), (12, 20), (9, 3)])
def test_resize_is_pillows(size):
    out = Resize(height=size[0], width=size[1]).once(PIXELS)
    assert out.shape == (20, 3, *size)
    for i in (0, 19):
        picture = Image.fromarray(PIXELS[i].permute(1, 2, 0).numpy())
        expected = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(out[i].permute(1, 2, 0).numpy(), expected)


def test_resize_of_one_number_is_a_square_and_of_floats_stays_float():
    assert to_dict(Resize.model_validate(6)) == {"name": "resize", "height": 6}
    out = Resize.model_validate(6).once(PIXELS.float() / 255)
    assert out.dtype == torch.float32
    assert (out * 255 - Resize(height=6).once(PIXELS)).abs().max() < 1.01


def test_binarise_at_the_threshold():
    x = torch.tensor([0, 127, 128, 129, 255], dtype=torch.uint8).view(1, 1, 1, 5)
    assert Binarise().once(x).flatten().tolist() == [0, 0, 0, 255, 255]
    assert Binarise(threshold=127).once(x).flatten().tolist() == [0, 0, 255, 255, 255]
    assert Binarise(threshold=127).once(x.float() / 255).flatten().tolist() == [0, 0, 255, 255, 255]


def test_scale():
    x = torch.tensor([0.0, 0.5, 1.0])
    assert Scale(low=-1).batch(x, None).tolist() == [-1.0, 0.0, 1.0]
    assert Scale().batch(x, None) is x
    assert Scale(low=-1).range(0.0, 1.0) == (-1.0, 1.0)
    with pytest.raises(ValueError, match="low must be below high"):
        Scale(low=2)


def test_frozen_bits_are_these_on_every_machine():
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).view(1, 1, 4, 8)
    bits = DynamicBinarise(seed=7).frozen(ramp)
    assert bits.dtype == torch.uint8
    assert "".join("1" if bit else "0" for bit in bits.flatten()) == FROZEN
    assert torch.equal(bits, DynamicBinarise(seed=7).frozen(ramp))
    assert not torch.equal(bits, DynamicBinarise(seed=8).frozen(ramp))


FROZEN = "00010000100001011011001011111111"


@pytest.mark.parametrize("value", [0, 1, 64, 128, 254, 255])
def test_dynamic_binarisation_has_the_pixels_as_mean(value):
    n = 200_000
    pixels = torch.full((n, 1, 1, 1), value, dtype=torch.uint8)
    p = value / 255
    tolerance = 5 * (p * (1 - p) / n) ** 0.5
    generator = torch.Generator().manual_seed(0)
    drawn = DynamicBinarise().batch(pixels.float() / 255, generator)
    for bits in (
        drawn,
        DynamicBinarise().frozen(pixels) / 255,
        DynamicBinarise().frozen(pixels.float() / 255) / 255,
    ):
        assert set(bits.unique().tolist()) <= {0.0, 1.0}
        assert abs(float(bits.double().mean()) - p) <= tolerance


def test_neighbouring_pixels_are_drawn_independently():
    x = torch.full((4000, 1, 1, 8), 0.5)
    bits = DynamicBinarise().batch(x, torch.Generator().manual_seed(1)).view(4000, 8)
    correlation = torch.corrcoef(bits.T) - torch.eye(8)
    assert correlation.abs().max() < 5 / 4000**0.5


def test_an_order_that_cannot_happen_is_refused():
    with pytest.raises(ConfigError, match="resize happens when data are loaded"):
        check_order((DynamicBinarise(), Resize(height=4)))
    with pytest.raises(ConfigError, match="dynamic-binarise needs the pixels as they were loaded"):
        Data(transforms=(Scale(low=-1), DynamicBinarise())).load()
    check_order((Resize(height=4), DynamicBinarise(), Scale(low=-1)))


@pytest.mark.parametrize(
    ("transforms", "pixels", "range_"),
    [
        ((), "grey", (0.0, 1.0)),
        (("binarise",), "binary", (0.0, 1.0)),
        (("dynamic-binarise",), "binary", (0.0, 1.0)),
        (("scale",), "grey", (0.0, 1.0)),
        (({"name": "scale", "low": -1},), "real", (-1.0, 1.0)),
        (("binarise", {"name": "scale", "low": -1}), "real", (-1.0, 1.0)),
        (("binarise", {"name": "scale", "high": 0.5}), "grey", (0.0, 0.5)),
        (("binarise", {"name": "resize", "height": 5}), "grey", (0.0, 1.0)),
        (("dequantise",), "dequantised", (0.0, 1.0)),
        (("binarise", "dequantise"), "dequantised", (0.0, 1.0)),
        (("dequantise", {"name": "scale", "low": -1}), "dequantised", (-1.0, 1.0)),
    ],
)
def test_the_kind_of_pixels_is_what_they_are(transforms, pixels, range_):
    splits = Data(transforms=transforms).load()
    assert (splits.pixels, splits.range) == (pixels, range_)


@pytest.mark.parametrize(
    ("transforms", "eight_bit"),
    [
        ((), True),
        (("binarise",), True),
        (("dynamic-binarise",), True),
        (({"name": "resize", "height": 5},), True),
        (("scale",), True),
        (({"name": "scale", "high": 0.5},), False),
        (("dequantise",), False),
        (("dynamic-binarise", {"name": "scale", "low": -1}), False),
    ],
)
def test_whether_a_model_sees_8_bit_levels(transforms, eight_bit):
    assert Data(transforms=transforms).load().eight_bit == eight_bit


def test_floating_point_levels_are_levels_too():
    levels = PIXELS.float() / 255
    assert Data().load(obj=levels).eight_bit
    assert Data().load(obj=levels.double().numpy()).eight_bit
    assert not Data().load(obj=levels * 0.99).eight_bit
    assert not Data().load(obj=levels + 1.0).eight_bit
    assert not Data(transforms="binarise").load(obj=levels * 0.99).transforms[0].random
    assert Data(transforms="binarise").load(obj=levels * 0.99).eight_bit


@pytest.mark.usefixtures("_forgotten")
def test_a_transform_of_which_nothing_is_known_leaves_neither_levels_nor_binary_pixels():
    class Blur(Transform):
        def batch(self, x_BCHW, generator):
            return 0.5 * x_BCHW + 0.5 * x_BCHW.roll(1, -1)

    for before in ((), (DynamicBinarise(),), (Dequantise(),)):
        splits = Data(transforms=(*before, Blur())).load()
        assert (splits.pixels, splits.eight_bit) == ("grey", False)


def test_dequantised_pixels_are_these_on_every_machine():
    ramp = torch.arange(0, 256, 17, dtype=torch.uint8).view(1, 1, 4, 4)
    x = Dequantise(seed=7).frozen(ramp)
    assert x.dtype == torch.float32
    noise = (x.double() * 256 - ramp) * 2**15 - 0.5
    assert noise.flatten().tolist() == FROZEN_NOISE
    assert torch.equal(x, Dequantise(seed=7).frozen(ramp))
    assert torch.equal(x, Dequantise(seed=7).frozen(ramp.float() / 255)), "however they are stored"
    assert not torch.equal(x, Dequantise(seed=8).frozen(ramp))


FROZEN_NOISE = [
    28847,
    5000,
    25796,
    14898,
    16921,
    18344,
    10742,
    20904,
    5699,
    28731,
    20691,
    31340,
    919,
    14645,
    13927,
    29857,
]


def test_dequantising_stays_within_the_level_and_is_uniform_in_it():
    n = 4000
    levels = torch.arange(256, dtype=torch.uint8).repeat(n, 1).view(n, 1, 16, 16)
    generator = torch.Generator().manual_seed(0)
    drawn = Dequantise().batch(levels.float() / 255, generator)
    again = Dequantise().batch(levels.float() / 255, generator)
    assert not torch.equal(drawn, again)
    for x in (drawn, Dequantise().frozen(levels)):
        assert x.dtype == torch.float32
        assert torch.equal((x.double() * 256).floor(), levels.double()), "the level can be read off exactly"
        assert 0 < x.min() < x.max() < 1
        u = x.double() * 256 - levels
        assert abs(float(u.mean()) - 0.5) < 5 / (12 * u.numel()) ** 0.5
        assert float(u[:, 0, 0, 0].sort().values.sub((torch.arange(n) + 0.5) / n).abs().max()) < 2.2 / n**0.5
        pairs = torch.corrcoef(u.view(n, 256)[:, :8].T) - torch.eye(8)
        assert pairs.abs().max() < 5 / n**0.5


def test_what_is_evaluated_is_fixed_and_what_trains_is_drawn_anew():
    transforms = (Dequantise(), Scale(low=-1))
    device = torch.device("cpu")
    evaluated = Batches(Images(PIXELS), transforms, 8, device=device)
    expected = Dequantise().frozen(PIXELS) * 2 - 1
    for epoch in (1, 2):
        assert torch.equal(torch.cat(list(evaluated.epoch(epoch))), expected)
    training = Batches(Images(PIXELS), transforms, 20, device=device, shuffle_seed=1, training=True)
    first, second, repeated = (next(training.epoch(epoch)) for epoch in (1, 2, 1))
    assert torch.equal(first, repeated)
    assert not torch.equal(first.sort(0).values, second.sort(0).values)


def test_binarising_needs_zero_to_one():
    for transform in (Binarise(), DynamicBinarise()):
        with pytest.raises(DataError, match=r"binarising needs pixels in \[0, 1\]"):
            Data(transforms=(transform,)).load(obj=torch.randn(20, 1, 4, 4))


def test_a_transform_is_a_name_a_table_or_a_value():
    wanted = (Resize(height=5), Binarise(threshold=3))
    tables = ({"name": "resize", "height": 5}, {"name": "binarise", "threshold": 3})
    assert Data(transforms=tables).transforms == wanted
    assert Data.model_validate(to_dict(Data(transforms=wanted))).transforms == wanted
    assert Data(transforms="binarise").transforms == (Binarise(),)
    assert all(isinstance(t, Transform) for t in wanted)
