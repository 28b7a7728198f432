"""Which log record factories cannot change what is sent: those that only add attributes to the record.

Libraries set a factory to put a request id, a trace id or a precise time on each record (Ray does when
it is imported). Dagster gets the message and the level of a record, so such a factory makes no
difference, and making a record only to ask it would make a log call 25 times slower. A factory that may
touch the message, for example to remove secrets, is called for each record.
"""

from __future__ import annotations

import ast
import inspect
import logging
import textwrap
from types import FunctionType
from typing import Any

_SENT = {"msg", "args", "levelno", "levelname", "exc_info", "exc_text", "stack_info", "getMessage"}
_CLOSED_TO_WRITING = _SENT | {"__class__", "__dict__"}
_MOST_LAYERS = 20

_REFUSED = (
    ast.NamedExpr,
    ast.Lambda,
    ast.Await,
    ast.Yield,
    ast.YieldFrom,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
_REACH_THE_CALLER = {"eval", "exec", "locals", "vars", "globals", "dir"}


def only_adds_attributes(factory: object, layers: int = _MOST_LAYERS) -> bool:
    """Whether the factory calls an innocent one with its own arguments and only adds to the result.

    Judged by its source: a plain function that keeps the record in one variable, assigns attributes
    or items of ``__dict__`` that are not sent, and gives the record to nobody. When in doubt, False.
    """
    if factory is logging.LogRecord:
        return True
    if not isinstance(factory, FunctionType) or not layers:
        return False
    try:
        # Of the code, as functools.wraps makes the function claim to be another one.
        source = textwrap.dedent(inspect.getsource(factory.__code__))
        function = ast.parse(source).body[0]
    except (OSError, SyntaxError, TypeError, IndexError):
        return False
    if not isinstance(function, ast.FunctionDef):
        return False
    return _Judge(function, factory, layers).is_innocent()


class _Judge:
    def __init__(self, function: ast.FunctionDef, factory: FunctionType, layers: int) -> None:
        self._function = function
        self._names = dict(factory.__globals__)
        for name, cell in zip(factory.__code__.co_freevars, factory.__closure__ or (), strict=True):
            try:
                self._names[name] = cell.cell_contents
            except ValueError:  # noqa: PERF203 because it is not yet set
                self._names.pop(name, None)
        for name in factory.__code__.co_varnames:  # only the call tells what these are
            self._names.pop(name, None)
        self._layers = layers
        self._record = ""
        given = function.args
        self._given = {arg.arg for arg in (given.vararg, given.kwarg) if arg is not None}

    def is_innocent(self) -> bool:
        body = self._function.body
        made = [node for node in ast.walk(self._function) if self._is_made_here(node)]
        if len(made) != 1 or not isinstance(made[0], ast.Assign):
            return False
        assert isinstance(made[0].targets[0], ast.Name)
        self._record = made[0].targets[0].id
        return all(self._allows(statement, made[0]) for statement in body)

    def _is_made_here(self, node: ast.AST) -> bool:
        """Whether it is ``record = old_factory(*args, **kwargs)``."""
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            return False
        call, given = node.value, self._function.args
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            return False
        if given.vararg is None or given.kwarg is None or given.args or given.kwonlyargs:
            return False
        passes_on = (
            [ast.unparse(arg) for arg in call.args] == [f"*{given.vararg.arg}"]
            and [(word.arg, ast.unparse(word.value)) for word in call.keywords]
            == [(None, given.kwarg.arg)]
        )  # fmt: skip
        return passes_on and only_adds_attributes(self._value_of(call.func), self._layers - 1)

    def _value_of(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute) and self._value_of(node.value) is logging:
            return getattr(logging, node.attr, None)
        return None

    def _allows(self, node: ast.stmt, made: ast.Assign) -> bool:
        if node is made:
            return True
        if isinstance(node, ast.If):
            return self._is_read_only(node.test) and all(
                self._allows(statement, made) for statement in [*node.body, *node.orelse]
            )
        if isinstance(node, ast.Return):
            return isinstance(node.value, ast.Name) and node.value.id == self._record
        if isinstance(node, ast.Assign):
            return self._is_read_only(node.value) and all(map(self._may_assign, node.targets))
        if isinstance(node, ast.Expr):
            return self._is_read_only(node.value)
        return isinstance(node, ast.Pass)

    def _may_assign(self, target: ast.expr) -> bool:
        if isinstance(target, ast.Name):
            return target.id != self._record and target.id not in self._given
        if isinstance(target, ast.Attribute) and self._is_record(target.value):
            return target.attr not in _CLOSED_TO_WRITING
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Attribute):
            key = self._value_of(target.slice)
            place = target.value
            return (
                self._is_record(place.value)
                and place.attr == "__dict__"
                and isinstance(key, str)
                and key not in _SENT
            )
        return False

    def _is_record(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == self._record

    def _is_read_only(self, node: ast.expr) -> bool:
        """Whether the record is at most looked at in the expression."""
        if isinstance(node, _REFUSED):
            return False
        if isinstance(node, ast.Name):
            return node.id not in {self._record, *self._given, *_REACH_THE_CALLER}
        if isinstance(node, ast.Attribute) and self._is_record(node.value):
            return node.attr not in _CLOSED_TO_WRITING and not node.attr.startswith("__")
        arguments: list[ast.expr]
        if isinstance(node, ast.Call):
            function = node.func
            arguments = [*node.args, *(word.value for word in node.keywords)]
            if isinstance(function, ast.Name) and function.id in {"hasattr", "getattr"}:
                key = self._value_of(arguments[1]) if len(arguments) > 1 else None
                looks = self._is_record(arguments[0]) and key not in _CLOSED_TO_WRITING
                return looks and all(map(self._is_read_only, arguments[1:]))
            return all(map(self._is_read_only, [function, *arguments]))
        return all(
            self._is_read_only(child)
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.expr)
        )
