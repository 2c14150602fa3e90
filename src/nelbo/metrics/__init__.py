"""Metrics: a built model and a split of the data in, named values out."""

from nelbo.metrics.base import Metric, Missing, Number, Split, Value, exactly, metric
from nelbo.metrics.bound import Means, bound_of, quantities, sums
from nelbo.metrics.latent import LatentStatistics, LatentSums, latent_statistics

__all__ = [
    "LatentStatistics",
    "LatentSums",
    "Means",
    "Metric",
    "Missing",
    "Number",
    "Split",
    "Value",
    "bound_of",
    "exactly",
    "latent_statistics",
    "metric",
    "quantities",
    "sums",
]
