"""Compilation of a step: forward and backward as one graph."""

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Generic, Literal, ParamSpec, TypeVar

import torch
from torch import nn

from nelbo.engine.devices import convolves
from nelbo.engine.dials import NotFixed
from nelbo.engine.environment import cache_folder, processor

P = ParamSpec("P")
R = TypeVar("R")
Compile = Literal["auto", "on", "off"]
CODE = "TORCHINDUCTOR_CACHE_DIR"

# Steps from which on compiling pays, by kind of device. On two cores a compiled step saves 0.4 to 1 ms, one with
# convolutions 2 to 3, and compiling takes 5 to 10 s; on a GPU, where steps are captured in any case, it saves 0.1 ms
# and takes half a minute.
PAYS_FROM = {"cpu": 10_000, "cuda": 200_000}
CONVOLUTIONS_PAY_FROM = {"cpu": 4_000}


def compiles(choice: Compile, device: torch.device, steps: int, model: nn.Module) -> bool:
    """Return True if a run of so many steps is compiled; `auto` counts and never times: a resumed run decides alike."""
    if choice == "auto":
        pays = PAYS_FROM | CONVOLUTIONS_PAY_FROM if convolves(model) else PAYS_FROM
        return steps >= pays.get(device.type, steps + 1) and why_not(device) is None
    return choice == "on"


def why_not(device: torch.device) -> str | None:
    """Return the reason why nothing can be compiled for this device, or None."""
    from torch._dynamo import config  # half a second that only compiled runs pay

    if not hasattr(config, "trace_autograd_ops"):
        return f"torch {torch.__version__} cannot compile a step with its gradients; 2.13 can"
    if device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        return "there is no C++ compiler (g++, or the one that CXX names)"
    return None


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
            _keep_compiled_code()
            # A hack around torch.compile: it stores compiled code, and the count of tries, with the code object, which
            # all closures of one source line share. Runs in one process would use up each other's tries, or lose what
            # a CUDA graph still reads. It can go when torch.compile takes a cache of the caller's.
            self.plain.__code__ = self.plain.__code__.replace()
            self._fast = torch.compile(
                self.plain, fullgraph=True, dynamic=False, options={"fallback_random": True}
            )
        from torch._dynamo import exc

        try:
            if self.ready:
                return self._fast(*args, **kwargs)
            with _undisturbed(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's, about itself
                result = self._fast(*args, **kwargs)
            self.ready = True
            return result
        except Exception as error:
            # Once it is compiled, an error is the step's own unless what the compiler took for fixed has changed (a
            # number that counts steps, say) and it tried again.
            if self.ready and not isinstance(error, exc.TorchDynamoException | exc.FailOnRecompileLimitHit):
                raise
            raise NotFixed(_in_a_line(error)) from error


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Let steps with their gradients be compiled during a block; torch's settings are put back afterwards."""
    from torch._dynamo import config
    from torch._inductor import config as inductor

    # A torch without this setting compiles nothing: see `why_not`.
    traced = {"trace_autograd_ops": True} if hasattr(config, "trace_autograd_ops") else {}
    # torch 2.13.0 can unload a compiled kernel while its fast launcher still points to it: a segmentation fault
    # (github.com/pytorch/pytorch/pull/190502). Launching the ordinary way costs nothing where steps are captured.
    safe = {"use_fast_triton_launcher": False} if hasattr(inductor, "use_fast_triton_launcher") else {}
    loggers = [logging.getLogger(name) for name in ("torch._dynamo", "torch._inductor")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:  # what fails is said once, by us
        logger.setLevel(logging.CRITICAL)
    try:
        with config.patch(traced), inductor.patch(safe):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep Ctrl-C from a block's child processes; it is heard here, at the latest when the block ends."""
    # A terminal sends it to every process: the C++ compiler would die, and the step seem one that cannot be compiled.
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_compiled_code() -> None:
    """Keep compiled code in the cache folder for the next run, or where there can be none, among temporary files."""
    # The code is for the processor that is here, and torch does not tell processors apart whose vectors are as wide:
    # where machines share the folder, each kind has its own.
    flags = processor("flags") or processor("Features")
    kind = f"{platform.machine()} {processor('model name')} {flags}"
    folder = cache_folder() / "compiled" / hashlib.blake2b(kind.encode(), digest_size=6).hexdigest()
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    # Importing the compiler sets its default as if somebody had asked for it.
    if os.environ.get(CODE, default_cache_dir()) == default_cache_dir() and os.access(folder, os.W_OK):
        os.environ[CODE] = str(folder)


def _in_a_line(error: BaseException) -> str:
    """Return the innermost reason, without the compiler's advice to people who develop it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
