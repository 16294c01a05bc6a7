import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wordmill.models.pt.half import half_kernels
from tests.wordmill.training.tiny import MODEL, TRAIN, make_job
from wordmill.models.pt import precision
from wordmill.models.pt.precision import choose_precision, has_bfloat16
from wordmill.training.pt import train as pt_train
from wordmill.training.pt.train import Trainer
from wordmill.training.stream import training_stream

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")
NO = (False, False)


UNITS = {"amx_bf16": True, "avx512_bf16": True}
NO_UNITS = {"amx_bf16": False, "avx512_bf16": False}


@pytest.mark.parametrize(
    ("amp", "units", "works", "expected"),
    [
        ("O0", UNITS, True, (torch.float32, "float32")),
        ("O2", UNITS, True, (torch.bfloat16, "bfloat16 autocast by amx_bf16, channels_last")),
        ("O3", {"avx512_bf16": True}, True, (torch.bfloat16, "bfloat16 autocast by avx512_bf16, channels_last")),
        ("O3", NO_UNITS, True, (torch.float32, "float32: this processor has no bfloat16 unit")),
        ("O3", NO_UNITS, False, (torch.float32, "float32: this processor has no bfloat16 unit")),
        ("O1", UNITS, False, (torch.float32, "float32: oneDNN has no bfloat16 LSTM here")),
    ],
)
def test_precision_is_what_the_processor_computes_fast_and_onednn_at_all(
    amp: str, units: dict[str, bool], works: bool, expected: tuple[torch.dtype, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in precision.LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: works)
    assert choose_precision(amp, "cpu") == expected


def test_onednn_that_is_held_to_avx2_computes_in_float32_whatever_the_processor_has() -> None:
    """In a process of its own: oneDNN reads the variable once."""
    code = (
        "import torch; torch.cpu.get_capabilities = lambda: {'avx512_bf16': True}\n"
        "from wordmill.models.pt.precision import choose_precision\n"
        "print(choose_precision('O2', 'cpu'))"
    )
    held = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=held, capture_output=True, text=True, check=True)
    told = "float32: oneDNN has no bfloat16 LSTM here (ONEDNN_MAX_CPU_ISA=AVX2)"
    assert done.stdout.strip() == str((torch.float32, told))


def test_onednn_is_asked_once_and_nothing_else_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    lstm = precision.nn.LSTM
    monkeypatch.setattr(precision.nn, "LSTM", lambda *args, **options: (asked.append(None), lstm(*args, **options))[1])
    has_bfloat16.cache_clear()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with torch.inference_mode():
        first = has_bfloat16()
    assert has_bfloat16() == first
    assert len(asked) == 1
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["Conv2d", "LSTM"])
def test_where_a_layer_raises_there_is_no_bfloat16(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(getattr(torch.nn, kind), "forward", refuse)
    has_bfloat16.cache_clear()
    try:
        assert not has_bfloat16()
    finally:
        has_bfloat16.cache_clear()


def trainer_of(folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, name: str, loss: str) -> Trainer:
    """Return a trainer that computes in a type that this processor may not have a unit for, see `half_kernels`."""
    monkeypatch.setattr(pt_train, "choose_precision", lambda *_: (dtype, "as told"))
    decoder = {"name": name, "decoder_hidden": 16, "max_length": 6 if name == "rare" else 0} if name != "crnn" else {}
    train = dataclasses.replace(TRAIN, global_batch=4, loss=loss, loss_scaling="dynamic", loss_scale=2.0**14)
    return Trainer(dataclasses.replace(make_job(folder, train=train), model=dataclasses.replace(MODEL, **decoder)),
                   CPU, 0)  # fmt: skip


@pytest.mark.parametrize(("name", "loss"), [("crnn", "ctc"), ("rare", "cross_entropy")])
def test_half_is_for_backbone_and_neck_and_not_for_head_decoder_and_losses(
    name: str, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path, torch.bfloat16, monkeypatch, name, loss)
    net, types = trainer.net, {}

    def note(where: str) -> object:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            types[where] = (output[0] if isinstance(output, tuple) else output).dtype  # type: ignore[union-attr]

        return hook

    last = net.head if name == "crnn" else net.decoder.generator
    for where, part in (("conv", net.backbone.conv2), ("norm", net.backbone.bn2), ("lstm", net.neck.rnn),
                        ("neck", net.neck), ("last", last)):  # fmt: skip
        part.register_forward_hook(note(where))
    train, parts = trainer.job.train, next(training_stream(trainer.context))
    with half_kernels(torch.bfloat16):
        losses, logits = trainer.losses(net, parts[0])
        trainer.step(1, parts, train.lr, NO)
    half, single = torch.bfloat16, torch.float32
    assert types == {"conv": half, "norm": half, "lstm": half, "neck": single, "last": single}
    assert (losses.dtype, logits.dtype) == (single, single)
    assert {weight.dtype for weight in net.parameters()} == {single}
    assert {weight.grad.dtype for weight in net.parameters() if weight.grad is not None} == {single}
    assert {buffer.dtype for key, buffer in net.named_buffers() if ".running_" in key} == {single}


def test_float16_gradients_are_scaled_and_an_overflow_halves_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path, torch.float16, monkeypatch, "crnn", "ctc")
    other = trainer_of(tmp_path, torch.float32, monkeypatch, "crnn", "ctc")
    parts = next(training_stream(trainer.context))
    with half_kernels(torch.float16):
        found = trainer.result(trainer.step(1, parts, 1e-3, NO))
    expected = other.result(other.step(1, parts, 1e-3, NO))
    assert (found.loss, found.norm) == pytest.approx((expected.loss, expected.norm), rel=0.05)
    batch, targets = parts[0]
    large = dataclasses.replace(targets, weights=1e6 * targets.weights)  # over float16's 65,504, and not float32's
    state = trainer.state()
    with half_kernels(torch.float16):
        assert not math.isfinite(trainer.result(trainer.step(2, [(batch, large)], 1e-3, NO)).norm)
    assert state["scaler/scale"] == 2.0**14
    assert trainer.state()["scaler/scale"] == 2.0**13
    assert all(np.array_equal(trainer.state()[name], state[name]) for name in state if name.startswith("model/"))
