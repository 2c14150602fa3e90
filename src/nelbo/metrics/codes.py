"""The use of a codebook, for models whose latents are codes."""

import torch
from torch import Tensor

from nelbo.metrics.base import Missing, Split, Value, Values, metric, nothing
from nelbo.models import BuiltModel
from nelbo.models.codebook import Quantised, perplexity

NAMES = ("codes_used", "code_perplexity", "varying_positions")


def counted(model: BuiltModel, split: Split) -> Tensor | None:
    """Count each of K codes at each of M positions over a split, float64 (M, K); None without codes."""
    counts_MK: Tensor | None = None
    for x_BCHW in split.batches():
        posterior = model.encode(x_BCHW)
        if not isinstance(posterior, Quantised):
            return None
        codes_BM = posterior.codes_BM
        chosen_MK = posterior.codebook.chosen(codes_BM).double().view(*codes_BM.shape, -1).sum(0)
        counts_MK = chosen_MK if counts_MK is None else counts_MK + chosen_MK
    return None if counts_MK is None else counts_MK.cpu()


@metric(learns=False)
def codes(model: BuiltModel, split: Split) -> Values:
    """Codes that occur, the perplexity of their use, and positions that say anything (van den Oord et al. 2017).

    Over all positions of all images of the split: exp of the entropy of the shares of the codes. Only where latents
    are codes.
    """
    counts_MK = counted(model, split)
    if counts_MK is None:
        if split.named:
            missing = Missing("not measured", "this model has no codebook")
            yield from nothing(dict.fromkeys(NAMES, ""), missing)
        return
    positions, size = counts_MK.shape
    counts_K = counts_MK.sum(0)
    dead = int((counts_K == 0).sum())
    note = f"of {size}" + (f"; {dead} of them no image of this split takes" if dead else "")
    yield "codes_used", Value(float(size - dead), "codes", None, note)
    share_K = counts_K / counts_K.sum()
    yield "code_perplexity", Value(float(perplexity(share_K)), "codes", None, f"of {size}, used equally")
    # A position that always has the same code says nothing about an image, however many codes are used elsewhere.
    varying = int(torch.count_nonzero((counts_MK > 0).sum(1) > 1))
    note = f"of {positions}, with more than one code"
    yield "varying_positions", Value(float(varying), "positions", None, note)
