"""A service on the loopback address, in a thread of the test's process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from components.serve.app import make_app
from components.serve.receiving import server_config
from tests.waiting import LIMIT_S, wait_until
from wordmill.inference.packaged.pyfunc import TextRecogniser


@contextmanager
def serving(recogniser: TextRecogniser, receive_s: float = LIMIT_S) -> Iterator[str]:
    """Serve a recogniser and yield the service's address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(server_config(make_app(recogniser), "127.0.0.1", 0, receive_s))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(LIMIT_S)
