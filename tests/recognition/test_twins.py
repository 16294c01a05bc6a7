import numpy as np
import pytest
import torch

from tests.recognition.ms import COMPACT, DATA, TRAIN, VGG7, ms  # isort: skip  # before anything imports MindSpore
from components.recognition.charset import load_charset
from components.recognition.checkpoint import Checkpoint
from components.recognition.image import normalise
from components.recognition.ms import model as ms_model
from components.recognition.ms import predict as ms_predict
from components.recognition.ms import weights as ms_weights
from components.recognition.ms.step import AdamW, Objective, TrainStep
from components.recognition.pt import model as pt_model
from components.recognition.pt import predict as pt_predict
from components.recognition.pt import weights as pt_weights
from components.recognition.recipe import Data, Model
from components.recognition.training import pack

RECOGNISERS = pytest.mark.parametrize(("model", "data"), [(COMPACT, DATA[1]), (VGG7, DATA[3])], ids=["compact", "vgg7"])
CHARSET = load_charset("lower36")


def pictures(samples: int, data: Data) -> np.ndarray:
    rng = np.random.default_rng(samples)
    return rng.integers(0, 256, (samples, data.height, data.width, data.channels), dtype=np.uint8)


def lively_weights(model: Model, data: Data) -> dict[str, np.ndarray]:
    """Return weights with running statistics as after training, and a head that writes more than blanks."""
    torch.manual_seed(6)
    rng = np.random.default_rng(6)
    tensors = pt_weights.dump(pt_model.build(model, data, CHARSET.classes))
    for name in tensors:
        if ".running_" in name:
            tensors[name] = rng.uniform(0.5, 1.5, tensors[name].shape).astype(np.float32)
    tensors["head.weight"] *= 20
    return tensors


@RECOGNISERS
def test_the_same_weights_give_the_same_logits_and_texts(model: Model, data: Data) -> None:
    checkpoint = Checkpoint(tensors=lively_weights(model, data), data=data, model=model, train=TRAIN, step=0)
    images = pictures(5, data)
    one, other = (twin.Predictor(checkpoint, "cpu")(images) for twin in (pt_predict, ms_predict))
    assert np.abs(one - other).max() <= 1e-4
    texts = CHARSET.decode_ctc(one)[0]
    assert CHARSET.decode_ctc(other)[0] == texts
    assert any(texts)


@RECOGNISERS
def test_in_training_mode_too_with_the_same_running_statistics_after_it(model: Model, data: Data) -> None:
    tensors, images = lively_weights(model, data), normalise(pictures(6, data))
    torch_net = pt_model.build(model, data, CHARSET.classes).train()
    mindspore_net = ms_model.build(model, data, CHARSET.classes)
    pt_weights.load(torch_net, tensors, "torch")
    ms_weights.load(mindspore_net, tensors, "mindspore")
    with torch.no_grad():
        one = torch_net(torch.from_numpy(images)).numpy()
    assert np.abs(one - mindspore_net(ms.Tensor(images)).asnumpy()).max() <= 1e-4
    left, right = pt_weights.dump(torch_net), ms_weights.dump(mindspore_net)
    for name in tensors:
        assert np.allclose(left[name], right[name], rtol=1e-4, atol=1e-5), name


def torch_step(
    tensors: dict[str, np.ndarray], images: torch.Tensor, classes: torch.Tensor, lengths: torch.Tensor
) -> tuple[float, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Make a step of PyTorch's own parts: mean CTC loss, norm clipping, AdamW. Returns loss, weights, gradients."""
    net = pt_model.build(COMPACT, DATA[1], CHARSET.classes).train()
    pt_weights.load(net, tensors, "torch")
    optimizer = torch.optim.AdamW(net.parameters(), lr=TRAIN.lr, weight_decay=TRAIN.weight_decay)
    likely = net(images).log_softmax(2).permute(1, 0, 2)
    frames = torch.full_like(lengths, likely.shape[0])
    loss = torch.nn.functional.ctc_loss(likely, classes, frames, lengths, blank=0, reduction="mean")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), TRAIN.clip_norm)
    optimizer.step()
    gradients = {name: weight.grad.numpy() for name, weight in net.named_parameters()}
    return loss.item(), pt_weights.dump(net), gradients


def test_a_training_step_has_the_same_loss_and_makes_the_same_weights() -> None:
    data, labels = DATA[1], ["a", "hello", "00112", "zz"]
    tensors, images, targets = lively_weights(COMPACT, data), pictures(4, data), pack(labels, CHARSET, 25)
    batch = map(torch.from_numpy, (normalise(images), targets.classes, targets.lengths))
    loss, expected, gradients = torch_step(tensors, *batch)

    net = ms_model.build(COMPACT, data, CHARSET.classes)
    ms_weights.load(net, tensors, "mindspore")
    adamw = AdamW(net, TRAIN.weight_decay)
    step = TrainStep(Objective(net, 25), adamw, TRAIN.clip_norm, scale=1.0, processes=1)
    step.set_train()
    arrays = (images, targets.classes, targets.lengths, targets.weights)
    found = step(*map(ms.Tensor, arrays), ms.Tensor(TRAIN.lr, ms.float32)).asnumpy()

    assert found[0] == pytest.approx(loss, abs=1e-4)
    updated = ms_weights.dump(net)
    for name, gradient in gradients.items():
        moved = expected[name] - tensors[name]
        # Adam's first step is the gradient's sign: where a gradient is rounding alone, so is the step.
        clear = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
        assert np.abs(updated[name] - expected[name])[clear].max() <= 1e-3 * np.abs(moved).max(), name
        assert clear.mean() > 0.5, name
