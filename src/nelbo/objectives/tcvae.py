"""beta-TCVAE: the KL taken apart, each piece with a weight of its own."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from nelbo.core import Draw, Progress, Terms
from nelbo.errors import ConfigError
from nelbo.objectives.base import Objective, halves

Estimator = Literal["stratified", "weighted"]


class TCVAE(Objective):
    """-log p(x|z) + alpha * MI + beta * TC + gamma * dimension-wise KL. Chen et al. 2018, eq. 4.

        E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || prod_j q(z_j)) + KL(prod_j q(z_j) || p(z))       eq. 2
        MI                       log q(z|x) - log q(z)
        TC                       log q(z) - sum_j log q(z_j)
        dimension-wise KL        sum_j log q(z_j) - log p(z)

    with z ~ q(z|x) and q(z) = 1/N sum_n q(z|x_n) over all N training images, estimated from the B of the batch:

        stratified   1/N q(z|x) + (N - 1) / (N (B - 1)) sum over the others: unbiased (appendix C.2); exact if B = N
        weighted     1/(N B) sum over all (eq. 3): too small by a factor between B and N, which moves the terms by
                     constants and hardly their gradients

    Minus the ELBO if all three weights are 1, in expectation, whatever the estimator. The parts logged are always the
    stratified estimates; a logarithm of an unbiased estimate is still too small, more so for few images a batch.
    """

    needs_factors: ClassVar[bool] = True

    alpha: float = Field(default=1.0, ge=0.0)
    beta: float = Field(default=6.0, ge=0.0)
    gamma: float = Field(default=1.0, ge=0.0)
    estimator: Estimator = "stratified"

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        parts, bound_B = halves(draw)
        log_q_KBBZ = pairs(draw)
        kind = "surrogate_" if draw.not_a_bound else ""
        pieces = taken_apart(draw, log_q_KBBZ, log_weights(log_q_KBBZ, progress.images, self.estimator))
        mutual_B, correlation_B, marginal_B = pieces
        loss_B = parts["reconstruction"] + self.alpha * mutual_B + self.beta * correlation_B  # eq. 4
        loss_B = loss_B + self.gamma * marginal_B
        if self.estimator != "stratified":
            with torch.no_grad():
                pieces = taken_apart(draw, log_q_KBBZ, log_weights(log_q_KBBZ, progress.images, "stratified"))
        names = ("mutual_information", "total_correlation", "dimension_wise_kl")
        named = {f"{kind}{name}": piece_B for name, piece_B in zip(names, pieces, strict=True)}
        return Terms(loss_B=loss_B, bound_B=bound_B, parts=parts | named)


def pairs(draw: Draw) -> Tensor:
    """Return log q(z_ij | x_n) of dimension j of image i's sample under image n's posterior: (K, B, B, Z)."""
    log_q_KBBZ = draw.posterior.log_prob_each(draw.z_KBZ.unsqueeze(2))
    if log_q_KBBZ is None:
        raise ConfigError(
            "objective tcvae needs a posterior whose dimensions are independent given x, as diagonal-gaussian"
        )
    return log_q_KBBZ


def log_weights(log_q_KBBZ: Tensor, images: int, estimator: Estimator) -> Tensor:
    """Return the logarithm of what each image of the batch stands for in q(z), for the sample of each: (B, B).

    `images` are N; never fewer than the batch, as when other images than those trained on are measured.
    """
    batch = log_q_KBBZ.shape[1]
    n = max(images, batch)
    if estimator == "weighted":
        return log_q_KBBZ.new_full((batch, batch), -math.log(n * batch))  # eq. 3
    # The paper gives one of the others the whole remainder. Which one is chance: here each has its share.
    others = math.log((n - 1) / (n * (batch - 1))) if batch > 1 else 0.0
    return log_q_KBBZ.new_full((batch, batch), others).fill_diagonal_(-math.log(n))  # appendix C.2


def taken_apart(draw: Draw, log_q_KBBZ: Tensor, log_weights_BB: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return MI, TC and dimension-wise KL of each image (eq. 2), nats, (B,) each: means over its samples."""
    log_q_KBZ = log_q_KBBZ.diagonal(dim1=1, dim2=2).transpose(1, 2)  # log q(z_j | x) of the image itself
    # Relative to it, near 0 where it matters: the pieces are small differences.
    beside_KBBZ = log_q_KBBZ - log_q_KBZ.unsqueeze(2)
    joint_KB = (beside_KBBZ.sum(-1) + log_weights_BB).logsumexp(2)  # log q(z) - log q(z|x)
    # The same with sum_j log q(z_j) in place of log q(z).
    marginals_KB = (beside_KBBZ + log_weights_BB.unsqueeze(-1)).logsumexp(2).sum(-1)
    pieces = -joint_KB, joint_KB - marginals_KB, marginals_KB + log_q_KBZ.sum(-1) - draw.log_pz_KB
    mutual_B, correlation_B, marginal_B = (piece_KB.mean(0) for piece_KB in pieces)
    return mutual_B, correlation_B, marginal_B
