"""Models: whatever can draw."""

from nelbo.models.base import BuiltModel, Model
from nelbo.models.hierarchical import HierarchicalVAE
from nelbo.models.vae import VAE
from nelbo.models.vq import VQVAE

__all__ = ["VAE", "VQVAE", "BuiltModel", "HierarchicalVAE", "Model"]
