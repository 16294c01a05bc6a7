"""The kinds of rendered pictures: how much of everything each has, and the colours of their parts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wordmill.synth.backdrop import Colour, Plane
from wordmill.synth.effects import Damage
from wordmill.synth.geometry import Warp
from wordmill.synth.random import Dice

Difficulty = Literal["easy", "hard", "mixed"]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one kind of picture is made."""

    warp: Warp
    harm: Damage
    bolder: float  # share of lines made bolder
    effects: float  # share with outline, shadow or depth
    tracking: float  # largest extra space between letters, pixels of the atlas
    contrast: int  # least gray difference between ink and ground
    texture: float  # strength of backgrounds
    clutter: float  # share with a plate, and share with ink of a neighbour


EASY = Style(
    warp=Warp(turn=0.01, wild_turn=0.02, shear=0.05, perspective=0.2, corner=0.06, curve=0.0, bend=0.0,
              loose=0.10, smooth=0.5, tight=0.05),
    harm=Damage(low_resolution=0.0, blur=0.2, most_blur=0.7, motion=0.0, sharpen=0.0, light=0.1, noise=0.3,
                noise_level=3.0, jpeg=0.1, jpeg_quality=60),
    bolder=0.1, effects=0.0, tracking=4.0, contrast=90, texture=0.12, clutter=0.0,
)  # fmt: skip
SCENE = Style(
    warp=Warp(turn=0.028, wild_turn=0.08, shear=0.09, perspective=0.55, corner=0.13, curve=0.2, bend=0.4,
              loose=0.13, smooth=0.5, tight=0.15),
    harm=Damage(low_resolution=0.12, blur=0.22, most_blur=1.3, motion=0.07, sharpen=0.05, light=0.25, noise=0.5,
                noise_level=6.0, jpeg=0.25, jpeg_quality=20),
    bolder=0.15, effects=0.34, tracking=18.0, contrast=40, texture=0.35, clutter=0.08,
)  # fmt: skip
HARD = Style(
    warp=Warp(turn=0.05, wild_turn=0.13, shear=0.16, perspective=0.8, corner=0.2, curve=0.35, bend=0.5,
              loose=0.16, smooth=0.5, tight=0.3),
    harm=Damage(low_resolution=0.2, blur=0.3, most_blur=1.5, motion=0.12, sharpen=0.05, light=0.5, noise=0.6,
                noise_level=8.0, jpeg=0.45, jpeg_quality=15),
    bolder=0.16, effects=0.5, tracking=18.0, contrast=36, texture=0.5, clutter=0.14,
)  # fmt: skip


def style_of(difficulty: str, dice: Dice) -> Style:
    """The style of a picture of a set that is "easy", "hard" or "mixed"."""
    draw = dice.unit()
    if difficulty == "mixed":  # some easy pictures shorten the plateau at the start of training
        return SCENE if draw < 0.72 else EASY if draw < 0.9 else HARD
    return EASY if difficulty == "easy" else HARD


def grays(contrast: int, dice: Dice) -> tuple[int, int]:
    """Gray of the ground and of the ink, at least `contrast` apart, more for most pictures."""
    ground = dice.integer(10, 245)
    draw = dice.unit()
    apart = max(contrast, 75) if draw < 0.6 else contrast if draw < 0.9 else contrast * 5 // 8
    for _ in range(20):
        ink = dice.below(256)
        if abs(ink - ground) > apart:
            return ground, ink
    return ground, 255 if ground < 128 else 0


def tinted(gray: int, channels: int, dice: Dice) -> Colour:
    """A colour (C, 1, 1) of about that luminance: gray itself, or red, green and blue of a random hue."""
    if channels == 1:
        return np.array([[[gray]]], np.int16)
    strength = 0.0 if dice.chance(0.3) else dice.between(0.0, 100.0)
    red, blue = dice.between(-strength, strength), dice.between(-strength, strength)
    levels = gray + 1.4 * red, gray - 0.71 * red - 0.34 * blue, gray + 1.77 * blue  # from YCbCr
    return np.array([min(max(int(level), 0), 255) for level in levels], np.int16)[:, None, None]


def outline_gray(ink: int, dice: Dice) -> int:
    """Gray of an outline that tells it from the ink."""
    gray = dice.below(256)
    return gray if abs(gray - ink) >= 45 else (ink + 128) % 256


def shadow_gray(ink: int, ground: int, dice: Dice) -> int:
    """Gray of a shadow: any, or on the far side of the ground from the ink."""
    if dice.chance(0.5):
        return dice.below(256)
    return (0 if ink > ground else 204) + ground // 5


def plate(picture: Plane, ground: int, ink: int, dice: Dice) -> None:
    """Draw a plate or a frame behind the word."""
    gray = min(max(ground + dice.integer(-60, 60), 0), 255)
    if abs(gray - ink) < 35:
        return
    channels, height, width = picture.shape
    colour = tinted(gray, channels, dice)
    left, top = max(dice.integer(-5, 8), 0), max(dice.integer(-5, 4), 0)
    right, bottom = width - max(dice.integer(-5, 8), 0), height - max(dice.integer(-5, 4), 0)
    if dice.chance(0.5):
        picture[:, top:bottom, left:right] = colour
        return
    thick = dice.integer(1, 2)
    picture[:, top : top + thick, left:right] = picture[:, bottom - thick : bottom, left:right] = colour
    picture[:, top:bottom, left : left + thick] = picture[:, top:bottom, right - thick : right] = colour
