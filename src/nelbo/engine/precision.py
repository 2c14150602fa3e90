"""Precision of the networks' arithmetic, and the library that multiplies their matrices."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Literal

import torch

from nelbo.engine.environment import processor
from nelbo.errors import ConfigError

Precision = Literal["fp32", "bf16"]
Asked = Literal["auto", "fp32", "bf16"]


def pick_precision(choice: Asked, device: torch.device) -> Precision:
    """Return the precision; `auto` is bf16 where the hardware has instructions for it."""
    if choice != "auto":  # never by timing: the same machine gives the same numbers
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and "bf16" in features() else "fp32"


def check_precision(device: torch.device, choice: Asked) -> None:
    """Raise ConfigError for a precision that the device does not have."""
    if choice == "bf16" and device.type == "mps":
        raise ConfigError("precision bf16 is supported on cpu and cuda; use --precision fp32 on mps")


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Use bf16 arithmetic in the networks; distributions and losses stay in float32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@functools.cache
def features() -> frozenset[str]:
    """Return those of `avx512`, `bf16` (AVX-512, AMX or Arm) and `amx` that this processor has."""
    flags = (processor("flags") or processor("Features")).split()
    parts = {part for flag in flags for part in flag.split("_")}  # of amx_bf16, avx512_bf16; Arm has bf16
    return frozenset(parts & {"avx512", "amx", "bf16"} | ({"avx512"} if "avx512f" in flags else set()))


@contextlib.contextmanager
def products() -> Iterator[None]:
    """Multiply float32 matrices by the faster of torch's two CPU libraries during a block."""
    # On AMD processors with AVX-512 torch multiplies float32 matrices with a library (MKL) that keeps to half the
    # vector width there, and convolves with one (oneDNN) that does not: 1.5 to 2 times faster. torch hands
    # products to oneDNN when they may be rounded to bf16, and oneDNN rounds only where it has units for it (AMX). So on
    # a processor without them the permission changes the library and not the arithmetic, which is verified once.
    if not onednn_is_faster():
        yield
        return
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    _inside.append(matmul.fp32_precision)
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        before = _inside[0]
        _inside.pop()
        if not _inside:  # blocks may overlap without being nested: generators are closed in any order
            matmul.fp32_precision = before


_inside: list[str] = []  # the setting before each block that has not ended: the first is the caller's


@functools.cache
def onednn_is_faster() -> bool:
    """Return whether it is, by the kind of processor, and by whether its products are still float32."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and "amx" not in features()
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if processor("vendor_id") != "AuthenticAMD" or not wide or not hasattr(matmul, "fp32_precision"):
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator)
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        error = (a @ b - (a.double() @ b.double())).abs().max()
    finally:
        matmul.fp32_precision = before
    return float(error) < 1e-3  # float32: 5e-5; products rounded to bf16: 0.3
