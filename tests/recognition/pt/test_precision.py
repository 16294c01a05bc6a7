import pytest
import torch

from components.recognition.pt.precision import choose_precision


@pytest.mark.parametrize(
    ("amp", "units", "expected"),
    [
        ("O0", {"amx_bf16": True}, (torch.float32, "float32")),
        (
            "O2",
            {"amx_bf16": True, "avx512_bf16": True},
            (torch.bfloat16, "bfloat16 autocast by amx_bf16, channels_last"),
        ),
        ("O3", {"avx512_bf16": True}, (torch.bfloat16, "bfloat16 autocast by avx512_bf16, channels_last")),
        ("O3", {"avx512_bf16": False}, (torch.float32, "float32: this processor has no bfloat16 unit")),
    ],
)
def test_precision_is_what_the_processor_computes_fast(
    amp: str, units: dict[str, bool], expected: tuple[torch.dtype, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert choose_precision(amp, "cpu") == expected
