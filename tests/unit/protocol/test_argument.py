"""Places: how an error says where a value stands."""

from __future__ import annotations

import pytest

from dagsterpipes._protocol.argument import Argument
from dagsterpipes.exceptions import DagsterPipesError, InvalidReportError
from support.doubles import PrintedText, Raising

ARGUMENT = Argument("m", "p")


def test_paths() -> None:
    """A path reads as one would write it; long keys are cut."""
    assert ARGUMENT.at("rows").at(3, None).error("is odd", 5).path == "['rows'][3][None]"
    assert ARGUMENT.at("x" * 100).error("is odd", 5).path == "['" + "x" * 38 + "…]"


def test_the_path_of_a_value_that_is_fine() -> None:
    """It is never spelled out: a key is asked for its repr only by an error."""
    argument = ARGUMENT.at(Raising())
    with argument.wrap_errors("v"):
        argument.text("fine")
    assert argument.error("is odd", 5).path == "[<Raising with a failing repr()>]"


def test_errors() -> None:
    """The error has everything that is known."""
    error = ARGUMENT.at(0).error("is odd", 5)
    assert isinstance(error, InvalidReportError)
    assert (
        error.method,
        error.parameter,
        error.path,
        error.problem,
        error.got,
    ) == ("m", "p", "[0]", "is odd", 5)


def test_texts() -> None:
    """A text is a str of its characters; anything else is an error."""
    text = ARGUMENT.text(PrintedText("a"))
    assert type(text) is str
    assert text == "a"
    with pytest.raises(InvalidReportError, match=r"^m\(\): p must be a str; got 5 of type int$"):
        ARGUMENT.text(5)


def test_reading() -> None:
    """What a value raises becomes our error; our own errors and interrupts pass."""
    with pytest.raises(InvalidReportError) as caught, ARGUMENT.wrap_errors("v"):
        raise LookupError("gone")
    assert (
        str(caught.value)
        == "m(): p raised LookupError (LookupError('gone')) while it was read; got 'v' of type str"
    )
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(DagsterPipesError, match=r"^ours$"), ARGUMENT.wrap_errors("v"):
        raise DagsterPipesError("ours")
    with pytest.raises(KeyboardInterrupt), ARGUMENT.wrap_errors("v"):
        raise KeyboardInterrupt
    with ARGUMENT.wrap_errors(Raising()):
        pass
