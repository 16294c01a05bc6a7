from tests.recognition.ms import ms  # isort: skip  # before anything imports MindSpore
from components.recognition.ms.precision import choose_precision


def test_precision_is_told_as_it_is() -> None:
    assert choose_precision("O0", "npu") == (False, "float32")
    assert choose_precision("O3", "cpu") == (
        False, f"float32: MindSpore {ms.__version__} has no fast half precision on processors")  # fmt: skip
    assert choose_precision("O2", "npu") == (True, "float16 backbone, batch normalisation in float32")
