"""The KL of each latent dimension, and the number of active ones."""

import dataclasses

import torch
from torch import Tensor

from nelbo.core.distributions import PosteriorValue, PriorModule, Sample
from nelbo.core.layout import LatentRow
from nelbo.dists.base import exact
from nelbo.metrics.base import Missing, Number, Split, Value, Values, metric
from nelbo.models import BuiltModel
from nelbo.models.codebook import Quantised
from nelbo.objectives import halves

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016, section 5.2
COLLAPSED_KL_NATS = 1.0  # less than this cannot tell even three images apart
NO_CLOSED_FORM = Missing("no closed form", "of the KL of this posterior to this prior")
BY_GROUPS = "not of single dimensions"
LISTED = 20  # groups whose KL is written
WARM_UP_EPOCHS, FREE_BITS = 25, 0.1  # the advice against collapse, here and by the doctor
NUMBERS = {"kl_per_dimension": Number("KL per dimension")}


@dataclasses.dataclass(frozen=True, slots=True)
class LatentStatistics:
    """Statistics of q(z | x) over a split.

    kl_Z            mean KL of each dimension to the prior, nats; None where dimensions have none of their own:
                    without a closed form, or where the posterior is not the one that is sampled
    mean_variance_Z variance over images of the posterior mean
    why_no_kl       the reason, where kl_Z is None
    kl_nats         mean KL of all dimensions; None without a closed form
    coded           latents are codes: variances are in units of the codebook's
    mean_is         the name of the posterior's mean, which may be no expectation
    """

    kl_Z: Tensor | None
    mean_variance_Z: Tensor
    why_no_kl: Missing | None = None
    kl_nats: float | None = None
    coded: bool = False
    mean_is: str = "posterior mean"

    @property
    def active_units(self) -> int:
        """Return the dimensions whose posterior mean varies over images by more than 0.01 (Burda et al. 2016)."""
        return int((self.mean_variance_Z > ACTIVE_VARIANCE).sum())

    @property
    def collapsed(self) -> bool:
        """True when the latent carries next to nothing: no active unit, or less than a nat of KL."""
        return self.active_units == 0 or (self.kl_nats is not None and self.kl_nats < COLLAPSED_KL_NATS)

    def to_row(self) -> LatentRow:
        """Return the numbers for a line of metrics.jsonl."""
        kl = None if self.kl_Z is None else [round(value, 6) for value in self.kl_Z.tolist()]
        dimensions = len(self.mean_variance_Z)
        return {"active_units": self.active_units, "dimensions": dimensions, "kl_per_dimension": kl}

    @property
    def carried(self) -> str:
        """The number of active dimensions and the KL of all, in words."""
        total = "unknown" if self.kl_nats is None else f"{self.kl_nats:.2f} nats"
        return f"{self.active_units} of {len(self.mean_variance_Z)} latent dimensions are active, KL {total}"

    @property
    def warning(self) -> str:
        """A sentence for people, when the posterior has collapsed."""
        if not self.collapsed:
            return ""
        if self.coded:
            advice = "Codes hardly vary; try a smaller --model.revive-after"
            return f"posterior collapse: {self.carried}. {advice}"
        return (
            f"posterior collapse: {self.carried}. The decoder ignores z; try a warm-up (--objective.beta linear "
            f"--objective.beta.epochs {WARM_UP_EPOCHS}), a smaller beta, or free bits "
            f"(--objective.free-bits {FREE_BITS:g})"
        )


class LatentSums:
    """Sums over images of what `LatentStatistics` needs, float64; they stay on the device until `result`."""

    def __init__(self) -> None:
        self.n = 0
        self.sums: dict[str, Tensor] = {}
        self.why_no_kl: Missing | None = None
        self.coded = False
        self.mean_is = "posterior mean"

    def add(self, posterior: PosteriorValue, prior: PriorModule, sample: Sample | None = None) -> None:
        """Add the posteriors of a batch, with the samples that were drawn of them, if any were."""
        self.mean_is = posterior.mean_is
        z_BZ, self.coded = exact(posterior.mean), isinstance(posterior, Quantised)
        if isinstance(posterior, Quantised):
            z_BZ = z_BZ / exact(posterior.spread)
        values = {"mean": z_BZ, "square": z_BZ.square()}
        if sample is None and posterior.kl_needs_samples:
            sample = posterior.rsample_and_log_prob(1)
        kl_BG = None if posterior.not_a_bound else (sample or posterior).kl_to(prior)
        if kl_BG is not None:
            values["kl"] = exact(kl_BG)
        else:
            no_density = posterior.not_a_bound
            self.why_no_kl = Missing("infinite", no_density) if no_density else NO_CLOSED_FORM
        for name, value_BZ in values.items():
            sum_Z = value_BZ.sum(0)
            self.sums[name] = self.sums[name] + sum_Z if name in self.sums else sum_Z
        self.n += len(z_BZ)

    def result(self) -> LatentStatistics:
        means = {name: sum_Z.cpu() / self.n for name, sum_Z in self.sums.items()}
        variance_Z = (means["square"] - means["mean"].square()).clamp_min(0.0)  # rounding may leave -1e-17
        kl_G = means.get("kl")
        total = None if kl_G is None else float(kl_G.sum())
        if kl_G is not None and kl_G.shape != variance_Z.shape:
            values = [f"{kl:.2f}" for kl in kl_G.tolist()]
            listed = ", ".join(values) if len(values) <= LISTED else f"{len(values)} numbers"
            why = f"of groups of them, {listed} nats" if len(kl_G) > 1 else "the KL is one number for all"
            self.why_no_kl, kl_G = Missing(BY_GROUPS, why), None
        return LatentStatistics(kl_G, variance_Z, self.why_no_kl, total, self.coded, self.mean_is)


def latent_statistics(model: BuiltModel, split: Split) -> LatentStatistics:
    """Return the statistics of a split, by one pass of the encoder."""
    sums = LatentSums()
    for x_BCHW in split.batches():
        sums.add(model.encode(x_BCHW), model.prior)
    return sums.result()


@metric(order=30, quick=True, depends_on_k=False, learns=False, numbers=NUMBERS)
def latent(model: BuiltModel, split: Split) -> Values:
    """Active units and the KL of each latent dimension (Burda et al. 2016, section 5.2)."""
    statistics = latent_statistics(model, split)
    source = "code, in units of the codebook's," if statistics.coded else statistics.mean_is
    dimensions = len(statistics.mean_variance_Z)
    note = f"of {dimensions}; variance of the {source} above {ACTIVE_VARIANCE}"
    active = float(statistics.active_units)
    details, warning = {"dimensions": dimensions}, statistics.warning
    yield "active_units", Value(active, "dimensions", note=note, details=details, warning=warning)
    kl_Z, missing = statistics.kl_Z, statistics.why_no_kl
    if kl_Z is not None:
        yield "kl_per_dimension", Value(kl_Z.tolist(), "nats")
    elif missing is not None:
        yield "kl_per_dimension", Value.none("nats", missing)


def encode(model: BuiltModel, split: Split) -> Tensor:
    """Return posterior means of every image of a split, in order: z_NZ on the CPU."""
    return torch.cat([model.encode(x_BCHW).mean.float().cpu() for x_BCHW in split.batches()])


def posteriors(model: BuiltModel, split: Split, *, bounds: bool = False) -> dict[str, Tensor]:
    """Return `mean` of every posterior of a split and, if it has one, `std`: NZ, float32 on the CPU, in one pass.

    With `bounds` also `bound`, the ELBO of each image: nats, float64 (N), those whose mean is the metric `bound`.
    """
    batches: dict[str, list[Tensor]] = {"mean": [], "std": [], "bound": []}
    for x_BCHW in split.batches():
        if bounds:
            draw = model.draw(x_BCHW)
            posterior, bound_B = draw.posterior, halves(draw)[1]
            batches["bound"] += [] if bound_B is None else [bound_B.cpu().double()]
        else:
            posterior = model.encode(x_BCHW)
        batches["mean"].append(posterior.mean.float().cpu())
        if (std := posterior.std) is not None:
            batches["std"].append(std.abs().float().cpu())  # a parametrisation may give it a sign
    return {name: torch.cat(pieces) for name, pieces in batches.items() if pieces}
