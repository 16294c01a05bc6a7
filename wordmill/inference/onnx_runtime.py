"""ONNX Runtime as this project uses it: without its telemetry.

From 1.29 on its wheels for Linux send what they run to their maker (Privacy.md of the wheel), unless they are told not
to before they are loaded.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

__all__ = ["onnxruntime"]
