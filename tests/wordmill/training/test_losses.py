import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.wordmill.models.ms import ms  # isort: skip  # before anything imports MindSpore
from wordmill.text.charset import Charset
from wordmill.text.decoding import AttentionCodec, CtcCodec
from wordmill.training.ms import losses as ms_losses
from wordmill.training.pt import losses as pt_losses
from wordmill.training.targets import encode_labels

Losses = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
AB = Charset(name="ab", symbols="ab")


def torch_losses(function: Callable[..., torch.Tensor]) -> Losses:
    return lambda *arrays: function(*map(torch.from_numpy, arrays)).numpy()


def mindspore_losses(cell: ms.nn.Cell) -> Losses:
    return lambda *arrays: cell(*map(ms.Tensor, arrays)).asnumpy()


CTC = pytest.mark.parametrize(
    "ctc",
    [torch_losses(pt_losses.ctc_losses), torch_losses(pt_losses.ctc_losses_on_cuda),
     mindspore_losses(ms_losses.CtcLosses())],
    ids=["pytorch", "pytorch-cuda", "mindspore"],
)  # fmt: skip
SEQUENCE = pytest.mark.parametrize(
    "sequence",
    [torch_losses(pt_losses.sequence_losses), mindspore_losses(ms_losses.SequenceLosses())],
    ids=["pytorch", "mindspore"],
)


FRAMES = pytest.mark.parametrize(
    "frame_losses",
    [torch_losses(pt_losses.frame_losses), mindspore_losses(ms_losses.FrameLosses())],
    ids=["pytorch", "mindspore"],
)


def random_logits(steps: int, classes: int, samples: int) -> np.ndarray:
    return np.random.default_rng(steps).normal(0, 1.5, (samples, steps, classes)).astype(np.float32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def ctc_by_all_paths(logits: np.ndarray, label: list[int], blank: int = 0) -> float:
    """Return -ln of the sum of the probabilities of all paths (T classes) that read as the label."""
    likely = log_softmax(logits)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        if [number for number, _ in itertools.groupby(path) if number != blank] == label:
            total += np.exp(likely[np.arange(len(logits)), path].sum())
    return -float(np.log(total))


@CTC
def test_ctc_is_the_sum_over_all_paths_repeated_letters_included(ctc: Losses) -> None:
    labels = ["a", "ab", "aa", "abb", "bab", "aab"]
    logits, targets = random_logits(5, 3, len(labels)), encode_labels(labels, CtcCodec(charset=AB), 5, "ctc")
    rows = [[1], [1, 2], [1, 1], [1, 2, 2], [2, 1, 2], [1, 1, 2]]
    expected = [ctc_by_all_paths(*pair) for pair in zip(logits, rows, strict=True)]
    assert targets.weights.tolist() == pytest.approx([1 / 6] * 6)
    assert ctc(logits, targets.classes, targets.lengths).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_gradients_of_ctc_are_those_of_pytorchs_own_where_the_loss_is_worked_out_on_cuda() -> None:
    labels = ["a", "ab", "aa", "abb", "bab", "aab"]
    targets = encode_labels(labels, CtcCodec(charset=AB), 5, "ctc")
    arrays = targets.classes, targets.lengths, random_logits(6, 1, 1)[0, :, 0]
    classes, lengths, weights = map(torch.from_numpy, arrays)
    gradients = []
    for losses in (pt_losses.ctc_losses, pt_losses.ctc_losses_on_cuda):
        logits = torch.from_numpy(random_logits(5, 3, len(labels))).requires_grad_()
        (losses(logits, classes, lengths) * weights).sum().backward()
        gradients.append(logits.grad.numpy())
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
    assert np.abs(gradients[0]).min() > 1e-4


@CTC
def test_ctc_with_the_blank_first_is_mindocrs_with_the_blank_last(ctc: Losses) -> None:
    """Rolled by one class, the logits are in the order of MindOCR's classes: the characters, then the blank."""
    last = random_logits(4, 3, 1)
    expected = ctc_by_all_paths(last[0], [0, 0, 1], blank=2)
    targets = encode_labels(["aab"], CtcCodec(charset=AB), 4, "ctc")
    found = ctc(np.roll(last, 1, axis=2), targets.classes, targets.lengths)
    assert found.tolist() == pytest.approx([expected], rel=1e-5)


@CTC
def test_labels_that_are_empty_or_too_long_have_a_finite_loss_that_does_not_count(ctc: Losses) -> None:
    labels = ["", "aaa", "bb", "???"]  # three times the same needs 5 steps
    logits, targets = random_logits(4, 3, 4), encode_labels(labels, CtcCodec(charset=AB), 4, "ctc")
    found = ctc(logits, targets.classes, targets.lengths)
    assert np.isfinite(found).all()
    assert targets.weights.tolist() == [0.0, 0.0, 0.25, 0.0]
    assert (found * targets.weights).sum() == pytest.approx(ctc_by_all_paths(logits[2], [2, 2]) / 4, rel=1e-5)


@CTC
def test_ctc_by_length_is_pytorchs_mean(ctc: Losses) -> None:
    logits, targets = random_logits(5, 3, 2), encode_labels(["a", "bab"], CtcCodec(charset=AB), 5, "ctc_by_length")
    expected = (ctc_by_all_paths(logits[0], [1]) + ctc_by_all_paths(logits[1], [2, 1, 2]) / 3) / 2
    found = (ctc(logits, targets.classes, targets.lengths) * targets.weights).sum()
    assert found == pytest.approx(expected, rel=1e-5)


@FRAMES
def test_the_loss_of_frames_is_the_sum_of_their_cross_entropies(frame_losses: Losses) -> None:
    logits = random_logits(4, 3, 2)
    likely = log_softmax(logits)
    rows = ([0, 1, 1, 0], [2, 2, 0, 1])
    expected = [-sum(likely[n, step, number] for step, number in enumerate(row)) for n, row in enumerate(rows)]
    assert frame_losses(logits, np.array(rows, np.int32)).tolist() == pytest.approx(expected, rel=1e-5)


@SEQUENCE
def test_cross_entropy_counts_the_characters_and_stop_over_the_whole_batch(sequence: Losses) -> None:
    logits = random_logits(4, 4, 3)
    likely = log_softmax(logits)
    # The last one does not fit.
    targets = encode_labels(
        ["ab", "b", "aaaa"], AttentionCodec(charset=AB), 4, "cross_entropy"
    )  # the last one does not fit
    found = sequence(logits, targets.classes, targets.lengths)
    expected = [-(likely[0, 0, 2] + likely[0, 1, 3] + likely[0, 2, 1]), -(likely[1, 0, 3] + likely[1, 1, 1])]
    assert found[:2].tolist() == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(found[2])
    assert (found * targets.weights).sum() == pytest.approx(sum(expected) / 5, rel=1e-5)


@SEQUENCE
def test_unmasked_cross_entropy_counts_the_padding_too(sequence: Losses) -> None:
    logits = random_logits(4, 4, 2)
    likely = log_softmax(logits)
    targets = encode_labels(["ab", "b"], AttentionCodec(charset=AB), 4, "cross_entropy_unmasked")
    found = sequence(logits, targets.classes, targets.lengths)
    rows = ([2, 3, 1, 0], [3, 1, 0, 0])
    expected = [-sum(likely[n, step, number] for step, number in enumerate(row)) for n, row in enumerate(rows)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert (found * targets.weights).sum() == pytest.approx(sum(expected) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "as_written",
    [torch_losses(pt_losses.as_written), mindspore_losses(ms_losses.as_written)],
    ids=["pytorch", "mindspore"],
)
def test_a_guide_is_told_the_letters_one_further_and_stop_behind_them(as_written: Losses) -> None:
    """CTC has the blank as class 0 and letters from 1 on; a decoder GO as 0, STOP as 1 and letters from 2 on."""
    classes, lengths = np.array([[1, 2, 0], [2, 1, 2]], np.int32), np.array([2, 3], np.int32)
    assert as_written(classes, lengths).tolist() == [[2, 3, 1, 0], [3, 2, 3, 1]]
