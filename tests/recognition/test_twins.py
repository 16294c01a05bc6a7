"""Every recipe's recogniser in PyTorch and in MindSpore: the same weights, the same results, the same training step."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.recognition.ms import ms  # isort: skip  # before anything imports MindSpore
from components.recognition.checkpoint import Checkpoint
from components.recognition.decoding import Codec, codec_of
from components.recognition.image import normalise
from components.recognition.loader import Batch
from components.recognition.ms import model as ms_model
from components.recognition.ms import optimisers as ms_optimisers
from components.recognition.ms import predict as ms_predict
from components.recognition.ms import weights as ms_weights
from components.recognition.ms.step import Gradients, LossScale, Objective, Update
from components.recognition.ms.train import tensors_of
from components.recognition.pt import losses as pt_losses
from components.recognition.pt import model as pt_model
from components.recognition.pt import optimisers as pt_optimisers
from components.recognition.pt import predict as pt_predict
from components.recognition.pt import weights as pt_weights
from components.recognition.recipe import Recipe, load_recipe
from components.recognition.targets import Draws, Targets, pack

RECIPES = sorted((Path(__file__).resolve().parents[2] / "pipelines" / "recipes").glob("*.yaml"))
SAMPLES = 4
DRAWN = Draws(forced=np.array([1, 0, 1, 0], np.float32), seeds=np.array([7, -8, 2**31 - 1, 0], np.int32))


@pytest.fixture(scope="module", params=RECIPES, ids=lambda path: path.stem)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(request.param)


@pytest.fixture(scope="module")
def codec(recipe: Recipe) -> Codec:
    return codec_of(recipe.model, recipe.data)


@pytest.fixture(scope="module")
def images(recipe: Recipe) -> np.ndarray:
    """Pictures of smooth gray and colour, not noise: after noise every feature of a deep backbone is the same."""
    data, rng = recipe.data, np.random.default_rng(2)
    coarse = rng.integers(0, 256, (SAMPLES, data.height // 8, data.width // 4, data.channels), dtype=np.uint8)
    smooth = [cv2.resize(picture, (data.width, data.height), interpolation=cv2.INTER_CUBIC) for picture in coarse]
    return np.stack(smooth).reshape(SAMPLES, data.height, data.width, data.channels)


@pytest.fixture(scope="module")
def tensors(recipe: Recipe, codec: Codec, images: np.ndarray) -> dict[str, np.ndarray]:
    """Weights with running statistics as after training, and a last layer that writes more than one class."""
    torch.manual_seed(6)
    net = pt_model.build(recipe.model, recipe.data, codec.classes).train()
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0  # one pass leaves the batch's own statistics
    with torch.no_grad():
        logits = net(torch.from_numpy(normalise(images, recipe.data.middle)))
    tensors = pt_weights.dump(net)
    last = "head" if recipe.model.name == "crnn" else "decoder.generator"
    tensors[f"{last}.weight"] /= float(logits.std())
    if recipe.model.rectification == "tps":  # fresh, it leaves pictures as they are, whatever it sees
        tensors["rectifier.fc2.weight"] = (
            np.random.default_rng(6).normal(0, 0.01, tensors["rectifier.fc2.weight"].shape).astype(np.float32)
        )
    return tensors


@pytest.fixture(scope="module")
def targets(recipe: Recipe, codec: Codec) -> Targets:
    net = pt_model.build(recipe.model, recipe.data, codec.classes)
    steps = pt_model.count_steps(net, recipe.data)
    labels = ["a", "hello", "00112", "zz"]
    return pack(labels, codec, steps, recipe.train.loss, DRAWN)


def torch_twin(recipe: Recipe, codec: Codec, tensors: dict[str, np.ndarray]) -> pt_model.Recogniser:
    net = pt_model.build(recipe.model, recipe.data, codec.classes).train()
    pt_weights.load(net, tensors, "torch")
    return net


def mindspore_twin(recipe: Recipe, codec: Codec, tensors: dict[str, np.ndarray]) -> ms_model.Recogniser:
    net = ms_model.build(recipe.model, recipe.data, codec.classes)
    ms_weights.load(net, tensors, "mindspore")
    return net


def test_weights_pass_from_one_to_the_other_and_back_bit_for_bit(
    recipe: Recipe, codec: Codec, tensors: dict[str, np.ndarray]
) -> None:
    passed = ms_weights.dump(mindspore_twin(recipe, codec, tensors))
    returned = pt_weights.dump(torch_twin(recipe, codec, passed))
    assert set(returned) == set(tensors)
    assert all(np.array_equal(returned[name], tensors[name]) for name in tensors)


def test_the_same_weights_give_the_same_logits_and_texts(
    recipe: Recipe, codec: Codec, tensors: dict[str, np.ndarray], images: np.ndarray
) -> None:
    checkpoint = Checkpoint(tensors=tensors, data=recipe.data, model=recipe.model, train=recipe.train, step=0)
    one, other = (twin.Predictor(checkpoint, "cpu")(images) for twin in (pt_predict, ms_predict))
    assert np.abs(one - other).max() <= 1e-4
    assert codec.decode(other)[0] == codec.decode(one)[0]
    assert len(np.unique(one.argmax(axis=2))) > 1


def torch_step(
    recipe: Recipe, net: pt_model.Recogniser, images: np.ndarray, targets: Targets
) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
    """Make one step by the recipe's loss, clipping and optimiser; return loss, logits and gradients."""
    optimiser = pt_optimisers.build(net, recipe.train)
    inputs = torch.from_numpy(normalise(images, recipe.data.middle))
    arrays = targets.classes, targets.lengths, targets.weights, targets.forced, targets.seeds
    classes, lengths, weights, forced, seeds = map(torch.from_numpy, arrays)
    writes = isinstance(net, pt_model.EncoderDecoder)
    logits = net(inputs, classes, forced, seeds) if writes else net(inputs)
    losses = pt_losses.sequence_losses if writes else pt_losses.ctc_losses
    loss = (losses(logits, classes, lengths) * weights).sum()
    loss.backward()
    gradients = {name: np.array(weight.grad) for name, weight in net.named_parameters() if weight.grad is not None}
    torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.train.clip_norm or float("inf"))
    optimiser.step()
    return loss.item(), logits.detach().numpy(), gradients


def split(vector: np.ndarray, net: ms_model.Recogniser) -> dict[str, np.ndarray]:
    """Return the gradients by name that Gradients has put one behind the other."""
    weights = {name: array for name, array in ms_weights.dump(net).items() if ".running_" not in name}
    parts = np.split(vector, np.cumsum([array.size for array in weights.values()]))
    return {name: part.reshape(array.shape) for (name, array), part in zip(weights.items(), parts, strict=False)}


def length(arrays: Iterable[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))


def test_a_training_step_has_the_same_logits_loss_statistics_and_weights(
    recipe: Recipe, codec: Codec, tensors: dict[str, np.ndarray], images: np.ndarray, targets: Targets
) -> None:
    net = torch_twin(recipe, codec, tensors)
    loss, logits, gradients = torch_step(recipe, net, images, targets)
    expected = pt_weights.dump(net)

    twin = mindspore_twin(recipe, codec, tensors)
    objective = Objective(twin, recipe.data.middle)
    arrays = tensors_of((Batch(images=images, labels=[]), targets))
    found_logits = objective.set_train()(*arrays)[1].asnumpy()
    assert np.abs(found_logits - logits).max() <= 1e-4
    ms_weights.load(twin, tensors, "mindspore")  # that pass has moved the running statistics
    scale, ones = LossScale(1.0, dynamic=False), ms.Tensor([1.0], ms.float32)
    vector = Gradients(objective, scale).set_train()(ones, ones, ms.Tensor([0, 0], ms.float32), *arrays)
    found_gradients = split(vector.asnumpy(), twin)
    optimiser = ms_optimisers.build(twin, recipe.train)
    update = Update(twin, optimiser, scale, recipe.train.clip_norm, parts=1, processes=1)
    found_loss = update(vector, ms.Tensor(recipe.train.lr, ms.float32)).asnumpy()[0]

    assert found_loss == pytest.approx(loss, abs=1e-4, rel=1e-6)  # a float32 in the hundreds has no fourth decimal
    updated = ms_weights.dump(twin)
    for name in tensors:
        if ".running_" in name:
            assert np.allclose(updated[name], expected[name], rtol=1e-4, atol=1e-5), name
    # Through deep networks float32 gradients differ by hundredths, wherever a ReLU or a pool decides the other way:
    # `rounding.measure` has 0.012 for crnn_vgg7 and 0.023 for crnn_r34, in more time than each recipe should take here.
    rounding = {name: np.abs(found_gradients[name] - gradient) for name, gradient in gradients.items()}
    assert length(rounding.values()) <= 0.03 * length(gradients.values())
    for name, gradient in gradients.items():
        # The first steps of Adam and Lion are the gradient's sign: where that is rounding, so is the step.
        clear = rounding[name] <= 0.05 * np.abs(gradient)
        difference = np.abs(updated[name] - expected[name])[clear]
        # A bias that starts from 0 is its first step, which is as near as its gradient.
        step = np.abs(expected[name] - tensors[name]).max()
        assert difference.max(initial=0) <= max(1e-3 * np.abs(expected[name]).max(), 0.05 * step), name
        # Biases before batch normalisation have no gradient but rounding.
        assert clear.mean() > 0.5 or name.endswith(".bias"), name
