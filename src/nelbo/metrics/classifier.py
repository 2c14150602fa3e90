"""A small classifier of a data set, trained on its training images: the source of the features of image quality.

It is trained once a data set, on the CPU and on one thread, so that a kind of machine always makes the same one,
whatever the device and the load; and kept as `classifiers/{data}-{shape}-{classes}-v1.safetensors` in the folder
that NELBO_CACHE names, or in the user's cache folder.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Generator, Tensor, nn

from nelbo.core import files
from nelbo.data import Images, Splits, Transform, frozen, materialise
from nelbo.engine import CACHE, cache_folder, fixed_seed
from nelbo.errors import RunError
from nelbo.metrics.base import Missing, TellCount

VERSION = 1  # of architecture and training; another one is another classifier
FEATURES = 64
WIDTHS = (16, 32, 64)
LARGE = 64  # height or width from which the first convolution already halves it
SMALL = 4  # height and width at which halving ends
BATCH = 128
LEARNING_RATE = 6e-3  # highest, of one cycle
EPOCHS = 20  # at most; of a large data set fewer, or a part of one
PIXELS = 120_000 * 28 * 28  # of all steps, so that every data set takes about as long: 2 epochs of MNIST
IMAGES = (20_000, 120_000)  # of all steps, at least and at most, where 20 epochs are more
SCALED_ON = 10_000  # training images that the unit of the features is measured on
NORMALISED_ON = 2_000  # training images that an untrained network is normalised by
SEED = 20_151_201  # of the weights and of the order of the images
CPU = torch.device("cpu")


class Classifier(nn.Module):
    """3x3 convolutions of stride 2 down to 4x4 pixels, a layer of 64 features (ReLU), a linear layer to the classes.

    The features are in units of their spread: over training images their variances sum to 1.

    unkept   the reason why it is not in the cache folder, or ""
    """

    low_high: Tensor
    labels_C: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, int, int], low_high: tuple[float, float], labels_C: Tensor) -> None:
        super().__init__()
        self.unkept = ""
        channels, height, width = shape
        stride = 2 if max(height, width) > LARGE else 1
        layers: list[nn.Module] = []
        while not layers or max(height, width) > SMALL:
            out = WIDTHS[min(len(layers) // 3, len(WIDTHS) - 1)]
            layers += [nn.Conv2d(channels, out, 3, stride=stride, padding=1), nn.ReLU(), nn.BatchNorm2d(out)]
            height, width = -(-height // stride), -(-width // stride)  # rounded up, as the convolution does
            channels, stride = out, 2
        layers += [nn.Flatten(), nn.Linear(channels * height * width, FEATURES), nn.ReLU()]
        self.body = nn.Sequential(*layers)
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


def why_none(splits: Splits) -> Missing | None:
    """Return the reason why there can be no classifier of these data, or None."""
    if not len(splits.train.labelled()):
        return Missing(
            "no labels",
            "image quality is measured in the features of a classifier of the data set; a folder for each class has "
            "labels, or an .npz with `labels`. FID needs none: docs/metrics/fid.md",
        )
    if len(_classes(splits)) < 2:
        return Missing("one class", "a classifier has nothing to tell apart")
    return None


def obtain(splits: Splits, tell: TellCount) -> Classifier:
    """Return the classifier of the data, from the cache folder or trained now and kept there; see `why_none`."""
    shape = "x".join(map(str, splits.shape))
    name = f"{splits.hash}-{shape}-{len(_classes(splits))}-v{VERSION}.safetensors"
    file = cache_folder() / "classifiers" / name
    if file.is_file():
        classifier = _blank(splits)
        with contextlib.suppress(RunError, RuntimeError):  # a damaged file is replaced
            tensors, about = files.read_tensors(file)
            classifier.load_state_dict(tensors)
            if about.get("fingerprint") == classifier.fingerprint:
                return classifier.eval()
    classifier = train(splits, tell)
    try:
        files.write_tensors(file, classifier.state_dict(), {"fingerprint": classifier.fingerprint})
    except (OSError, SafetensorError):
        classifier.unkept = f"not kept: {file.parent} cannot be written to; set {CACHE} to a folder"
    return classifier


def untrained(splits: Splits) -> Classifier:
    """Return the same network without training: features of images that have no labels (Naeem et al. 2020, R64).

    Its weights are random and always the same; its normalisation is that of the training images, and so is the unit
    of its features. What such features tell apart is less than what a trained network does, but they need no labels,
    no download and no time, and do not favour one sampler.
    """
    with fixed_seed(SEED, CPU):
        network = Classifier(splits.shape, splits.range, torch.zeros(1, dtype=torch.int64))
    n = len(splits.train)
    some = torch.randperm(n, generator=Generator().manual_seed(SEED))[:NORMALISED_ON].sort().values
    present = presented(splits.train, splits.transforms)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    with _one_thread(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        for norm in norms:
            norm.momentum = None  # the plain mean over the batches
        network.train()
        for index_B in torch.split(some, 500):
            if len(index_B) > 1:  # of one image there is no variance
                network(present(index_B))
        network.eval()
        _scale(network, torch.cat([network.look(present(index_B))[0] for index_B in torch.split(some, 500)]))
    return network


def _scale(network: Classifier, features_NF: Tensor) -> None:
    """Set the unit of the features: without a common one a distance would grow with the scale of the last layer."""
    spread = float(features_NF.var(0, correction=0).sum())
    network.scale.fill_(spread**-0.5 if spread > 0 else 1.0)


def _blank(splits: Splits) -> Classifier:
    with fixed_seed(SEED, CPU):
        return Classifier(splits.shape, splits.range, _classes(splits))


def _labelled(splits: Splits) -> Images:
    """Return the training images that have a label."""
    train, labelled = splits.train, splits.train.labelled()
    return train if train.labels_N is None or len(labelled) == len(train) else train.select(labelled)


def _labels(splits: Splits) -> Tensor:
    labels_N = _labelled(splits).labels_N
    assert labels_N is not None
    return labels_N


def _classes(splits: Splits) -> Tensor:
    """Return the labels that occur, rising."""
    return torch.as_tensor(torch.unique(_labels(splits)))


# --- training ---------------------------------------------------------------------------------


def train(splits: Splits, tell: TellCount) -> Classifier:
    """Train with AdamW on the cross-entropy, one cycle of the learning rate; the images as evaluation presents them.

    The same data give the same weights, bit for bit, on one kind of CPU.
    """
    classifier = _blank(splits).train()
    target_N = torch.searchsorted(classifier.labels_C, _labels(splits))
    batches = list(_order(splits))
    total = sum(map(len, batches))
    count = 0
    with _one_thread(), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        optimiser = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=len(batches))
        present = presented(_labelled(splits), splits.transforms)
        for index_B in batches:
            loss = F.cross_entropy(classifier(present(index_B)), target_N[index_B])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            cycle.step()
            count += len(index_B)
            tell(count, total)
        classifier.eval()
        some = torch.randperm(len(target_N), generator=Generator().manual_seed(SEED))[:SCALED_ON]
        features_NF = torch.cat([classifier.look(present(index_B))[0] for index_B in torch.split(some, 500)])
    _scale(classifier, features_NF)
    return classifier


def _order(splits: Splits) -> Iterator[Tensor]:
    """Yield the images of each step. Batches are full, since batch norm cannot do with one image."""
    n = len(_labelled(splits))
    _, height, width = splits.shape
    fewest, most = IMAGES
    remaining = min(EPOCHS * n, max(fewest, min(most, PIXELS // (height * width))))
    batch = min(n, BATCH, max(8, n // 8))
    generator = Generator().manual_seed(SEED)
    for _ in range(-(-remaining // n)):  # epochs, of which the last may be a part of one
        steps = min(remaining, n) // batch
        yield from torch.randperm(n, generator=generator)[: steps * batch].view(steps, batch)
        remaining -= n


def presented(images: Images, transforms: Sequence[Transform]) -> Callable[[Tensor], Tensor]:
    """Return the images at given positions as evaluation sees them: random transforms are frozen once for all."""
    fixed = frozen(images, transforms)
    deterministic = [transform for transform in transforms if not transform.random]
    return lambda index_B: materialise(fixed, deterministic, indices=index_B)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the order in which several add numbers up would enter the weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
