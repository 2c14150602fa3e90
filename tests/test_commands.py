"""Every command that a message prints: its verb, flags, fields and names exist, its paths are quoted, and it runs.

The source is read, so that a message that no test provokes is held too.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nelbo.cli.overview import verbs
from nelbo.cli.parsing import load, parse
from nelbo.core.config import field_types
from nelbo.core.registry import HOMES, lookup, names
from nelbo.core.spec import Spec, kebab, options_of
from nelbo.training.recipe import SHORT, Recipe, in_full

SOURCE = Path(__file__).parent.parent / "src" / "nelbo"
FILLED = "X"  # in place of what an f-string would show
PROSE = {"in", "and", "measured", "do", "trained", "X", "XX", "VERB", "hello"}
"""Words that follow `nelbo` in a sentence, or stand for a verb."""
FOREIGN = {"porcelain", "short", "error-unmatch", "help", "version", "field", "overrides", "X"}
"""Flags of git, of the whole command line, and of examples."""
ATTRIBUTES = {
    "model.train",
    "model.shape",
    "model.safetensors",
    "model.observe_training_images",
    "model.refresh",
}
"""Names with a dot that are Python or files."""
SAFE = re.compile(
    r"quote|quoted|join|FOR_FOLDERS|\{run\}|verb|imports|flags|action|\{name\}|entry\.usage|__version__|words"
)
"""Placeholders of a command that are quoted, or are names of the project's own."""
COMMAND = re.compile(r"\bnelbo ([a-z][\w-]*)([^`\n;()]*)")
FLAG = re.compile(r"(?<![\w-])--([a-zA-Z][\w.-]*)(?: ([a-z][\w-]*)\b(?![.(/=,]\w))?")
FIELD = re.compile(r"(?<![\w./-])(?:data|model|objective|optimizer)\.[a-z_][\w.-]*")


TREES = {
    file: list(ast.walk(ast.parse(file.read_text(encoding="utf-8")))) for file in sorted(SOURCE.rglob("*.py"))
}
TEMPLATES = [
    (file.name, node) for file, nodes in TREES.items() for node in nodes if isinstance(node, ast.JoinedStr)
]
"""The f-strings of the source."""


def texts() -> Iterator[tuple[str, str]]:
    """Every text of the source with its file, docstrings among them; placeholders of f-strings are filled."""
    parts = {id(value) for _, node in TEMPLATES for value in node.values}
    for file, node in TEMPLATES:
        words = [value.value if isinstance(value, ast.Constant) else FILLED for value in node.values]
        yield file, "".join(map(str, words))
    for path, nodes in TREES.items():
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                yield path.name, node.value


TEXTS = list(texts())


def flags_of(verb: str) -> set[str]:
    return {kebab(name.rstrip("_")) for name in load(verb).__dataclass_fields__} | {"help"}


def annotations(cls: type[Spec], path: list[str]) -> list[object]:
    """The annotation of the field at a path in every class that may stand there; `X` stands for any field."""
    head, deeper = path[0], path[1:]
    result: list[object] = []
    for one in [lookup(cls.axis, name) for name in names(cls.axis)] if cls.is_abstract() else [cls]:
        for field, info in one.model_fields.items():
            if head not in (field, kebab(field)) and FILLED not in head:
                continue
            specs = [option for option in options_of(info.annotation) if inspect.isclass(option)]
            specs = [option for option in specs if issubclass(option, Spec)]
            result += (
                [each for option in specs for each in annotations(option, deeper)]
                if deeper
                else [info.annotation]
            )
    return result


def exists(field: str) -> bool:
    """True for a field of a recipe, by its dotted name or a short one, and for one of a sampler."""
    path = in_full(field.rstrip(".").replace("-", "_")).split(".")
    if kebab(path[0]) == "sampler" or kebab(path[0]) in names("sampler"):
        chosen = names("sampler") if path[0] == "sampler" else [kebab(path[0])]
        return len(path) == 1 or any(path[1] in lookup("sampler", name).model_fields for name in chosen)
    return bool(annotations(Recipe, path))


def test_the_collection_is_not_empty():
    assert len(WHOLE) > 10
    commands = [match[1] for _, text in TEXTS for match in COMMAND.finditer(text)]
    assert len(commands) > 50
    assert {"train", "evaluate", "sample", "samplers", "compare", "data", "doctor", "report", "list"} <= set(
        commands
    )
    assert sum(bool(FLAG.search(text)) for _, text in TEXTS) > 100
    assert not exists("objective.betta")
    assert not exists("nothing")
    assert exists("sampler.components")


def test_every_verb_exists():
    wrong = {
        (file, match[0]) for file, text in TEXTS for match in COMMAND.finditer(text)
        if match[1] not in verbs() and match[1] not in PROSE
    }  # fmt: skip
    assert wrong == set()


def test_every_flag_exists():
    every = set().union(*map(flags_of, verbs())) | FOREIGN
    wrong = {
        (file, flag) for file, text in TEXTS for flag, _ in FLAG.findall(text)
        if flag.rstrip(".") not in every and not exists(flag)
    }  # fmt: skip
    assert wrong == set()


def test_every_flag_is_one_of_its_verb():
    wrong = set()
    for file, text in TEXTS:
        for verb, words in COMMAND.findall(text):
            if verb not in verbs():
                continue
            for flag, _ in FLAG.findall(words.split(" nelbo ")[0]):
                of_the_recipe = verb == "train" and exists(flag)
                of_a_sampler = verb in ("sample", "samplers") and "." in flag and exists(flag)
                if (
                    flag not in flags_of(verb)
                    and not of_the_recipe
                    and not of_a_sampler
                    and FILLED not in flag
                ):
                    wrong.add((file, verb, flag))
    assert wrong == set()


def test_every_field_exists():
    dotted = {(file, field.rstrip(".-")) for file, text in TEXTS for field in FIELD.findall(text)}
    assert len(dotted) > 50
    assert {(file, field) for file, field in dotted if field not in ATTRIBUTES and not exists(field)} == set()


def test_every_name_after_a_flag_exists():
    """`--objective elbo`, `--model.posterior categories`: the name of an entry of the axis."""
    wrong, checked = set(), 0
    for file, text in TEXTS:
        for flag, value in FLAG.findall(text):
            kinds = (
                annotations(Recipe, in_full(flag.rstrip(".").replace("-", "_")).split("."))
                if exists(flag)
                else []
            )
            specs = [
                one
                for kind in kinds
                for one in options_of(kind)
                if inspect.isclass(one) and issubclass(one, Spec)
            ]
            axes = {one.axis for one in specs if one.is_abstract()}
            if value and axes:
                checked += 1
                known = {name for axis in axes for name in names(axis)} | {
                    "none",
                    "is",
                    "and",
                    "takes",
                    "must",
                }
                wrong |= {(file, flag, value)} - {(file, flag, value) for name in known if name == value}
    assert checked > 5
    assert wrong == set()


def test_paths_and_names_in_commands_are_quoted():
    """A run folder may be called `my runs/a`: printed as it is, the command would name two."""
    wrong, checked = [], 0
    for file, node in TEMPLATES:
        text = ""
        for value in node.values:
            if isinstance(value, ast.Constant):
                text += str(value.value)
                continue
            start = text.rfind(
                "nelbo "
            )  # only words of the command so far, and no sentence that goes on behind it
            if start >= 0 and re.fullmatch(rf"nelbo ({'|'.join(verbs())})( [\w.,'-]+)* ", text[start:]):
                checked += 1
                if not SAFE.search(ast.unparse(value)):
                    wrong.append(f"{file}:{node.lineno} {ast.unparse(value)}")
            text += FILLED
    assert checked >= 8
    assert wrong == []


WHOLE = sorted({
    match[1].strip(" .,:") for _, text in TEXTS
    for match in re.finditer(r"(?:[`:]|  )\s?(nelbo [a-z]+(?: (?:--)?[\w./:-]+)*)(?=[`\n]|$)", text)
})  # fmt: skip


@pytest.mark.parametrize(
    "line", [line for line in WHOLE if line.split()[1] in verbs() and len(line.split()) > 2]
)
def test_a_whole_command_parses(line):
    verb, *words = shlex.split(line)[1:]
    parse(verb, words)


@pytest.mark.parametrize("axis", sorted(re.findall(r"nelbo list (\w+)", " ".join(text for _, text in TEXTS))))
def test_a_list_that_is_named_is_one(axis):
    assert axis in HOMES or axis.removesuffix("s") in HOMES


# --- run as printed ---------------------------------------------------------------------------


def printed(text: str) -> list[list[str]]:
    """The command lines in a text: from `nelbo VERB` to the end of the line, or to a full stop or a semicolon."""
    return [
        shlex.split(match[0])[1:]
        for match in re.finditer(rf"nelbo (?:{'|'.join(verbs())})(?:[^.;\n]|\.(?=\S))*", text)
    ]


def test_what_training_and_samplers_print_runs_from_a_folder_with_a_space(nelbo):
    code, out, err = nelbo(
        "train", "digits", "--epochs", 1, "--encoder.hidden", "8,", "--decoder.hidden", "8,", "--device", "cpu",
        "--no-figures", "--runs", "my runs", "--name", "a b", "--data.validation", 0,
    )  # fmt: skip
    assert code == 0, err
    (command,) = printed(out)
    assert command == ["evaluate", "my runs/a b"]
    assert nelbo(*command, "--samples", 0, "--metrics", "bound")[0] == 0
    code, _, err = nelbo("samplers", "a b", "--runs", "my runs")
    assert code == 2
    (command,) = printed(err)
    assert nelbo(*command, "-n", 1)[0] == 0
    _, _, err = nelbo("sample", "a b", "--runs", "my runs", "--sampler", "chosen")
    assert "nelbo samplers 'my runs/a b' measures them" in err
    _, _, err = nelbo("compare", "a b", "--runs", "my runs")
    (command,) = printed(err)
    assert command == ["evaluate", "my runs/a b", "--compare-first"]


def test_what_a_refusal_of_a_recipe_prints_runs(nelbo, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "my, data.npy", pixels)
    code, _, err = nelbo("train", "digits", "--data", "my, data.npy")
    assert code == 2
    (command,) = printed(err)
    assert nelbo(*command, "--dry-run")[0] == 0
    ways_out = re.findall(r"--data\.transforms \w+", err)
    assert len(ways_out) == 2
    for way_out in ways_out:
        assert nelbo("train", "digits", "--data", "my, data.npy", *way_out.split(), "--dry-run")[0] == 0


def test_short_names_are_written_out_alike():
    assert all(exists(name) and exists(whole) for name, whole in SHORT.items())
    assert field_types(Recipe, ["epochs"]) == [int]
