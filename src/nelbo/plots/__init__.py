"""Values in, matplotlib figures out.

Arrays and plain Python values come in; a `matplotlib.figure.Figure`, an array or encoded bytes go
out. Nothing here knows a model, and pyplot's global state is never touched: a figure is freed when
the caller lets go of it. Images are arrays (..., H, W, C) in [0, 1] with C = 1 or 3.
"""

import nelbo.plots.backend  # noqa: F401  # first: it imports matplotlib
from nelbo.plots.curves import epoch_curves, step_curve
from nelbo.plots.dimensions import kl_heatmap, kl_per_dimension, posterior_statistics
from nelbo.plots.estimates import estimate_curve
from nelbo.plots.factors import factor_table
from nelbo.plots.grid import image_grid, manifold, rows, side_by_side
from nelbo.plots.images import gif_bytes, montage, png_bytes, to_uint8
from nelbo.plots.latent import project, scatter, two_scatters
from nelbo.plots.rate_distortion import rate_distortion
from nelbo.plots.style import PlotError, class_colours

__all__ = [
    "PlotError",
    "class_colours",
    "epoch_curves",
    "estimate_curve",
    "factor_table",
    "gif_bytes",
    "image_grid",
    "kl_heatmap",
    "kl_per_dimension",
    "manifold",
    "montage",
    "png_bytes",
    "posterior_statistics",
    "project",
    "rate_distortion",
    "rows",
    "scatter",
    "side_by_side",
    "step_curve",
    "to_uint8",
    "two_scatters",
]
