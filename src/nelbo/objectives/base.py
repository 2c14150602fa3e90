"""The base of every objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from nelbo.core import Draw, Progress, Terms
from nelbo.core.registry import lookup, names
from nelbo.core.spec import Spec
from nelbo.core.vocabulary import Shape
from nelbo.objectives.critic import Critic

if TYPE_CHECKING:
    from nelbo.models import Model
    from nelbo.posteriors import Posterior

Side = Literal["encoder", "decoder"]


class Objective(Spec):
    """A map from a Draw of `k` samples an image to the loss that is minimised and the bound that is reported.

    `parts` holds at least `reconstruction` (-log p(x|z)) and, where the posterior has one, `kl`, each nats an image
    of shape B (`halves` gives them).

    needs_density   it reads log q(z|x) or a KL, which a posterior that is a point does not have
    needs_factors   it reads log q(z_j|x) of each dimension, so that dimensions must be independent given x
    commits         it brings an encoder to the codes of a codebook (`Model.quantises`), which no bound does
    loss_is_bound   with one sample and beta 1 its loss is -ELBO; where it is not (an adversarial term, another
                    reconstruction), the bound reported is the ELBO all the same
    one_loss        every weight of the model follows the same loss; where the encoder and the decoder have one each,
                    what the other's is made of is detached
    """

    axis: ClassVar[str] = "objective"
    needs_density: ClassVar[bool] = True
    needs_factors: ClassVar[bool] = False
    commits: ClassVar[bool] = False
    loss_is_bound: ClassVar[bool] = True
    one_loss: ClassVar[bool] = True
    k: int = Field(default=1, ge=1)

    @field_validator("k")
    @classmethod
    def _at_least_one_sample(cls, k: int) -> int:  # also where a subclass gives k a default of its own
        if k < 1:
            raise ValueError("expected at least one sample")
        return k

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        raise TypeError(f"{type(self).__name__} is abstract")

    def terms(self, draw: Draw, progress: Progress, module: nn.Module | None) -> Terms:
        """Return the same, with what the objective owns: how training and validation call it."""
        return self(draw, progress)

    @property
    def follows(self) -> Mapping[Side, Objective | None]:
        """The objective whose gradient a surrogate loss estimates, for the encoder's and for the decoder's weights.

        By which weights: those of the `encoder` and posterior, and of the `decoder`, likelihood and prior. None says
        that the gradient by these weights is biased and follows no bound.
        """
        return {}

    @property
    def bound_name(self) -> str:
        """The name of minus the bound in logs and pictures."""
        return "NELBO"

    def check(self, model: Model) -> None:
        """Raise ValueError where this objective cannot train a model of this configuration, with what would work."""
        if model.quantises and not self.commits:
            raise ValueError(
                f"objective {self.name} would never bring the encoder of a {model.name} to its codes; use one that "
                f"does: {listed('objective', lambda entry: entry.commits)}"
            )
        if self.commits and not model.quantises:
            raise ValueError(
                f"objective {self.name} is for models with a codebook, and a {model.name} has none; use one of these: "
                f"{listed('model', lambda entry: entry.quantises)}, or another objective"
            )
        posterior = facts_of(model)
        if self.needs_density and not posterior.has_density:
            able = listed("objective", lambda entry: not entry.needs_density)
            raise ValueError(
                f"objective {self.name} needs the density of the posterior, and {posterior.name} is a point without "
                f"one; use --model.posterior diagonal-gaussian, or an objective that needs none: {able}"
            )
        if self.needs_factors and not posterior.factorises:
            able = listed("posterior", lambda entry: entry.factorises)
            raise ValueError(
                f"objective {self.name} needs a posterior whose dimensions are independent given x, and those of "
                f"{posterior.name} are not; such are: {able}"
            )


class Owner(Objective):
    """An objective that owns a module: a critic with weights of its own, or a number that it adapts.

    `build(latent_dim, shape)` makes the module, and `terms` gets it. Its weights follow the gradient of
    `Terms.critic_loss_B` (those of the model follow `loss_B`) with the optimiser settings `critic_settings`. It changes
    its buffers itself, in training mode only. Weights and buffers are saved in checkpoints.
    """

    axis: ClassVar[str] = "objective"  # abstract: it registers nothing

    def build(self, latent_dim: int, shape: Shape) -> nn.Module:
        raise TypeError(f"{type(self).__name__} is abstract")

    def critic_settings(self) -> dict[str, Any]:
        """Return the optimiser's settings for these weights: lr and betas of the field `critic`, where there is one."""
        critic = self.setting("critic")
        return {"lr": critic.lr, "betas": critic.betas} if isinstance(critic, Critic) else {}

    def __call__(self, draw: Draw, progress: Progress) -> Terms:
        raise TypeError(
            f"{self.name} owns a module: call terms(draw, progress, module) with module = build(...)"
        )

    def terms(self, draw: Draw, progress: Progress, module: nn.Module | None) -> Terms:
        raise TypeError(f"{type(self).__name__} is abstract")


def halves(draw: Draw, *, closed_form: bool = True) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return the two halves of the ELBO as parts, nats an image of shape B, and the bound that they make, or None.

    reconstruction   -log p(x|z), mean over the samples
    kl               KL(q || p): in closed form where there is one, otherwise by the samples; a point has none
    """
    # The mean of one sample would be a kernel more in every step of a plain VAE.
    reconstruction_B = -(draw.log_px_KB[0] if len(draw.log_px_KB) == 1 else draw.log_px_KB.mean(0))
    parts = {"reconstruction": reconstruction_B}
    if draw.posterior.is_point:
        return parts, None
    kl_BG = draw.kl_BG if closed_form else None
    kl_B = (draw.log_qz_KB - draw.log_pz_KB).mean(0) if kl_BG is None else kl_BG.sum(-1)
    # Where samples do not come from the density, its KL is a surrogate, and is called that.
    parts["surrogate_kl" if draw.not_a_bound else "kl"] = kl_B
    if kl_BG is not None:
        parts |= {name: kl_BG[:, groups].sum(-1) for name, groups in draw.posterior.kl_groups.items()}
    return parts, None if draw.not_a_bound else -(reconstruction_B + kl_B)  # Kingma & Welling 2014, eq. 3


def kl_of(parts: Mapping[str, Tensor]) -> Tensor:
    """Return the KL of each image among the parts of `halves`, whatever it is called."""
    return parts["kl"] if "kl" in parts else parts["surrogate_kl"]


def facts_of(model: Model) -> Posterior | Model:
    """Return the posterior of a model, or the model itself, which without one declares a posterior's facts."""
    return model.setting("posterior") or model


def listed(axis: str, fits: Callable[..., bool]) -> str:
    """Return the names of the entries of an axis that fit, for a message."""
    return ", ".join(name for name in names(axis) if fits(lookup(axis, name))) or "there is none"
