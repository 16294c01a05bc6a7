import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from components.report.published import published
from wordmill.recipe.loading import load_recipe
from wordmill.recipe.sections import Evaluation
from wordmill.text.charset import Charset, load_charset
from wordmill.text.protocols import FSNS_ALIKE, PROTOCOLS, apply_protocol, is_correct

FOLDER = Path(__file__).resolve().parents[3] / "pipelines" / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
LOWER36 = load_charset("lower36")
CASED = Charset(name="cased", symbols="abAB")
PLATES = Charset(name="plates", symbols="ABC012")
SPACED = Charset(name="spaced", symbols="ab ")
LONG = "a" * 26


def test_recipes_may_name_every_protocol():
    assert set(PROTOCOLS) == set(get_args(get_type_hints(Evaluation)["protocol"]))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_measured_as_its_published_figure_was(path):
    known = published(path.stem)
    assert known is None or load_recipe(path).evaluation == Evaluation(protocol=known.protocol, beams=1)


def test_recipes_without_a_table_of_published_figures_go_by_their_makers():
    protocols = {path.stem: load_recipe(path).evaluation.protocol for path in RECIPES if published(path.stem) is None}
    assert {"crnn_mv3": "paddleocr", "seq2seq_fsns": "fsns", "quickstart": "mindocr"}.items() <= protocols.items()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.protocol=paddle", "evaluation.protocol: found 'paddle': did you mean 'paddleocr'"),
        ("evaluation.beams=0", "evaluation.beams: found 0, expected at least 1"),
        ("evaluation.beam=3", "evaluation: unknown key 'beam': did you mean 'beams'"),
    ],
)
def test_a_wrong_way_of_measuring_is_refused(override, message):
    with pytest.raises(ValueError, match=f"crnn_r34.yaml: {message}"):
        load_recipe(FOLDER / "crnn_r34.yaml", (override,))


@pytest.mark.parametrize(
    ("prediction", "label", "charset", "expected"),
    [
        ("hello", "Hello!", LOWER36, ("hello", "hello")),  # the label loses what cannot be written
        ("hel-lo", "hello", LOWER36, ("hel-lo", "hello")),  # the prediction loses nothing but spaces
        ("a b", " A B ", LOWER36, ("ab", "ab")),
        ("aB", "Ab", CASED, ("aB", "Ab")),  # a charset with both cases keeps them
        ("AB 01", "ab-01", PLATES, ("AB01", "AB01")),  # one with capitals alone raises the label
        ("a b", "A  B", SPACED, ("ab", "ab")),  # spaces do not count even where they can be written
    ],
)
def test_texts_are_compared_as_recmetric_does(prediction, label, charset, expected):
    found = apply_protocol("mindocr", prediction, label, charset)
    assert (found.prediction, found.label) == expected
    assert is_correct("mindocr", prediction, label, charset) is (expected[0] == expected[1])


# What becomes of a label where lower36 can be written: the text, or why its sample is left out.
KEPT = {
    "house": ("house",) * 6,
    "Cafe\u0301!": ("cafe", None, "cafe", "cafe", "cafe\u0301!", "Cafe\u0301!"),
    "Caf\u00e9": ("caf", None, "cafe", "caf", "caf\u00e9", "Cafe"),
    "New York": ("newyork", None, "newyork", "newyork", "newyork", "New York"),
    "don't": ("dont", None, "dont", "dont", "don't", "don't"),
    LONG: (LONG, None, None, None, LONG, LONG),
    "a" * 25: ("a" * 25,) * 6,
    "a" * 24 + " b": ("a" * 24 + "b", None, "a" * 24 + "b", None, "a" * 24 + "b", "a" * 24 + " b"),
    "!?": (None, None, None, None, "!?", "!?"),
    "": (None,) * 6,
    " \u3000": (None,) * 6,
    "Ａ１（": (None, None, "a1", None, "a1(", "Ａ１（"),  # noqa: RUF001
}


@pytest.mark.parametrize("label", KEPT)
def test_each_protocol_takes_a_label_its_own_way(label):
    protocols = ("mindocr", "dtrb", "parseq", "paddleocr", "fudan", "fsns")
    found = [apply_protocol(protocol, "house", label, LOWER36) for protocol in protocols]
    assert tuple(None if item.left_out else item.label for item in found) == KEPT[label]
    assert all(item.prediction == "house" for item in found)


@pytest.mark.parametrize(
    ("protocol", "label", "reason"),
    [
        ("dtrb", LONG, "longer than 25 characters"),
        ("dtrb", "new york", "character outside the charset"),
        ("dtrb", "IT'S", "character outside the charset"),
        ("parseq", LONG, "longer than 25 characters"),
        ("parseq", "!?", "no character left"),
        ("paddleocr", "a" * 24 + " b", "longer than 25 characters"),  # its spaces count here, not in PARSeq
        ("paddleocr", "", "no character left"),
        ("mindocr", "!!!", "no character left"),
        ("dtrb", "", "no character left"),
        ("fudan", "\u3000", "no character left"),
        ("fsns", "  ", "no character left"),
    ],
)
def test_a_sample_is_left_out_for_a_reason(protocol, label, reason):
    assert apply_protocol(protocol, "", label, LOWER36).left_out == reason


def test_long_texts_count_by_the_protocol_that_the_catalogue_names_for_them():
    counted = {name for name in PROTOCOLS if not apply_protocol(name, "", LONG, LOWER36).left_out}
    assert counted == {"mindocr", "fudan", "fsns"}
    told = (FOLDER.parent / "datasets.yaml").read_text(encoding="utf-8").partition("# Harder benchmarks.")[2]
    assert set(re.findall(r"evaluation\.protocol (\w+)", told)) == {"mindocr"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_blanks_are_no_label_where_a_charset_has_them_either(protocol):
    assert is_correct(protocol, "", " ", SPACED) is None
    assert is_correct(protocol, " ", " ", SPACED) is None
    assert is_correct(protocol, "", "a", SPACED) is False


def test_dtrb_keeps_3_of_14_made_up_labels_and_parseq_8_and_mindocr_10():
    labels = [
        "house", "House", "x86",  # DTRB: 3
        "IT'S", "$5.00", "New York", "Caf\u00e9", "na\u00efve!",  # with these PARSeq: 8
        LONG, "b" * 30,  # with these MindOCR: 10
        "!!!", "\u4e2d\u6587", "\u2022", "   ",
    ]  # fmt: skip
    kept = {name: sum(not apply_protocol(name, "", label, LOWER36).left_out for label in labels) for name in PROTOCOLS}
    assert (len(labels), kept["dtrb"], kept["parseq"], kept["mindocr"]) == (14, 3, 8, 10)


@pytest.mark.parametrize(
    ("protocol", "label", "changed"),
    [
        ("mindocr", "house", ()),
        ("mindocr", "Don 't", ("spaces removed", "case folded", "characters deleted")),
        ("dtrb", "House", ("case folded",)),
        ("parseq", "Caf\u00e9", ("written in ASCII", "case folded")),
        ("paddleocr", "A-1", ("case folded", "characters deleted")),
        ("fudan", "Ｔ恤", ("half width", "lower case")),
        ("fsns", " Rue  Foch", ("spaces collapsed",)),
    ],
)
def test_what_was_changed_of_a_label_is_said(protocol, label, changed):
    assert apply_protocol(protocol, "house", label, LOWER36).changed == changed


def test_fudan_takes_width_script_case_and_spaces_for_alike_in_both_texts():
    chinese = load_charset("chinese6623")
    for prediction, label in [
        ("\u4e2d\u56fd A1", "\u4e2d\u570b\u3000ａ１"),  # noqa: RUF001  traditional and full width
        ("\u4e2d\u570bａ１", "\u4e2d\u56fdA1"),  # noqa: RUF001  the other way round
        ("\u8fd9\u91cc", "\u9019\u88e1"),
    ]:
        found = apply_protocol("fudan", prediction, label, chinese)
        assert found.prediction == found.label
        assert not is_correct("mindocr", prediction, label, chinese)
    other = apply_protocol("fudan", "\u5927", "\u592a", chinese)
    assert other.prediction != other.label


def test_fudan_knows_the_usual_traditional_characters():
    traditional = "\u500b\u5011\u4f86\u6642\u6703\u5c0d\u767c\u7d93\u9ad4\u9580\u99ac\u9f8d\u9f9c\u6a5f\u611b"
    simplified = "\u4e2a\u4eec\u6765\u65f6\u4f1a\u5bf9\u53d1\u7ecf\u4f53\u95e8\u9a6c\u9f99\u9f9f\u673a\u7231"
    assert apply_protocol("fudan", "", traditional, LOWER36).label == simplified
    assert apply_protocol("fudan", "", simplified, LOWER36).label == simplified


def test_fsns_takes_31_characters_for_others():
    assert len(FSNS_ALIKE) == 31
    found = apply_protocol("fsns", "Chateau d Eau", "  Ch\u00e2teau-d-Eau ", LOWER36)
    assert (found.prediction, found.label) == ("Chateau d Eau", "Chateau d Eau")
    found = apply_protocol("fsns", "R\u00c9SIDENCE (nord)", "RESIDENCE (Nord)", LOWER36)
    assert (found.prediction, found.label) == ("RESIDENCE （nord）", "RESIDENCE （Nord）")  # noqa: RUF001
    others = "\u0153uvre \u00e6 \u00d1"
    assert apply_protocol("fsns", "", others, LOWER36).label == others
