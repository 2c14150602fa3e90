"""Devices, threads and random streams: refused by name, and given back as they were."""

from __future__ import annotations

import pytest
import torch

from nelbo import engine
from nelbo.engine import precision
from nelbo.errors import ConfigError, DeviceError

CPU = torch.device("cpu")


class Crash(Exception):
    pass


@pytest.mark.parametrize("name", ["cuda:99", "mps", "cuda", "xpu", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"--device '?{name}'?") as caught:
        engine.pick_device(name)
    assert "cpu" in str(caught.value)
    assert caught.value.exit_code == 2


def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert engine.pick_device() == engine.pick_device("cpu") == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert engine.pick_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert engine.pick_device().type == "cuda"
    assert engine.pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="cuda:0, cuda:1"):
        engine.pick_device("cuda:2")


def test_a_fixed_seed_gives_its_numbers_and_the_callers_stream_back():
    torch.manual_seed(3)
    first, second = torch.rand(4), torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), first)
    drawn = []
    for _ in range(2):
        with engine.fixed_seed(11, CPU):
            drawn.append(torch.rand(4))
    assert torch.equal(*drawn)
    assert torch.equal(torch.rand(4), second)
    with pytest.raises(Crash), engine.fixed_seed(11, CPU):
        raise Crash


def test_a_fixed_seed_of_one_device_leaves_the_streams_of_others(monkeypatch):
    """`torch.manual_seed` also reset every GPU: an evaluation on the CPU changed a training on one."""

    def refused(seed):
        raise AssertionError("another device's stream was seeded")

    for module in (torch.cuda, torch.mps):
        monkeypatch.setattr(module, "manual_seed", refused)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", refused)
    with engine.fixed_seed(5, torch.device("cpu")):
        numbers = torch.rand(4)
    assert torch.equal(numbers, torch.rand(4, generator=torch.Generator().manual_seed(5))), "the same numbers"


def test_small_steps_run_on_one_thread_and_the_setting_comes_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        net = torch.nn.Linear(10, 10)
        with engine.threads_for(net, 100, CPU):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with engine.threads_for(net, 10**6, CPU):
            assert torch.get_num_threads() == 2
        with pytest.raises(Crash), engine.threads_for(net, 1, CPU):
            raise Crash
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_random_state_comes_back():
    torch.manual_seed(3)
    kept = engine.random_state(CPU)
    first = torch.rand(3)
    engine.set_random_state(kept, CPU)
    assert torch.equal(torch.rand(3), first)


def test_precision_bf16_is_refused_on_mps():
    with pytest.raises(ConfigError, match="--precision fp32"):
        engine.check_precision(torch.device("mps"), "bf16")
    engine.check_precision(torch.device("mps"), "fp32")
    engine.check_precision(torch.device("mps"), "auto")


def test_an_apple_gpu_gives_its_stream_back_too(monkeypatch):
    """Where the device's own stream did not come back, every epoch would repeat the noise of the validation."""
    stream = {"state": torch.tensor([1], dtype=torch.uint8)}
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: stream["state"].clone())
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: stream.update(state=state))
    mps = torch.device("mps")
    with engine.fixed_seed(3, mps):
        stream["state"] = torch.tensor([2], dtype=torch.uint8)
    assert stream["state"].tolist() == [1]
    kept = engine.random_state(mps)
    stream["state"] = torch.tensor([3], dtype=torch.uint8)
    engine.set_random_state(kept, mps)
    assert stream["state"].tolist() == [1]


@pytest.mark.gpu
def test_cuda_gives_its_stream_back():
    cuda = engine.pick_device("cuda")
    torch.manual_seed(3)
    expected = torch.rand(3, device=cuda)
    torch.manual_seed(3)
    kept = engine.random_state(cuda)
    with engine.fixed_seed(4, cuda):
        torch.rand(3, device=cuda)
    assert torch.equal(torch.rand(3, device=cuda), expected)
    engine.set_random_state(kept, cuda)
    assert torch.equal(torch.rand(3, device=cuda), expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags : fpu avx512f avx512_bf16 avx512_vnni", {"avx512", "bf16"}),
        ("flags : avx2 amx_tile amx_bf16 avx512f", {"avx512", "bf16", "amx"}),
        ("Features : fp asimd bf16 i8mm", {"bf16"}),
        ("flags : fpu avx2", set()),
    ],
)
def test_bf16_is_chosen_by_the_processor_s_instructions(monkeypatch, line, expected):
    field, _, value = line.partition(" : ")
    monkeypatch.setattr(precision, "processor", lambda name: value if name == field else "")
    monkeypatch.setattr(precision, "features", precision.features.__wrapped__)
    assert precision.features() == expected
    assert engine.pick_precision("auto", CPU) == ("bf16" if "bf16" in expected else "fp32")
    assert engine.pick_precision("fp32", CPU) == "fp32"
    assert engine.pick_precision("auto", torch.device("mps")) == "fp32"


def test_bf16_on_a_gpu_needs_its_generation(monkeypatch):
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert engine.pick_precision("auto", torch.device("cuda")) == expected


def test_the_other_library_multiplies_in_float32_and_the_switch_is_put_back():
    a, b = torch.randn(2, 200, 200)
    exact = a.double() @ b.double()
    before = torch.backends.mkldnn.matmul.fp32_precision
    with engine.products():
        with engine.products():
            inner = a @ b
        assert torch.equal(a @ b, inner), "still on after the inner block"
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    with pytest.raises(Crash), engine.products():
        raise Crash
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    first, second = engine.products(), engine.products()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as generators that are closed in another order than they began
    second.__exit__(None, None, None)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert (inner - exact).abs().max() < 1e-3


def test_a_function_of_many_rows_is_computed_a_few_at_a_time():
    sizes = []
    rows = torch.arange(10, dtype=torch.float64)[:, None]
    doubled = engine.in_pieces(lambda piece: sizes.append(len(piece)) or 2 * piece, rows, CPU, 4)
    assert sizes == [4, 4, 2]
    assert doubled.dtype == torch.float32
    assert torch.equal(doubled, 2 * rows.float())


@pytest.mark.parametrize(("vendor", "features"), [("GenuineIntel", "avx512"), ("AuthenticAMD", "avx512 amx")])
def test_the_switch_is_left_alone_where_it_would_round(monkeypatch, vendor, features):
    monkeypatch.setattr(precision, "processor", lambda name: vendor)
    monkeypatch.setattr(precision, "features", lambda: frozenset(features.split()))
    monkeypatch.setattr(precision, "onednn_is_faster", precision.onednn_is_faster.__wrapped__)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with engine.products():
        assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_a_processor_that_rounds_is_found_out(monkeypatch):
    monkeypatch.setattr(precision, "processor", lambda name: "AuthenticAMD")
    monkeypatch.setattr(precision, "features", lambda: frozenset({"avx512"}))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    product = torch.Tensor.__matmul__
    rounded = {torch.float32: lambda a, b: product(a.bfloat16().float(), b)}
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: rounded.get(a.dtype, product)(a, b))
    assert not precision.onednn_is_faster.__wrapped__()
