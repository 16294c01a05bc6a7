import subprocess
import sys


def test_telemetry_is_off_before_the_library_is_loaded() -> None:
    code = """if True:
        import os, sys
        os.environ.pop("ORT_DISABLE_TELEMETRY", None)
        class Watch:
            def find_spec(self, name, path=None, target=None):
                if name == "onnxruntime":
                    print(os.environ.get("ORT_DISABLE_TELEMETRY"))
        sys.meta_path.insert(0, Watch())
        import wordmill.inference.onnx_runtime
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
