"""Checks of the latent dimensions: what they carry, and what the decoder makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nelbo.core import config
from nelbo.doctor.base import Finding, check
from nelbo.doctor.case import Case, NotLooked, some
from nelbo.doctor.command import Change
from nelbo.doctor.configuration import beta_over_training, fixed_sigma
from nelbo.doctor.training import under_trained
from nelbo.metrics import LatentStatistics, Split
from nelbo.metrics.latent import ACTIVE_VARIANCE, COLLAPSED_KL_NATS, FREE_BITS, WARM_UP_EPOCHS
from nelbo.schedules import Schedule

DEAD_KL = 0.01  # nats: a dimension with less carries nothing
EXPLAINED = 0.25  # of the pixels' variance: below it a decoder hardly uses z
USED = 1e-4  # of the reconstruction's variance: what moving a dimension must at least move
CARRYING = 0.1  # nats: a dimension with more is paid for
PROBED = 64  # images with which dimensions are exchanged


def logged_kl(case: Case) -> list[tuple[int, list[float]]]:
    """(epoch, KL of each dimension) of every epoch that logged it."""
    rows = case.epochs if case.run is not None and "history" not in case.missing else []
    kept = [(row["epoch"], row.get("latent", {}).get("kl_per_dimension")) for row in rows]
    return [(epoch, kl_Z) for epoch, kl_Z in kept if kl_Z]


def since_when(logged: list[tuple[int, list[float]]], dimensions: list[int]) -> str:
    """Since which logged epoch these dimensions have carried nothing, in words."""
    if not logged or not dimensions:
        return ""
    groups: dict[str, list[int]] = {}
    for dimension in dimensions:
        alive = [i for i, (_, kl_Z) in enumerate(logged) if kl_Z[dimension] >= DEAD_KL]
        if not alive:
            word = f"since the first look, after epoch {logged[0][0]}"
        elif alive[-1] + 1 == len(logged):
            word = "only on the images looked at now"
        else:
            word = f"since epoch {logged[alive[-1] + 1][0]}"
        groups.setdefault(word, []).append(dimension)
    return "; ".join(f"{listed(found)} {word}" for word, found in groups.items())


def listed(dimensions: list[int]) -> str:
    """`0-3, 7`, however many."""
    runs: list[list[int]] = []
    for dimension in dimensions:
        if runs and dimension == runs[-1][-1] + 1:
            runs[-1].append(dimension)
        else:
            runs.append([dimension])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def against_collapse(case: Case) -> tuple[str, Change]:
    """Return the changes of this configuration by which the latent carries more, and the command."""
    recipe = case.recipe
    likelihood = recipe.model.setting("likelihood")
    values = beta_over_training(case)
    if recipe.model.quantises:
        return "Move unused codes to where encodings are sooner.", case.retrain({"model.revive_after": 20})
    if fixed_sigma(likelihood) is not None:
        return (
            "Let sigma be learned: a fixed one that is too large makes every detail cheaper to miss than to encode.",
            case.retrain({"model.likelihood.sigma": "learned"}),
        )
    if values and values[-1] > 1.0:
        return "Weigh the KL with 1.", case.retrain({"objective.beta": 1.0})
    if values and len(set(values)) == 1:
        epochs = min(WARM_UP_EPOCHS, max(1, recipe.epochs // 2))
        return (
            "Let the weight of the KL rise from 0, so that the decoder learns to use z before it is paid for.",
            case.retrain({"objective.beta": "linear", "objective.beta.epochs": epochs}),
        )
    return _with_room(case)


def _with_room(case: Case) -> tuple[str, Change]:
    """Return changes by which the KL costs less: a field of this objective, or the ELBO with free bits."""
    objective, posterior = case.recipe.objective, case.recipe.model.setting("posterior")
    for name in ("latent_weight", "weight"):
        weight = objective.setting(name, 0.0)
        if weight and posterior is not None and not posterior.has_density:
            change = case.retrain({f"objective.{name}": weight / 10})
            return "Let what is asked of the latents weigh a tenth.", change
    free_bits = objective.setting("free_bits")
    if free_bits is not None:
        change = case.retrain({"objective.free_bits": max(FREE_BITS, 2 * free_bits)})
        return "Let each dimension have some nats free of charge.", change
    changes: dict[str, Any] = {"objective": "elbo"}
    if posterior is not None and not posterior.has_density:
        changes["model.posterior"] = "diagonal-gaussian"
    beta = objective.setting("beta")
    if isinstance(beta, Schedule):
        ramp = {key: value for key, value in config.to_dict(beta).items() if value is not None}
        changes |= {
            "objective.beta": ramp.pop("name"),
            **{f"objective.beta.{key}": ramp[key] for key in ramp},
        }
    return (
        "Train the ELBO instead, in which each dimension can have some nats free of charge.",
        case.retrain({**changes, "objective.free_bits": FREE_BITS}),
    )


@check("configuration")
def posterior_collapse(case: Case) -> Iterator[Finding]:
    """A latent that carries next to nothing; or dimensions that do, in a model that explains little of its images.

    Inactive dimensions alone are no fault: a model that reconstructs well with 17 of 32 has pruned the others.
    They are one where the reconstructions explain less than a quarter of the pixels' variance.
    """
    if case.weights is None or case.data is None:
        yield from _collapse_in_history(case)
        return
    found = case.statistics
    remedy, change = against_collapse(case)
    dead = _dead(found)
    history = since_when(logged_kl(case), dead)
    since = f". Dimensions {history}" if history else ""
    explained = explained_variance(case)
    evidence = (
        f"on {case.looked('test')} {found.carried}, and the reconstructions explain {explained:.0%} of the pixels' "
        f"variance{since}"
    )
    if found.collapsed:
        yield Finding(
            "Posterior collapse: the latent carries next to nothing, and the decoder ignores it.",
            "serious", evidence, remedy, change,
        )  # fmt: skip
    elif explained < EXPLAINED and carrying(found) <= case.model.latent_dim / 2 and not under_trained(case):
        yield Finding(
            "Partial posterior collapse: most latent dimensions carry nothing, and the others explain little.",
            "serious", evidence, remedy, change,
        )  # fmt: skip


def carrying(found: LatentStatistics) -> int:
    """Return the dimensions that carry something: a tenth of a nat, or where there is no KL, a mean that varies."""
    return found.active_units if found.kl_Z is None else int((found.kl_Z > CARRYING).sum())


def _dead(found: LatentStatistics) -> list[int]:
    if found.kl_Z is not None:
        return torch.nonzero(found.kl_Z < DEAD_KL).flatten().tolist()
    return torch.nonzero(found.mean_variance_Z <= ACTIVE_VARIANCE).flatten().tolist()


def _collapse_in_history(case: Case) -> Iterator[Finding]:
    """Complete collapse, as the last logged look at the latent saw it."""
    logged = logged_kl(case)
    if not logged:
        raise NotLooked(next(case.missing[part] for part in ("weights", "data") if part in case.missing))
    epoch, kl_Z = logged[-1]
    active = next(row["latent"]["active_units"] for row in reversed(case.epochs) if "latent" in row)
    if active == 0 or sum(kl_Z) < COLLAPSED_KL_NATS:
        remedy, change = against_collapse(case)
        dead = [i for i, kl in enumerate(kl_Z) if kl < DEAD_KL]
        history = since_when(logged, dead)
        yield Finding(
            "Posterior collapse: the latent carries next to nothing, and the decoder ignores it.",
            "serious",
            f"after epoch {epoch} {active} of {len(kl_Z)} latent dimensions were active, KL {sum(kl_Z):.2f} nats"
            + (f". Dimensions {history}" if history else ""),
            remedy, change,
        )  # fmt: skip


@torch.no_grad()
def explained_variance(case: Case) -> float:
    """1 - MSE of the reconstructions / MSE of the training images' mean, on the test images that are looked at.

    Both errors are to the images before random binarisation or dequantisation, whose noise nothing explains.
    """
    still = tuple(transform for transform in case.splits.transforms if not transform.random)
    quiet = dataclasses.replace(case.splits, transforms=still)
    train, test = (dataclasses.replace(case.view(split), data=quiet) for split in ("train", "test"))
    mean_CHW = torch.cat(list(train.batches())).mean(0)
    error = spread = 0.0
    for x_BCHW, target_BCHW in zip(case.view("test").batches(), test.batches(), strict=True):
        error += float((case.model.reconstruct(x_BCHW) - target_BCHW).square().sum())
        spread += float((target_BCHW - mean_CHW).square().sum())
    return 1.0 - error / max(spread, 1e-12)


@check("weights", "data")
def ignored_dimensions(case: Case) -> Iterator[Finding]:
    """Latent dimensions that cost KL and move no pixel: the decoder does not read them."""
    kl_Z = case.statistics.kl_Z
    if kl_Z is None:
        raise NotLooked("this posterior has no KL for each dimension")
    moved_Z = influence(case)
    ignored = torch.nonzero((kl_Z > CARRYING) & kl_Z.isfinite() & (moved_Z < USED)).flatten().tolist()
    if not ignored:
        return
    yield Finding(
        "The decoder does not read latent dimensions that the encoder fills.",
        "serious",
        f"dimensions {listed(ignored)} cost {float(kl_Z[ignored].sum()):.2f} nats of KL, and giving an image another "
        f"one's value changes at most {float(moved_Z[ignored].max()):.1g} of the reconstructions' variance",
        "Train again: weights of the decoder's first layer have died. A smaller rate or weight decay keeps them.",
        case.retrain({"seed": case.recipe.seed + 1}),
    )


@torch.no_grad()
def influence(case: Case) -> Tensor:
    """For each dimension, what exchanging it between images moves, as a share of the reconstructions' variance: Z."""
    model = case.model
    x_BCHW = next(Split(some(case.splits.test, PROBED), case.splits, case.device).batches())
    z_BZ = model.encode(x_BCHW).mean
    if z_BZ.dim() != 2:
        raise NotLooked("this model's latent is no vector of dimensions")
    plain = model.decode(z_BZ).mean
    variance = (plain - plain.mean(0)).square().mean().clamp_min(1e-12)
    moved = []
    for dimension in range(z_BZ.shape[1]):
        other_BZ = z_BZ.clone()
        other_BZ[:, dimension] = z_BZ[:, dimension].roll(1)
        moved.append((model.decode(other_BZ).mean - plain).square().mean() / variance)
    return torch.stack(moved).cpu().double()
