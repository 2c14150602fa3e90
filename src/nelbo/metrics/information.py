"""The information in the latents: the KL taken apart by the aggregate posterior q(z) = 1/N sum_n q(z | x_n)."""

import dataclasses
import itertools
import math

import torch
from torch import Tensor

from nelbo.core.distributions import PriorModule
from nelbo.dists.base import LOG_2PI, exact
from nelbo.dists.normal import DiagonalNormal, StandardNormalModule
from nelbo.metrics.base import Missing, Number, Split, TellCount, Value, Values, metric, nothing, unheard
from nelbo.models import BuiltModel

SAMPLED = 10_000  # images of which a sample is taken; the mixture is always of the whole split
AT_ONCE = {"cpu": 2**17}  # densities held at a time: what stays in a core's cache is four times as fast
AT_ONCE_ELSEWHERE = 2**24
PRIOR_AT_ONCE = 500  # samples; a prior may itself be a mixture of many
NEAR_LIMIT_NATS = 0.5
NAMES = ("mutual_information", "aggregate_kl", "total_correlation", "dimension_wise_kl")
NUMBERS = {"aggregate_kl": Number("Aggregate KL"), "dimension_wise_kl": Number("Dimension-wise KL")}


@torch.no_grad()
def mixture_log_density(
    z_MZ: Tensor, mean_NZ: Tensor, log_var_NZ: Tensor, tell: TellCount = unheard
) -> tuple[Tensor, Tensor]:
    """Return log q(z) of shape M and log q(z_j) of shape MZ, q being the mixture of N diagonal Gaussians.

    Exact, in float64, in N M Z exponentials and memory that does not grow with M. Each z must be a sample of one
    of the components: its own density then keeps the plain sums of the one-dimensional ones from underflow.
    """
    m, n, dimensions = len(z_MZ), *mean_NZ.shape
    # log density = log_scale - (z / width - centre)^2, one row a dimension
    width_ZN = (2.0 * log_var_NZ.exp()).sqrt().T.contiguous()
    centre_ZN = mean_NZ.T / width_ZN
    log_scale_ZN = (-0.5 * (log_var_NZ.T + LOG_2PI)).contiguous()
    rows = max(1, AT_ONCE.get(z_MZ.device.type, AT_ONCE_ELSEWHERE) // n)
    joint_M, each_MZ = torch.empty_like(z_MZ[:, 0]), torch.empty_like(z_MZ)
    for start in range(0, m, rows):
        part = slice(start, start + rows)
        total_RN = z_MZ.new_zeros(len(z_MZ[part]), n)
        for j in range(dimensions):
            scaled_RN = (z_MZ[part, j, None] / width_ZN[j]).sub_(centre_ZN[j])
            log_q_RN = torch.addcmul(log_scale_ZN[j], scaled_RN, scaled_RN, value=-1.0)
            total_RN += log_q_RN
            each_MZ[part, j] = log_q_RN.exp_().sum(1).log_()  # in place: the matrix is not needed again
        joint_M[part] = total_RN.logsumexp(1)
        tell(min(start + rows, m), m)
    return joint_M - math.log(n), each_MZ - math.log(n)


def posterior_samples(mean_NZ: Tensor, log_var_NZ: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return one sample z_MZ of each posterior (of 10,000 where there are more), and its own log q(z | x), shape M."""
    stream = torch.Generator().manual_seed(seed)
    chosen_M = torch.randperm(len(mean_NZ), generator=stream)[:SAMPLED].sort().values
    # Drawn at once, on the CPU: the numbers depend neither on the batch size nor on the device.
    noise_MZ = torch.randn(len(chosen_M), mean_NZ.shape[1], generator=stream, dtype=torch.float64)
    noise_MZ, chosen_M = noise_MZ.to(mean_NZ.device), chosen_M.to(mean_NZ.device)
    log_var_MZ = log_var_NZ[chosen_M]
    z_MZ = mean_NZ[chosen_M] + (0.5 * log_var_MZ).exp() * noise_MZ
    own_M = -0.5 * (noise_MZ.square() + log_var_MZ + LOG_2PI).sum(1)  # the noise is (z - mean) / std
    return z_MZ, own_M


@torch.no_grad()
def prior_log_density(prior: PriorModule, z_MZ: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return log p(z) of shape M; also log p(z_j) of shape MZ for the standard normal, of independent dimensions."""
    if isinstance(prior, StandardNormalModule):
        each_MZ = -0.5 * (z_MZ.square() + LOG_2PI)
        return each_MZ.sum(1), each_MZ
    weights = next(itertools.chain(prior.parameters(), prior.buffers()), torch.empty(0))
    few = [z_RZ.to(weights.device, weights.dtype) for z_RZ in torch.split(z_MZ, PRIOR_AT_ONCE)]
    return torch.cat([exact(prior.log_prob(z_RZ)) for z_RZ in few]).to(z_MZ.device), None


@metric(order=40, depends_on_k=False, learns=False, numbers=NUMBERS)
def information(model: BuiltModel, split: Split) -> Values:
    """I(x; z), KL(q(z) || p(z)), total correlation and dimension-wise KL under the aggregate posterior, nats.

        E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z))                            Hoffman & Johnson 2016
        KL(q(z) || p(z))       = KL(q(z) || prod_j q(z_j)) + sum_j KL(q(z_j) || p(z_j))     Chen et al. 2018

    q(z) is the mixture of all N posteriors of the split, the sample's own among them; all four are means over the
    same samples, one an image, so that the two sums hold exactly. I(x; z) is at most log N.
    """
    batches = [model.encode(x_BCHW) for x_BCHW in split.batches()]
    gaussians = [posterior for posterior in batches if isinstance(posterior, DiagonalNormal)]
    why_not = ""
    if len(gaussians) < len(batches):
        why_not = "needs a diagonal Gaussian posterior"
    elif gaussians[0].not_a_bound:
        why_not = f"samples do not come from the density: {gaussians[0].not_a_bound}"
    if why_not:
        yield from nothing(dict.fromkeys(NAMES, "nats"), Missing("not measured", why_not))
        return
    mean_NZ = torch.cat([exact(posterior.mean) for posterior in gaussians])
    log_var_NZ = torch.cat([exact(posterior.log_var) for posterior in gaussians])
    z_MZ, own_M = posterior_samples(mean_NZ, log_var_NZ, split.seed)
    mixture_M, marginal_MZ = mixture_log_density(z_MZ, mean_NZ, log_var_NZ, split.tell)
    prior_M, prior_MZ = prior_log_density(model.prior, z_MZ)
    n, m = len(split.images), len(z_MZ)
    mutual_M = own_M - mixture_M
    near = math.log(n) - float(mutual_M.mean()) < min(NEAR_LIMIT_NATS, 0.1 * math.log(n))
    samples = "" if m == n else f"sampled at {m} images; "
    plain = f"{samples}mixture of all {n} posteriors, which the standard error takes as given"
    limit, about = f"at most log N = {math.log(n):.2f}", plain
    if near:
        limit = f"at its limit log N = {math.log(n):.2f}: nearly every image can be told from every other"
        about = f"I(x; z) is at its limit: what it cannot count is counted here; {plain}"
    yield "mutual_information", _mean(mutual_M, n, f"{limit}; {plain}")
    yield "aggregate_kl", _mean(mixture_M - prior_M, n, about)
    yield "total_correlation", _mean(mixture_M - marginal_MZ.sum(1), n, about)
    if prior_MZ is None:
        why_not = "needs a prior whose dimensions are independent, the standard normal"
        yield "dimension_wise_kl", Value.none("nats", Missing("not measured", why_not))
    else:
        yield "dimension_wise_kl", _mean((marginal_MZ - prior_MZ).sum(1), n, plain)


def _mean(each_M: Tensor, n: int, note: str) -> Value:
    value = Value.over_images(each_M, "nats", note)
    # Numbers of a part of the images cannot be paired with those of another run.
    return value if len(each_M) == n else dataclasses.replace(value, per_image_N=None)
