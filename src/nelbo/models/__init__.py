"""Models: whatever can draw."""

from nelbo.models.base import BuiltModel, Model
from nelbo.models.vae import VAE

__all__ = ["VAE", "BuiltModel", "Model"]
