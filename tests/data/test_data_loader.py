from __future__ import annotations

import pytest
import torch

from nelbo.data import Batches, DynamicBinarise, Images, Scale, materialise
from nelbo.errors import ConfigError

CPU = torch.device("cpu")
N = 103
# Image i is known by its first two pixels.
PIXELS = torch.stack([torch.tensor([i, 2 * i, 200, 100, 50, 128]) for i in range(N)]).to(torch.uint8)
IMAGES = Images(PIXELS.view(N, 1, 2, 3), torch.arange(N))


def numbers(batches):
    return [round(float(x[0, 0, 0]) * 255) for batch in batches for x in batch]


def test_every_image_once_an_epoch_and_the_short_batch_is_kept():
    loader = Batches(IMAGES, (), 10, device=CPU, shuffle_seed=3, training=True)
    batches = list(loader.epoch(1))
    assert (len(loader), loader.n, loader.shape) == (11, N, (1, 2, 3))
    assert [len(batch) for batch in batches] == [10] * 10 + [3]
    assert batches[0].dtype == torch.float32
    assert numbers(batches) != list(range(N))
    assert sorted(numbers(batches)) == list(range(N))
    rows = torch.cat(batches).view(N, -1)
    assert torch.equal(rows, PIXELS.float()[numbers(batches)] / 255)


def test_without_a_seed_the_order_is_the_images():
    loader = Batches(IMAGES, (), 10, device=CPU)
    assert numbers(loader.epoch(1)) == numbers(loader.epoch(2)) == list(range(N))


def test_orders_differ_by_epoch_and_seed_and_repeat():
    def order(seed, epoch):
        return numbers(Batches(IMAGES, (), 7, device=CPU, shuffle_seed=seed).epoch(epoch))

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (1, 2)}) == 4


def test_resuming_in_mid_epoch_gives_identical_batches():
    transforms = (DynamicBinarise(), Scale(low=-1))
    whole = list(Batches(IMAGES, transforms, 10, device=CPU, shuffle_seed=5, training=True).epoch(4))
    rest = list(Batches(IMAGES, transforms, 10, device=CPU, shuffle_seed=5, training=True).epoch(4, start=6))
    assert len(rest) == 5
    assert all(torch.equal(a, b) for a, b in zip(whole[6:], rest, strict=True))
    assert set(torch.cat(whole).unique().tolist()) == {-1.0, 1.0}


def test_training_draws_anew_in_every_epoch_and_evaluation_never():
    transforms = (DynamicBinarise(),)
    training = Batches(IMAGES, transforms, N, device=CPU, training=True)
    assert not torch.equal(next(training.epoch(1)), next(training.epoch(2)))
    evaluation = Batches(IMAGES, transforms, 10, device=CPU)
    first, second = (torch.cat(list(evaluation.epoch(epoch))) for epoch in (1, 2))
    assert torch.equal(first, second)
    assert torch.equal(first, materialise(IMAGES, transforms))
    shuffled = Batches(IMAGES, transforms, 10, device=CPU, shuffle_seed=1)
    assert sorted(torch.cat(list(shuffled.epoch())).sum((1, 2, 3)).tolist()) == sorted(
        first.sum((1, 2, 3)).tolist()
    )


def test_materialise_at_indices_is_the_same_image_in_every_subset():
    transforms = (DynamicBinarise(), Scale(high=0.5))
    everything = materialise(IMAGES, transforms)
    index = torch.tensor([5, 90, 5])
    assert torch.equal(materialise(IMAGES, transforms, indices=index), everything[index])
    assert set(everything.unique().tolist()) == {0.0, 0.5}


def test_changing_a_batch_leaves_the_data_alone():
    pixels = torch.rand(8, 1, 2, 2)
    for images in (Images(pixels), Images((pixels * 255).to(torch.uint8))):
        before = images.hash()
        for seed in (None, 1):
            for batch in Batches(images, (), 4, device=CPU, shuffle_seed=seed).epoch():
                batch.zero_()
        materialise(images, ()).zero_()
        assert images.hash() == before


def test_float_pixels_are_used_as_they_are():
    pixels = torch.randn(8, 2, 2, 2) * 100
    assert torch.equal(torch.cat(list(Batches(Images(pixels), (), 3, device=CPU).epoch())), pixels)


def test_a_batch_holds_at_least_one_image():
    with pytest.raises(ConfigError, match="batch size must be at least 1, not 0"):
        Batches(IMAGES, (), 0, device=CPU)


@pytest.mark.gpu
def test_the_device_sees_the_same_images_in_the_same_order():
    cuda = torch.device("cuda")
    here, there = (list(Batches(IMAGES, (), 10, device=d, shuffle_seed=2).epoch(3)) for d in (CPU, cuda))
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))
    noisy = Batches(IMAGES, (DynamicBinarise(),), 10, device=cuda, shuffle_seed=2, training=True)
    whole, rest = list(noisy.epoch(3)), list(noisy.epoch(3, start=4))
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], rest, strict=True))
