from dataclasses import replace
from math import atan, cos, sin

import numpy as np
import pytest

from wordmill.synth.backdrop import Backdrops
from wordmill.synth.effects import OPAQUE, blend
from wordmill.synth.fonts import PAD
from wordmill.synth.geometry import Size, Warp, random_map, sample
from wordmill.synth.random import Dice
from wordmill.synth.style import plate, tinted

STILL = Warp(
    turn=0.0,
    wild_turn=0.0,
    shear=0.0,
    perspective=0.0,
    corner=0.0,
    curve=0.0,
    bend=0.0,
    loose=0.0,
    smooth=1.0,
    tight=0.0,
)
SIZE = Size(32, 100)


def test_line_without_warp_fills_the_crop_evenly() -> None:
    # A ramp of 1 gray level per pixel over an ink box of 200 x 64: with margins of 0.01 * 64 pixels the crop's
    # column c averages samples 2c and 2c + 1, that is the ramp at -0.64 + (2c + 1) * 201.28 / 200 - 0.5.
    canvas = np.broadcast_to(np.arange(200 + 2 * PAD, dtype=np.uint8), (64 + 2 * PAD, 200 + 2 * PAD)).copy()
    crop = sample(canvas, random_map(200, 64, STILL, SIZE, Dice("still")))
    expected = PAD - 0.64 + (2 * np.arange(100) + 1) * 201.28 / 200 - 0.5
    assert crop.shape == (32, 100)
    assert np.abs(crop - expected).max() <= 1.1  # coordinates to 1/32, gray levels rounded twice
    assert np.ptp(crop, axis=0).max() == 0


def test_a_half_turn_tangent_of_one_stands_text_upright() -> None:
    # tan(45 degrees) = 1, so the rotation is about 90 degrees for a bell value near 1; with that a ramp along the
    # text becomes a ramp down the crop. Search the draws for such a value.
    turned = replace(STILL, turn=0.5, wild_turn=0.5)
    canvas = np.broadcast_to(np.arange(100 + 2 * PAD, dtype=np.uint8) + 50, (100 + 2 * PAD, 100 + 2 * PAD)).copy()
    found = []
    for key in range(1000):
        dice = Dice(key)
        draws = [dice.unit() for _ in range(6)]
        half = (sum(draws[2:]) - 2.0) * 3.0**0.5 * 0.5
        if abs(half - 1.0) < 0.02:
            found.append(sample(canvas, random_map(100, 100, turned, SIZE, Dice(key))).astype(int))
    assert found
    for crop in found:
        assert crop[28, 50] - crop[3, 50] > 60
        assert abs(crop[16, 90] - crop[16, 10]) < 12


@pytest.mark.parametrize("key", range(6))
def test_a_bent_line_lies_on_its_arc(key: int) -> None:
    # The arc's half angle is twice that of the tangent drawn; its radius follows from the line's length. With margins
    # of 0.01 * 40 pixels the crop shows the box around the arc, whose ends lie lower than its middle (or higher).
    width, height = 300, 40
    draws = Dice(key)
    draws.unit()
    half = 2 * atan(0.4 * (0.25 + 0.75 * draws.unit()))
    upwards = draws.unit() < 0.65
    radius = width / 2 / half
    box_width = 2 * (radius + height / 2) * sin(half) + 0.8
    box_height = radius + height / 2 - (radius - height / 2) * cos(half) + 0.8
    canvas = np.zeros((height + 2 * PAD, width + 2 * PAD), np.uint8)
    canvas[PAD + height // 2 - 3 : PAD + height // 2 + 3, PAD:-PAD] = 255  # the line's middle
    crop = sample(canvas, random_map(width, height, replace(STILL, curve=1.0, bend=0.4), Size(200, 300), Dice(key)))
    for angle in (-0.8 * half, -0.4 * half, 0.0, 0.4 * half, 0.8 * half):
        column = round((box_width / 2 + radius * sin(angle)) / box_width * 300)
        down = (height / 2 + radius * (1 - cos(angle)) + 0.4) / box_height
        ink = crop[:, column].astype(float)
        found = float((np.arange(200) + 0.5) @ ink / ink.sum()) / 200
        assert found == pytest.approx(down if upwards else 1 - down, abs=0.03)


def test_straight_coordinates_do_not_depend_on_how_densely_they_are_taken() -> None:
    canvas = np.broadcast_to(np.arange(240 + 2 * PAD, dtype=np.uint8), (40 + 2 * PAD, 240 + 2 * PAD)).copy()
    coarse = random_map(240, 40, replace(STILL, smooth=0.0), SIZE, Dice(3))
    fine = random_map(240, 40, STILL, SIZE, Dice(3))
    assert coarse.part.shape == (32, 100)
    assert fine.part.shape == (32, 200)  # 240 pixels for 100, 40 for 32
    assert np.abs(sample(canvas, coarse).astype(int) - sample(canvas, fine)).max() <= 1


def test_blend_by_hand() -> None:
    picture = np.full((1, 1, 3), 100, np.int16)
    mask = np.array([[0, 128, 255]], np.uint8)
    ink = np.array([[[200]]], np.int16)
    # 100 + (200 - 100) * 128 / 255 = 150.2; half the opacity at full alpha: 150
    assert blend(picture, mask, ink, OPAQUE).tolist() == [[[100, 150, 200]]]
    assert blend(picture, mask, ink, OPAQUE // 2)[0, 0, 2] == 150


def test_blending_the_extremes_does_not_overflow() -> None:
    mask = np.array([[255]], np.uint8)
    black, white = np.zeros((3, 1, 1), np.int16), np.full((3, 1, 1), 255, np.int16)
    assert blend(black, mask, white, OPAQUE).ravel().tolist() == [255] * 3
    assert blend(white, mask, black, OPAQUE).ravel().tolist() == [0] * 3


def test_backdrops_keep_their_mean_and_noise_its_strength() -> None:
    backdrops = Backdrops()
    middle = np.full((1, 1, 1), 128, np.int16)
    flat = backdrops.plane(middle, 0, SIZE, Dice(1))
    assert flat.shape == (1, 32, 100)
    assert flat.min() == flat.max() == 128
    means = [float(backdrops.plane(middle, 32, SIZE, Dice("mean", i)).mean()) for i in range(300)]
    assert abs(np.mean(means) - 128) < 4
    gray = np.full((32, 100, 3), 128, np.uint8)
    noise = np.concatenate([backdrops.noisy(gray, 160, Dice("noise", i)) for i in range(20)]) - 128.0
    assert abs(float(noise.std()) - 10) < 0.5
    assert abs(float(noise.mean())) < 1


@pytest.mark.parametrize("size", [Size(32, 100), Size(150, 150), Size(40, 500), Size(81, 21)])
def test_backdrops_of_any_size_stay_within_bounds(size: Size) -> None:
    mean = np.array([[[20]], [[130]], [[240]]], np.int16)
    planes = [Backdrops().plane(mean, 255, size, Dice(index)) for index in range(20)]
    assert {plane.shape for plane in planes} == {(3, *size)}
    assert min(int(plane.min()) for plane in planes) == 0
    assert max(int(plane.max()) for plane in planes) == 255


def test_tints_keep_about_the_luminance() -> None:
    assert tinted(77, 1, Dice(1)).tolist() == [[[77]]]
    colours = np.array([tinted(128, 3, Dice("tint", i)).ravel() for i in range(500)])
    luminance = colours @ [0.299, 0.587, 0.114]
    kept = (colours > 0).all(1) & (colours < 255).all(1)
    assert kept.mean() > 0.8
    assert np.abs(luminance[kept] - 128).max() < 3
    assert 0.25 < (np.ptp(colours, axis=1) <= 1).mean() < 0.4  # gray ones


def test_plates_and_frames_leave_the_ink_apart() -> None:
    for key in range(200):
        picture = np.full((1, 32, 100), 100, np.int16)
        plate(picture, 100, 180, Dice("plate", key))
        levels = np.unique(picture).tolist()
        assert len(levels) <= 2
        assert all(abs(level - 180) >= 35 for level in levels)


def test_dice_are_what_they_say() -> None:
    dice = Dice("statistics")
    bells = [dice.bell(2.0) for _ in range(20000)]
    assert abs(np.mean(bells)) < 0.06
    assert abs(np.std(bells) - 2.0) < 0.06
    assert {dice.integer(3, 5) for _ in range(100)} == {3, 4, 5}
    assert {dice.below(3) for _ in range(100)} == {0, 1, 2}
