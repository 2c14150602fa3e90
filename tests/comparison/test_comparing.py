"""`nelbo compare`: what a person reads, what a program reads, and where the picture goes."""

from __future__ import annotations

import html
import json
import re

import pytest

from nelbo.evaluation import labels
from nelbo.evaluation.comparison import compare, tables
from nelbo.metrics.bound import GREY
from nelbo.report.rendering import macros, sentence

BETA = {"objective.beta": 4.0}


@pytest.fixture
def six(made):
    for s in range(3):
        made(f"plain-s{s}", 20.0 + 0.1 * s, s)
        made(f"beta-s{s}", 21.0 + 0.1 * s, s, settings=BETA)
    return [f"{name}-s{s}" for name in ("plain", "beta") for s in range(3)]


def row_of(out, name):
    """The cells of the first row that begins with this name."""
    line = next(line for line in out.splitlines() if re.match(rf"{name}(\s\s|$)", line))
    return re.split(r"\s{2,}", line)[1:]


def table_of(out, title):
    """The lines under a title, up to an empty one."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    return "\n".join(lines[start:]).split("\n\n")[0]


def test_groups_differences_metrics_and_intervals_are_tables(nelbo, six):
    code, out, err = nelbo("compare", *six)
    assert (code, err) == (0, "")
    found = compare(six)
    assert out.startswith("test, n = 60 · best checkpoint · trained on ")
    label, runs, seeds = row_of(out, "A")[:3]
    assert (label, seeds) == ("plain (baseline)", "0, 1, 2")
    assert runs.startswith("plain-s0, plain-s1,")
    assert row_of(out, "objective.beta") == ["1", "4"]
    a, b, unit = row_of(table_of(out, "metrics: mean ± standard error over seeds, n = 3"), "NELBO")
    cells = found.metric("nelbo").cells
    assert unit == "nats/image"
    for text, cell, mark in ((a, cells["A"], " *"), (b, cells["B"], "")):
        mean, error = map(float, text.removesuffix(mark).split(" ± "))
        assert mean == pytest.approx(cell.mean, abs=6e-3)
        assert error == pytest.approx(cell.standard_error, abs=6e-3)
        assert text.endswith(" *") == bool(mark)
    one = next(one for one in found.paired if one.metric == "nelbo")
    difference, images, seeds, words = row_of(table_of(out, "B - A: beta 4"), "NELBO")
    assert float(difference) == pytest.approx(one.value, abs=6e-3)
    for text, interval in ((images, one.over_images), (seeds, one.over_seeds)):
        assert json.loads(text.replace("+", "")) == pytest.approx([interval.low, interval.high], abs=6e-3)
    assert words == "lower is better"
    for note in (tables.OVER_IMAGES, tables.OVER_SEEDS, "*: better than every other comparable group"):
        assert note in out
    assert "warning" not in out
    assert max(map(len, out.splitlines())) <= 110


def test_the_picture_lies_beside_the_runs_and_its_path_is_printed(nelbo, six, tmp_path):
    code, out, _ = nelbo("compare", *six)
    (file,) = (tmp_path / "runs" / "comparisons").glob("*/rate-distortion.png")
    assert code == 0
    assert out.splitlines()[-1].strip() == str(file.relative_to(tmp_path))
    assert file.read_bytes().startswith(b"\x89PNG")
    assert nelbo("compare", *six)[1] == out
    nelbo("compare", *six[:5])
    assert len(list((tmp_path / "runs" / "comparisons").iterdir())) == 2


@pytest.mark.parametrize(("name", "magic"), [("a.PDF", b"%PDF"), ("deep/a.svg", b"<?xml")])
def test_out_names_the_picture(name, magic, nelbo, six, tmp_path):
    code, out, _ = nelbo("compare", *six[:2], "--out", name)
    assert (code, out.splitlines()[-1].strip()) == (0, name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert not (tmp_path / "runs" / "comparisons").exists()


def test_json_is_one_object_with_everything(nelbo, six, tmp_path):
    code, out, err = nelbo("compare", *six, six[0], "--json")
    assert (code, err) == (0, f"left out {six[0]}: was given twice\n")
    table = json.loads(out)
    assert out.count("\n") == 1
    assert (tmp_path / table.pop("figure")).is_file()
    assert table.pop("figure_note") == ""
    assert table == json.loads(json.dumps(compare([*six, six[0]]).to_dict()))


def test_single_runs_say_that_they_know_nothing_of_another_seed(nelbo, made):
    made("a")
    made("b", 25.0, settings=BETA)
    out = nelbo("compare", "a", "b")[1]
    assert "±" not in out
    assert row_of(table_of(out, "B - A"), "NELBO")[2] == "-"
    assert row_of(out, "NELBO")[0].endswith(" (*)")
    assert "one run in A and B: no spread over seeds, nothing is known of another seed" in out
    assert "(*): these weights are better on such images; another seed may not be" in out


def test_the_kind_of_log_px_and_k_are_stated(nelbo, made):
    grey = {"samples": 50}
    iw = {"likelihood": GREY, "sections": {"importance": ("iw_nll",)}, "values": {"iw_nll": 1.0}}
    made("a", card=grey, **iw)
    made("b", settings=BETA, card=grey, **iw)
    made("c", settings=BETA, seed=1, card=grey | {"samples": 500}, **iw)
    out = nelbo("compare", "a", "b")[1]
    assert "log p(x | z) in A and B: cross-entropy of pixels between black and white: not a likelihood" in out
    assert row_of(out, r"IW NLL \(K = 50\)")
    out = nelbo("compare", "a", "b", "c")[1]
    assert row_of(out, r"IW NLL \(K = differs\)")
    assert "warning: K is 50 in A, [50, 500] in B" in out


def test_what_cannot_be_compared_is_marked_and_explained(nelbo, made):
    made("a")
    made("b", settings=BETA, likelihood=GREY)
    made("c", settings={"optimizer.lr": 0.5}, values={"nelbo": None, "kl": None},
         missing={"nelbo": ("not a bound", "shared noise"), "kl": ("infinite", "shared noise")})  # fmt: skip
    out = nelbo("compare", "a", "b", "c")[1]
    cells = row_of(out, "NELBO")
    assert cells[1].endswith(" †")
    assert cells[2] == "not a bound"
    assert not any("†" in cell for cell in row_of(out, "MSE"))
    assert "NELBO" not in table_of(out, "B - A")
    assert "MSE" in table_of(out, "B - A")
    assert "†: not comparable with A; the warnings say why" in out
    assert out.count("warning: ") == 2
    assert "warning: log p(x | z) is not the same kind of number" in out


@pytest.mark.parametrize("columns", [70, 110])
def test_more_groups_than_fit_go_into_several_tables_each_with_the_baseline(
    columns, nelbo, made, monkeypatch
):
    for i in range(12):
        made(f"run{i}", settings={"optimizer.lr": 0.01 * (i + 1)})
    monkeypatch.setenv("COLUMNS", str(columns))
    out = nelbo("compare", *(f"run{i}" for i in range(12)))[1]
    heads = [line.split()[1:-1] for line in out.splitlines() if re.match(r"metric\s+A ", line)]
    assert len(heads) > 1
    assert [head[0] for head in heads] == ["A"] * len(heads)
    assert [name for head in heads for name in head[1:]] == list("BCDEFGHIJKL")
    metrics = table_of(out, "metrics")
    assert "…" not in metrics
    assert max(map(len, metrics.splitlines())) <= columns


def test_one_configuration_alone_is_a_table_of_means(nelbo, made):
    for s in range(3):
        made(f"run-s{s}", 20.0 + s, s)
    code, out, err = nelbo("compare", "run-s0", "run-s1", "run-s2")
    assert (code, err) == (0, "")
    assert "configuration" not in out
    assert "95 %" not in out
    assert "±" in row_of(out, "NELBO")[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name them, as in nelbo compare RUN RUN"),
        (["a"], "there is only a"),
        (["a", "bb"], "did you mean 'b'"),
        (["a", "b", "--out", "plot.jpg"], "--out plot.jpg: expected a file that ends in .png, .pdf, .svg"),
        (["a", "b", "--out", "runs/a/config.toml/x.png"], "is a file"),
        (["a", "b", "--metrics", "bond"], "no metric is called 'bond'"),
        (["a", "b", "--split", "tset"], "no split is called 'tset'"),
        (["a", "b", "--samples", "-3"], "samples must be 0 or more"),
    ],
)
def test_wrong_usage_is_one_message_and_2(arguments, says, nelbo, made, tmp_path):
    made("a")
    made("b", settings=BETA)
    code, out, err = nelbo("compare", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert not (tmp_path / "runs" / "comparisons").exists()


def test_a_mistake_with_json_is_one_object_too(nelbo):
    code, out, _ = nelbo("compare", "nope", "--json")
    assert (code, json.loads(out)["exit_code"]) == (2, 2)


def test_without_a_plane_the_reason_is_said(nelbo, made):
    for name, settings in (("a", {}), ("b", BETA)):
        run = made(name, settings=settings)
        file = "evaluation/test-best-k0.json"
        card = run.read_json(file)
        card["sections"] = {"error": ["mse"]}
        card["metrics"] = {"mse": card["metrics"]["mse"]}
        run.write_json(file, card)
    code, out, err = nelbo("compare", "a", "b")
    assert (code, err) == (0, "no rate-distortion plane: the cards hold no bound (--metrics bound)\n")
    table = json.loads(nelbo("compare", "a", "b", "--json")[1])
    assert (table["figure"], table["figure_note"]) == (None, err.strip())
    assert "MSE" in out


def test_what_is_measured_is_said_while_it_is(nelbo, made):
    runs = [made("a"), made("b", settings=BETA)]
    (runs[1].path / "evaluation" / "test-best-k0.json").unlink()
    err = nelbo("compare", "a", "b")[2]
    assert err.startswith("measuring bound, latent, error of b\n")


@pytest.mark.parametrize(("error", "digits"), [(12.3, 0), (1.23, 1), (0.123, 2), (0.0099, 4), (1e-12, 8)])
def test_two_digits_of_an_error_are_shown(error, digits):
    assert labels.decimals(error) == digits


def test_long_names_are_broken_not_cut(nelbo, made):
    names = [f"{'a-long-name-of-a-run-' * 3}{i}" for i in range(2)]
    made(names[0])
    made(names[1], settings=BETA)
    out = nelbo("compare", *names)[1]
    assert "…" not in out
    assert "run-0" in re.sub(r"\s", "", out)


def test_a_terminal_and_a_page_show_the_same_words(nelbo, six, monkeypatch):
    """Both are written from one model: each cell, caption, head and note of it is in each."""
    monkeypatch.setenv("COLUMNS", "400")  # nothing is folded
    out = " ".join(nelbo("compare", *six)[1].split())
    compared = compare(six)
    shared = [tables.groups(compared), tables.configuration(compared), tables.metrics(compared)]
    for table in [*shared, *tables.paired(compared)]:
        page = html.unescape(re.sub(r"<[^>]+>", " ", macros("parts").table(table)))
        page = " ".join(page.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-").split())
        cells = [cell for section in table.sections for row in section.rows for cell in row.cells]
        assert len(cells) >= 3
        for words in [table.caption, *table.heads, *table.notes, *(cell.text for cell in cells)]:
            assert words in out
            assert sentence(words) in page or words in page


def test_a_narrow_terminal_leaves_out_what_a_further_table_shows(nelbo, made, monkeypatch):
    made("a")
    made("b", settings=BETA)
    made("c", settings={"optimizer.lr": 0.5}, sections={"error": ("mse",)})
    monkeypatch.setenv("COLUMNS", "400")
    wide = nelbo("compare", "a", "b", "c")[1]
    monkeypatch.setenv("COLUMNS", "40")
    narrow = nelbo("compare", "a", "b", "c")[1]
    assert len(re.findall(r"^metric +A ", wide, re.MULTILINE)) == 1
    assert len(re.findall(r"^metric +A ", narrow, re.MULTILINE)) == 2
