"""Posterior samples of training images."""

import torch
from pydantic import Field
from torch import Tensor

from nelbo.dists.base import Space
from nelbo.models import BuiltModel
from nelbo.samplers.base import SPACES, Fitted, Latents, Sampler, blocks

AT_ONCE = 1000  # latents; each is compared with all training latents where neighbours are asked for


class Exemplars(Sampler):
    """i uniform, z ~ q(z | x_i): the aggregate posterior 1/N sum_i q(z | x_i) itself (Makhzani et al. 2016, eq. 1).

    The best fit there is to the latents, and no generalisation: without neighbours and noise every image is a blurred
    copy of a training image, which distances to held-out images do not show. A yardstick, and a way to vary images.

    neighbours  z moves a uniform share of the way to a posterior sample of one of so many nearest training images, by
                their posterior means (Chawla et al. 2002, section 4.2, for features); 0 stays
    noise       deviation of Gaussian noise added, in units of each dimension's own over the training images
    """

    neighbours: int = Field(default=0, ge=0)
    noise: float = Field(default=0.0, ge=0.0)

    @property
    def spaces(self) -> tuple[Space, ...]:
        return ("real",) if self.neighbours or self.noise else SPACES

    @property
    def copies(self) -> bool:
        return not (self.neighbours or self.noise)

    def fewest(self, latent_dim: int) -> int:
        return 1 + self.neighbours

    def fitted(self, model: BuiltModel, train: Latents, validation: Latents | None) -> Fitted:
        return FromExemplars(train, self.neighbours, self.noise)


class FromExemplars:
    """Posterior samples of training images drawn at random."""

    def __init__(self, train: Latents, neighbours: int, noise: float) -> None:
        self.train = train
        self.neighbours = neighbours
        std_Z = train.z_NZ.std(0) if len(train) > 1 else torch.zeros_like(train.z_NZ[0])
        self.noise_Z = noise * std_Z if noise else None

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        pieces = [self.train.z_NZ[:0]]
        for size in blocks(n, AT_ONCE):
            at_N = torch.randint(len(self.train), (size,))
            z_NZ = self.train.again(at_N)
            if self.neighbours:
                share_N1 = torch.rand(size, 1).to(z_NZ)
                z_NZ = torch.lerp(z_NZ, self.train.again(self._near(at_N)), share_N1)
            if self.noise_Z is not None:
                z_NZ = z_NZ + self.noise_Z * torch.randn(z_NZ.shape).to(z_NZ)
            pieces.append(z_NZ)
        return torch.cat(pieces)

    def _near(self, at_N: Tensor) -> Tensor:
        """Return for each image one of its nearest others."""
        mean_NZ = self.train.mean_NZ
        here_N = at_N.to(mean_NZ.device)
        # Infinitely far from itself, so that no image is its own neighbour.
        away_NM = torch.cdist(mean_NZ[here_N], mean_NZ).scatter_(1, here_N[:, None], torch.inf)
        nearest_NK = away_NM.topk(self.neighbours, largest=False).indices.cpu()
        choice_N1 = torch.randint(self.neighbours, (len(at_N), 1))
        return nearest_NK.gather(1, choice_N1)[:, 0]
