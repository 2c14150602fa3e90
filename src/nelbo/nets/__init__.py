"""Networks: shapes in, features out. A net is a spec that builds an encoder or a decoder for any C x H x W."""

from nelbo.nets.base import Activation, Net
from nelbo.nets.conv import Conv
from nelbo.nets.mlp import MLP
from nelbo.nets.residual import Residual

__all__ = ["MLP", "Activation", "Conv", "Net", "Residual"]
