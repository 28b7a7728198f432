"""Which record factories keep the fast path, and that none that can change what is sent does."""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from dagsterpipes import open_dagster_pipes
from dagsterpipes._session import record_factories
from dagsterpipes._session.record_factories import only_adds_attributes
from support.launching import Launch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Factory = Any

# Bodies of `def factory(*args, **kwargs)` whose `old` is `logging.LogRecord`.
HARMLESS = {
    "ray": """
        record = old(*args, **kwargs)
        ct = time.time_ns()
        record.created = ct / 1e9
        record.__dict__[KEY] = ct
        return record
        """,
    "opentelemetry": """
        record = old(*args, **kwargs)
        record.otelSpanID = "0"
        record.otelTraceID = "0"
        span = current_span()
        if span != INVALID:
            ctx = span.context()
            if ctx != INVALID:
                record.otelSpanID = format(ctx, "016x")
        return record
        """,
    "a request id": """
        record = old(*args, **kwargs)
        if not hasattr(record, "request_id"):
            record.request_id = getattr(record, "name", "-")
        return record
        """,
    "a docstring": '''
        """Add nothing."""
        record = old(*args, **kwargs)
        pass
        return record
        ''',
}
# What may touch what is sent. Each must be called for each record.
CHANGING = {
    "msg": "record = old(*args, **kwargs); record.msg = 'x'; return record",
    "args": "record = old(*args, **kwargs); record.args = (); return record",
    "level": "record = old(*args, **kwargs); record.levelno = 50; return record",
    "augmented": "record = old(*args, **kwargs); record.msg += 'x'; return record",
    "by dict": "record = old(*args, **kwargs); record.__dict__['msg'] = 'x'; return record",
    "by update": "record = old(*args, **kwargs); record.__dict__.update(msg='x'); return record",
    "by vars": "record = old(*args, **kwargs); vars(record)['msg'] = 'x'; return record",
    "by setattr": "record = old(*args, **kwargs); setattr(record, 'msg', 'x'); return record",
    "by a name": "record = old(*args, **kwargs); record.__dict__[MSG] = 'x'; return record",
    "by a variable": "record = old(*args, **kwargs); k = 'ms' + 'g'; record.__dict__[k] = 'x'; return record",
    "given away": "record = old(*args, **kwargs); redact(record); return record",
    "given away by keyword": "record = old(*args, **kwargs); redact(record=record); return record",
    "given away in a list": "record = old(*args, **kwargs); redact([record]); return record",
    "given away in an f-string": "record = old(*args, **kwargs); record.x = f'{redact(record)}'; return record",
    "an alias": "record = old(*args, **kwargs); other = record; other.msg = 'x'; return record",
    "two targets": "record = other = old(*args, **kwargs); other.msg = 'x'; return record",
    "a tuple": "record, x = old(*args, **kwargs), 1; record.msg = 'x'; return record",
    "a walrus": "record = old(*args, **kwargs); (other := record).msg = 'x'; return record",
    "another one": "record = old(*args, **kwargs); return other(*args, **kwargs)",
    "its class": "record = old(*args, **kwargs); record.__class__ = Other; return record",
    "its method": "record = old(*args, **kwargs); record.getMessage = lambda: 'x'; return record",
    "args changed": "args = args[:4] + ('x',) + args[5:]; record = old(*args, **kwargs); return record",
    "args changed in place": "kwargs['x'] = 1; record = old(*args, **kwargs); return record",
    "args changed by a method": "kwargs.update(msg='x'); record = old(*args, **kwargs); return record",
    "args given away": "change(kwargs); record = old(*args, **kwargs); return record",
    "another old": "old = redacting; record = old(*args, **kwargs); return record",
    "a hidden name": "KEY = 'msg'; record = old(*args, **kwargs); record.__dict__[KEY] = 'x'; return record",
    "other arguments": "record = old(*args, msg='x'); return record",
    "bound method": "record = old(*args, **kwargs); f = record.__setattr__; f('msg', 'x'); return record",
    "deleted": "record = old(*args, **kwargs); del record.msg; return record",
    "in a loop": "record = old(*args, **kwargs)\\nfor record.msg in ['x']: pass\\nreturn record",
    "in a with": "record = old(*args, **kwargs)\\nwith manager() as record.msg: pass\\nreturn record",
    "in a try": "record = old(*args, **kwargs)\\ntry: record.msg = 'x'\\nfinally: pass\\nreturn record",
    "in a branch": "record = old(*args, **kwargs)\\nif True: record.msg = 'x'\\nreturn record",
    "in a comprehension": "record = old(*args, **kwargs); [redact(r) for r in [record]]; return record",
    "in a lambda": "record = old(*args, **kwargs); (lambda: redact(record))(); return record",
    "in a function": "record = old(*args, **kwargs)\\ndef inner(): record.msg = 'x'\\ninner(); return record",
    "a mutable argument": "record = old(*args, **kwargs); record.args.clear(); return record",
    "its dict kept": "record = old(*args, **kwargs); d = record.__dict__; d['msg'] = 'x'; return record",
    "locals": "record = old(*args, **kwargs); locals()['record'].__dict__['msg'] = 'x'; return record",
    "frame": "record = old(*args, **kwargs); sys._getframe().f_locals['record'].msg = 'x'; return record",
    "eval": "record = old(*args, **kwargs); eval('redact(record)'); return record",
    "returned early": "record = old(*args, **kwargs)\\nif x: return other\\nreturn record",
    "raises": "record = old(*args, **kwargs)\\nif x: raise ValueError\\nreturn record",
    "nothing": "old(*args, **kwargs)",
    "a global": "global record; record = old(*args, **kwargs); redact_global(); return record",
    "annotated": "record = old(*args, **kwargs); record.msg: str = 'x'; return record",
    "unpacked": "record = old(*args, **kwargs); record.x, record.msg = 1, 'x'; return record",
    "match": "record = old(*args, **kwargs)\\nmatch 'x':\\n    case r: record.msg = r\\nreturn record",
    "old itself changes": "record = redacting(*args, **kwargs); return record",
}  # fmt: skip


def redacting_factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    record.msg = "***"
    return record


def make(tmp_path: Path, body: str, old: Factory = logging.LogRecord) -> Factory:
    """A factory whose source can be read, with one around it as `functools.wraps` makes it."""
    import textwrap

    text = textwrap.dedent(body).strip().replace("\\n", "\n")
    path = tmp_path / f"factory_{abs(hash(body))}.py"
    path.write_text(
        "def make(old, redacting, time, KEY, MSG):\n"
        "    def factory(*args, **kwargs):\n" + textwrap.indent(text, " " * 8) + "\n"
        "    return factory\n"
    )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return functools.wraps(old)(module.make(old, redacting_factory, time, "ns", "msg"))


@pytest.mark.parametrize("name", HARMLESS)
def test_a_factory_that_only_adds_attributes_keeps_the_fast_path(tmp_path: Path, name: str) -> None:
    assert only_adds_attributes(make(tmp_path, HARMLESS[name]))


@pytest.mark.parametrize("name", CHANGING)
def test_a_factory_that_may_change_what_is_sent_is_called(tmp_path: Path, name: str) -> None:
    assert not only_adds_attributes(make(tmp_path, CHANGING[name]))


def test_factories_around_each_other_are_judged_each(tmp_path: Path) -> None:
    """One that redacts anywhere in the chain makes all of it be called; so does a chain of many."""
    ray, otel = HARMLESS["ray"], HARMLESS["opentelemetry"]
    assert only_adds_attributes(make(tmp_path, otel, make(tmp_path, ray)))
    assert not only_adds_attributes(make(tmp_path, ray, make(tmp_path, CHANGING["msg"])))
    assert not only_adds_attributes(make(tmp_path, ray, redacting_factory))
    chain: Factory = logging.LogRecord
    for _ in range(40):
        chain = make(tmp_path, ray, chain)
    assert not only_adds_attributes(chain)


class Subclass(logging.LogRecord):
    def getMessage(self) -> str:
        return "***"


@pytest.mark.parametrize(
    "factory",
    [
        Subclass,
        functools.partial(logging.LogRecord),
        eval("lambda *a, **k: None"),
        logging.makeLogRecord,
        print,
        None,
    ],
)
def test_what_cannot_be_judged_is_called(factory: Callable[..., Any]) -> None:
    assert not only_adds_attributes(factory)


def test_the_factory_of_opentelemetry() -> None:
    """The real one."""
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.logging")
    before = logging.getLogRecordFactory()
    instrumentor = instrumentation.LoggingInstrumentor()
    instrumentor.instrument()
    try:
        factory = logging.getLogRecordFactory()
        record = factory("n", 20, "f", 1, "text", (), None)
        assert record.getMessage() == "text"
        # It may call a hook of the user's with the record, so it is called.
        assert not only_adds_attributes(factory) or factory is before
    finally:
        instrumentor.uninstrument()
        logging.setLogRecordFactory(before)


def test_a_factory_is_judged_once_and_not_at_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read and parse its source takes 400 us; and a redacting one is honoured at each."""
    for name, value in Launch(tmp_path).env.items():
        monkeypatch.setenv(name, value)
    judged: list[object] = []
    judge = record_factories.only_adds_attributes

    def counting(factory: object, *layers: int) -> bool:
        if not layers:  # not one that another one calls
            judged.append(factory)
        return judge(factory, *layers)

    monkeypatch.setattr(record_factories, "only_adds_attributes", counting)
    before = logging.getLogRecordFactory()
    ray = make(tmp_path, HARMLESS["ray"])
    try:
        with open_dagster_pipes() as pipes:
            pipes.log.info("first")
            pipes.flush()
            for factory in (redacting_factory, ray):
                logging.setLogRecordFactory(factory)
                for _ in range(20):
                    pipes.log.info("secret")
                    pipes.log.warning("secret")
    finally:
        logging.setLogRecordFactory(before)
    assert judged == [redacting_factory, ray]
    texts = [
        json.loads(line)["params"].get("message")
        for line in (tmp_path / "messages").read_text().splitlines()
    ]
    assert texts.count("***") == 40
    assert texts.count("secret") == 40
