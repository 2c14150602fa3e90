"""Invertible maps of R^Z whose log-determinants are known, with or without a context; chains of them."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

SMALL = 0.01  # of their usual size: the weights that lead away from the identity, at first


class Flow(nn.Module):
    """y = f(z), invertible and differentiable, perhaps another map for each context.

    z, y      (..., Z); where there is a context (..., B, Z)
    context   context_BF, features of each image, where the flow was built with `context` = F > 0; otherwise None
    log_det   log |det| of the Jacobian of the map that was asked for, (...), nats: log |det dy/dz| of `forward`,
              log |det dz/dy| of `inverse`, which is minus the former

    Begins close to the identity, so that training starts from what is transformed.
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return y and log |det dy/dz| of z."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z and log |det dz/dy| of y."""
        raise TypeError(f"{type(self).__name__} is abstract")


class Chain(Flow):
    """One flow after another; none at all is the identity."""

    def __init__(self, layers: Iterable[Flow] = ()) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[:-1])
        for layer in self.layers:
            z, more = layer(z, context)
            log_det = log_det + more
        return z, log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = y.new_zeros(y.shape[:-1])
        for layer in reversed(self.layers):
            assert isinstance(layer, Flow)
            y, more = layer.inverse(y, context)
            log_det = log_det + more
        return y, log_det


class Flip(Flow):
    """The latents in the opposite order, between flows that treat the first of them otherwise than the last."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.flip(-1), z.new_zeros(z.shape[:-1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(y)


def flipping(make: Callable[[], Flow], layers: int) -> Chain:
    """Return that many flows, with the order of the latents reversed between each and the next."""
    flows: list[Flow] = []
    for _ in range(layers):
        flows += [Flip(), make()] if flows else [make()]
    return Chain(flows)
