"""`python -m components.serve FOLDER`: serve a recogniser by HTTP; it listens once the model is loaded and warm."""

import argparse
import os
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path

from components.serve.receiving import RECEIVE_S, server_config
from wordmill.recipe.arguments import from_nought, seconds

MAX_PIXELS = 4 << 20  # of a picture: of a word, however large


def main() -> None:
    """Load, warm up and serve until a signal ends it; what is wrong with the model ends in one line and code 1."""
    parser = argparse.ArgumentParser(prog="python -m components.serve", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a registered model, or with card.json and its ONNX file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=from_nought, default=8000)
    parser.add_argument("--threads", type=from_nought, default=0, help="of the network; 0: one to each core")
    parser.add_argument(
        "--receive-timeout", type=seconds, default=RECEIVE_S, metavar="S", help="for a request to be whole"
    )
    options = parser.parse_args()
    # A connection is a file: of those that wait in vain there may be more than the usual 1,024.
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    # Both are read when OpenCV is loaded; it would write a line of every picture that is not whole.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

    import numpy as np
    import uvicorn

    from components.serve.app import make_app
    from components.serve.batching import MOST_PICTURES
    from wordmill.inference.packaged.pyfunc import find_card, open_onnx

    try:
        recogniser = open_onnx(find_card(options.folder), options.threads)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    data = recogniser.data
    for size in (1, MOST_PICTURES):
        recogniser.read(np.zeros((size, data.height, data.width, data.channels), np.uint8))
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family)
    except (OSError, OverflowError) as error:  # taken, not this machine's, or no port
        sys.exit(f"error: {options.host}:{options.port}: {error}")
    port = listener.getsockname()[1]  # of 0 the one that was free
    print(f"serving {options.folder} on http://{options.host}:{port}", flush=True)
    config = server_config(make_app(recogniser), options.host, port, options.receive_timeout)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
