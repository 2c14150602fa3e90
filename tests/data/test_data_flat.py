"""Memory does not grow with the data: measured in a process of its own, and under a hard limit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc")
N = 400_000  # of 28 x 28: 314 MB

PRELUDE = """
    import resource, sys
    import numpy as np, torch
    from nelbo.data import Batches, Data

    torch.set_num_threads(1)

    def status(field):
        for line in open("/proc/self/status"):
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024

    def epochs(path):
        splits = Data(source=path, test=1000, validation=40_000).load()
        batches = Batches(splits.train, (), 128, device=torch.device("cpu"), shuffle_seed=0, training=True)
        total = sum(float(x.sum()) for x in batches.epoch(1))
        held_out = Batches(splits.validation, (), 500, device=torch.device("cpu"))
        return total + sum(float(x.sum()) for x in held_out.epoch())
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """314 MB of images that are on the disk, none of them black."""
    path = tmp_path_factory.mktemp("large") / "x.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (N, 28, 28))
    for start in range(0, N, 20_000):
        images[start : start + 20_000] = np.arange(start, start + 20_000)[:, None, None] % 251 + 1
    images.flush()
    del images
    yield path
    path.unlink()


def run(program, path):
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(program)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


def test_loading_and_an_epoch_of_300_mb_take_less_than_100_mb(large):
    done = run(
        """
        before = status("VmHWM")
        total = epochs(sys.argv[1])
        print(status("VmHWM") - before, total)
        """,
        large,
    )
    assert done.returncode == 0, done.stderr
    grown, total = map(float, done.stdout.split())
    assert grown < 100
    expected = (np.arange(N) % 251 + 1).sum() * 784 / 255
    assert 0.99 * expected < total < 1.001 * expected  # every image but the 1,000 of the test split


@pytest.mark.parametrize("resident", [False, True])
def test_a_process_that_may_not_have_the_memory_trains_from_the_file(large, resident):
    """150 MB more than it has: reading the file whole, as below the threshold, needs over 300 and must fail there."""
    done = run(
        f"""
        from nelbo.data import ondisk
        ondisk.THRESHOLD = {1 << 40 if resident else default_threshold()}
        epochs_of_nothing = torch.ones(128, 784) @ torch.ones(784, 8)  # the libraries have what they need
        limit = int(status("VmData") + 150) << 20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        epochs(sys.argv[1])
        """,
        large,
    )
    assert (done.returncode == 0) is not resident, done.stderr
    if resident:
        assert "memory" in done.stderr.lower() or "allocate" in done.stderr.lower()


def default_threshold():
    from nelbo.data import ondisk

    return ondisk.THRESHOLD
