from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from nelbo.data import Batches, Data, DynamicBinarise, Images, ondisk, streaming
from nelbo.data.streaming import AHEAD, LEAST_MARGIN, READERS, fits, resident, streamed

CPU = torch.device("cpu")
N = 103
PIXELS = torch.arange(N * 6, dtype=torch.int64).remainder(256).to(torch.uint8).view(N, 1, 2, 3)
IMAGES = Images(PIXELS)
GB = 1 << 30


@pytest.mark.parametrize(
    ("nbytes", "free", "total", "there"),
    [
        (47_040_000, 79 * GB, 80 * GB, True),  # MNIST
        (59 * GB, 79 * GB, 80 * GB, True),
        (60 * GB, 79 * GB, 80 * GB, False),  # a quarter of the memory stays free
        (10 * GB, 20 * GB, 80 * GB, False),  # others have most of it
        (1 * GB, 4 * GB, 4 * GB, True),
        (3 * GB, 4 * GB, 4 * GB, False),  # and never less than 2 GiB
        (200 << 20, LEAST_MARGIN, 4 * GB, False),
        (47_040_000, LEAST_MARGIN, 4 * GB, True),  # so few that nobody misses them
    ],
)
def test_pixels_live_on_a_device_with_room_for_them_and_for_the_step(nbytes, free, total, there):
    assert fits(nbytes, free, total) is there


def test_a_full_device_gets_streamed_pixels_and_an_empty_one_all_of_them(monkeypatch):
    """The rule asks the device itself; its memory is made up here, since tests have none."""
    asked = []

    def memory(device):
        asked.append(device)
        return LEAST_MARGIN, 8 * GB

    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    cuda = torch.device("cuda", 0)
    many = Images(torch.zeros(1, dtype=torch.uint8).expand(200 << 10, 1, 32, 32))
    assert resident(many, cuda, repeated=True) is None
    assert asked == [cuda]
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * GB)  # which torch would give
    assert fits(many.nbytes, *streaming._memory(cuda))
    assert resident(IMAGES, CPU, repeated=True).shape == (N, 6)


@pytest.mark.parametrize("first", [0, 30, 100])
def test_streamed_rows_are_those_of_the_order(monkeypatch, first):
    monkeypatch.setattr("nelbo.data.streaming.TASK", 200)  # of 6 bytes each: several batches a task
    order_N = torch.randperm(N)
    rows = list(streamed(IMAGES, order_N, first, 10, CPU))
    assert [len(part) for part in rows] == [10] * ((N - first) // 10) + [3]
    assert torch.equal(torch.cat(rows), PIXELS.view(N, 6)[order_N[first:]])
    assert torch.equal(torch.cat(list(streamed(IMAGES, None, first, 7, CPU))), PIXELS.view(N, 6)[first:])


def test_a_streamed_epoch_is_the_resident_one(monkeypatch):
    whole = [list(Batches(IMAGES, (), 10, device=CPU, shuffle_seed=1, training=True).epoch(2))]
    monkeypatch.setattr("nelbo.data.loader.resident", lambda *_, **__: None)
    batches = Batches(IMAGES, (), 10, device=CPU, shuffle_seed=1, training=True)
    assert all(torch.equal(a, b) for a, b in zip(whole[0], batches.epoch(2), strict=True))
    at_once = torch.cat([batches.finish(rows) for rows in batches.rows(2, at_once=4)])
    assert torch.equal(at_once, torch.cat(whole[0]))


class Counting(Images):
    """Counts what is asked for and not yet given up."""

    reads = 0

    def rows(self, index):
        type(self).reads += 1
        return super().rows(index)


def test_few_rows_are_read_ahead_and_none_after_the_end(monkeypatch):
    monkeypatch.setattr("nelbo.data.streaming.TASK", 1)
    images = Counting(torch.zeros(1000, 1, 1, 1, dtype=torch.uint8))
    Counting.reads = 0
    before = threading.active_count()
    rows = streamed(images, None, 0, 1, CPU)
    next(rows)
    time.sleep(0.1)
    assert 1 <= Counting.reads <= AHEAD + 1
    assert threading.active_count() <= before + READERS
    rows.close()
    assert threading.active_count() == before
    assert Counting.reads <= AHEAD + 1


def test_of_large_batches_fewer_are_read_ahead(monkeypatch):
    monkeypatch.setattr("nelbo.data.streaming.AHEAD_BYTES", 25)
    images = Counting(torch.zeros(1000, 1, 1, 1, dtype=torch.uint8))
    monkeypatch.setattr("nelbo.data.streaming.TASK", 1)
    Counting.reads = 0
    rows = streamed(images, None, 0, 10, CPU)
    next(rows)
    time.sleep(0.1)
    assert Counting.reads <= 2 + 1
    rows.close()


def test_an_error_of_a_reader_is_raised_where_its_rows_are_taken():
    class Broken(Images):
        def rows(self, index):
            raise OSError("input/output error")

    with pytest.raises(OSError, match="input/output"):
        list(streamed(Broken(PIXELS), None, 0, 10, CPU))


@pytest.mark.gpu
def test_streamed_to_a_gpu_is_resident_on_it(monkeypatch):
    cuda = torch.device("cuda")
    transforms = (DynamicBinarise(),)
    options = {"device": cuda, "shuffle_seed": 1, "training": True}
    whole = list(Batches(IMAGES, transforms, 10, **options).epoch(2))
    monkeypatch.setattr("nelbo.data.loader.resident", lambda *_, **__: None)
    streamed_ = list(Batches(IMAGES, transforms, 10, **options).epoch(2))
    assert all(x.device.type == "cuda" for x in streamed_)
    assert all(torch.equal(a, b) for a, b in zip(whole, streamed_, strict=True))


@pytest.mark.gpu
def test_a_file_goes_to_a_gpu_that_has_room(tmp_path, monkeypatch):
    monkeypatch.setattr(ondisk, "THRESHOLD", 0)
    monkeypatch.setattr(ondisk, "RESIDENT", 0)
    np.save(tmp_path / "x.npy", PIXELS[:, 0].numpy())
    train = Data(source=str(tmp_path / "x.npy")).load().train
    pixels_ND = resident(train, torch.device("cuda"), repeated=True)
    assert pixels_ND.device.type == "cuda"
    assert torch.equal(pixels_ND.cpu(), train.pixels_NCHW.flatten(1))
    assert resident(train, torch.device("cuda"), repeated=False) is None


def test_reading_ahead_leaves_the_threads_of_the_step():
    before = torch.get_num_threads()
    list(streamed(IMAGES, None, 0, 10, CPU))
    assert torch.get_num_threads() == before
    assert torch.ones(300, 300).mm(torch.ones(300, 300))[0, 0] == 300
    assert torch.get_num_threads() == before
