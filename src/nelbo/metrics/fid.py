"""FID: the Fréchet distance in the features of the Inception network, where the user has its weights."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from nelbo.metrics import quality
from nelbo.metrics.base import Missing, Number, Split, Value, Values, choice, metric
from nelbo.metrics.quality import DrawLatents, Refusal
from nelbo.models import BuiltModel

VARIABLE = "NELBO_INCEPTION"
FILE = "inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
MOST_IMAGES = 50_000  # on each side
AT_ONCE = 50  # images of 299 x 299 inside the network
UNIT = "FID"
NUMBERS = {
    "fid": Number("FID", better="lower"),
    "fid_reconstructions": Number("FID reconstructions", better="lower"),
}


@metric(learns=False, label="FID", numbers=NUMBERS)
def fid(model: BuiltModel, split: Split) -> Values:
    """Fréchet Inception distance of means of p(x | z), z ~ p(z), and of reconstructions (Heusel et al. 2017).

    Measured only where NELBO_INCEPTION names the published TorchScript of the network of 2015-12-05
    (`inception-2015-12-05.pt`); the reference is the split. It resizes to 299 x 299 itself, as in TensorFlow 1.
    """
    if not os.environ.get(VARIABLE) and not split.named:
        return
    judge = Judge.of(split, sets=3)
    if isinstance(judge, Refusal):
        yield "fid", Value.none(UNIT, judge.reason)
        return
    yield from judge.distances(model)
    yield from judge.references(model)


@dataclasses.dataclass(frozen=True, slots=True)
class Judge:
    """A split's own images in the features of the Inception network.

    look     images in, features out
    index_N  the positions of n of the split's images; as many are generated
    """

    main: ClassVar[str] = "fid"  # the name of the distance that samplers are chosen by
    split: Split
    look: Callable[[Iterator[Tensor]], Tensor]
    index_N: Tensor
    real_NF: Tensor

    @classmethod
    def of(cls, split: Split, sets: int) -> Judge | Refusal:
        """Return the judge of a split, or why there is none; the split hears of `sets` sets of n images."""
        path = os.environ.get(VARIABLE, "")
        n, channels = min(len(split.images), MOST_IMAGES), split.images.shape[0]
        reason = why_not(path) or quality.too_few(n)
        if reason is None and channels not in (1, 3):
            why = f"{channels} channels, and the network sees 3, or 1 repeated"
            reason = Missing("not an image in RGB", why)
        if reason:
            return Refusal(reason)
        network = load(Path(path).expanduser(), split.device)
        index_N, count = choice(len(split.images), n), 0

        def look(images: Iterator[Tensor]) -> Tensor:
            nonlocal count
            features = []
            for x_BCHW in images:
                features.append(inception_features(network, x_BCHW, split.data.range))
                count += len(x_BCHW)
                split.tell(count, sets * n)
            return torch.cat(features)

        return cls(split, look, index_N, look(quality.real(split, index_N)))

    def distances(self, model: BuiltModel, draw: DrawLatents | None = None, z: str = "z ~ p(z)") -> Values:
        """Yield FID of generated images: of latents from the prior, or those that `draw(n)` gives."""
        pairs = quality.generated(model, self.split, len(self.index_N), draw)
        means_NF = self.look(mean for mean, _ in pairs)
        words = f"means of p(x|z), {z}, against this split"
        yield "fid", quality.fitted(means_NF, self.real_NF, words, UNIT)

    def references(self, model: BuiltModel) -> Values:
        """Yield FID of reconstructions."""
        again_NF = self.look(quality.reconstructed(model, self.split, self.index_N))
        words = "the split's images, encoded and decoded"
        yield "fid_reconstructions", quality.fitted(again_NF, self.real_NF, words, UNIT)


def why_not(path: str) -> Missing | None:
    """Return the reason why this file gives no FID, with the way out; or None."""
    if not path:
        why = f"set {VARIABLE} to the path of {FILE}; docs/metrics/fid.md says where it is published"
        return Missing("no weights", why)
    file = Path(path).expanduser()
    if not file.is_file():
        return Missing("no file", f"{VARIABLE} names {file}, which does not exist; it should be {FILE}")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != SHA256:  # also of other weights the distance would be a number, and no FID
        why = f"{file} is not the published {FILE} (SHA-256 {SHA256}), and only that gives FID"
        return Missing("another file", why)
    return None


def load(file: Path, device: torch.device) -> Callable[..., Tensor]:
    """Return the scripted network, which needs none of its source."""
    with warnings.catch_warnings():  # TorchScript is deprecated; this file exists in no other form
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning
        )
        network: torch.jit.ScriptModule = torch.jit.load(str(file), map_location=device)  # type: ignore[no-untyped-call]
    return network.eval()


@torch.no_grad()
def inception_features(
    network: Callable[..., Tensor], x_BCHW: Tensor, low_high: tuple[float, float]
) -> Tensor:
    """Return 2,048 features an image, float64 on the CPU, of images rounded to 256 levels; grey ones are repeated."""
    low, high = low_high
    levels_BCHW = ((x_BCHW.float() - low) / (high - low) * 255.0).round().clamp(0, 255).to(torch.uint8)
    levels_B3HW = levels_BCHW.expand(-1, 3, -1, -1) if levels_BCHW.shape[1] == 1 else levels_BCHW
    with torch.autocast(x_BCHW.device.type, enabled=False):
        parts = [
            network(part.contiguous(), return_features=True) for part in torch.split(levels_B3HW, AT_ONCE)
        ]
    return torch.cat(parts).cpu().double()
