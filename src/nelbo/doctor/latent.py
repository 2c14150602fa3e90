"""Checks of the latent dimensions: what they carry, and what the decoder makes of them."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from nelbo.core import config
from nelbo.doctor.base import Finding, check
from nelbo.doctor.case import Case, NotLooked
from nelbo.doctor.command import Change
from nelbo.doctor.configuration import beta_over_training, fixed_sigma
from nelbo.doctor.training import under_trained
from nelbo.metrics import LatentStatistics
from nelbo.metrics.latent import ACTIVE_VARIANCE, COLLAPSED_KL_NATS, FREE_BITS, WARM_UP_EPOCHS
from nelbo.schedules import Schedule

DEAD_KL = 0.01  # nats: a dimension with less carries nothing
EXPLAINED = 0.25  # of the pixels' variance: below it a decoder hardly uses z
USED = 1e-4  # of the reconstruction's variance: what moving a dimension must at least move
CARRYING = 0.1  # nats: a dimension with more is paid for
PROBED = 64  # images with which dimensions are exchanged
COLLAPSE = "Posterior collapse: the latent carries next to nothing, and the decoder ignores it."
PARTIAL = "Partial posterior collapse: most latent dimensions carry nothing, and the others explain little."


def logged_kl(case: Case) -> list[tuple[int, list[float]]]:
    """Return (epoch, KL of each dimension) of every epoch that logged it."""
    rows = case.epochs if case.run is not None and "history" not in case.missing else []
    pairs = [(row["epoch"], row.get("latent", {}).get("kl_per_dimension")) for row in rows]
    return [(epoch, kl_Z) for epoch, kl_Z in pairs if kl_Z]


def since_when(logged: list[tuple[int, list[float]]], dimensions: list[int]) -> str:
    """Say since which logged epoch these dimensions have carried nothing."""
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
    return "; ".join(f"{listed(group)} {word}" for word, group in groups.items())


def listed(dimensions: list[int]) -> str:
    """Return `0-3, 7`, however many."""
    runs: list[list[int]] = []
    for dimension in dimensions:
        if runs and dimension == runs[-1][-1] + 1:
            runs[-1].append(dimension)
        else:
            runs.append([dimension])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def against_collapse(case: Case) -> tuple[str, Change]:
    """Return a remedy by which the latent carries more, the first that applies here, and the training with it."""
    recipe, objective = case.recipe, case.recipe.objective
    values = beta_over_training(case)
    if recipe.model.quantises:
        return "Move unused codes to where encodings are sooner.", case.retrain({"model.revive_after": 20})
    if fixed_sigma(recipe.model.setting("likelihood")) is not None:
        reason = "a fixed one that is too large makes every detail cheaper to miss than to encode."
        return f"Let sigma be learned: {reason}", case.retrain({"model.likelihood.sigma": "learned"})
    if values and values[-1] > 1.0:
        return "Weigh the KL with 1.", case.retrain({"objective.beta": 1.0})
    if values and len(set(values)) == 1:
        reason = "so that the decoder learns to use z before it is paid for."
        epochs = min(WARM_UP_EPOCHS, max(1, recipe.epochs // 2))
        ramp = case.retrain({"objective.beta": "linear", "objective.beta.epochs": epochs})
        return f"Let the weight of the KL rise from 0, {reason}", ramp
    posterior = recipe.model.setting("posterior")
    is_point = posterior is not None and not posterior.has_density
    for name in ("latent_weight", "weight") if is_point else ():
        if weight := objective.setting(name, 0.0):
            remedy = "Let what is asked of the latents weigh a tenth."
            return remedy, case.retrain({f"objective.{name}": weight / 10})
    if (free_bits := objective.setting("free_bits")) is not None:
        remedy = "Let each dimension have some nats free of charge."
        return remedy, case.retrain({"objective.free_bits": max(FREE_BITS, 2 * free_bits)})
    changes: dict[str, object] = {"objective": "elbo"}
    if is_point:
        changes["model.posterior"] = "diagonal-gaussian"
    beta = objective.setting("beta")
    if isinstance(beta, Schedule):  # of another objective it would be lost with it
        fields = {key: value for key, value in config.to_dict(beta).items() if value is not None}
        changes["objective.beta"] = fields.pop("name")
        changes |= {f"objective.beta.{key}": value for key, value in fields.items()}
    remedy = "Train the ELBO instead, in which each dimension can have some nats free of charge."
    return remedy, case.retrain({**changes, "objective.free_bits": FREE_BITS})


@check("configuration")
def posterior_collapse(case: Case) -> Iterator[Finding]:
    """A latent that carries next to nothing; or dimensions that do, in a model that explains little of its images."""
    if case.weights is None or case.data is None:
        yield from _collapse_in_history(case)
        return
    statistics, logged = case.statistics, logged_kl(case)
    remedy, change = against_collapse(case)
    if statistics.kl_Z is not None:
        dead_Z = statistics.kl_Z < DEAD_KL
    else:
        dead_Z = statistics.mean_variance_Z <= ACTIVE_VARIANCE
    history = since_when(logged, torch.nonzero(dead_Z).flatten().tolist())
    since = f". Dimensions {history}" if history else ""
    explained = explained_variance(case)
    evidence = (
        f"on {case.looked('test')} {statistics.carried}, and the reconstructions explain {explained:.0%} of the "
        f"pixels' variance{since}"
    )
    few = carrying(statistics) <= case.model.latent_dim / 2
    if statistics.collapsed:
        yield Finding(COLLAPSE, "serious", evidence, remedy, change)
    # Inactive dimensions alone are no fault: a model that reconstructs well with 17 of 32 has pruned the others.
    elif explained < EXPLAINED and few and not under_trained(case):
        yield Finding(PARTIAL, "serious", evidence, remedy, change)


def carrying(statistics: LatentStatistics) -> int:
    """Return the dimensions that carry something: a tenth of a nat, or where there is no KL, a mean that varies."""
    return statistics.active_units if statistics.kl_Z is None else int((statistics.kl_Z > CARRYING).sum())


def _collapse_in_history(case: Case) -> Iterator[Finding]:
    """Find complete collapse, as the last logged look at the latent saw it."""
    logged = logged_kl(case)
    if not logged:
        raise NotLooked(next(case.missing[part] for part in ("weights", "data") if part in case.missing))
    epoch, kl_Z = logged[-1]
    active = next(row["latent"]["active_units"] for row in reversed(case.epochs) if "latent" in row)
    if active == 0 or sum(kl_Z) < COLLAPSED_KL_NATS:
        history = since_when(logged, [i for i, kl in enumerate(kl_Z) if kl < DEAD_KL])
        since = f". Dimensions {history}" if history else ""
        units = f"{active} of {len(kl_Z)} latent dimensions"
        evidence = f"after epoch {epoch} {units} were active, KL {sum(kl_Z):.2f} nats{since}"
        yield Finding(COLLAPSE, "serious", evidence, *against_collapse(case))


@torch.no_grad()
def explained_variance(case: Case) -> float:
    """Return 1 - MSE of the reconstructions / MSE of the training images' mean, on the test images looked at."""
    # Both errors are to the images before random binarisation or dequantisation, whose noise nothing explains.
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
    cost, moved = float(kl_Z[ignored].sum()), float(moved_Z[ignored].max())
    evidence = (
        f"dimensions {listed(ignored)} cost {cost:.2f} nats of KL, and giving an image another one's value changes "
        f"at most {moved:.1g} of the reconstructions' variance"
    )
    fault = "The decoder does not read latent dimensions that the encoder fills."
    remedy = "Train again: weights of the decoder's first layer have died. A smaller rate or weight decay keeps them."
    yield Finding(fault, "serious", evidence, remedy, case.retrain({"seed": case.recipe.seed + 1}))


@torch.no_grad()
def influence(case: Case) -> Tensor:
    """Return what exchanging each dimension between images moves, a share of the reconstructions' variance: Z."""
    model = case.model
    x_BCHW = next(case.view("test", PROBED).batches())
    z_BZ = model.encode(x_BCHW).mean
    if z_BZ.dim() != 2:
        raise NotLooked("this model's latent is no vector of dimensions")
    plain = model.decode(z_BZ).mean
    variance = (plain - plain.mean(0)).square().mean().clamp_min(1e-12)
    moved = []
    for dimension in range(z_BZ.shape[1]):
        exchanged_BZ = z_BZ.clone()
        # The value of another image, and not zero or noise: the decoder sees only what it has been trained on.
        exchanged_BZ[:, dimension] = z_BZ[:, dimension].roll(1)
        moved.append((model.decode(exchanged_BZ).mean - plain).square().mean() / variance)
    return torch.stack(moved).cpu().double()
