"""The referee: what must hold of every run, whatever was done to it.

- Each line is a whole message, and the file ends in a newline.
- ``opened`` is first, once; ``closed`` is last, once; where the close delivered everything, both are there.
- Each accepted message is delivered once, in its producer's order; or the close raised
  `MessagesLostError`, and it is in the file or in what that error kept, whose number it tells.
- A refused message is nowhere. What neither returned nor refused (an interrupt) is there once or not.
- An error is one that the fault explains.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

NUMBER = re.compile(r"#(\d+)\.(\d+)#")


class Fault(AssertionError):
    """A guarantee did not hold."""


def text_of(producer: int, number: int, padding: str = "") -> str:
    """A text by which a message is found again."""
    return f"#{producer}.{number}#{padding}"


@dataclass
class Sent:
    """What one producer sent, and what became of each call."""

    accepted: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    # Calls that ended in neither way.
    unknown: set[str] = field(default_factory=set)


@dataclass
class Run:
    """What is known of a run when it is over."""

    delivered: bytes = b""
    sent: list[Sent] = field(default_factory=list)
    # What the close raised, and what its recovery file has; None if it wrote none.
    close_error: BaseException | None = None
    recovered: bytes | None = None
    # Log messages that may be missing because the buffer was full.
    dropped: int = 0
    # Whether Dagster's process was the one that ran to its end, and `closed` must be there.
    must_be_closed: bool = True
    # Whether the process was killed: what was not flushed may be missing.
    was_killed: bool = False
    # What must be there though it was killed.
    flushed: set[str] = field(default_factory=set)
    # Names of exceptions that the fault explains.
    excuses: tuple[str, ...] = ()
    # Whether `opened` and `closed` may be missing: the opening was refused or interrupted.
    may_be_unopened: bool = False
    # Whether what is kept may also be delivered: a write was given up in its middle.
    may_be_twice: bool = False


def read(data: bytes) -> list[dict[str, Any]]:
    """The messages of a file, without what only fills its pages.

    Raises:
        Fault: It does not consist of whole messages.
    """
    if data and not data.endswith(b"\n"):
        raise Fault(f"ends in the middle of a line: {data[-80:]!r}")
    messages = []
    for line in data.split(b"\n")[:-1]:
        if not line.strip():
            raise Fault("a blank line, which stops Dagster's reader")
        try:
            message = json.loads(line)
        except ValueError:
            raise Fault(f"not a message: {line[:100]!r}") from None
        params = message.get("params")
        if message["method"] == "log_external_stream" and not params["text"]:
            continue
        messages.append(message)
    return messages


def numbers_in(messages: list[dict[str, Any]]) -> list[str]:
    """The texts of producers, in order; a joined message has several."""
    return [
        found.group()
        for message in messages
        if message["method"] not in ("opened", "closed")
        for found in NUMBER.finditer(json.dumps(message["params"]))
    ]


def judge(run: Run) -> None:
    """Judge a run.

    Raises:
        Fault: Something did not hold.
    """
    messages = read(run.delivered)
    recovered = read(run.recovered) if run.recovered is not None else []
    _judge_frame(run, messages, recovered)
    delivered, kept = numbers_in(messages), numbers_in(recovered)
    _judge_numbers(run, delivered, kept)
    _judge_error(run, recovered)


def _judge_frame(run: Run, messages: list[Any], recovered: list[Any]) -> None:
    methods = [message["method"] for message in messages]
    everything = methods + [message["method"] for message in recovered]
    if methods and methods[0] != "opened":
        raise Fault(f"the first message is {methods[0]}, not opened")
    if methods.count("opened") > 1 or methods.count("closed") > 1:
        raise Fault(f"opened or closed twice: {methods}")
    if "closed" in methods[:-1]:
        raise Fault(f"something follows closed: {methods}")
    if run.was_killed or not run.must_be_closed:
        return
    if run.may_be_unopened:
        if ("opened" in methods) != ("closed" in methods) and run.recovered is None:
            raise Fault(f"opened without closed: {methods}")
    elif everything.count("opened") < 1 or everything.count("closed") < 1:
        raise Fault(f"no opened or no closed in file and recovery file: {everything}")


def _judge_numbers(run: Run, delivered: list[str], kept: list[str]) -> None:
    for text, count in Counter(delivered).items():
        if count > 1:
            raise Fault(f"{text} was delivered {count} times")
    everything = set(delivered) | set(kept)
    missing = 0
    for sent in run.sent:
        for text in sent.accepted:
            if text in everything:
                continue
            if run.was_killed and text not in run.flushed:
                continue
            missing += 1
            if missing > run.dropped:
                raise Fault(f"{text} was accepted and is neither delivered nor kept")
        for text in sent.refused & everything:
            raise Fault(f"{text} was refused and is there")
        for place in (delivered, kept):
            known = set(sent.accepted) & set(place)
            if [one for one in place if one in known] != [
                one for one in sent.accepted if one in known
            ]:
                raise Fault(f"out of order: {place}")
    if missing < run.dropped:
        raise Fault(f"{run.dropped} messages are said to be dropped, {missing} are missing")
    both = set(delivered) & set(kept)
    if both and not run.may_be_twice:
        raise Fault(f"delivered and kept too: {sorted(both)}")


def _judge_error(run: Run, recovered: list[Any]) -> None:
    error = run.close_error
    if error is None:
        if run.recovered is not None:
            raise Fault("messages were kept in a recovery file, and no error says so")
        return
    name = type(error).__name__
    if name not in run.excuses:
        raise Fault(f"close() raised {error!r}, which nothing explains") from error
    if name == "MessagesLostError":
        count = getattr(error, "count", None)
        if run.recovered is None:
            raise Fault(f"no recovery file: {error}")
        if count != len(recovered):
            raise Fault(f"{count} messages are said to be kept, {len(recovered)} are")
