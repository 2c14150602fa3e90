"""Checks of images, whatever is trained on them: range, blanks, copies, leaks, too few, classes."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from nelbo.data import Images
from nelbo.doctor.base import Finding, Severity, check
from nelbo.doctor.bounds import smaller
from nelbo.doctor.case import Case, NotLooked, some, spaced
from nelbo.doctor.command import Change
from nelbo.doctor.copies import (
    AT_ONCE,
    COMPARED,
    NEAR,
    QUERIES,
    blank,
    exact_copies,
    nearest,
    shared_images,
    shrunk,
    typical,
)

DARK = 0.5  # of white: the brightest pixel of any image
HUGE = 10.0  # a pixel that no initial weights expect
BLANK = 0.005  # shares of images: that are blank,
COPIED, LEAKED, MANY = 0.05, 0.02, 0.3  # with a copy in training, of test images in training; serious
FEW = 500  # training images
LISTED = 5  # images named in a finding; the rest is counted
FEWEST_FOR_UNUSUAL = 200  # training images: of fewer the 99th in a hundred is itself one of the farthest
# The farthest image of the digits, of MNIST and of Fashion-MNIST is at 1.21 to 1.40 times the distance of the quantile;
# inverted images at 1.8 to 3.2 times (of at most 10,000 images each; white noise among clothes at 1.35).
USUAL, FAR = 0.99, 1.6
WEIGHTS_A_NUMBER = 5.0


def share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({count / total:.1%})"


def names_at(images: Images, positions: Sequence[int]) -> list[str]:
    """Return the file of each image; of images without files its position among these."""
    names = images.names
    return [f"image {at}" if names is None else names[at] for at in positions]


def listed(images: Images, positions: Sequence[int]) -> str:
    """Return the names of the first images, and how many more there are."""
    names = names_at(images, positions[:LISTED])
    more = len(positions) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


def pairs(images: Images, others: Images, copies: Mapping[int, int]) -> str:
    """Return the first copies beside their originals, for the end of a clause; nothing where there are none."""
    if not copies:
        return ""
    some_copies = list(copies)[:LISTED]
    names = zip(
        names_at(images, some_copies), names_at(others, [copies[at] for at in some_copies]), strict=True
    )
    more = len(copies) - len(some_copies)
    return f" ({', '.join(f'{a} = {b}' for a, b in names)}{f' and {more:,} more' if more else ''})"


def every_split(case: Case) -> list[Images]:
    splits = (case.raw.train, case.raw.validation, case.raw.test)
    return [images for images in splits if images is not None]


@check("data")
def dark_images(case: Case) -> Iterator[Finding]:
    """Images that are all nearly black, because white is not 255: 0..16 or 0..100 taken for 0..255."""
    white = 255.0 if case.raw.train.dtype == torch.uint8 else 1.0
    brightest = max(images.extremes()[1] for images in every_split(case))
    if not 0 < brightest < DARK * white:
        return
    fault = "All images are nearly black: white is not where it should be."
    evidence = f"the brightest pixel of all images is {brightest:g}, and {white:g} would be white"
    remedy, change = f"Say that {brightest:g} is white.", case.with_data({"data.range": [0.0, brightest]})
    yield Finding(fault, "serious", evidence, remedy, change)


@check("data")
def pixel_range(case: Case) -> Iterator[Finding]:
    """Floating-point pixels outside [0, 1], which have to be said."""
    if case.raw.train.dtype == torch.uint8:
        return
    lows, highs = zip(*(images.extremes() for images in every_split(case)), strict=True)
    low, high = min(lows), max(highs)
    if low >= 0.0 and high <= 1.0:
        return
    # A Gaussian without squashing takes standardised pixels well.
    if case.configuration is not None and max(-low, high) <= HUGE:
        return
    severity: Severity = "serious" if max(-low, high) > HUGE else "worth knowing"
    remedy = "Say what the smallest and the largest value is, which maps them to [0, 1]."
    change = case.with_data({"data.range": [low, high]})
    yield Finding("Pixels lie outside of [0, 1].", severity, f"they span [{low:g}, {high:g}]", remedy, change)


@check("data")
def blank_images(case: Case) -> Iterator[Finding]:
    """Images whose pixels are all equal: failed decodings, empty crops, a threshold that leaves nothing."""
    images = case.splits.train
    blanks = torch.nonzero(blank(images)).flatten().tolist()
    if len(blanks) <= BLANK * len(images):
        return
    remedy = "Leave them out."
    change: Change | str = case.without_copies()
    if int(blank(case.raw.train).sum()) < len(blanks) / 2 and case.configuration is not None:
        remedy = "They are not blank in the source: a transform made them so. Leave the transforms out, or change them."
        change = case.retrain({"data.transforms": "none"})
    severity: Severity = "serious" if len(blanks) > MANY * len(images) else "worth knowing"
    evidence = f"{share(len(blanks), len(images))} training images: {listed(images, blanks)}"
    yield Finding("Images are blank: all their pixels are equal.", severity, evidence, remedy, change)


@check("data")
def repeated_images(case: Case) -> Iterator[Finding]:
    """Training images that occur more than once, or nearly: they weigh more, and hide how few there are."""
    rows_ND = shrunk_training_images(case)
    index = spaced(len(rows_ND), min(QUERIES, len(rows_ND)))
    distance_Q = nearest(rows_ND[index], rows_ND, index)
    copies = exact_copies(case.raw.train)
    originals = "other training images" + pairs(case.raw.train, case.raw.train, copies)
    fault = "Training images are repeated."
    yield from _copies(case, fault, COPIED, len(copies), len(case.raw.train), distance_Q, originals)


@check("data")
def leaked_images(case: Case) -> Iterator[Finding]:
    """Test images that were trained on, exactly or nearly: the test number is then one of training."""
    train, test = case.raw.train, case.raw.test
    if test is None:
        raise NotLooked("there is no test split: data.test is 0")
    index = spaced(len(test), min(QUERIES, len(test)))
    distance_Q = nearest(shrunk(test.select(index)), shrunk_training_images(case))
    leaks = shared_images(test, train)
    originals = f"training images{pairs(test, train, leaks)}"
    if case.raw.validation is not None and (more := shared_images(case.raw.validation, train)):
        originals += f"; so are {share(len(more), len(case.raw.validation))} of the validation images"
    fault = "Test images are in the training data."
    yield from _copies(case, fault, LEAKED, len(leaks), len(test), distance_Q, originals)


def shrunk_training_images(case: Case) -> Tensor:
    """Return training images, shrunk: at most COMPARED of them, which stay in memory for both checks."""
    return case.once("shrunk", lambda: shrunk(some(case.raw.train, COMPARED)))


def _copies(
    case: Case, fault: str, least: float, exact: int, total: int, distance_Q: Tensor, originals: str
) -> Iterator[Finding]:
    """Yield the fault where a share `least` of images are copies: `exact` of `total`, or nearly, of a sample of Q."""
    rows_ND = shrunk_training_images(case)
    near, compared = int((distance_Q <= NEAR * typical(rows_ND)).sum()), len(distance_Q)
    copied = max(exact / total, near / compared)
    if copied < least:
        return
    evidence = (
        f"{share(exact, total)} are exact copies of {originals}. Of those looked at closely {share(near, compared)} "
        "are exact or near copies"
    )
    if len(rows_ND) < len(case.raw.train):
        evidence += f", looked for among {len(rows_ND):,} training images"
    severity: Severity = "serious" if copied >= MANY else "worth knowing"
    remedy = "Train without them: this writes the images that are new to a file for --data."
    yield Finding(fault, severity, evidence, remedy, case.without_copies())


@check("data")
def unusual_images(case: Case) -> Iterator[Finding]:
    """Images that are far from all others: another subject, a scan upside down, a calibration picture."""
    images = case.raw.train
    if len(images) < FEWEST_FOR_UNUSUAL:
        raise NotLooked(f"fewer than {FEWEST_FOR_UNUSUAL} training images")
    rows_ND = shrunk_training_images(case)
    at_N = spaced(len(images), len(rows_ND))  # the positions of these rows
    index = spaced(len(rows_ND), min(QUERIES, len(rows_ND)))
    distance_N = nearest_but_own(rows_ND, index)
    usual = float(np.quantile(distance_N.numpy(), USUAL))
    strange = torch.nonzero(distance_N > FAR * usual).flatten()
    if not len(strange) or usual == 0:
        return
    strange = strange[distance_N[strange].argsort(descending=True)]
    evidence = (
        f"{share(len(strange), len(rows_ND))} training images are more than {FAR:g} times as far from their nearest "
        f"neighbour as 99 in 100 are: {listed(images, at_N[strange].tolist())}"
    )
    remedy = "Look at them, and take out of the data what does not belong there; then train."
    change: Change | str = case.with_data({})
    if case.run is not None and not case.in_python:
        remedy = "Look at them, and take out of the data what does not belong there. This lists how strange each is."
        change = case.scores_of("train")
    yield Finding("A few images are unlike all others.", "worth knowing", evidence, remedy, change)


def nearest_but_own(rows_ND: Tensor, index: Tensor) -> Tensor:
    """Return the distance of every row to the nearest of some rows, itself left out: N."""
    parts = []
    for at_B in torch.split(torch.arange(len(rows_ND)), AT_ONCE):
        distance_BQ = torch.cdist(rows_ND[at_B], rows_ND[index])
        distance_BQ[at_B[:, None] == index] = float("inf")
        parts.append(distance_BQ.amin(1))
    return torch.cat(parts)


@check("data")
def few_images(case: Case) -> Iterator[Finding]:
    """So few images that a network of this size learns them by heart."""
    images = case.splits.train
    numbers = len(images) * math.prod(images.shape)
    evidence, weights = f"{len(images):,} training images, {numbers:,} pixels", 0
    if case.configuration is not None:
        model = case.recipe.model.build(case.splits.shape)
        weights = sum(parameter.numel() for parameter in model.parameters())
        evidence += f", and {weights:,} weights"
    if len(images) >= FEW and weights <= WEIGHTS_A_NUMBER * numbers:
        return
    small: dict[str, object] = {"model.encoder.hidden": [64], "model.decoder.hidden": [64]}
    changes = small if case.configuration is None else smaller(case)
    fault = "There are few images for a network to learn from."
    remedy = "Bring more, or use fewer weights; and go by the bound of a validation split."
    yield Finding(
        fault, "worth knowing", evidence, remedy, case.with_data(changes | {"data.validation": 0.1})
    )
