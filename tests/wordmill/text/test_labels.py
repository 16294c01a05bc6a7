from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from wordmill.text.charset import Charset, load_charset
from wordmill.text.labels import POLICIES, Verdict, judge

LOWER = load_charset("lower36")
ACCENTED = Charset(name="accented", symbols="abcdefé ")

# What each policy stores of a label, or None: dropped. Worked out by hand for digits and lower-case letters, at most
# 25 characters. MindOCR and DTRB without its filter keep all 14, PARSeq 8, DTRB 3: what the peers' own code has been
# seen to keep of 14 words of such kinds.
TABLE: list[tuple[str, str, str | None, str, str | None, str | None]] = [
    # label, mindocr, dtrb, dtrb_unfiltered, parseq, paddleocr
    ("word", "word", "word", "word", "word", "word"),
    ("Word2", "word2", "word2", "word2", "word2", "word2"),
    ("", "", "", "", None, None),
    ("it's", "its", None, "its", "its", "its"),
    ("New York", "newyork", None, "newyork", "newyork", "newyork"),
    ("Café", "caf", None, "caf", "cafe", "caf"),
    ("$5.00", "500", None, "500", "500", "500"),
    ("ﬁne", "ne", None, "ne", "fine", "ne"),
    ("a" * 13 + " " + "b" * 12, "", None, "a" * 13 + "b" * 12, "a" * 13 + "b" * 12, None),
    ("!!!", "", None, "", None, None),
    ("   ", "", None, "", None, None),
    ("中文", "", None, "", None, None),
    ("©", "", None, "", None, None),
    ("x" * 26, "", None, "x" * 26, None, None),
]


@pytest.mark.parametrize("column", range(5), ids=POLICIES)
def test_every_policy_stores_what_its_original_teaches(column: int) -> None:
    policy = ["mindocr", "dtrb", "dtrb_unfiltered", "parseq", "paddleocr"][column]
    found = {row[0]: judge(policy, row[0], LOWER, 25) for row in TABLE}
    stored = {label: None if verdict.reason else verdict.label for label, verdict in found.items()}
    assert stored == {row[0]: row[1 + column] for row in TABLE}


def test_the_published_counts_come_out() -> None:
    kept = Counter(policy for policy in POLICIES for row in TABLE if not judge(policy, row[0], LOWER, 25).reason)
    assert kept == {"mindocr": 14, "dtrb": 3, "dtrb_unfiltered": 14, "parseq": 8, "paddleocr": 7}


@pytest.mark.parametrize(
    ("policy", "label", "reason"),
    [
        ("dtrb", "x" * 26, "longer than 25 characters"),
        ("dtrb", "it's", "character outside the charset"),
        ("dtrb", "é" * 26, "longer than 25 characters"),
        ("parseq", "x" * 26, "longer than 25 characters"),
        ("parseq", "!?", "no character left"),
        ("paddleocr", "", "no character left"),
    ],
)
def test_a_dropped_sample_has_one_reason_and_its_own_label(policy: str, label: str, reason: str) -> None:
    assert judge(policy, label, LOWER, 25) == Verdict(label, reason)


@pytest.mark.parametrize(
    ("policy", "label", "changed"),
    [
        ("mindocr", "word", ()),
        ("mindocr", "Word", ("case folded",)),
        ("mindocr", "It's", ("case folded", "characters deleted")),
        ("mindocr", "!!!", ("nothing left to learn",)),
        ("mindocr", "x" * 26, ("nothing left to learn",)),
        ("dtrb", "", ("nothing left to learn",)),
        ("dtrb", "WORD", ("case folded",)),
        ("parseq", "word", ()),
        ("parseq", "a b", ("written in ASCII without spaces",)),
        ("parseq", "É!", ("written in ASCII without spaces", "case folded", "characters deleted")),
    ],
)
def test_what_a_kept_label_lost_is_named(policy: str, label: str, changed: tuple[str, ...]) -> None:
    verdict = judge(policy, label, LOWER, 25)
    assert (verdict.reason, verdict.changed) == ("", changed)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_longest_label_is_the_callers(policy: str) -> None:
    assert judge(policy, "abc", LOWER, 3) == Verdict("abc")
    assert judge(policy, "abc" * 100, LOWER, 0) == Verdict("abc" * 100)
    shortened = judge(policy, "abcd", LOWER, 3)
    if policy == "mindocr":
        assert shortened == Verdict("", "", ("nothing left to learn",))
    elif policy == "dtrb_unfiltered":
        assert shortened == Verdict("abcd")
    else:
        assert shortened == Verdict("abcd", "longer than 3 characters")


def test_mindocr_measures_a_label_before_it_deletes_characters() -> None:
    assert judge("mindocr", "ab!!", LOWER, 3).label == ""
    assert judge("mindocr", "ab!", LOWER, 3).label == "ab"


def test_parseq_measures_a_label_after_it_is_written_in_ascii() -> None:
    assert judge("parseq", "a b c", LOWER, 3).label == "abc"
    assert judge("parseq", "ﬃ", LOWER, 2).reason == "longer than 2 characters"


def test_only_parseq_rewrites_what_the_charset_has() -> None:
    assert judge("mindocr", "fée é", ACCENTED, 25) == Verdict("fée é")
    assert judge("parseq", "fée é", ACCENTED, 25) == Verdict("feee", "", ("written in ASCII without spaces",))


def test_case_is_folded_to_what_the_charset_writes() -> None:
    assert judge("dtrb", "Word", load_charset("english94"), 25) == Verdict("Word")
    assert judge("dtrb", "Word", Charset(name="upper", symbols="DORW"), 25).label == "WORD"


def test_every_character_of_a_charset_is_itself() -> None:
    """DTRB's own regular expression takes '9-a' for a range and loses the backslash."""
    charset = Charset(name="dashed", symbols="09-a\\")
    assert judge("dtrb", "9-a\\", charset, 25) == Verdict("9-a\\")
    assert judge("dtrb", ":;<", charset, 25).reason == "character outside the charset"


@given(label=some.text(), policy=some.sampled_from(sorted(POLICIES)), longest=some.integers(0, 30))
def test_what_is_stored_is_learnt_character_by_character(label: str, policy: str, longest: int) -> None:
    verdict = judge(policy, label, LOWER, longest)
    if not verdict.reason:
        assert "".join(LOWER.symbols[number] for number in LOWER.numbers(verdict.label)) == verdict.label
        assert (verdict.changed == ()) == (verdict.label == label != "")


def test_an_unknown_policy_is_an_error() -> None:
    with pytest.raises(KeyError):
        judge("delete", "word", LOWER, 25)
