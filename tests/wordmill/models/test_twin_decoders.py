import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.wordmill.models.ms import COMPACT, DATA, TRAIN, ms  # isort: skip  # before anything imports MindSpore
from tests import rounding
from tests.wordmill.training.tiny import picture
from wordmill.models.checkpoint import Checkpoint
from wordmill.models.ms import model as ms_model
from wordmill.models.ms import parameters as ms_parameters
from wordmill.models.ms import predict as ms_predict
from wordmill.models.ms import weights as ms_weights
from wordmill.models.pt import model as pt_model
from wordmill.models.pt import predict as pt_predict
from wordmill.models.pt import weights as pt_weights
from wordmill.pictures.image import normalise
from wordmill.recipe.sections import Data, Model
from wordmill.text.decoding import AttentionCodec, codec_of
from wordmill.training.ms import losses as ms_losses
from wordmill.training.pt import losses as pt_losses
from wordmill.training.targets import Draws, encode_labels

GRAY = DATA[1]
CRNN = dataclasses.replace(COMPACT, hidden=16, rectification="tps")
RARE = dataclasses.replace(COMPACT, name="rare", hidden=16, rectification="tps", max_length=5, decoder_hidden=24)
SEQ2SEQ = dataclasses.replace(COMPACT, name="seq2seq", hidden=16, decoder_hidden=24)
DECODERS = pytest.mark.parametrize("model", [RARE, SEQ2SEQ], ids=["rare", "seq2seq"])
WIDTHS = {"crnn": 100, "rare": 100, "seq2seq": 32}
WRITING = {"crnn": (2, 0), "rare": (6, 2), "seq2seq": (8, 0.5)}  # scale and stop with which texts are written
LABELS = ["a", "hello", "00112", "zz", "too long for rare, and no seq2seq"]


def data_of(model: Model) -> Data:
    """Return what a model reads; seq2seq's graph, which is compiled, grows with the width."""
    return dataclasses.replace(GRAY, width=WIDTHS[model.name])


def pictures(model: Model) -> np.ndarray:
    return np.stack([picture(number)[:, : data_of(model).width] for number in range(5)])


@functools.cache
def checkpoint_of(model: Model, scale: float = 2.0, stop: float = 0.0) -> Checkpoint:
    """Return weights with running statistics as after training, pictures that are bent and lively recurrent layers."""
    torch.manual_seed(3)
    rng = np.random.default_rng(8)
    tensors = pt_weights.dump(pt_model.build(model, data_of(model), codec_of(model, data_of(model)).classes))
    for name, tensor in tensors.items():
        if name.endswith("running_mean"):  # small ones: behind large ones every ReLU is dead
            tensors[name] = rng.normal(0, 0.05, tensor.shape).astype(np.float32)
        if name.endswith("running_var"):
            tensors[name] = rng.uniform(0.05, 0.2, tensor.shape).astype(np.float32)
        if name == "rectifier.fc2.weight":
            tensors[name] = rng.normal(0, 0.05, tensor.shape).astype(np.float32)
        if name.startswith(("neck", "decoder", "head")):
            tensors[name] = tensor * scale
    if "decoder.generator.bias" in tensors:
        tensors["decoder.generator.bias"][AttentionCodec.STOP] += stop
    return Checkpoint(tensors=tensors, data=data_of(model), model=model, train=TRAIN, step=0)


@functools.cache
def nets(model: Model) -> tuple[pt_model.Recogniser, ms_model.Recogniser]:
    """Return both frameworks' recognisers with the same weights, in evaluation mode."""
    checkpoint, classes = checkpoint_of(model), codec_of(model, data_of(model)).classes
    torch_net, mindspore_net = (twin.build(model, data_of(model), classes) for twin in (pt_model, ms_model))
    pt_weights.load_weights(torch_net, checkpoint.tensors, "torch")
    ms_weights.load_weights(mindspore_net, checkpoint.tensors, "mindspore")
    return torch_net.eval(), mindspore_net.set_train(False)


@pytest.mark.parametrize("model", [CRNN, RARE, SEQ2SEQ], ids=["crnn", "rare", "seq2seq"])
def test_recognisers_are_built_alike(model: Model) -> None:
    torch_net, mindspore_net = nets(model)
    shapes = [{name: values.shape for name, values in tensors.items()}
              for tensors in (pt_weights.dump(torch_net), ms_weights.dump(mindspore_net))]  # fmt: skip
    assert shapes[0] == shapes[1]
    steps = {"crnn": 25, "rare": 6, "seq2seq": 8}[model.name]
    assert (
        pt_model.count_steps(torch_net, data_of(model)) == ms_model.count_steps(mindspore_net, data_of(model)) == steps
    )


@functools.cache
def compiled(model: Model) -> ms_predict.Predictor:
    """Return MindSpore's predictor, whose graphs take whatever weights are loaded."""
    return ms_predict.Predictor(checkpoint_of(model, *WRITING[model.name]), "cpu")


@pytest.mark.parametrize("model", [CRNN, RARE, SEQ2SEQ], ids=["crnn", "rare", "seq2seq"])
def test_the_same_weights_give_the_same_texts_greedy_and_by_beam(model: Model) -> None:
    checkpoint, images = checkpoint_of(model, *WRITING[model.name]), pictures(model)
    one, other = pt_predict.Predictor(checkpoint, "cpu"), compiled(model)
    ms_weights.load_weights(other.net, checkpoint.tensors, "mindspore")
    for beams in (1, 4):
        (texts, confidences), (same, close) = one.read(images, beams), other.read(images, beams)
        assert texts == same
        assert np.abs(confidences - close).max() <= 1e-4
        assert len(set(texts)) > 1
    logits = one(images)
    looks, same_looks = (twin.attend(images, logits) for twin in (one, other))
    if model is CRNN:
        assert looks is same_looks is None
    else:
        steps, columns = logits.shape[1], WIDTHS[model.name] // 4
        assert looks.shape == (5, steps, columns)
        assert looks.sum(axis=2) == pytest.approx(np.ones((5, steps)), abs=1e-5)
        assert np.abs(looks - same_looks).max() <= 1e-4
        assert np.abs(looks - seen(checkpoint, images)).max() <= 1e-4
    places, same_places = (twin.columns(images) for twin in (one, other))
    if model is SEQ2SEQ:
        assert places is same_places is None  # pictures are read as they are
    else:
        assert places.shape == (5, images.shape[2])
        assert places.std(axis=0).max() > 1e-3  # each is bent otherwise
        assert np.abs(places - same_places).max() <= 1e-4
    texts, confidences = one.codec.decode(one(images))
    assert one.read(images)[0] == texts
    assert np.array_equal(one.read(images)[1], confidences)
    assert other.read(images[:2], 4)[0] == one.read(images, 4)[0][:2]


def seen(checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    """Return the attention of PyTorch's decoder itself, step by step."""
    classes = codec_of(checkpoint.model, checkpoint.data).classes
    net = pt_model.build(checkpoint.model, checkpoint.data, classes).eval()
    pt_weights.load_weights(net, checkpoint.tensors, "torch")
    decoder, weights = net.decoder, []
    layer = decoder.score if hasattr(decoder, "score") else decoder.attention
    layer.register_forward_hook(lambda _, given, scores: weights.append(scores.softmax(1).reshape(len(images), -1)))
    with torch.no_grad():
        net(torch.from_numpy(normalise(images, 127.5)))
    return torch.stack(weights, 1).numpy()


def sequence(net: pt_model.Recogniser, images: np.ndarray, *targets: np.ndarray) -> torch.Tensor:
    classes, forced = map(torch.from_numpy, targets)
    logits: torch.Tensor = net(torch.from_numpy(normalise(images, 127.5)), classes, forced)
    return logits


@functools.cache
def gradient_of(model: Model) -> Callable[..., tuple[tuple["ms.Tensor", "ms.Tensor"], tuple["ms.Tensor", ...]]]:
    """Return MindSpore's loss, logits and gradients as one graph, which whatever coins go through."""
    net, sequence_losses = nets(model)[1], ms_losses.SequenceLosses()

    def objective(x: ms.Tensor, *arrays: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor]:
        classes, lengths, weights, coins = arrays
        logits = net(x, classes, coins)
        return (sequence_losses(logits, classes, lengths) * weights).sum(), logits

    return ms.jit(ms.value_and_grad(objective, None, net.trainable_params(), has_aux=True))


@pytest.mark.parametrize("model", [CRNN, RARE, SEQ2SEQ], ids=["crnn", "rare", "seq2seq"])
def test_reading_by_themselves_they_have_the_same_logits(model: Model) -> None:
    images, other = pictures(model), compiled(model)
    with torch.no_grad():
        expected = nets(model)[0](torch.from_numpy(normalise(images, 127.5))).numpy()
    ms_weights.load_weights(other.net, checkpoint_of(model).tensors, "mindspore")
    assert np.ptp(expected, axis=0).max() > 0.05
    assert np.abs(other(images) - expected).max() <= 1e-4


@pytest.mark.arithmetic
@DECODERS
@pytest.mark.parametrize("forced", [[1, 1, 1, 1, 1], [1, 0, 0, 1, 1]], ids=["told", "mixed"])
def test_told_or_not_the_logits_and_the_gradients_are_the_same(model: Model, forced: list[int]) -> None:
    torch_net, mindspore_net = nets(model)
    codec, images = codec_of(model, data_of(model)), pictures(model)
    drawn = Draws(forced=np.array(forced, np.float32), seeds=np.zeros(5, np.int32))
    targets = encode_labels(LABELS, codec, pt_model.count_steps(torch_net, data_of(model)), "cross_entropy", drawn)

    def loss_of(net: pt_model.Recogniser) -> torch.Tensor:
        logits = sequence(net, images, targets.classes, targets.forced)
        losses = pt_losses.sequence_losses(logits, *map(torch.from_numpy, (targets.classes, targets.lengths)))
        return (losses * torch.from_numpy(targets.weights)).sum()

    torch_net.zero_grad()
    loss = loss_of(torch_net)
    torch.autograd.backward(loss)
    with torch.no_grad():
        logits = sequence(torch_net, images, targets.classes, targets.forced).numpy()

    parameters = mindspore_net.trainable_params()
    arrays = (normalise(images, 127.5), targets.classes, targets.lengths, targets.weights, targets.forced)
    (other_loss, other_logits), gradients = gradient_of(model)(*map(ms.Tensor, arrays))

    assert np.abs(logits - other_logits.asnumpy()).max() <= 1e-4
    assert float(other_loss.asnumpy()) == pytest.approx(loss.item(), abs=1e-4)
    named = {id(parameter): name for name, parameter in ms_parameters.named(mindspore_net).items()}
    names = [named[id(parameter)] for parameter in parameters]
    measured = rounding.measure(torch_net, loss_of)
    assert all(gradient.any() for gradient in measured.exact.values())
    measured.assert_near(rounding.gradients(torch_net))
    measured.assert_near({name: found.asnumpy() for name, found in zip(names, gradients, strict=True)})


@DECODERS
def test_coins_change_what_the_samples_they_fall_on_read_and_no_other(model: Model) -> None:
    net = nets(model)[0]
    targets = encode_labels(
        LABELS, codec_of(model, data_of(model)), pt_model.count_steps(net, data_of(model)), "cross_entropy"
    )
    coins = np.array([1, 0, 0, 1, 1], np.float32)
    with torch.no_grad():
        told, mixed = (sequence(net, pictures(model), targets.classes, forced) for forced in (targets.forced, coins))
    changed = (told != mixed).flatten(1).any(1)
    assert changed[[1, 2]].all()
    assert not changed[[0, 3, 4]].any()
