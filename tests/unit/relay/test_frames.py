"""Frames: whole lines, cut at line breaks."""

from __future__ import annotations

import socket

import pytest

from dagsterpipes._relay import frames


def test_lines_are_cut_at_line_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame is longer than the bound, and none has part of a line."""
    monkeypatch.setattr(frames, "FRAME_SIZE", 10)
    assert list(frames.cut(b"abc\ndef\nghi\njkl\n")) == [b"abc\ndef\n", b"ghi\njkl\n"]


def test_a_longer_line_is_a_frame_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_SIZE", 10)
    lines = [b"a\n", b"x" * 20 + b"\n", b"b\n", b"c\n"]
    assert list(frames.cut(b"".join(lines))) == [lines[0], lines[1], b"b\nc\n"]


def test_no_lines_are_no_frame() -> None:
    assert list(frames.cut(b"")) == []


def test_a_proof_depends_on_everything() -> None:
    """On the token, on who says it, and on both nonces."""
    proofs = {
        frames.proof(token, role, nonce, worker)
        for token in (b"t1", b"t2")
        for role in (b"worker", b"driver")
        for nonce in (b"n1", b"n2")
        for worker in (b"w1", b"w2")
    }
    assert len(proofs) == 16


def test_a_closed_connection_is_an_error() -> None:
    """Half of what was expected is not taken for the whole."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b"abc")
        theirs.close()
        with pytest.raises(ConnectionResetError, match="the other side closed"):
            frames.receive(ours, 4)
