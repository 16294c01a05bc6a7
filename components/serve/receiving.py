"""Connections with a deadline: for a request to arrive whole, and for its answer to leave."""

import asyncio
import json
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

RECEIVE_S = 30.0  # for a request, from its first byte or the connection's beginning, and for a client to take an answer
GRACE_S = 2.0  # for the rest of a request once the service is to end
END_S = 8  # for what is in hand then
HEAD_BYTES = 64 << 10
PIPELINED = 32  # requests of one connection that wait for the answer to an earlier one
LATE = "late"  # in the state of a request that is refused for that: to the application its client has gone


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which waits for half a request for ever, with an end to its patience."""

    def __init__(
        self, receive_s: float, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        self.receive_s = receive_s
        self.deadline: asyncio.TimerHandle | None = None  # of the request that is arriving
        self.leaving: asyncio.TimerHandle | None = None  # of an answer that its client does not take
        self.in_head, self.head_bytes, self.ending = True, 0, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait(self.receive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._forget()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; a head without an end is refused."""
        if self.deadline is None:
            self._wait(self.receive_s)
        super().data_received(data)
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self._refuse(431, f"the head has more than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Begin a request's head."""
        self.in_head, self.head_bytes = True, 0
        if self.deadline is None:
            self._wait(self.receive_s)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End it; who sends request after request without waiting for answers is refused."""
        self.in_head = False
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests on one connection wait for their answers")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Have a whole request."""
        self._forget()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Close, or give the rest of a request a little time: its client may send it again elsewhere."""
        self.ending = True
        super().shutdown()
        if self.deadline is not None and not self.transport.is_closing():
            self._wait(GRACE_S)

    def pause_writing(self) -> None:
        """Give a client that does not take its answers the time that a request has."""
        super().pause_writing()
        self.leaving = self.loop.call_later(self.receive_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Take it back."""
        super().resume_writing()
        if self.leaving is not None:
            self.leaving.cancel()
            self.leaving = None

    def _wait(self, seconds: float) -> None:
        self._forget()
        self.deadline = self.loop.call_later(seconds, self._late)

    def _forget(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    def _late(self) -> None:
        """Refuse what is not whole by now, unless answers to earlier requests are still to leave before."""
        answered = self.cycle is None or self.cycle.response_complete  # all that has come before
        if self.pipeline or (self.in_head and not answered):
            self._wait(self.receive_s)
        elif not self.in_head and self.cycle.response_started:  # it was answered before it was whole
            self.transport.close()
        elif self.ending:
            self._refuse(503, "the service ends: try again")
        else:
            if not self.in_head:
                self.scope["state"][LATE] = True
            self._refuse(408, f"the request is not whole after {self.receive_s:g} s")

    def _refuse(self, status: int, told: str) -> None:
        """Answer in the application's stead, as it does, and close."""
        body = json.dumps({"detail": told}, separators=(",", ":")).encode()
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()


def server_config(app: Any, host: str, port: int, receive_s: float = RECEIVE_S) -> uvicorn.Config:
    """Return how an application is served, with a deadline for receiving in seconds."""
    http = cast("type[asyncio.Protocol]", partial(Connection, receive_s))
    return uvicorn.Config(app, host=host, port=port, http=http, ws="none", access_log=False, log_level="error",
                          timeout_graceful_shutdown=END_S)  # fmt: skip
