"""Pages that list something list all of it: errors and warnings, environment variables."""

import ast
import pickle
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped] # because its stubs are a package of their own

import dagsterpipes
from dagsterpipes import (
    ChannelError,
    ContextError,
    LaunchParamsError,
    MessagesLostError,
    exceptions,
)

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "dagsterpipes"
ERRORS = (DOCS / "errors.md").read_text()
ERROR_CLASSES = [name for name in exceptions.__all__ if name.endswith("Error")]
# Texts of InvalidReportError are the ends of sentences; the page tells how these begin.
QUOTED_CLASSES = [name for name in ERROR_CLASSES if name != "InvalidReportError"]
# A wrong use of the command line is explained there; its options are in its reference.
OF_THE_COMMAND_LINE = {SOURCE / "cli", SOURCE / "_reader" / "launch.py"}


def words(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def pieces(node: ast.expr | None, function: ast.AST) -> list[str]:
    """The constant parts of a text, at most a sentence each."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.split(r"(?<=[.:;]) ", node.value)
    if isinstance(node, ast.JoinedStr):
        return [piece for value in node.values for piece in pieces(value, function)]
    if isinstance(node, ast.BinOp):
        return pieces(node.left, function) + pieces(node.right, function)
    if isinstance(node, ast.Name):  # a variable of the same function
        return [
            piece
            for found in ast.walk(function)
            if isinstance(found, ast.Assign) and ast.unparse(found.targets[0]) == node.id
            for piece in pieces(found.value, function)
        ]
    return []


def texts() -> Iterator[tuple[str, str]]:
    """Where an error or a warning is made, and how its text begins."""
    calls = {*QUOTED_CLASSES, "warnings.warn", "self._warnings.append"}
    for path in sorted(SOURCE.rglob("*.py")):
        if OF_THE_COMMAND_LINE & {path, *path.parents}:
            continue
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for function in functions:
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func) in calls and call.args:
                    found = pieces(call.args[0], function)
                    told = [words(piece).rstrip(".:;") for piece in found if len(piece) >= 8]
                    if told:
                        yield f"{path.relative_to(SOURCE)}:{call.lineno}", told[0]


TEXTS = dict(texts())


def test_texts_of_errors_and_warnings_are_found() -> None:
    """The search finds what it is for."""
    found = set(TEXTS.values())
    assert len(found) > 50
    assert "Dagster did not launch this process (DAGSTER_PIPES_CONTEXT is not set)" in found
    assert "dropped because the buffer was full" in found
    assert "closing the Dagster Pipes session failed" in found


@pytest.mark.parametrize("where", TEXTS)
def test_the_page_of_errors_has_every_text(where: str) -> None:
    """Of every error that the library raises, and of every warning."""
    assert TEXTS[where] in words(ERRORS)


@pytest.mark.parametrize("name", exceptions.__all__)
def test_the_page_of_errors_has_every_class(name: str) -> None:
    """By its name, as a traceback shows it."""
    assert f"`{name}`" in ERRORS


def test_the_page_of_errors_quotes_what_there_is() -> None:
    """What is quoted as a text is in the source: a text that was changed is changed there too."""
    source = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    plain = words(re.sub(r'"\s+f?"', "", source))
    for row in re.findall(r"^\| (.*?) \|", ERRORS, re.MULTILINE):
        for quoted in re.findall(r"`` (.*?) ``|`([^`]*)`", row):
            for part in "".join(quoted).split("…"):
                text = words(part).strip(" .:")
                if len(text) > 3 and not hasattr(dagsterpipes, text):
                    assert text in plain or text in {"TypeError", "ResourceWarning"}, text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
@pytest.mark.parametrize(
    "error",
    [LaunchParamsError("a"), ContextError("a"), ChannelError("a"), MessagesLostError(1, None, "a")],
    ids=repr,
)
def test_errors_of_the_surroundings_name_their_page(error: Exception) -> None:
    """Below the text in a traceback, also after a way through pickle; never in the text itself."""
    again = pickle.loads(pickle.dumps(error))
    for one in (error, again):
        shown = "".join(traceback.format_exception_only(one))
        assert shown.splitlines()[-1] == f"What to do: {exceptions.PAGE}"
        assert exceptions.PAGE not in str(one)


def test_the_page_of_errors_is_where_errors_say() -> None:
    """The address of the documentation is that of the package's metadata."""
    settings = (ROOT / "pyproject.toml").read_text()
    assert f'Documentation = "{exceptions.PAGE.removesuffix("errors.html")}"' in settings


def test_every_variable_of_ours_is_listed() -> None:
    """The reference names each environment variable that the library reads or sets."""
    reference = (DOCS / "reference" / "session.md").read_text()
    names = {
        name
        for path in SOURCE.rglob("*.py")
        for name in re.findall(r"DAGSTERPIPES_[A-Z_]*[A-Z]", path.read_text())
    }
    assert len(names) >= 4
    assert not {name for name in names if f"`{name}`" not in reference}


def test_specifications_in_yaml_are_yaml() -> None:
    """Nothing runs them here; at least they can be parsed."""
    blocks = [
        block
        for page in DOCS.rglob("*.md")
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert len(blocks) >= 2
    for block in blocks:
        assert isinstance(yaml.safe_load(block), dict)
