"""A small classifier of a data set, trained on its training images: where the features of image quality come from.

It is trained once a data set, on the CPU and on one thread, so that a kind of machine always makes the same one,
whatever the device and the load; and kept as `classifiers/{data}-{shape}-{classes}-v1.safetensors` in the folder
that NELBO_CACHE names, or in the user's cache folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Generator, Tensor, nn

from nelbo.core import files
from nelbo.data import Splits, frozen, materialise
from nelbo.engine import CACHE, cache_folder, fixed_seed
from nelbo.errors import RunError
from nelbo.metrics.base import Missing

VERSION = 1  # of architecture and training; another one is another classifier
FEATURES = 64
WIDTHS = (16, 32, 64)
LARGE = 64  # height or width from which the first convolution already halves it
SMALL = 4  # height and width at which halving ends
BATCH = 128
LEARNING_RATE = 6e-3  # highest, of one cycle
EPOCHS = 20  # at most; of a large data set fewer, or a part of one
PIXELS = (
    120_000 * 28 * 28
)  # pixels seen in training, so that every data set takes about as long: 2 epochs of MNIST
IMAGES = (20_000, 120_000)  # images seen in training, at least and at most, where 20 epochs are more
SCALED_ON = 10_000  # training images that the unit of the features is measured on
SEED = 20_151_201  # of the weights and of the order of the images
CPU = torch.device("cpu")

Tell = Callable[[int, int], None]


class Classifier(nn.Module):
    """3x3 convolutions of stride 2 down to 4x4 pixels, a layer of 64 features (ReLU), a linear layer to the classes.

    The features are in units of their spread: over training images their variances sum to 1.

    unkept   why it could not be kept in the cache folder, or nothing
    """

    low_high: Tensor
    labels_C: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, int, int], low_high: tuple[float, float], labels_C: Tensor) -> None:
        super().__init__()
        self.unkept = ""
        self.body = nn.Sequential(*_layers(shape))
        self.head = nn.Linear(FEATURES, len(labels_C))
        self.register_buffer("low_high", torch.tensor(low_high))
        self.register_buffer("labels_C", labels_C.clone())
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits, shape (B, classes)."""
        return torch.as_tensor(self.head(self._features(x_BCHW)))

    def _features(self, x_BCHW: Tensor) -> Tensor:
        low, high = self.low_high
        x_BCHW = ((x_BCHW - low) / (high - low)).contiguous(memory_format=torch.channels_last)
        return torch.as_tensor(self.body(x_BCHW))

    @torch.no_grad()
    def look(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return features, float64 of shape (B, 64), and the label of each image, both on the CPU; float32 networks."""
        with torch.autocast(x_BCHW.device.type, enabled=False):
            features_BF = self._features(x_BCHW.float())
            label_B = self.labels_C[self.head(features_BF).argmax(1)]
            return (features_BF * self.scale).cpu().double(), label_B.cpu()

    @property
    def fingerprint(self) -> str:
        """8 hex digits over the weights: distances in features of different classifiers cannot be compared."""
        numbers = (value.detach().cpu().contiguous() for value in self.state_dict().values())
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in numbers)).hexdigest()[:8]


def _layers(shape: tuple[int, int, int]) -> Iterator[nn.Module]:
    channels, height, width = shape
    stride, position = (2 if max(height, width) > LARGE else 1), 0
    while position == 0 or max(height, width) > SMALL:
        out = WIDTHS[min(position, len(WIDTHS) - 1)]
        yield nn.Conv2d(channels, out, 3, stride=stride, padding=1)
        yield nn.ReLU()
        yield nn.BatchNorm2d(out)
        height, width = -(-height // stride), -(-width // stride)
        channels, stride, position = out, 2, position + 1
    yield nn.Flatten()
    yield nn.Linear(channels * height * width, FEATURES)
    yield nn.ReLU()


def why_none(splits: Splits) -> Missing | None:
    """Why there can be no classifier of these data, or None."""
    if splits.train.labels_N is None:
        return Missing(
            "no labels",
            "image quality is measured in the features of a classifier of the data set; a folder for each class has "
            "labels, or an .npz with `labels`. FID needs none: docs/metrics/fid.md",
        )
    if len(_classes(splits)) < 2:
        return Missing("one class", "a classifier has nothing to tell apart")
    return None


def obtain(splits: Splits, tell: Tell) -> Classifier:
    """The classifier of the data, from the cache folder or trained now and kept there; see `why_none`."""
    file = cache_folder() / "classifiers" / _name(splits)
    classifier = _kept(splits, file)
    if classifier is not None:
        return classifier
    classifier = train(splits, tell)
    try:
        files.write_tensors(file, classifier.state_dict(), {"fingerprint": classifier.fingerprint})
    except (OSError, SafetensorError):
        classifier.unkept = f"not kept: {file.parent} cannot be written to; set {CACHE} to a folder"
    return classifier


def _name(splits: Splits) -> str:
    shape = "x".join(map(str, splits.shape))
    return f"{splits.hash}-{shape}-{len(_classes(splits))}-v{VERSION}.safetensors"


def _kept(splits: Splits, file: Path) -> Classifier | None:
    """Return the content of the file; None if there is no file or its content is not what was written."""
    if not file.is_file():
        return None
    classifier = _blank(splits)
    try:
        tensors, about = files.read_tensors(file)
        classifier.load_state_dict(tensors)
    except (RunError, RuntimeError):
        return None
    return classifier.eval() if about.get("fingerprint") == classifier.fingerprint else None


def _blank(splits: Splits) -> Classifier:
    with fixed_seed(SEED, CPU):
        return Classifier(splits.shape, splits.range, _classes(splits))


def _labels(splits: Splits) -> Tensor:
    assert splits.train.labels_N is not None
    return splits.train.labels_N


def _classes(splits: Splits) -> Tensor:
    """The labels there are, rising."""
    return torch.as_tensor(torch.unique(_labels(splits)))


# --- training ---------------------------------------------------------------------------------


def train(splits: Splits, tell: Tell) -> Classifier:
    """AdamW on the cross-entropy, one cycle of the learning rate; the images as evaluation presents them.

    The same data give the same weights, bit for bit, on one kind of CPU.
    """
    classifier = _blank(splits).train()
    target_N = torch.searchsorted(classifier.labels_C, _labels(splits))
    batches = list(_order(splits))
    total = sum(map(len, batches))
    done = 0
    with _one_thread(), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        optimiser = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=len(batches))
        present = _presented(splits)
        for index_B in batches:
            loss = F.cross_entropy(classifier(present(index_B)), target_N[index_B])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            cycle.step()
            done += len(index_B)
            tell(done, total)
        classifier.eval()
        some = torch.randperm(len(target_N), generator=Generator().manual_seed(SEED))[:SCALED_ON]
        features_NF = torch.cat([classifier.look(present(index_B))[0] for index_B in torch.split(some, 500)])
    spread = float(features_NF.var(0, correction=0).sum())
    classifier.scale.fill_(spread**-0.5 if spread > 0 else 1.0)
    return classifier


def _order(splits: Splits) -> Iterator[Tensor]:
    """The images of each step. Batches are full, since batch norm cannot do with one image."""
    n = len(splits.train)
    _, height, width = splits.shape
    fewest, most = IMAGES
    seen = min(EPOCHS * n, max(fewest, min(most, PIXELS // (height * width))))
    batch = min(n, BATCH, max(8, n // 8))
    generator = Generator().manual_seed(SEED)
    for _ in range(-(-seen // n)):
        steps = min(seen, n) // batch
        yield from torch.randperm(n, generator=generator)[: steps * batch].view(steps, batch)
        seen -= n


def _presented(splits: Splits) -> Callable[[Tensor], Tensor]:
    """Give the images at some positions as evaluation sees them: random transforms are frozen once for all."""
    images = frozen(splits.train, splits.transforms)
    rest = [transform for transform in splits.transforms if not transform.random]
    return lambda index_B: materialise(images.select(index_B), rest)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order in which several threads add numbers up would enter the weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
