"""The recognisers in MindSpore."""

import os
import sys
import tempfile


def _check_protobuf() -> None:
    """Refuse a process that has loaded protobuf's C implementation, in which MindSpore cannot be imported.

    MindSpore's generated modules are too old for it. MindSpore chooses the implementation in Python where it comes
    first; behind kfp or onnx, which load protobuf too, the variable has to choose it.
    """
    if "google.protobuf" in sys.modules:
        from google.protobuf.internal import api_implementation

        if api_implementation.Type() != "python":
            raise RuntimeError("MindSpore cannot be loaded behind protobuf's C implementation: start this process with "
                               "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python in its environment")  # fmt: skip


_check_protobuf()
# Where MindSpore describes a graph that it cannot compile: else in a folder rank_0 where the process was started.
os.environ.setdefault("MS_OM_PATH", os.path.join(tempfile.gettempdir(), f"wordmill-{os.getuid()}"))
