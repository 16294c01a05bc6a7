import os
import pickle
import re
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

from tests.wordmill.models.ms import cell_by_cell, ms  # isort: skip  # before anything imports MindSpore
from tests.wordmill.inference.published import crnn_logits, crnn_weights, mindocr_logits, mindocr_weights
from tests.wordmill.inference.published_svtr import svtr_logits, svtr_weights
from tests.wordmill.models.published import Dtrb, MobileNet, Paddle, ResNet, dtrb_weights, lively, paddle_weights
from wordmill.models import checkpoint
from wordmill.models.convert import TRAINING_STATE, blank_first, main
from wordmill.models.origins import ORIGINS, renamed
from wordmill.recipe.frameworks import PACKAGES, twin

RECIPES = Path(__file__).resolve().parents[3] / "pipelines" / "recipes"
MINDOCR = {"crnn_vgg7": ("vgg7", 256, 37, "ctc", 24), "crnn_r34": ("resnet34", 256, 37, "ctc", 25),
           "rare_r34": ("resnet34", 256, 38, "attention", 26)}  # fmt: skip


@pytest.fixture(autouse=True)
def _environment_kept() -> None:
    with mock.patch.dict(os.environ):  # what MindSpore needs would slow PyTorch's tests down
        yield


def save_ckpt(path: Path, weights: dict[str, np.ndarray]) -> Path:
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(values)} for name, values in weights.items()], str(path))
    return path


def save_pth(path: Path, weights: dict[str, np.ndarray], wrapper: str = "", **beside: object) -> Path:
    state = {f"{wrapper}{name}": torch.from_numpy(values) for name, values in weights.items()}
    torch.save({"state_dict": state, **beside} if beside else state, path)
    return path


def save_pdparams(path: Path, weights: dict[str, np.ndarray], protocol: int = 4) -> Path:
    table = {name: f"{name}_0.w_0" for name in weights}
    path.write_bytes(pickle.dumps({**weights, "StructuredToParameterName@@": table}, protocol))
    return path


def convert(file: Path, recipe: str, *options: str, output: str = "model.safetensors") -> Path:
    target = file.parent / output
    main([str(file), "--recipe", str(RECIPES / f"{recipe}.yaml"), "--output", str(target), *options])
    return target


def refusal(file: Path, recipe: str, *options: str, output: str = "model.safetensors") -> str:
    """Return the sentence that a conversion ends with, and see that it leaves nothing but what was there."""
    before = sorted(file.parent.iterdir())
    with pytest.raises(SystemExit) as end:
        convert(file, recipe, *options, output=output)
    assert sorted(file.parent.iterdir()) == before
    return str(end.value.code)


def pictures(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (2, height, width, channels), dtype=np.uint8)


def check_logits(path: Path, images: np.ndarray, expected: np.ndarray, *frameworks: str) -> None:
    saved = checkpoint.load(path)
    for framework in frameworks or PACKAGES:
        predictor = twin(framework, "models.predict").Predictor(saved, "cpu")
        with cell_by_cell() if framework == "mindspore" else nullcontext():  # test_twins.py compiles every recipe
            logits = predictor(images)
        assert logits.shape == expected.shape
        assert (expected[0] - expected[1]).std() > 5e-3  # the picture decides
        assert np.abs(logits - expected).max() <= 1e-4, framework


@pytest.mark.parametrize("recipe", MINDOCR)
def test_mindocrs_weights_compute_here_what_they_compute_there(recipe: str, tmp_path: Path) -> None:
    backbone, hidden, classes, head, steps = MINDOCR[recipe]
    weights, images = mindocr_weights(backbone, hidden, classes, head), pictures(32, 100, 3)
    expected = mindocr_logits(weights, images, steps)
    assert expected.shape == (2, steps, classes)
    if head == "ctc":  # class 36 is MindOCR's blank
        expected = np.concatenate([expected[:, :, 36:], expected[:, :, :36]], 2)
    check_logits(convert(save_ckpt(tmp_path / "best.ckpt", weights), recipe), images, expected)


def test_mindocrs_svtr_computes_here_what_it_computes_there(tmp_path: Path) -> None:
    """MindOCR 0.5.0 itself, run once on weights of its own: 3e-6 from the same straightened pictures, 1.0e-4 in all.

    Its spline is worked out in float32, ours in float64 before it becomes a matrix.
    """
    weights, coarse = svtr_weights(37), np.random.default_rng(3).integers(0, 256, (2, 8, 32, 3), dtype=np.uint8)
    images = np.stack([cv2.resize(picture, (256, 64), interpolation=cv2.INTER_CUBIC) for picture in coarse])
    expected = svtr_logits(weights, images)
    path = convert(save_ckpt(tmp_path / "best.ckpt", weights), "svtr_tiny")
    check_logits(path, images, np.concatenate([expected[:, :, 36:], expected[:, :, :36]], 2))


@pytest.mark.parametrize("split", [False, True], ids=["one_lstm", "split_lstm"])
def test_crnns_weights_compute_here_what_they_compute_there(split: bool, tmp_path: Path) -> None:
    weights, images = crnn_weights(37, split), pictures(32, 100, 1)
    path = convert(save_pth(tmp_path / "crnn.pth", weights), "crnn_npu")
    check_logits(path, images, crnn_logits(weights, images))


def test_dtrbs_weights_compute_here_what_they_compute_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, images = lively(Dtrb, 1.5), pictures(32, 100, 1)
    with torch.no_grad():
        expected = net((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).numpy()
    assert expected.shape == (2, 24, 37)
    file = save_pth(tmp_path / "None-VGG-BiLSTM-CTC.pth", dtrb_weights(net))
    path = convert(file, "crnn_npu", "--set", "model.backbone=vgg7_dtrb")
    # Published are 8,451,621: the last LSTM's linear layer, 512 x 256 + 256, and the head, 256 x 37 + 37, are one of
    # 512 x 37 + 37 here.
    assert f"{8_451_621 - 512 * 256 - 256 - 256 * 37 + 512 * 37:,} parameters" in capsys.readouterr().out
    check_logits(path, images, expected)


PADDLE = {
    "crnn_mv3": (MobileNet, 96, 1.3, 1_451_787, ()),
    "crnn_r34": (ResNet, 256, 1.1, 24_481_029, ("model.backbone=resnet34_vd_padded", "model.hidden=256")),
}


@pytest.mark.parametrize("name", PADDLE)
def test_paddleocrs_weights_compute_here_what_they_compute_there(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, hidden, gain, parameters, changes = PADDLE[name]
    net, images = lively(lambda: Paddle(backbone(), hidden), gain), pictures(32, 100, 3)
    with torch.no_grad():  # which takes blue first
        expected = net((torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).numpy()
    assert expected.shape == (2, 25, 37)
    file = save_pdparams(tmp_path / "best_accuracy.pdparams", paddle_weights(net))
    path = convert(file, "crnn_mv3", *(option for change in changes for option in ("--set", change)))
    assert f"{parameters:,} parameters" in capsys.readouterr().out
    check_logits(path, images, expected, "pytorch")


def test_a_training_state_of_crnn_gives_the_same_file_as_its_weights(tmp_path: Path) -> None:
    weights = crnn_weights(37, split=True)
    plain = convert(save_pth(tmp_path / "plain.pth", weights), "crnn_npu", output="plain.safetensors")
    counted = weights | {"cnn.batchnorm2.num_batches_tracked": np.array(7)}
    optimizer = {"state": {0: {"step": 3, "acc_delta": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]}
    state = save_pth(tmp_path / "state.pth", counted, "module.", epoch=3, best_acc=0.75, optimizer=optimizer)
    assert convert(state, "crnn_npu", output="state.safetensors").read_bytes() == plain.read_bytes()


def test_a_training_state_of_mindocr_gives_the_same_file_as_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = mindocr_weights("vgg7", 256, 37, "ctc")
    plain = convert(save_ckpt(tmp_path / "plain.ckpt", weights), "crnn_vgg7", output="plain.safetensors")
    one = np.ones(1, dtype=np.float32)
    names = [f"{prefix}.head.dense1.bias" for prefix in ("adam_m", "adam_v", "lion_m", "moment1", "ema", "swap")]
    names += ["grad_accumulated_.head.dense1.bias", "global_step", "learning_rate", "beta1_power", "beta2_power"]
    names += ["epoch_num", "loss_scale", "scale_sense", "current_iterator_step", "last_overflow_iterator_step"]
    state = save_ckpt(tmp_path / "train_resume.ckpt", weights | dict.fromkeys(names, one))
    assert convert(state, "crnn_vgg7", output="state.safetensors").read_bytes() == plain.read_bytes()
    said = capsys.readouterr().out.splitlines()[-1]
    assert "crnn_vgg7 with 8,725,413 parameters" in said
    assert f"{len(names)} values of the training's state left out" in said
    assert "the blank moved from the last class to the first" in said


def test_the_blanks_row_moves_to_the_front_and_the_others_keep_their_order() -> None:
    head = {"head.weight": np.array([[1.0, 1.5], [2.0, 2.5], [9.0, 9.5]]), "head.bias": np.array([1.0, 2.0, 9.0])}
    moved = blank_first(head)
    assert moved["head.weight"].tolist() == [[9.0, 9.5], [1.0, 1.5], [2.0, 2.5]]
    assert moved["head.bias"].tolist() == [9.0, 1.0, 2.0]


def test_no_weight_is_taken_for_training_state() -> None:
    for weights in (mindocr_weights("resnet34", 8, 6, "attention"), mindocr_weights("vgg7", 8, 6, "ctc")):
        assert [name for name in weights if TRAINING_STATE.fullmatch(name)] == []


def test_half_precision_is_read(tmp_path: Path) -> None:
    weights = {name: values.astype(np.float16) for name, values in crnn_weights(37, split=False).items()}
    saved = checkpoint.load(convert(save_pth(tmp_path / "half.pth", weights), "crnn_npu"))
    assert saved.tensors["backbone.conv1.weight"].dtype == np.float32
    assert (saved.tensors["backbone.conv1.weight"] == weights["cnn.conv0.weight"]).all()


def test_an_own_list_of_characters_goes_into_the_checkpoint(tmp_path: Path) -> None:
    characters = tmp_path / "dict.txt"
    characters.write_text("x\ny\nz\n", encoding="utf-8")
    file = save_ckpt(tmp_path / "best.ckpt", mindocr_weights("resnet34", 64, 4, "ctc"))
    saved = checkpoint.load(convert(file, "crnn_r34_ch", "--charset", str(characters)))
    assert saved.data.charset == str(characters)
    assert saved.tensors["head.weight"].shape == (4, 128)
    assert "none.txt: no such file" in refusal(file, "crnn_r34_ch", "--charset", str(tmp_path / "none.txt"))


def test_the_characters_of_an_own_charset_must_be_given(tmp_path: Path) -> None:
    file = save_ckpt(tmp_path / "best.ckpt", {"a": np.ones(1, dtype=np.float32)})
    assert "--charset is missing: chinese6623 is this project's own" in refusal(file, "crnn_r34_ch")
    assert "--charset english94: expected a .txt file" in refusal(file, "crnn_r34", "--charset", "english94")


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    weights = mindocr_weights("vgg7", 256, 36, "ctc")
    weights["backbone.conv8.conv.weight"] = weights.pop("backbone.conv7.conv.weight")
    weights["neck.extra"] = np.ones(1, dtype=np.float32)
    said = refusal(save_ckpt(tmp_path / "best.ckpt", weights), "crnn_vgg7")
    assert "missing ['backbone.conv7.weight']" in said
    assert "surplus ['backbone.conv8.weight', 'neck.extra']" in said
    assert "head.weight is (36, 512), expected (37, 512)" in said


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["Transformation.GridGenerator.P_hat"],
         r"\['Transformation.GridGenerator.P_hat'\]: fits no recipe: its TPS is worked out at other points"),
        ([f"FeatureExtraction.ConvNet.layer1.{number}.conv1.weight" for number in range(10)],
         r"layer1.7.conv1.weight'\] and 2 more: fits no recipe: no backbone is DTRB's ResNet"),
        (["FeatureExtraction.ConvNet.3.wgf_u.weight"], "fits no recipe: no backbone is DTRB's RCNN"),
        (["Prediction.attention_cell.rnn.weight_ih"], "fits no recipe: its decoder has an LSTM cell, rare's a GRU's"),
        (["Prediction.bias"],
         "its weights are for backbone vgg7_dtrb, recipe crnn_npu has vgg7_padded: --set model.backbone=vgg7_dtrb"),
        (["encoder.weight"], r"none of its weights has a name that CRNN or DTRB gives: \['encoder.weight'\]"),
    ],
)  # fmt: skip
def test_what_no_recipe_takes_is_named_with_the_reason(names: list[str], told: str, tmp_path: Path) -> None:
    weights = {f"module.{name}": np.ones(1, np.float32) for name in names}
    assert re.search(told, refusal(save_pth(tmp_path / "dtrb.pth", weights), "crnn_npu"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Student.backbone.conv1.conv.weight", "fits no recipe: it holds several networks that taught each other"),
        ("neck.encoder.svtr_block.0.norm1.weight", "fits no recipe: no neck is PaddleOCR's SVTR"),
        ("neck.encoder.lstm.0.cell_fw.weight_ih", "surplus ['neck.encoder.lstm.0.cell_fw.weight_ih']"),
    ],
)
def test_what_of_paddleocr_fits_nothing_is_named(name: str, told: str, tmp_path: Path) -> None:
    weights = {name: np.ones(1, np.float32), "neck.encoder.lstm.weight_ih_l0": np.zeros(1, np.float32)}
    assert told in refusal(save_pdparams(tmp_path / "best.pdparams", weights), "crnn_mv3")


def test_names_of_both_schemes_in_one_file_are_refused(tmp_path: Path) -> None:
    both = crnn_weights(37, split=False) | crnn_weights(37, split=True)
    # 14 of convolutions, 12 of normalisation, 4 of linear layers, and 16 of LSTMs that are there under two names.
    assert "62 weights have 46 names here" in refusal(save_pth(tmp_path / "both.pth", both), "crnn_npu")


@pytest.mark.parametrize(
    ("file", "recipe", "sentence"),
    [
        ("weights.onnx", "crnn_vgg7", "expected a file that is there, of one of .ckpt, .pth"),
        ("missing.ckpt", "crnn_vgg7", "missing.ckpt: expected a file that is there"),
        ("junk.pdparams", "crnn_mv3", "junk.pdparams: no weights of PaddlePaddle: damaged"),
        ("junk.pdparams", "crnn_r34", ".pdparams files are read for backbone mobilenet_v3 or resnet34_vd_padded"),
        ("junk.pth", "crnn_vgg7", ".pth files are read for backbone vgg7_padded"),
        ("junk.ckpt", "crnn_npu", ".ckpt files are read for backbone vgg7 or resnet34_vd"),
        ("junk.ckpt", "rare_r34_tps", "rectification tps; .ckpt files are read for .* without rectification"),
        ("junk.ckpt", "crnn_vgg7", "junk.ckpt: not a checkpoint of MindSpore: another file, or damaged"),
        ("junk.pth", "crnn_npu", "junk.pth: not a file of PyTorch that holds tensors and plain values alone"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(file: str, recipe: str, sentence: str, tmp_path: Path) -> None:
    for name in ("weights.onnx", "junk.pth", "junk.ckpt", "junk.pdparams"):
        (tmp_path / name).write_bytes(b"junk" * 100)
    assert re.search(sentence, refusal(tmp_path / file, recipe))


class Stowaway:
    pass


def test_a_file_that_would_have_to_be_unpickled_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save({"state_dict": {"cnn.conv0.weight": torch.ones(1)}, "config": Stowaway()}, path)
    assert "whole.pth: not a file of PyTorch that holds tensors and plain values alone" in refusal(path, "crnn_npu")


@pytest.mark.parametrize(
    "found",
    [[1, 2], {}, {"state_dict": 3}, {"epoch": 3}, {1: torch.ones(1)}, {"a": torch.ones(2).to_sparse()},
     {"a": torch.ones(2) * 1j}],
    ids=str,
)  # fmt: skip
def test_a_file_without_weights_is_refused(found: object, tmp_path: Path) -> None:
    torch.save(found, tmp_path / "odd.pth")
    assert "expected weights by name, or a training state" in refusal(tmp_path / "odd.pth", "crnn_npu")


def test_a_tensor_that_says_more_than_lies_in_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"cnn.conv0.weight": torch.ones(1).expand(1 << 40)}, tmp_path / "large.pth")
    said = refusal(tmp_path / "large.pth", "crnn_npu")
    assert f"its weights say that they have {4 << 40} bytes, the file has" in said


def test_an_error_of_pytorchs_without_words_is_called_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(b"\x80\x02K\x01")  # a pickle that ends where an opcode is expected
    assert "plain values alone: " in refusal(tmp_path / "cut.pth", "crnn_npu")


def test_the_output_must_be_a_checkpoint_in_a_folder_that_is_there(tmp_path: Path) -> None:
    file = save_pth(tmp_path / "crnn.pth", {"a": np.ones(1, dtype=np.float32)})
    assert "model.pt: expected a .safetensors file" in refusal(file, "crnn_npu", output="model.pt")
    assert "in a folder that is there" in refusal(file, "crnn_npu", output="none/model.safetensors")


def test_a_name_outside_the_published_scheme_stays_as_it_is() -> None:
    assert renamed("cnn.conv6.bias", ORIGINS["CRNN"]) == "backbone.conv7.bias"
    assert renamed("my.cnn.conv6.bias", ORIGINS["CRNN"]) == "my.cnn.conv6.bias"
