"""Priors p(z): specs and the modules that they build."""

from nelbo.priors.autoregressive import AutoregressivePrior
from nelbo.priors.base import Prior
from nelbo.priors.categorical import CategoricalPrior
from nelbo.priors.exemplar import Exemplar
from nelbo.priors.joint import JointPrior
from nelbo.priors.learned_normal import LearnedNormal
from nelbo.priors.maf import MAF
from nelbo.priors.mixture import Mixture
from nelbo.priors.real_nvp import RealNVP
from nelbo.priors.standard_normal import StandardNormal
from nelbo.priors.uniform_sphere import UniformSphere
from nelbo.priors.vamp import Vamp
from nelbo.priors.wrapped_normal import WrappedNormalPrior

__all__ = [
    "MAF",
    "AutoregressivePrior",
    "CategoricalPrior",
    "Exemplar",
    "JointPrior",
    "LearnedNormal",
    "Mixture",
    "Prior",
    "RealNVP",
    "StandardNormal",
    "UniformSphere",
    "Vamp",
    "WrappedNormalPrior",
]
