"""Output that is not UTF-8: every verb ends with 0, and its output is ASCII with stand-ins."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from nelbo.cli import main, streams
from nelbo.cli.streams import STAND_INS, stand_in


@pytest.fixture
def ascii_output(monkeypatch):
    """Runs a command line whose stdout and stderr take ASCII alone: (code, stdout, stderr), both as bytes."""

    def run(*arguments: object) -> tuple[int, bytes, bytes]:
        out, err = (
            io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors) for errors in ("strict", "strict")
        )
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        code = main([str(argument) for argument in arguments])
        out.flush()
        err.flush()
        return code, out.buffer.getvalue(), err.buffer.getvalue()

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "tiny", "--samples", 0, "--metrics", "bound"), b"+-"),
        (("samplers", "tiny", "--samplers", "prior"), b"+-"),
        (("list", "objective"), b"objective"),
        (("recipes",), b"digits"),
    ],
)
def test_verbs_write_ascii(arguments, words, ascii_output, nelbo, run_copy):
    code, out, err = ascii_output(*arguments)
    assert code == 0, err
    assert words in out
    (out + err).decode("ascii")


def test_training_and_comparing_write_ascii(ascii_output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = (
        "--epochs",
        1,
        "--encoder.hidden",
        "8,",
        "--decoder.hidden",
        "8,",
        "--device",
        "cpu",
        "--no-figures",
    )
    code, out, err = ascii_output("train", "digits", *tiny, "--seeds", "0:2", "--name", "café")
    assert code == 0, err
    assert b"mean of 2" in out
    assert b"+-" in out
    assert b"cafe-s0" in out
    code, out, err = ascii_output("compare", "café-s0", "café-s1")
    assert code == 0, err
    (out + err).decode("ascii")


@pytest.mark.parametrize("environment", [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
])  # fmt: skip
def test_a_process_writes_ascii(environment):
    text = ascii("1 ± 2 · é 中")  # escapes: the command line itself is read in this locale too
    code = f"import sys; from nelbo.cli import streams; streams.make_safe(); print({text}); sys.stderr.write('\\u03b2')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [b"1", b"+-", b"2", b"-", b"e", b"\\u4e2d"]
    assert done.stderr.strip() == b"beta"


def test_what_an_encoding_has_stays_and_a_name_that_is_no_text_too(monkeypatch):
    for encoding, text, expected in [
        ("utf-8", "± é 中", "± é 中".encode()),
        ("latin-1", "± é … 中", b"\xb1 \xe9 ... \\u4e2d"),
        ("ascii", "a\udcffb", b"a\xffb"),
        ("utf-8", "a\udcffb", b"a\xffb"),
    ]:
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        streams.make_safe()
        out.write(text)
        out.flush()
        assert out.buffer.getvalue() == expected


def test_a_choice_of_the_user_stays(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # as a notebook's, which has no encoding
    streams.make_safe()
    out.write("±")
    out.flush()
    assert out.buffer.getvalue() == b"?"


def test_every_stand_in_is_ascii():
    assert all(text.isascii() and text for text in STAND_INS.values())
    assert (stand_in("ö"), stand_in("Å"), stand_in("ﬁ")) == ("o", "A", "fi")
