"""The numbers in the evidence, against what they must be; and faults that show in more than one way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nelbo
from nelbo.core import Progress
from nelbo.data import Data, Splits
from nelbo.dists.normal import DiagonalNormal
from nelbo.doctor.bounds import fixed_image
from nelbo.doctor.copies import NEAR, nearest, new_rows
from nelbo.doctor.latent import explained_variance, listed, since_when
from nelbo.doctor.likelihood import density_of_places, output_range
from nelbo.doctor.opening import open_case
from nelbo.doctor.posterior import STEIN_ERROR, stein_matrix
from nelbo.likelihoods import Gaussian
from nelbo.models import VAE
from nelbo.nets import MLP
from nelbo.objectives import ELBO
from nelbo.posteriors import DiagonalGaussian
from nelbo.priors import StandardNormal

SMALL = {"encoder": MLP(hidden=(16,)), "decoder": MLP(hidden=(16,)), "latent_dim": 3}


def gradients(likelihood: Gaussian, beta: float) -> torch.Tensor:
    torch.manual_seed(0)
    model = VAE(likelihood=likelihood, **SMALL).build((1, 4, 4)).double()
    x = torch.rand(64, 1, 4, 4, dtype=torch.float64)
    torch.manual_seed(1)
    ELBO(beta=beta)(model.draw(x), Progress()).loss_B.mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_beta_and_a_fixed_sigma_are_one_number():
    """What `kl-weight` advises, beta 1 and sigma sqrt(beta), has the same gradients but for their length."""
    weighed, bound = gradients(Gaussian(sigma=0.5), 4.0), gradients(Gaussian(sigma=1.0), 1.0)
    assert torch.allclose(weighed, 4.0 * bound, rtol=1e-6, atol=1e-9)


def test_the_hidden_weight_is_that_of_a_calibrated_gaussian():
    """SSE / (2 sigma^2) + beta KL has the gradients of sigma s and beta (sigma / s)^2, times (s / sigma)^2."""
    sigma, s, beta = 1.0, 0.2, 1.5
    fixed, calibrated = (
        gradients(Gaussian(sigma=sigma), beta),
        gradients(Gaussian(sigma=s), beta * (sigma / s) ** 2),
    )
    assert torch.allclose(fixed, calibrated * (s / sigma) ** 2, rtol=1e-6, atol=1e-9)


def test_an_averaged_squared_error_is_the_sigma_it_is_said_to_be(lab):
    """SSE / D + w KL has sigma^2 = D / 2 and beta = 1 at w = 1: the evidence says w = 1 of that sigma."""
    overrides = {
        "model.likelihood": "gaussian",
        "model.likelihood.sigma": math.sqrt(32.0),
        "objective.beta": 1,
    }
    evidence = lab.found(nelbo.diagnose(lab.config(overrides)), "hidden-kl-weight").evidence
    assert evidence.endswith("averaged over the 64 pixels amounts to with a KL weight of 1")


# --- the posterior ----------------------------------------------------------------------------


class TooNarrow(DiagonalNormal):
    """Says sigma, samples from sigma / 2: what a forgotten factor in the log-variance does."""

    def rsample(self, k: int = 1) -> torch.Tensor:
        return DiagonalNormal(self.mean, self.std / 2, self.log_var).rsample(k)


@pytest.mark.parametrize("parametrisation", ["log-variance", "positive", "raw-sigma", "tanh"])
@pytest.mark.parametrize("latent_dim", [1, 2, 200])
def test_steins_identity_holds_where_the_density_is_sampled(parametrisation, latent_dim):
    torch.manual_seed(0)
    with torch.no_grad():
        posterior = DiagonalGaussian(parametrisation=parametrisation).build(8, latent_dim)(torch.randn(64, 8))
    error_ZZ = stein_matrix(posterior) + torch.eye(latent_dim)
    assert float(error_ZZ.abs().max()) < STEIN_ERROR / 2


def test_steins_identity_fails_for_shared_noise_and_for_a_wrong_scale():
    torch.manual_seed(0)
    mean, std = torch.zeros(64, 4), torch.full((64, 4), 0.5)
    shared = stein_matrix(DiagonalNormal(mean, std, 2 * std.log(), shared_noise=True))
    assert torch.allclose(shared, -torch.ones(4, 4, dtype=torch.float64), atol=0.05)
    narrow = stein_matrix(TooNarrow(mean, std, 2 * std.log()))
    assert torch.allclose(narrow.diagonal(), torch.full((4,), -0.25, dtype=torch.float64), atol=0.02)


# --- the bound --------------------------------------------------------------------------------


def test_the_fixed_image_is_the_mean_image_for_a_bernoulli(healthy):
    case = open_case(healthy, device="cpu")
    train, test = (torch.cat(list(case.view(split).batches())) for split in ("train", "test"))
    p = (train.sum(0) + 0.01) / (len(train) + 0.02)
    exact = -(test * p.log() + (1 - test) * (1 - p).log()).flatten(1).sum(1).double().mean()
    assert float(fixed_image(case).mean()) == pytest.approx(float(exact), abs=0.05)


def test_the_fixed_image_of_a_gaussian_has_the_images_own_spread(lab):
    grey = {"data.transforms": [], "model.likelihood": "gaussian", "model.likelihood.sigma": "optimal"}
    case = open_case(lab.train({**grey, "epochs": 1, "objective.beta": 1}), device="cpu")
    train, test = (torch.cat(list(case.view(split).batches())).double() for split in ("train", "test"))
    error = (test - train.mean(0)).square().sum() / len(test)
    sigma = float((train - train.mean(0)).square().mean().sqrt())
    exact = error / (2 * sigma**2) + 64 * math.log(sigma * math.sqrt(2 * math.pi))
    assert float(fixed_image(case).mean()) == pytest.approx(float(exact), abs=0.1)


@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "laplace", "gaussian"])
def test_the_density_of_places_adds_up_to_that_of_the_image(lab, likelihood):
    grey = {"data.transforms": [], "model.likelihood": likelihood, "epochs": 1, "objective.beta": 1}
    case = open_case(lab.train(grey), device="cpu")
    x_BCHW = next(case.view("test").batches())
    with torch.no_grad():
        whole_N = case.model.decode(case.model.encode(x_BCHW).mean).log_prob(x_BCHW)
    assert torch.allclose(density_of_places(case).sum(1), whole_N.double(), rtol=1e-4, atol=1e-3)


def test_the_gain_on_emptiness_is_counted_above_one_over_the_step(lab):
    """Logits of -3000 for eight pixels: log 3000 nats at black, of which a level may have log 255."""
    case = open_case(black_for_certain(lab), device="cpu")
    x_BCHW = next(case.view("test").batches())
    black = x_BCHW[:, 0, :, 0] == 0
    places = density_of_places(case).reshape(-1, 8, 8)[:, :, 0]
    assert torch.allclose(places[black], torch.tensor(math.log(3000.0)).double(), atol=0.05)
    gained = 8 * float(black.double().mean()) * math.log(3000.0 / 255.0)
    evidence = lab.found(nelbo.diagnose(case.run, device="cpu"), "density-finer-than-pixels").evidence
    assert float(evidence.split()[0]) == pytest.approx(gained, abs=0.6)


def black_for_certain(lab) -> Any:
    grey = {
        "data.transforms": [],
        "model.likelihood": "continuous-bernoulli",
        "epochs": 1,
        "objective.beta": 1,
    }

    def run_away(tensors: dict[str, torch.Tensor]) -> None:
        tensors["decoder.4.bias"][::8] = -3000.0

    return lab.with_weights(lab.train(grey), run_away)


def test_explained_variance_leaves_out_the_noise_of_binarisation(lab):
    """A model that knows every grey image explains all, though each draw of its bits is still random."""
    case = open_case(lab.train({"data.transforms": ["dynamic-binarise"], "epochs": 1}), device="cpu")
    grey = torch.cat(list(case.view("test").batches()))

    class Oracle:
        at = 0

        def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
            self.at += len(x)
            return plain[self.at - len(x) : self.at]

    plain = case.raw.test.pixels_NCHW.float() / 255
    case.weights = Oracle()  # type: ignore[assignment]
    assert not torch.equal(grey, plain)
    assert explained_variance(case) == pytest.approx(1.0)


@pytest.fixture
def twice_squashed(_forgotten: None) -> Any:
    """A likelihood that takes sigmoid outputs for logits; forgotten again afterwards."""
    from nelbo.likelihoods import Likelihood
    from nelbo.likelihoods.base import LikelihoodModule
    from nelbo.likelihoods.bernoulli import BernoulliImage

    class TwiceModule(LikelihoodModule):
        def forward(self, outputs: torch.Tensor) -> BernoulliImage:
            return BernoulliImage(outputs.sigmoid())

    class TwiceSquashed(Likelihood):
        """Bernoulli pixels on sigmoid(outputs), taken for logits."""

        observation_kind = "binary"
        support = (0.0, 1.0)

        def build(self, shape: Any) -> TwiceModule:
            return TwiceModule()

    return {"model.likelihood": "twice-squashed"}


def test_a_sigmoid_taken_for_logits_is_out_of_reach(lab, twice_squashed):
    finding = lab.found(nelbo.diagnose(lab.config(twice_squashed)), "output-range")
    assert "cannot reach" in finding.what
    assert "squashed into [0.5, 0.731]" in finding.evidence
    assert "100% of them are out of reach" in finding.evidence


def test_a_decoder_that_ends_in_a_sigmoid_is_out_of_reach(lab, healthy):
    """The likelihood is a Bernoulli on logits, as it should be; the weights show that the net squashed before it."""
    case = open_case(healthy, device="cpu")
    assert list(output_range(case)) == []
    case.model.decoder.append(torch.nn.Sigmoid())
    (finding,) = output_range(case)
    assert "squashed into [0.5, 0.731]" in finding.evidence


# --- the latent -------------------------------------------------------------------------------


def test_since_when_names_the_first_look_after_which_a_dimension_stayed_dead():
    logged = [(5, [0.5, 0.0, 0.3]), (10, [0.0, 0.0, 0.2]), (15, [0.2, 0.0, 0.001]), (20, [0.0, 0.0, 0.0])]
    assert (
        since_when(logged, [0, 1, 2])
        == "0 since epoch 20; 1 since the first look, after epoch 5; 2 since epoch 15"
    )
    assert since_when([], [0]) == ""
    assert listed([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


def silence(dimensions: list[int], latent_dim: int) -> Any:
    """Makes the encoder give exactly the prior in these dimensions."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        rows = [*dimensions, *(latent_dim + dimension for dimension in dimensions)]
        tensors["posterior.linear.weight"][rows] = 0.0
        tensors["posterior.linear.bias"][rows] = 0.0

    return change


def test_partial_collapse_names_its_dimensions_and_since_when(lab):
    """A model of six dimensions, five of which are silenced: one is left, and explains little."""
    run = lab.train(
        {"model.latent_dim": 6, "epochs": 9, "objective.beta": 0.2, "optimizer.lr": 3e-3, "latent_every": 1}
    )
    partly = lab.with_weights(run, silence([0, 1, 2, 4, 5], 6))

    def die_in_epoch_6(rows: list[dict[str, Any]]) -> None:
        for row in rows[5:]:
            row["train"]["reconstruction"] = 15.0  # no longer learning
            for dimension in (0, 1, 2, 4, 5):
                row["latent"]["kl_per_dimension"][dimension] = 0.0

    finding = lab.found(
        nelbo.diagnose(lab.with_history(partly, die_in_epoch_6), device="cpu"), "posterior-collapse"
    )
    assert finding.what.startswith("Partial posterior collapse")
    assert "1 of 6 latent dimensions are active" in finding.evidence
    assert finding.evidence.endswith("Dimensions 0-2, 4-5 since epoch 6")


def test_a_run_of_three_epochs_has_not_collapsed_but_not_learned_yet(lab):
    """One of two dimensions is inactive and nothing is explained, while every epoch still improves: train longer."""
    diagnosis = nelbo.diagnose(lab.train({"epochs": 3}), device="cpu")
    assert {f.check for f in diagnosis.findings} == {"kl-weight", "worse-than-a-fixed-image"}
    assert lab.found(diagnosis, "worse-than-a-fixed-image").remedy == "Train longer."


def test_pruned_dimensions_of_a_model_that_reconstructs_well_are_no_fault(lab):
    many = {
        "model.latent_dim": 8,
        "data.transforms": ["dynamic-binarise"],
        "epochs": 16,
        "objective.beta.epochs": 4,
    }
    run = lab.train(many | {"optimizer.lr": 3e-3})
    assert open_case(run, device="cpu").statistics.active_units <= 4
    assert nelbo.diagnose(run, device="cpu").findings == ()


def test_collapse_is_seen_in_the_history_alone(lab, digits):
    """A run on images from Python, which are gone: the doctor says what it could not look at."""
    sigma = {
        "model.likelihood": "gaussian",
        "model.likelihood.sigma": 5.0,
        "objective.beta": 1,
        "data.transforms": [],
    }
    run = lab.train({**sigma, "epochs": 4, "latent_every": 2}, data=digits[0])
    diagnosis = nelbo.diagnose(run, device="cpu")
    finding = lab.found(diagnosis, "posterior-collapse")
    assert "after epoch 4 0 of 2 latent dimensions were active" in finding.evidence
    assert finding.evidence.endswith("Dimensions 0-1 since the first look, after epoch 2")
    assert finding.command.startswith("nelbo.train(")
    assert "passed from Python" in diagnosis.not_looked_at["train-test-gap"]
    again = nelbo.diagnose(run, data=digits[0], device="cpu")
    assert "train-test-gap" in again.looked_at
    assert "on 288 test images" in lab.found(again, "posterior-collapse").evidence


# --- the history ------------------------------------------------------------------------------


def rising(rows: list[dict[str, Any]]) -> None:
    for i, row in enumerate(rows[-4:]):
        row["train"]["total"] += 2.0 * i


def spiking(rows: list[dict[str, Any]]) -> None:
    rows[9]["train"]["total"] += 5.0


def gone(rows: list[dict[str, Any]]) -> None:
    rows[7]["validation"]["bound"] = None


@pytest.mark.parametrize(("change", "what", "severity", "evidence"), [
    (rising, "ended higher", "serious", "in epoch 16, after"),
    (spiking, "jumped", "worth knowing", "in epoch 10"),
    (gone, "validation loss was not finite", "serious", "in epoch 8; in 1 of 16 epochs"),
])  # fmt: skip
def test_a_loss_that_went_wrong(lab, healthy, change, what, severity, evidence):
    finding = lab.found(nelbo.diagnose(lab.with_history(healthy, change), device="cpu"), "diverging")
    assert what in finding.what
    assert finding.severity == severity
    assert evidence in finding.evidence


def test_a_warm_up_is_no_divergence(lab, healthy):
    """While beta rises so does the loss; only epochs at one beta are compared."""
    rows = healthy.history()
    assert [row["beta"] for row in rows[:5]] == [0.25, 0.5, 0.75, 1.0, 1.0]

    def steep(rows: list[dict[str, Any]]) -> None:
        rows[0]["train"]["total"] = 1.0

    assert nelbo.diagnose(lab.with_history(healthy, steep), device="cpu").findings == ()


def test_a_run_that_failed_tells_and_forgets_when_it_goes_on(lab):
    run = lab.train({"epochs": 3, "optimizer.lr": 1e5, "model.posterior.parametrisation": "raw-sigma"})
    row = run.history("failed")[0]
    assert row["epoch"] == 1
    assert "is not finite" in row["why"]
    run.forget_after(0)
    assert run.history("failed") == []


# --- copies -----------------------------------------------------------------------------------


def test_nearest_leaves_out_the_row_itself():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.5]])
    index = torch.tensor([0, 2])
    assert nearest(rows[index], rows, index).tolist() == pytest.approx([5.0, 0.5])
    assert nearest(rows[index], rows).tolist() == pytest.approx([0.0, 0.0], abs=1e-3)


def test_new_rows_are_far_from_what_is_known_and_from_each_other():
    rows = torch.tensor([[0.0], [0.4], [1.0], [1.2], [1.6], [5.0]])
    assert new_rows(rows, torch.tensor([[5.1]]), 0.5) == [0, 2, 4]


def test_a_reencoded_copy_is_near_and_another_digit_is_not(digits):
    images = torch.from_numpy(digits[0])
    again = (
        images.float() + torch.randint(-2, 3, images.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, 255)
    diagnosis = nelbo.diagnose(
        {"train": torch.cat([images, again.to(torch.uint8)]).numpy(), "test": digits[1]}
    )
    evidence = next(f.evidence for f in diagnosis.findings if f.check == "repeated-images")
    assert "0 of 2,876 (0.0%) are exact copies" in evidence
    assert "1,000 of 1,000 (100.0%) are exact or near copies" in evidence
    assert 0 < NEAR < 0.05


# --- data -------------------------------------------------------------------------------------


def test_whole_numbers_up_to_16_are_made_right_by_the_advised_range(digits):
    dark = digits[0] // 16
    finding = next(f for f in nelbo.diagnose(dark).findings if f.check == "dark-images")
    assert "'data.range': [0.0, 15.0]" in finding.command
    splits: Splits = Data(source="python", range=(0, 15)).load(obj=dark)
    assert splits.train.pixels_NCHW.dtype == torch.uint8
    assert int(splits.train.pixels_NCHW.max()) == 255
    assert nelbo.diagnose(splits.train.pixels_NCHW).findings == ()
    with pytest.raises(nelbo.errors.DataError, match="whole numbers from 0 to 15"):
        Data(source="python", range=(0, 10)).load(obj=dark)


def test_the_prior_has_the_mass_in_a_box_that_is_said(lab):
    """Shares of two million draws from N(0, I_2) within the box that a tanh cannot leave."""
    config = lab.config({"model.posterior.parametrisation": "tanh"})
    evidence = lab.found(nelbo.diagnose(config), "bounded-mean").evidence
    z = StandardNormal().build(2).sample(2_000_000)
    share = float((z.abs() < 1).all(1).double().mean())
    assert f"{share:.0%}" == "47%"
    assert "46.6% of its mass" in evidence


def test_a_probability_of_levels_is_not_asked_about_numbers_between_them(lab, digits):
    file = lab.npz(images=digits[0] / 255.0 * 0.999, x_test=digits[1] / 255.0)
    levels = {"data.source": str(file), "data.transforms": [], "model.likelihood": "discretised-logistic"}
    finding = lab.found(nelbo.diagnose(lab.config(levels)), "pixels-outside-support")
    assert "256 levels of 8-bit images" in finding.evidence


def test_blank_after_binarising_is_put_down_to_the_transform(lab, digits):
    faint = (digits[0] // 4 + 150 * (np.arange(len(digits[0])) % 3 == 0)[:, None, None]).astype(np.uint8)
    file = lab.npz(images=faint, x_test=digits[1])
    finding = lab.found(nelbo.diagnose(lab.config({"data.source": str(file)})), "blank-images")
    assert "a transform made them so" in finding.remedy
    assert finding.command.endswith("--data.transforms none")


def test_images_are_named_by_their_files(lab, digits, tmp_path):
    """Blank, copied, leaked and unusual images: a name that can be opened, not a position in a shuffled split."""
    images, test = digits
    folder = tmp_path / "photos"
    odd = {
        "train/7.png": np.full_like(images[0], 80),
        "train/9.png": 255 - images[9],
        "train/12.png": images[3],
    }
    for split, some in (("train", images[:400]), ("test", test[:40])):
        (folder / split).mkdir(parents=True)
        for number, image in enumerate(some):
            name = f"{split}/{number}.png"
            leaked = images[30] if name in ("test/1.png", "test/2.png") else image
            Image.fromarray(odd.get(name, leaked).astype(np.uint8)).save(folder / name)
    for number in range(40, 60):
        (folder / f"train/{number}.png").write_bytes((folder / "train/12.png").read_bytes())
    for number in range(20, 26):
        (folder / f"train/{number + 200}.png").write_bytes((folder / "train/7.png").read_bytes())
    found = {finding.check: finding.evidence for finding in nelbo.diagnose(folder, kind="data").findings}
    # Sorted as the files are listed: 12 comes before 3.
    names = [f"train/{number}.png" for number in range(220, 225)]
    assert f"{', '.join(names)} and 2 more" in found["blank-images"]
    assert "(train/221.png = train/220.png, " in found["repeated-images"]
    assert "test/1.png = train/30.png, test/2.png = train/30.png" in found["leaked-images"]
    assert found["unusual-images"].endswith("train/9.png")
