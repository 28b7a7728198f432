"""An HTTP proxy on loopback that breaks requests as it is told, in front of an emulated store."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

HOP_BY_HOP = {"connection", "transfer-encoding", "expect", "keep-alive"}


class Fault(NamedTuple):
    """What becomes of a request."""

    # Answer with this instead of the store's answer.
    status: int | None = None
    # Let the store do it nevertheless.
    is_stored: bool = False
    # Close the connection without an answer.
    is_cut: bool = False
    # Seconds before anything is done.
    delay: float = 0.0


class Request(NamedTuple):
    """A request that came, for what tests count."""

    time: float
    method: str
    path: str
    status: int
    size: int


class FaultProxy:
    """Forwards to a store on another port; faults are for the next requests of one method.

    Args:
        upstream: The port of the store.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.requests: list[Request] = []
        self._faults: list[tuple[str, Fault]] = []
        self._is_refusing = False
        # While it is not set, nothing is answered.
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, times: int, method: str = "PUT", **fault: Any) -> None:
        """Break the next requests of the method."""
        with self._lock:
            self._faults += [(method, Fault(**fault))] * times

    def hang(self) -> None:
        """Answer nothing until `heal`."""
        self._flowing.clear()

    def heal(self) -> None:
        """Answer everything from now on, unless it refuses."""
        with self._lock:
            self._faults.clear()
        self._flowing.set()

    def refuse(self) -> None:
        """Listen no more, and end the connections that there are."""
        self._is_refusing = True
        self._server.shutdown()
        self._server.server_close()

    def puts(self) -> list[Request]:
        """The puts that were stored."""
        return [one for one in self.requests if one.method == "PUT" and one.status < 300]

    def close(self) -> None:
        self._flowing.set()
        if not self._is_refusing:
            self.refuse()

    def next_fault(self, method: str) -> Fault:
        if self._is_refusing:
            return Fault(is_cut=True)
        with self._lock:
            for index, (of, fault) in enumerate(self._faults):
                if of == method:
                    del self._faults[index]
                    return fault
        return Fault()

    def wait_for_flow(self) -> None:
        self._flowing.wait(120)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                begin = time.monotonic()
                if self.path == "/__hang__":  # asked for by a job
                    proxy.hang()
                    self.send_response_only(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy.next_fault(self.command)
                proxy.wait_for_flow()
                time.sleep(fault.delay)
                status, headers, answer = 0, [("Content-Length", "0")], b""
                if (fault.status is None and not fault.is_cut) or fault.is_stored:
                    if self._is_refused(body):
                        status = HTTPStatus.PRECONDITION_FAILED
                    else:
                        status, headers, answer = self._forward(body)
                if fault.status is not None:
                    status, headers, answer = fault.status, [("Content-Length", "0")], b""
                proxy.requests.append(Request(begin, self.command, self.path, status, len(body)))
                if fault.is_cut:
                    self.close_connection = True
                    return
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def _is_refused(self, body: bytes) -> bool:
                """Whether an object must be new and is not: the emulator of GCS does not look."""
                name = re.search(rb'"name": "([^"]+)"', body)
                if "ifGenerationMatch=0" not in self.path or name is None:
                    return False
                path = urlsplit(self.path).path.removeprefix("/upload")
                upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=60)
                upstream.request("GET", f"{path}/{quote(name[1], safe='')}")
                is_there = upstream.getresponse().status == HTTPStatus.OK
                upstream.close()
                return is_there

            def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=60)
                upstream.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() not in HOP_BY_HOP:
                        upstream.putheader(name, value)
                upstream.endheaders(body)
                response = upstream.getresponse()
                answer = response.read()
                headers = [
                    (name, value)
                    for name, value in response.getheaders()
                    if name.lower() not in HOP_BY_HOP
                ]
                if not any(name.lower() == "content-length" for name, _ in headers):
                    headers.append(("Content-Length", str(len(answer))))
                upstream.close()
                return response.status, headers, answer

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _serve

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError, TimeoutError):  # the client went away
                    super().handle()

            def log_message(self, *args: Any) -> None:
                pass

        return Handler
