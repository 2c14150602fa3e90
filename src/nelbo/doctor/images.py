"""Checks of images, whatever is trained on them: range, blanks, copies, leaks, too few, classes."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nelbo.data import Images
from nelbo.doctor.base import Finding, Severity, check
from nelbo.doctor.bounds import smaller
from nelbo.doctor.case import Case, NotLooked, some, spaced
from nelbo.doctor.command import Change
from nelbo.doctor.copies import (
    COMPARED,
    NEAR,
    QUERIES,
    blank,
    exact_copies,
    fingerprints,
    nearest,
    shrunk,
    typical,
)

DARK = 0.5  # of white: the brightest pixel of any image
HUGE = 10.0  # a pixel that no initial weights expect
BLANK = 0.005  # shares of images: that are blank,
COPIED, LEAKED, MANY = 0.05, 0.02, 0.3  # with a copy in training, of test images in training; serious
FEW = 500  # training images
WEIGHTS_A_NUMBER = 5.0


def share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({count / total:.1%})"


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
    evidence = f"{share(len(blanks), len(images))} training images, the first at position {blanks[0]}"
    yield Finding("Images are blank: all their pixels are equal.", severity, evidence, remedy, change)


@check("data")
def repeated_images(case: Case) -> Iterator[Finding]:
    """Training images that occur more than once, or nearly: they weigh more, and hide how few there are."""
    rows_ND = shrunk_training_images(case)
    index = spaced(len(rows_ND), min(QUERIES, len(rows_ND)))
    distance_Q = nearest(rows_ND[index], rows_ND, index)
    copies = exact_copies(case.raw.train)
    originals = "other training images" + (f"; the first copy is at position {copies[0]}" if copies else "")
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
    leaks = np.flatnonzero(np.isin(fingerprints(test), fingerprints(train))).tolist()
    place = f"; the first copy is at position {leaks[0]} of the test split" if leaks else ""
    fault = "Test images are in the training data."
    yield from _copies(case, fault, LEAKED, len(leaks), len(test), distance_Q, f"training images{place}")


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
