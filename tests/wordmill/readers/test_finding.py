"""Paths that another system wrote, and names that another system gave."""

import os
import re
from pathlib import Path

import pytest

from wordmill.readers import finding
from wordmill.readers.finding import Finder


def finder(root: Path, *names: bytes) -> Finder:
    for name in names:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(name)
    finding._names.cache_clear()
    return Finder([f"{root}/"])


NFC, NFD = "crops/caf\u00e9.png", "crops/cafe\u0301.png"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("crops/a.png", b"crops/a.png"),
        ("crops\\a.png", b"crops/a.png"),
        (".\\crops\\a.png", b"crops/a.png"),
        ("crops/a.png ", b"crops/a.png"),
        ("Crops/A.PNG", b"crops/a.png"),
        (NFC, NFD.encode()),
        (NFD, NFC.encode()),
        ("crops\\CAF\u00c9.png", NFD.encode()),
        ("图片/样本.png", "图片/样本.png".encode("gbk")),
        ("図/本.png", "図/本.png".encode("shift_jis")),
        ("图片\\样本.png", "图片/样本.png".encode("gbk")),
        ("caf\u00e9.png", "caf\u00e9.png".encode("cp437")),
        ("caf\u00e9.png", "caf\u00e9.png".encode("latin-1")),
        ("日本/語.png", "日本/語.png".encode("euc_jp")),
        ("łódź.png", "łódź.png".encode("cp1250")),
        ("фото/слово.png", "фото/слово.png".encode("cp866")),
        # The second byte of each first character is that of a backslash, which an archive's unpacking takes for one.
        ("ソース/表.png", "ソース/表.png".encode("shift_jis").replace(b"\\", b"/")),
        ("成功/許.png", "成功/許.png".encode("big5").replace(b"\\", b"/")),
        ("ソース/表.png", "ソース/表.png".encode("shift_jis")),
        ("my%20crops/%E5%9B%BE.png", "my crops/图.png".encode()),
        ("a\\b.png", b"a\\b.png"),  # a name with a backslash, as it is
    ],
)
def test_a_file_is_found_where_one_alone_is_meant(path: str, name: bytes, tmp_path: Path) -> None:
    assert finder(tmp_path, name, b"crops/other.png").read(path) == (name, "")


@pytest.mark.parametrize(
    ("path", "names", "told"),
    [
        ("A.png", (b"a.png", b"a.PNG"), "picture file spelled in several ways: A.png may be .*/a.PNG and .*/a.png"),
        ("crops/0.png", (b"crops/00.png",), "picture file missing: the nearest there is crops/00.png"),
        ("crops/0.png", (b"else/0.png",), "picture file missing$"),
        ("data/train/0.png", (b"train/0.png", b"0.png"), "picture file missing: train/0.png is there: paths"),
        ("%2e%2e/secret", (b"../secret",), "picture file missing"),
        ("a%5c%2e%2e%5c%2e%2e%5csecret", (b"a/b", b"../secret"), "picture file missing"),
        (r"C:\data\crops\0.png", (b"crops/0.png",),
         r"picture file outside the data set: C:\\data\\crops\\0.png is of another machine, crops/0.png is there"),
        ("/home/me/crops/0.png", (b"crops/0.png",), "picture file outside the data set: /home/me/crops/0.png is of"),
        (r"\\host\share\0.png", (b"crops/0.png",), "picture file outside the data set"),
        (r"crops\..\..\secret", (b"crops/0.png",), "picture file outside the data set"),
        ("\udcff", (b"a",), "picture file missing$"),
        ("crops/ქართული.png", (b"crops/\xff\xc1.png", b"crops/b.png"),
         r"picture file missing: names there are in another encoding, such as crops/\\xff\\xc1.png$"),
    ],
)  # fmt: skip
def test_what_is_not_found_is_told_with_what_is_there(
    path: str, names: tuple[bytes, ...], told: str, tmp_path: Path
) -> None:
    image, problem = finder(tmp_path, *names).read(path)
    assert image == b""
    assert re.match(told, problem), problem


def test_files_that_are_missing_are_looked_for_in_small_folders_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finder(tmp_path, b"crops/00.png", b"crops/11.png")
    told = [found.read("crops/0.png")[1] for _ in range(finding.HINTS + 1)]
    assert told[:-1] == ["picture file missing: the nearest there is crops/00.png"] * finding.HINTS
    assert told[-1] == "picture file missing"
    monkeypatch.setattr(finding, "MOST_NAMES", 1)
    assert finder(tmp_path).read("crops/0.png")[1] == "picture file missing"
