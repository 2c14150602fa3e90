"""Values as a notebook shows them, by the real formatters of IPython."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure

import nelbo
from nelbo import pictures
from nelbo.core import registry
from nelbo.errors import ConfigError, RunError, UnknownName
from nelbo.training.store import Run

# --- figures ----------------------------------------------------------------------------------


def test_a_picture_is_a_figure_or_a_list_of_them_and_nothing_is_written(run_copy: Run):
    before = sorted(run_copy.path.rglob("*"))
    figure = nelbo.plot(run_copy, "scatter", checkpoint="first", split="validation", device="cpu")
    assert isinstance(figure, Figure)
    assert "first" in figure.get_suptitle()
    assert "validation" in figure.get_suptitle()
    several = nelbo.plot(run_copy, "kl", device="cpu")
    assert isinstance(several, list)
    assert len(several) == 2
    assert all(isinstance(one, Figure) for one in several)
    assert sorted(run_copy.path.rglob("*")) == before


def test_a_picture_of_new_images_says_so(tiny_run: Run):
    shape = tiny_run.read_json("env.json")["data"]["shape"][1:]
    images = np.random.RandomState(0).randint(0, 256, (30, *shape)).astype(np.uint8)
    figure = nelbo.plot(tiny_run, "scatter", data=images, device="cpu")
    assert isinstance(figure, Figure)
    assert "test" not in figure.get_suptitle()


def test_wrong_names_are_refused_with_the_nearest(tiny_run: Run, tmp_path: Path):
    with pytest.raises(UnknownName, match="scatter"):
        nelbo.plot(tmp_path / "no-run", "scater")  # before the run is opened
    with pytest.raises(RunError, match="best"):
        nelbo.plot(tiny_run, "scatter", checkpoint="bst", device="cpu")
    with pytest.raises(ConfigError, match="validation"):
        nelbo.plot(tiny_run, "scatter", split="validaton", device="cpu")


@pytest.mark.parametrize("inline", [False, True])
def test_a_notebook_shows_a_figure_once(tiny_run: Run, inline: bool):
    """By itself, or by what `%matplotlib inline` registers, which shows all that pyplot knows at a cell's end."""
    formatters = pytest.importorskip("IPython.core.formatters")
    formatter = formatters.DisplayFormatter()
    if inline:
        formatter.formatters["image/png"].for_type(Figure, lambda figure: b"inline")
    figure = nelbo.plot(tiny_run, "scatter", device="cpu")
    shown = formatter.format(figure)[0]["image/png"]
    assert shown == b"inline" if inline else shown.startswith(b"\x89PNG")
    assert Gcf.get_all_fig_managers() == []


def test_an_animation_alone_is_refused_with_the_line_that_writes_it(tiny_run: Run):
    with registry.temporary():

        @pictures.picture(group="walks")
        def moving(view):
            yield "moving", b"GIF89a"

        with pytest.raises(ConfigError, match=r"nelbo plot .*tiny moving"):
            nelbo.plot(tiny_run, "moving", device="cpu")
