"""Images whose factors of variation are known: one factor at a time, and their traces in the latent."""

import numpy as np
import torch
from numpy.typing import NDArray

from nelbo import plots
from nelbo.data import Images, materialise
from nelbo.metrics import Missing, disentangle
from nelbo.metrics.factors import prepared
from nelbo.pictures.base import Drawn, picture
from nelbo.pictures.view import SHOWN, NotApplicable, View

Factored = dict[str, tuple[Images, torch.Tensor]]  # by split: its images and their factors


@picture(group="factors", order=1)
def factor_sweeps(view: View) -> Drawn:
    """One known factor varied at a time from an image near the middle, images beside their reconstructions."""
    names, start_F, splits = _with_factors(view)
    rows = {name: _sweep(view, splits, start_F, k) for k, name in enumerate(names)}
    varied = {name: x_NCHW for name, x_NCHW in rows.items() if len(x_NCHW) > 1}
    if not varied:
        raise NotApplicable(f"{view.splits.name}: no two images differ from a middle one in one factor alone")
    images = [view.pictures(x_NCHW) for x_NCHW in varied.values()]
    decoded = [view.decoded(view.mean(x_NCHW)) for x_NCHW in varied.values()]
    titles = ("images, one factor varied", "reconstructions")
    figure = plots.side_by_side(images, decoded, titles=titles, title=view.title, row_labels=list(varied))
    yield "factor-sweeps", figure


@picture(group="factors", order=2)
def factor_information(view: View) -> Drawn:
    """The mutual information of each active dimension with each known factor, as a share of the factor's entropy."""
    names, _, splits = _with_factors(view)
    scored = prepared(view.z_NZ.double().numpy(), splits[view.split_name][1].numpy(), names)
    if isinstance(scored, Missing):
        raise NotApplicable(f"{view.run.name}: {scored}")
    codes, about = scored
    shared_AF, entropy_F = disentangle.information(disentangle.discretised(codes.z_NA), codes.factors_NF)
    figure = plots.factor_table(
        shared_AF / entropy_F,
        title=f"{view.title} · I(z; factor) / H(factor)",
        dimensions=[f"z{dimension}" for dimension in codes.active_A],
        factors=codes.names,
        notes=[f"posterior means in {disentangle.BINS} bins; {about}"],
    )
    yield "factor-information", figure


def _with_factors(view: View) -> tuple[tuple[str, ...], NDArray[np.int64], Factored]:
    """Return the factors' names, the factors of an image near the middle of them all, and every split that has them."""
    named = {"train": view.splits.train, "validation": view.splits.validation, "test": view.splits.test}
    splits = {
        name: (images, images.factors_NF)
        for name, images in named.items()
        if images and images.factors_NF is not None
    }
    if view.split_name not in splits:
        raise NotApplicable(f"{view.splits.name} has no known factors; an .npz may have an array 'factors'")
    images, factors = splits[view.split_name]
    factors_NF = factors.numpy()
    distance_N = np.abs(factors_NF - np.median(factors_NF, axis=0)).sum(1)
    return images.factor_names or (), factors_NF[int(distance_N.argmin())], splits


def _sweep(view: View, splits: Factored, start_F: NDArray[np.int64], k: int) -> torch.Tensor:
    """Return images that differ from the start in factor k alone, by its value, each value once; at most `SHOWN`."""
    image_of: dict[int, torch.Tensor] = {}
    others = [other for other in range(len(start_F)) if other != k]
    for images, factors_NF in splits.values():  # of all splits: a random one alone seldom has every value
        same_N = (factors_NF.numpy()[:, others] == start_F[others]).all(1)
        index = torch.from_numpy(np.flatnonzero(same_N))
        pictures = materialise(images, view.splits.transforms, indices=index)
        for value, x_CHW in zip(factors_NF[index, k].tolist(), pictures, strict=True):
            image_of.setdefault(value, x_CHW)
    ordered = [image_of[value] for value in sorted(image_of)]
    chosen = np.unique(np.linspace(0, len(ordered) - 1, min(SHOWN, len(ordered))).round().astype(int))
    return torch.stack([ordered[i] for i in chosen])
