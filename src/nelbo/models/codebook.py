"""A codebook that follows what is encoded, and the distributions over its codes."""

import dataclasses
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nelbo.core.distributions import PosteriorValue, PriorModule, register_kl
from nelbo.dists.base import product
from nelbo.dists.spaces import LatentSpace

SMALLEST_COUNT = 1e-20  # of a running count: below it a vector is no longer their quotient, and stays


class Codebook(nn.Module):
    """K vectors of D numbers, running means of the encodings nearest to each. van den Oord et al. 2017, appendix A.1.

        N_k <- decay N_k + (1 - decay) n_k      m_k <- decay m_k + (1 - decay) sum of these n_k encodings
        e_k  = m_k / N_k

    N and m begin at 0, so that the first encodings of a code make its vector by themselves. A code that no encoding of
    `revive_after` training batches in a row was nearest to is put where one of the batch's encodings is, drawn at
    random, and begins anew; so do all at the first batch, except those that it uses. 0 leaves dead codes where they
    are. Everything happens on the device, in training mode only: nothing waits, and checkpoints hold it.

    vectors_KD   e          counts_K, sums_KD   N, m
    unused_K     training batches since each code was last used
    revived      how many codes were put somewhere else so far
    """

    vectors_KD: Tensor
    counts_K: Tensor
    sums_KD: Tensor
    unused_K: Tensor
    revived: Tensor

    def __init__(self, codes: int, size: int, decay: float, revive_after: int) -> None:
        super().__init__()
        self.decay, self.revive_after = decay, revive_after
        self.register_buffer("vectors_KD", torch.randn(codes, size) / size**0.5)
        self.register_buffer("counts_K", torch.zeros(codes))
        self.register_buffer("sums_KD", torch.zeros(codes, size))
        self.register_buffer("unused_K", torch.full((codes,), max(0, revive_after - 1)))
        self.register_buffer("revived", torch.zeros((), dtype=torch.int64))

    @property
    def codes(self) -> int:
        return len(self.vectors_KD)

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Return the code of each vector, (..., M, D) -> (..., M); of several as near the first."""
        rows = z.detach().reshape(-1, z.shape[-1]).to(self.vectors_KD.dtype)
        # |z - e|^2 without |z|^2, which is the same for all codes: one product instead of (N, K, D) differences.
        # Never in bf16: which of two codes is nearer is a matter of the last digits.
        distance = self.vectors_KD.square().sum(-1) - product(2.0 * rows, self.vectors_KD.T)
        return distance.argmin(-1).view(z.shape[:-1])

    def forward(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes: (..., M) -> (..., M, D)."""
        return F.embedding(codes, self.vectors_KD)

    def chosen(self, codes: Tensor) -> Tensor:
        """Return the codes (...) as rows of zeros with a one: NK."""
        one_NK = codes.reshape(-1, 1) == torch.arange(self.codes, device=codes.device)
        return one_NK.to(self.vectors_KD.dtype)

    @torch.no_grad()
    def follow(self, encoded: Tensor, codes: Tensor) -> None:
        """Take one step on the encodings (..., D) of a training batch and the code of each."""
        rows_ND = encoded.detach().reshape(-1, encoded.shape[-1]).to(self.vectors_KD.dtype)
        chosen_NK = self.chosen(codes)
        used_K = chosen_NK.sum(0)
        # The running means of appendix A.1. A product with one-hot rows: index_add_ is not repeatable.
        self.counts_K.lerp_(used_K, 1.0 - self.decay)
        self.sums_KD.lerp_(product(chosen_NK.T, rows_ND), 1.0 - self.decay)
        moved_KD = self.sums_KD / self.counts_K.clamp_min(SMALLEST_COUNT)[:, None]
        counted_K = self.counts_K > SMALLEST_COUNT
        self.vectors_KD.copy_(torch.where(counted_K[:, None], moved_KD, self.vectors_KD))
        self.unused_K.copy_(torch.where(used_K > 0, 0, self.unused_K + 1))
        if not self.revive_after:
            return
        # Every code draws a row, dead or not: how many are dead is known on the device only.
        dead_K = self.unused_K >= self.revive_after
        row_K = torch.randint(len(rows_ND), (self.codes,), device=rows_ND.device)
        self.vectors_KD.copy_(torch.where(dead_K[:, None], rows_ND[row_K], self.vectors_KD))
        self.counts_K.masked_fill_(dead_K, 0.0)
        self.sums_KD.masked_fill_(dead_K[:, None], 0.0)
        self.unused_K.masked_fill_(dead_K, 0)
        self.revived.add_(dead_K.sum())


class Quantised(PosteriorValue):
    """The value q(z | x) with all its mass on one code at each position: log q is 0 there, -infinity elsewhere.

    Latents are the vectors of the codes, and any other latent stands for the codes that it is nearest to.

    encoded_BMD   what the encoder said     codes_BM   the codes nearest to it     mean   their vectors, (B, M D)
    Samples are copies of `mean`, whose gradient by the encoder is that of `encoded_BMD`: straight through
    (van den Oord et al. 2017, section 3.2).
    """

    deterministic: ClassVar[bool] = True
    mean_is = "vectors of the codes"

    def __init__(self, encoded_BMD: Tensor, codebook: Codebook) -> None:
        self.encoded_BMD, self.codebook = encoded_BMD, codebook
        self.codes_BM = codebook.nearest(encoded_BMD)
        self.vectors_BMD: Tensor = codebook(self.codes_BM)
        self.mean = straight_through(self.vectors_BMD, encoded_BMD).flatten(1)

    def rsample(self, k: int = 1) -> Tensor:
        return self.mean.expand(k, *self.mean.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        codes = self.codebook.nearest(apart(z, self.codes_BM.shape[1]))
        return torch.zeros_like(z[..., 0]).masked_fill((codes != self.codes_BM).any(-1), -math.inf)

    @property
    def commitment_B(self) -> Tensor:
        """|| encoded - sg[vectors] ||^2, summed over positions. van den Oord et al. 2017, eq. 3."""
        off_BMD: Tensor = self.encoded_BMD - self.vectors_BMD
        return off_BMD.square().sum((1, 2))

    @property
    def spread(self) -> Tensor:
        """The standard deviation of the codebook: the scale of these latents, which is nobody's choice."""
        return self.codebook.vectors_KD.var(0, correction=0).mean().sqrt()

    @property
    def usage(self) -> dict[str, Tensor]:
        """The `perplexity` of these images' codes at all positions, and the number of `codes` that occur."""
        share_K = self.codebook.chosen(self.codes_BM).mean(0)
        return {"perplexity": perplexity(share_K), "codes": (share_K > 0).sum().to(share_K)}


def apart(z: Tensor, positions: int) -> Tensor:
    """Return latents (..., M D) as a vector at each position, (..., M, D)."""
    return z.reshape(*z.shape[:-1], positions, -1)


def straight_through(value: Tensor, stands_for: Tensor) -> Tensor:
    """Return `value`, to the last bit, with the gradient of `stands_for`."""
    return value.detach() + (stands_for - stands_for.detach())  # the bracket is exactly 0


def perplexity(usage_K: Tensor) -> Tensor:
    """Return the exponential of the entropy: how many codes, used equally, would vary as much."""
    entropy: Tensor = torch.special.entr(usage_K).sum()
    return entropy.exp()


class CodePrior(PriorModule):
    """p(codes) over latents that are vectors of codes: uniform, or `inner`, a prior over one-hot vectors of them.

    The codes reach `inner` without a gradient: it learns which codes there are, and nothing moves them to be likely.
    """

    def __init__(self, codebook: Codebook, positions: int, inner: PriorModule | None) -> None:
        super().__init__()
        self.codebook, self.positions, self.inner = codebook, positions, inner

    def log_prob_of(self, codes: Tensor) -> Tensor:
        """Return log p of codes, nats: (..., M) -> (...)."""
        if self.inner is None:
            uniform = -self.positions * math.log(self.codebook.codes)
            return torch.full_like(codes[..., 0], uniform, dtype=self.codebook.vectors_KD.dtype)
        return self.inner.log_prob(self.codebook.chosen(codes).view(*codes.shape[:-1], -1))

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p of the codes nearest to z."""
        return self.log_prob_of(self.codebook.nearest(apart(z, self.positions)))

    def sample(self, n: int) -> Tensor:
        if self.inner is None:
            device = self.codebook.vectors_KD.device
            codes_NM = torch.randint(self.codebook.codes, (n, self.positions), device=device)
        else:
            codes_NM = apart(self.inner.sample(n), self.positions).argmax(-1)
        vectors_NMD: Tensor = self.codebook(codes_NM)
        return vectors_NMD.flatten(1)


@register_kl(Quantised, CodePrior)
def code_length(q: Quantised, prior: CodePrior) -> Tensor:
    """Return the code length -log p(codes), nats: one number an image, (B, 1)."""
    return -prior.log_prob_of(q.codes_BM).to(q.mean.dtype)[:, None]


@dataclasses.dataclass(frozen=True, eq=False)
class CodeSpace(LatentSpace):
    """Latents that are vectors of codes, one block for each position."""

    codebook: Codebook | None = None

    def directions(self, latent_dim: int) -> list[str]:
        return [f"position {place}" for place in range(len(self.blocks))]

    def middle(self, z_NZ: Tensor) -> Tensor:
        """Return the commonest code of each position."""
        assert self.codebook is not None
        codes_NM = self.codebook.nearest(apart(z_NZ.to(self.codebook.vectors_KD.device), len(self.blocks)))
        vectors_MD: Tensor = self.codebook(codes_NM.mode(0).values)
        return vectors_MD.flatten().to(z_NZ)

    def _through_categories(self, z_Z: Tensor, variable: int, steps: int) -> Tensor:
        assert self.codebook is not None
        moved_SMD = apart(z_Z.repeat(steps, 1), len(self.blocks))
        codes_S = torch.arange(steps, device=self.codebook.vectors_KD.device) * self.codebook.codes // steps
        moved_SMD[:, variable] = self.codebook(codes_S).to(z_Z)
        return moved_SMD.flatten(1)
