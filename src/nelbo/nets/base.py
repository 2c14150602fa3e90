"""The base of every network, and the activations that all of them share."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from nelbo.core.spec import Spec
from nelbo.core.vocabulary import Shape

Activation = Literal["relu", "leaky-relu", "elu", "gelu", "silu", "tanh"]
Width = Annotated[int, Field(ge=1)]


class Encoder(nn.Sequential):
    """A sequence of layers that knows how many features come out."""

    def __init__(self, layers: list[nn.Module], features: int) -> None:
        super().__init__(*layers)
        self.features = features

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW)  # type: ignore[no-any-return, no-untyped-call]


class Net(Spec):
    """A network without an opinion on what it is for.

    `encoder(shape)` maps x_BCHW to features_BF and knows `features` = F; `decoder(latent_dim, shape)`
    maps z_MZ to likelihood parameters of that shape. Layers are listed in the order they compute.
    """

    axis: ClassVar[str] = "net"

    def encoder(self, shape: Shape) -> Encoder:
        raise TypeError(f"{type(self).__name__} builds no encoder")

    def decoder(self, latent_dim: int, shape: Shape) -> nn.Module:
        raise TypeError(f"{type(self).__name__} builds no decoder")


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),  # one tensor less for each layer
    "leaky-relu": partial(nn.LeakyReLU, 0.2, inplace=True),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def activation(name: Activation) -> nn.Module:
    """Return the activation layer of that name; `leaky-relu` has slope 0.2."""
    return ACTIVATIONS[name]()


L = TypeVar("L", bound=nn.Module)


def bounded(layer: L, spectral_norm: bool) -> L:
    """Return the layer; with `spectral_norm` its matrix is divided by its largest singular value (Miyato et al. 2018).

    That value is estimated by one power iteration at each use in training, and held in evaluation.
    """
    if spectral_norm:
        parametrizations.spectral_norm(layer)
    return layer
