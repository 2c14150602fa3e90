"""Every measurement is float32, whatever trained the networks, and leaves torch as it found it."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch
from torch import nn

from nelbo import engine
from nelbo.core.registry import lookup, names
from nelbo.data import Images, Splits
from nelbo.engine import precision
from nelbo.evaluation import card
from nelbo.metrics import Split
from nelbo.metrics.base import exactly
from nelbo.models import VAE
from nelbo.pictures.view import View

CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VAE(latent_dim=3).build((1, 4, 4)).eval()


def split_of(n=40, **more) -> Split:
    pixels = torch.randint(0, 2, (n, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(pixels * 255, torch.arange(n) % 3)
    data = Splits("made", images, None, images, "0" * 16, "binary", (0.0, 1.0))
    return Split(images, data, CPU, **{"batch_size": 16, **more})


def settings() -> tuple[object, ...]:
    """What a measurement changes in torch while it runs."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    product = getattr(matmul, "fp32_precision", None)
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), product, torch.get_rng_state().tolist()


def kinds_of(model, work) -> set[torch.dtype]:
    """The types that linear layers put out while `work` runs."""
    seen: set[torch.dtype] = set()
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
    ]
    work()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", ["bound", "importance", "latent", "information", "error"])
def test_a_metric_is_float32_and_the_same_inside_anothers_bf16(model, name):
    measure, found = lookup("metric", name), {}
    for words, around in (
        ("plain", contextlib.nullcontext()), ("bf16", torch.autocast("cpu", torch.bfloat16))
    ):  # fmt: skip
        with around:
            kinds = kinds_of(
                model, lambda words=words: found.update({words: dict(measure(model, split_of(samples=20)))})
            )
        assert kinds == {torch.float32}
    assert found["plain"] == found["bf16"]
    assert found["plain"]


def test_a_run_trained_in_bf16_is_measured_looked_at_and_drawn_in_float32(tiny_recipe, tmp_path):
    from nelbo.training import api

    run = api.train(tiny_recipe({"precision": "bf16", "epochs": 1}), runs=tmp_path, name="low", device="cpu")
    found = card.evaluate(run, samples=4, metrics=["bound", "importance"], device="cpu")
    assert found["precision"] == "fp32"
    view = View.open(run, device="cpu")

    def look() -> None:
        assert view.z_NZ.dtype == torch.float32
        view.samples(3)
        view.around(view.x_NCHW[:2], 2)
        view.posterior(view.x_NCHW[:2])

    assert kinds_of(view.model, look) == {torch.float32}


def test_networks_in_bf16_are_weighed_in_float64(model):
    """For who asks a model directly: densities in float32, sums of weights in float64."""
    x_BCHW = next(split_of().batches())
    with engine.autocast(CPU, "bf16"):
        assert model.log_weights(x_BCHW, 5).dtype == torch.float64


# --- and then it was as before ----------------------------------------------------------------


@pytest.fixture
def faster(monkeypatch):
    """As on a machine whose matrix products are faster by the other library."""
    if not hasattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision"):
        pytest.skip("this torch has no switch between libraries")
    monkeypatch.setattr(precision, "onednn_is_faster", lambda: True)


def exhausted(split):
    list(split.batches())


def closed_between_two_batches(split):
    batches = split.batches()
    next(batches)
    assert not torch.is_grad_enabled(), "otherwise there is nothing to put back"
    batches.close()


def left_in_the_middle(split):
    for _ in split.batches():
        break


def only_the_first(split):
    next(split.batches())


def failed_in_the_middle(split):
    with contextlib.suppress(ValueError):
        for _ in split.batches():
            raise ValueError


def never_begun(split):
    split.batches()


def one_inside_the_other(split):
    for _ in split.batches():
        inner = split.batches()
        next(inner)
        inner.close()


@pytest.mark.parametrize(
    "use",
    [exhausted, closed_between_two_batches, left_in_the_middle, only_the_first, failed_in_the_middle, never_begun,
     one_inside_the_other],
)  # fmt: skip
def test_batches_put_everything_back_however_they_end(use, faster):
    before = settings()
    use(split_of())
    assert settings() == before


def test_inside_the_batches_nothing_is_kept_for_gradients_and_products_are_the_faster_ones(faster):
    matmul = torch.backends.mkldnn.matmul
    for _ in split_of().batches():
        assert not torch.is_grad_enabled()
        assert matmul.fp32_precision == "bf16"
    with torch.autocast("cpu", torch.bfloat16), exactly(CPU):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", names("metric"))
def test_a_metric_that_is_interrupted_leaves_torch_as_it_was(name, model, faster):
    """`tell` is where an interruption reaches a metric; one without a tell is left after its first value."""

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = settings()
    split = dataclasses.replace(split_of(samples=4), tell=interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        next(lookup("metric", name)(model, split), None)
    assert settings() == before
