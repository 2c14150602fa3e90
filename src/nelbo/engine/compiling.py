"""Compilation of a step: forward and backward as one graph."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, ParamSpec, TypeVar

import torch

from nelbo.engine.dials import NotFixed
from nelbo.engine.environment import cache_folder

P = ParamSpec("P")
R = TypeVar("R")
Compile = Literal["auto", "on", "off"]

# Steps from which on compiling pays, by kind of device. On two cores a compiled step saves 0.4 to 1 ms and
# compiling takes 5 to 10 s; on a GPU, where steps are captured in any case, it saves 0.1 ms and takes half a minute.
PAYS_FROM = {"cpu": 10_000, "cuda": 200_000}


def compiles(asked: Compile, device: torch.device, steps: int) -> bool:
    """Whether a run of so many steps is compiled; `auto` counts, it never times: a resumed run decides alike."""
    if asked == "auto":
        return steps >= PAYS_FROM.get(device.type, steps + 1) and why_not(device) is None
    return asked == "on"


def why_not(device: torch.device) -> str | None:
    """Why nothing can be compiled for this device, or None."""
    if not hasattr(_dynamo_config(), "trace_autograd_ops"):
        return f"torch {torch.__version__} cannot compile a step with its gradients; 2.13 can"
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        return "there is no C++ compiler (g++, or the one that CXX names)"
    return None


def _dynamo_config() -> Any:
    from torch._dynamo import config  # half a second that only compiled runs pay

    return config


class Compiled(Generic[P, R]):
    """A function that is compiled when it is first called.

    Raises NotFixed, with the reason, where it cannot be compiled; then nothing has happened. Random numbers come
    from torch's own streams, so that a compiled step draws what the plain one draws.
    """

    def __init__(self, function: Callable[P, R], device: torch.device) -> None:
        self.plain = function
        self.device = device
        self.ready = False
        self._fast: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._fast is None:
            if reason := why_not(self.device):
                raise NotFixed(reason)
            self._fast = self._compiler()
        if self.ready:
            return self._fast(*args, **kwargs)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's, about itself
                found = self._fast(*args, **kwargs)
        except Exception as error:
            raise NotFixed(_in_a_line(error)) from error
        self.ready = True
        return found

    def _compiler(self) -> Callable[P, R]:
        _keep_compiled_code()
        with contextlib.suppress(AttributeError):  # an earlier run in this process compiled the same code
            torch._dynamo.eval_frame.reset_code(self.plain.__code__)  # type: ignore[attr-defined]
        return torch.compile(self.plain, fullgraph=True, dynamic=False, options={"fallback_random": True})


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """A block in which steps with their gradients can be compiled; torch's settings are put back afterwards."""
    if not hasattr(config := _dynamo_config(), "trace_autograd_ops"):
        yield
        return
    loggers = [logging.getLogger(name) for name in ("torch._dynamo", "torch._inductor")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:  # what fails is said once, by us
        logger.setLevel(logging.CRITICAL)
    try:
        with config.patch(trace_autograd_ops=True):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _keep_compiled_code() -> None:
    """Compiled code stays in the cache folder for the next run, not among temporary files."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))


def _in_a_line(error: BaseException) -> str:
    """The innermost reason, without the compiler's advice to people who develop it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
