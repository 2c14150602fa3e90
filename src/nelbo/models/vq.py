"""The vector-quantised variational autoencoder."""

from __future__ import annotations

import itertools
from typing import ClassVar, Self

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from nelbo.core import Draw
from nelbo.core.distributions import LikelihoodValue
from nelbo.core.vocabulary import Shape
from nelbo.dists.base import full
from nelbo.errors import ConfigError
from nelbo.likelihoods import Bernoulli, Likelihood
from nelbo.models.base import Autoencoder, Model, living
from nelbo.models.codebook import Codebook, CodePrior, CodeSpace, Quantised, apart, straight_through
from nelbo.nets import MLP, Net
from nelbo.priors import Prior

STATES = 10_000  # latents that are listed


class VQVAE(Model):
    """Latents are codes of a learned codebook: z = (e_1, ..., e_M), each one of K vectors. van den Oord et al. 2017.

        -log p(x) <= -log p(x|z) - log p(codes)        codes: the nearest to what the encoder says at each position

    q(z|x) is certain of its codes, so that its KL is the code length -log p(codes): M log K nats where the prior is
    uniform. The codebook follows the encodings by running means (the paper's appendix A.1), the encoder gets
    the decoder's gradient straight through (section 3.2) and a commitment term from the objective `vq`.

    codes          K
    positions      M, codes an image
    code_dim       numbers in a code's vector; latents have M times as many
    decay          of the running means of the codebook
    revive_after   training batches without use until a code is put where an encoding is (0: never)
    prior          p(codes): a prior over one-hot vectors, of K categories at each position; uniform if none
    """

    name: ClassVar[str] = "vq-vae"
    quantises: ClassVar[bool] = True

    codes: int = Field(default=64, ge=2)
    positions: int = Field(default=8, ge=1)
    code_dim: int = Field(default=8, ge=1)
    decay: float = Field(default=0.99, ge=0.0, lt=1.0)
    revive_after: int = Field(default=100, ge=0)
    encoder: Net = MLP()
    decoder: Net = MLP(hidden=(256, 512))
    prior: Prior | None = None
    likelihood: Likelihood = Bernoulli()

    @field_validator("prior")
    @classmethod
    def _of_these_codes(cls, prior: Prior | None, info: ValidationInfo) -> Prior | None:
        """Fill in the categories: they are the codes, and need not be given again."""
        if prior is None or "categories" not in type(prior).model_fields.keys() - prior.model_fields_set:
            return prior
        return prior.model_copy(update={"categories": info.data.get("codes", 2)})

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.prior is None:
            return self
        if self.prior.space != "one-hot":
            raise ValueError(
                f"the latents of a {self.name} are codes, and the prior {self.prior.name} is over others; leave it "
                f"out for a uniform one, or use one of these: {living('prior', 'one-hot')}"
            )
        categories = dict(self.prior).get("categories", self.codes)
        if categories != self.codes:
            raise ValueError(
                f"the prior {self.prior.name} is over {categories} categories at each position, and the codebook has "
                f"{self.codes} codes; use --model.prior.categories {self.codes}"
            )
        self.prior.check(self.positions * self.codes)
        return self

    @property
    def latent_dim(self) -> int:
        """Numbers in the latents of an image."""
        return self.positions * self.code_dim

    def build(self, shape: Shape) -> VQVAEModule:
        return VQVAEModule(self, shape)


class VQVAEModule(Autoencoder):
    """A built VQ-VAE for images of `shape` (C, H, W)."""

    prior: CodePrior

    def build_latents(self, spec: VQVAE) -> None:
        self.head = nn.Linear(self.encoder.features, spec.latent_dim)
        inner = None if spec.prior is None else spec.prior.build(spec.positions * spec.codes)
        codebook = Codebook(spec.codes, spec.code_dim, spec.decay, spec.revive_after)
        self.prior = CodePrior(codebook, spec.positions, inner)
        self.latent_space = CodeSpace("codes", (spec.code_dim,) * spec.positions, codebook)

    @property
    def codebook(self) -> Codebook:
        return self.prior.codebook

    def encode(self, x_BCHW: Tensor) -> Quantised:
        encoded_BZ = full(self.head(self.encoder(x_BCHW)))  # float32: bfloat16 would tie codes that are near
        return Quantised(apart(encoded_BZ, self.prior.positions), self.codebook)

    def decode(self, z: Tensor) -> LikelihoodValue:
        """Return the likelihood of the codes nearest to z: every latent stands for its nearest codes."""
        latents = apart(z, self.prior.positions)
        vectors = self.codebook(self.codebook.nearest(latents))
        return super().decode(straight_through(vectors, latents).flatten(-2))

    def after_step(self, draw: Draw) -> None:
        """Move the codebook to this step's encodings (van den Oord et al. 2017, appendix A.1)."""
        super().after_step(draw)
        q = draw.posterior
        assert isinstance(q, Quantised)
        self.codebook.follow(q.encoded_BMD, q.codes_BM)

    def every_latent(self) -> Tensor:
        """Return all K^M latents there are, z_SZ; raise ConfigError where they are too many to list."""
        codes, positions = self.codebook.codes, self.prior.positions
        if codes**positions > STATES:
            raise ConfigError(f"{codes} codes at {positions} positions are too many latents to list")
        codes_SM = torch.tensor(list(itertools.product(range(codes), repeat=positions)))
        vectors_SMD: Tensor = self.codebook(codes_SM.to(self.codebook.vectors_KD.device))
        return vectors_SMD.flatten(1)
