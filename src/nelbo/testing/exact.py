"""Models whose log p(x) is known, in float64: in closed form, by enumeration, by quadrature.

Each has images `x_BCHW` and their exact `log_px_B`, in nats. A LinearGaussian has a `model`, a Discrete is one.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from nelbo.core import Draw
from nelbo.core.distributions import PosteriorValue, PriorModule
from nelbo.engine import fixed_seed
from nelbo.errors import ConfigError
from nelbo.likelihoods import Gaussian, Likelihood
from nelbo.likelihoods.bernoulli import BernoulliImage
from nelbo.models import VAE, BuiltModel
from nelbo.nets import MLP
from nelbo.posteriors import DiagonalGaussian, Posterior
from nelbo.priors import Prior
from nelbo.testing.law import CPU, SEED, float64, require
from nelbo.testing.numeric import Grid, around, around_point
from nelbo.testing.spaces import Support, beside, some_latents
from nelbo.testing.toys import furnished

COARSE, FINER = 51, (71, 141, 281)  # points along each axis of a quadrature
CONVERGED = 1e-4  # nats
FIT = 400  # steps
PAIRS = 4_000  # images and latents that a posterior is fitted to
EXCHANGED = 0.2  # of the latents, where they cannot be spread: with others of the prior
LARGEST_GRADIENT = 0.3  # a published parametrisation has log-densities without bound


class LinearGaussian:
    """A VAE without hidden layers, on 1 x 2 x 3 images with two latents; every part may be another one.

    A posterior or a prior that lives elsewhere than on R^Z gets its like beside it, and as many latents as it needs.

        p(z) = N(0, I)    p(x|z) = N(W z + b, sigma^2 I)    p(x) = N(b, W W' + sigma^2 I)

    W has orthogonal columns, so that the true posterior N(m(x), diag(s^2)) is diagonal: `mean_BZ` and `std_Z` are
    its own, whatever the parts. With `exact` the model's q is that posterior; without, q is fitted to be somewhat
    wider, in that many steps, so that importance weights have a variance, and a finite one (with `fitted=False` it
    stays as it was initialised). With another prior or likelihood log p(x) is by quadrature.
    """

    shape = (1, 2, 3)
    sigma = 0.7

    def __init__(
        self,
        posterior: Posterior | None = None,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        *,
        exact: bool = False,
        fitted: bool = True,
        steps: int = FIT,
        images: int = 4,
    ) -> None:
        if exact and (posterior or prior or likelihood):
            raise ConfigError("the exact posterior is known only for the linear-Gaussian model itself")
        usual = prior is None and likelihood is None and (posterior is None or posterior.space == "real")
        posterior = posterior or (beside(prior, Posterior) if prior else DiagonalGaussian())
        spec = VAE(
            latent_dim=some_latents(posterior, 2),
            encoder=MLP(hidden=()),
            decoder=MLP(hidden=()),
            posterior=posterior,
            prior=prior or beside(posterior, Prior),
            likelihood=likelihood or Gaussian(sigma=self.sigma),
        )
        with fixed_seed(SEED, CPU), float64():
            self.model = spec.build(self.shape).double().eval()
            # A prior made of posteriors then stays what it is while q is fitted.
            furnished(self.model.prior, self.model.latent_dim, self.shape)
            W, b = self._linear_decoder()
            self.x_BCHW = images_of(self.model, images)
            centred_BD = self.x_BCHW.flatten(1) - b[:6]
            # W' W is diagonal, and with it the true posterior's precision I + W' W / sigma^2.
            precision = 1.0 + W[:6].square().sum(0) / self.sigma**2
            gain_ZD = W[:6].T / self.sigma**2 / precision[:, None]
            self.mean_BZ, self.std_Z = centred_BD @ gain_ZD.T, precision.rsqrt()
            self.marginal = MultivariateNormal(b[:6], W[:6] @ W[:6].T + self.sigma**2 * torch.eye(6).double())
            if exact:  # the head gives mean and log-variance, in this order
                variance_ZD, log_var_Z = torch.zeros_like(gain_ZD), 2.0 * self.std_Z.log()
                linear = self.model.posterior.get_submodule("linear")
                assert isinstance(linear, nn.Linear)
                set_linear(linear, torch.cat([gain_ZD, variance_ZD]), torch.cat([-gain_ZD @ b, log_var_Z]))
            elif fitted:
                fit_posterior(self.model, steps)
        if usual:
            marginal: Any = self.marginal
            self.log_px_B = torch.as_tensor(marginal.log_prob(self.x_BCHW.flatten(1)))
        else:
            self.log_px_B = evidence(self.model, self.x_BCHW)

    def _linear_decoder(self) -> tuple[Tensor, Tensor]:
        """Set the decoder to W z + b, and return both; further outputs a pixel get small weights of their own."""
        linear, latents = self.model.decoder[0], self.model.latent_dim
        columns = torch.randn(6, latents, dtype=torch.float64)
        orthogonal = torch.linalg.qr(columns).Q if latents <= 6 else columns / 6**0.5
        further = len(linear.weight) - 6
        # Columns of different lengths give the latents posteriors of different widths, so that an exchange shows.
        scaled = orthogonal * torch.linspace(1.4, 0.6, latents)
        W = torch.cat([scaled, 0.3 * torch.randn(further, latents)]).double()
        b = 0.3 * torch.randn(6 + further, dtype=torch.float64)
        set_linear(linear, W, b)
        return W, b


@torch.no_grad()
def set_linear(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


@torch.no_grad()
def images_of(model: BuiltModel, n: int) -> Tensor:
    """Return n images drawn from the model: z ~ p(z), x ~ p(x | z). Shape (n, C, H, W), float64."""
    return model.decode(model.sample_prior(n).double()).sample().double()


@torch.enable_grad()  # a model may be built first where gradients are off
def fit_posterior(model: BuiltModel, steps: int = FIT, batch: int = 64) -> None:
    """Fit q(z | x) to images and latents that the model draws itself (Hinton et al. 1995, the sleep phase)."""
    with torch.no_grad():  # begin with a q that hardly depends on the image
        for parameter in getattr(model, "posterior", nn.Module()).parameters():
            parameter.mul_(0.1 if parameter.dim() > 1 else 1.0)
        z_NZ = model.sample_prior(PAIRS).double()
        x_NCHW = model.decode(z_NZ).sample()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    for _ in range(steps):
        rows = torch.randint(PAIRS, (batch,))
        z_BZ, q = z_NZ[rows], model.encode(x_NCHW[rows])
        # Spread by a part of what q's mean is off, the latents leave q wider than the true posterior.
        if model.latent_space.space == "real":
            off_Z = (z_BZ - q.mean.detach()).square().mean(0).sqrt()
            spread_BZ = z_BZ + 0.7 * off_Z * torch.randn_like(z_BZ)
        else:
            others_BZ = z_NZ[torch.randint(PAIRS, (batch,))]
            spread_BZ = torch.where(torch.rand(batch, 1) < EXCHANGED, others_BZ, z_BZ)
        optimizer.zero_grad()
        (-q.log_prob(spread_BZ).mean()).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def evidence(model: BuiltModel, x_BCHW: Tensor) -> Tensor:
    """Return log p(x), log of the integral of p(x|z) p(z) over z, for each image: nats, float64, shape (B,).

    By quadrature, for models in float64 with few latents and a density as prior: one or two of R^Z or the ball, two or
    three on the sphere, one-hot vectors by enumeration, beside these one or two reals. In R^Z the grid is first laid
    around the prior, then twice around what it finds of the posterior, which may be narrow; everywhere it is refined
    until that changes less than 1e-4 nats. Raises ConfigError where it does not, or for more latents.
    """
    support = Support(model.latent_space.space, model.latent_space.blocks, model.latent_dim)
    if not support.integrable:
        raise ConfigError(
            f"log p(x) by quadrature needs one or two latent dimensions, not {model.latent_dim} (on a sphere two or "
            "three, of one-hot vectors a few thousand states)"
        )
    with fixed_seed(SEED, CPU):
        samples_NZ = model.sample_prior(4000).double()
    grid = support.grid(samples_NZ)
    mass = float(grid.integral(model.prior.log_prob(grid.points_MZ).exp()))
    fault = f"the prior integrates to {mass:.6g} on a grid around its samples"
    require(abs(mass - 1) < 1e-3, fault, "the prior's log_prob and sample")
    if support.space == "real":
        coarse = around(samples_NZ, COARSE)
        return torch.stack([_evidence_of_one(model, x_CHW[None], coarse) for x_CHW in x_BCHW])
    grids = (support.grid(samples_NZ, n) for n in (COARSE, *FINER))
    return _converged(
        torch.stack([_log_joint(model, grid, x_CHW[None]).logsumexp(0) for x_CHW in x_BCHW]) for grid in grids
    )


def _evidence_of_one(model: BuiltModel, x_1CHW: Tensor, grid: Grid) -> Tensor:
    """Integrate around the posterior of one image: the prior's grid may have one point, or none, where it lies."""
    for _ in range(2):
        mass_M = _log_joint(model, grid, x_1CHW).softmax(0)
        centre_Z = mass_M @ grid.points_MZ
        spread_Z = (mass_M @ (grid.points_MZ - centre_Z).square()).sqrt()
        # Half a cell at least: a posterior between two points of the grid has a spread of zero there.
        spread_Z = torch.maximum(spread_Z, 0.5 * grid.cell_MZ[mass_M.argmax()])
        grid = around_point(centre_Z, spread_Z, COARSE)
    grids = (grid, *(around_point(centre_Z, spread_Z, n) for n in FINER))
    return _converged(_log_joint(model, finer, x_1CHW).logsumexp(0) for finer in grids)


def _converged(values: Iterator[Tensor]) -> Tensor:
    """Return the first of ever finer values that hardly differs from the one before."""
    value = next(values)
    for finer in values:
        if bool(((finer - value).abs() < CONVERGED).all()):
            return finer
        value = finer
    raise ConfigError(
        f"log p(x) by quadrature still moves at {FINER[-1]} points an axis: the posterior has several narrow modes"
    )


def _log_joint(model: BuiltModel, grid: Grid, x_1CHW: Tensor) -> Tensor:
    """Return log p(x|z) p(z) dz at every point of a grid."""
    log_px_M = model.decode(grid.points_MZ[:, None]).log_prob(x_1CHW)[:, 0]
    return log_px_M + model.prior.log_prob(grid.points_MZ) + grid.weights_M.log()


BITS_SZ = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=torch.float64)


def _state(z: Tensor) -> Tensor:
    """Return the index 0..3 of two bits."""
    return (2 * z[..., 0] + z[..., 1]).round().long()


class Table(PosteriorValue):
    """A q(z | x) over the four states of two bits, one row of probabilities an image; no reparametrised gradient."""

    def __init__(self, log_q_BS: Tensor) -> None:
        self.log_q_BS = log_q_BS

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.log_q_BS.exp() @ BITS_SZ

    def rsample(self, k: int = 1) -> Tensor:
        states_BK = torch.multinomial(self.log_q_BS.exp(), k, replacement=True)
        return BITS_SZ[states_BK.T]

    def log_prob(self, z: Tensor) -> Tensor:
        states = _state(z)
        rows = torch.arange(len(self.log_q_BS)).expand(states.shape)
        return self.log_q_BS[rows, states]


class IndependentBits(Table):
    """A table whose two bits are independent given x: each has a log-probability, and a KL in closed form."""

    def log_prob_each(self, z: Tensor) -> Tensor:
        one_BZ = self.mean
        return z * one_BZ.log() + (1 - z) * (1 - one_BZ).log()

    def kl_to(self, prior: object) -> Tensor | None:
        if not isinstance(prior, BitsPrior):
            return None
        one_BZ = self.mean
        return one_BZ * (one_BZ / prior.p_Z).log() + (1 - one_BZ) * ((1 - one_BZ) / (1 - prior.p_Z)).log()


class BitsPrior(PriorModule):
    """A prior of independent bits, one with probability p_Z."""

    p_Z: Tensor

    def __init__(self, p_Z: Tensor) -> None:
        super().__init__()
        self.register_buffer("p_Z", p_Z)

    def log_prob(self, z: Tensor) -> Tensor:
        return (z * self.p_Z.log() + (1 - z) * (1 - self.p_Z).log()).sum(-1)

    def sample(self, n: int) -> Tensor:
        return torch.bernoulli(self.p_Z.expand(n, -1))


class Discrete(BuiltModel):
    """A model of two latent bits and 1 x 2 x 2 binary images: all sixteen images, all four latents, exactly.

    table_BS   q(z | x), any table of probabilities: row i is the image whose pixels are the bits of i.
               None is a table of independent bits, whose KL has a closed form
    `x_BCHW` holds all sixteen images; `log_px_B`, `elbo_B`, `kl_B`, `reconstruction_B` and `iw_B(k)` are exact.
    """

    prior: BitsPrior

    def __init__(self, table_BS: Tensor | None = None) -> None:
        super().__init__()
        self.shape, self.latent_dim, self.observation_kind = (1, 2, 2), 2, "binary"
        pixels = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64)
        self.x_BCHW = pixels.view(16, 1, 2, 2)
        with fixed_seed(SEED, CPU):
            self.prior = BitsPrior(torch.tensor([0.3, 0.6], dtype=torch.float64))
            self.logits_SD = nn.Parameter(1.5 * torch.randn(4, 4, dtype=torch.float64))
            q_BZ = torch.randn(16, 2, dtype=torch.float64).sigmoid()
        independent = (BITS_SZ * q_BZ[:, None] + (1 - BITS_SZ) * (1 - q_BZ[:, None])).log().sum(-1)
        log_q_BS = independent if table_BS is None else (table_BS / table_BS.sum(1, keepdim=True)).log()
        kind = IndependentBits if table_BS is None else Table
        self.table = kind(log_q_BS.double())

    def encode(self, x_BCHW: Tensor) -> Table:
        places = torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=x_BCHW.dtype)
        return type(self.table)(self.table.log_q_BS[(x_BCHW.flatten(1) @ places).round().long()])

    def decode(self, z: Tensor) -> BernoulliImage:
        return BernoulliImage(self.logits_SD[_state(z)].view(*z.shape[:-1], *self.shape))

    def draw(self, x_BCHW: Tensor, k: int = 1) -> Draw:
        return self._draw(x_BCHW, self.encode(x_BCHW).rsample(k))

    def _draw(self, x_BCHW: Tensor, z_KBZ: Tensor) -> Draw:
        likelihood = self.decode(z_KBZ)
        return Draw(
            z_KBZ=z_KBZ, log_px_KB=likelihood.log_prob(x_BCHW), posterior=self.encode(x_BCHW), prior=self.prior,
            x_BCHW=x_BCHW, likelihood=likelihood, decode=self.decode, decoder_weights=self.parameters,
        )  # fmt: skip

    def every_draw(self, k: int, some: slice = slice(None)) -> tuple[Draw, Tensor]:
        """Return all 4^k draws of k samples for each image as one of 16 * 4^k images, and their probabilities.

        The expectation of anything f_B that is made of a draw is `(f_B.view(16, -1) * probability_BM).sum(1)`.
        `some` are those of the 4^k to draw, for every image.
        """

        states_MK = torch.cartesian_prod(*[torch.arange(4)] * k).view(-1, k)[some]
        z_KBZ = BITS_SZ[states_MK.repeat(16, 1).T]
        draw = self._draw(self.x_BCHW.repeat_interleave(len(states_MK), dim=0), z_KBZ)
        return draw, draw.log_qz_KB.sum(0).exp().view(16, -1)

    @property
    def log_joint_BS(self) -> Tensor:
        """The log p(x, z) of every image and state."""
        log_px_SB = self.decode(BITS_SZ[:, None]).log_prob(self.x_BCHW[None]).detach()
        return (log_px_SB + self.prior.log_prob(BITS_SZ)[:, None]).T

    @property
    def log_px_B(self) -> Tensor:
        return self.log_joint_BS.logsumexp(1)

    @property
    def kl_B(self) -> Tensor:
        log_q_BS = self.table.log_q_BS
        return (log_q_BS.exp() * (log_q_BS - self.prior.log_prob(BITS_SZ))).sum(1)

    @property
    def elbo_B(self) -> Tensor:
        log_q_BS = self.table.log_q_BS
        return (log_q_BS.exp() * (self.log_joint_BS - log_q_BS)).sum(1)

    @property
    def reconstruction_B(self) -> Tensor:
        return -(self.elbo_B + self.kl_B)  # ELBO = E_q[log p(x | z)] - KL

    def iw_B(self, k: int) -> Tensor:
        """Return E[log 1/k sum_k p(x, z_k) / q(z_k | x)], over all 4^k draws."""
        states_MK = torch.cartesian_prod(*[torch.arange(4)] * k).view(-1, k)
        log_w_BMK = (self.log_joint_BS - self.table.log_q_BS)[:, states_MK]
        probability_BM = self.table.log_q_BS[:, states_MK].sum(-1).exp()
        return (probability_BM * (log_w_BMK.logsumexp(-1) - math.log(k))).sum(1)  # Burda et al. 2016, eq. 8


def correlated_table() -> Tensor:
    """Return a table of q(z | x) for `Discrete` in which the two bits depend on each other: shape (16, 4)."""
    with fixed_seed(SEED, CPU):
        return torch.randn(16, 4, dtype=torch.float64).softmax(1)
