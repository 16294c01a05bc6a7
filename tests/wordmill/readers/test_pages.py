from pathlib import Path

import lmdb
import pytest

from wordmill.readers.pages import check_pages

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A tree of two levels with values in their pages and on pages of their own."""
    with lmdb.open(str(tmp_path), map_size=1 << 24) as file, file.begin(write=True) as transaction:
        for number in range(300):
            transaction.put(b"image-%09d" % number, b"x" * (9000 if number % 50 == 0 else 100))
    return tmp_path / "data.mdb"


def page_of(content: bytes, kind: int) -> int:
    """Return where a page of a kind lies that the last transaction has written."""
    found = [
        place for place in range(2 * PAGE, len(content), PAGE) if content[place + 10 : place + 12] == bytes([kind, 0])
    ]
    return found[-1]


def test_a_whole_file_is_let_through(path: Path, tmp_path: Path) -> None:
    check_pages(path)
    with lmdb.open(str(tmp_path / "empty")) as file, file.begin(write=True):
        pass
    check_pages(tmp_path / "empty" / "data.mdb")
    with lmdb.open(str(tmp_path / "single.lmdb"), subdir=False) as file, file.begin(write=True) as transaction:
        transaction.put(b"num-samples", b"0")
    check_pages(tmp_path / "single.lmdb")


@pytest.mark.parametrize(
    ("kind", "place", "value", "told"),
    [
        (2, 10, b"\x20", "a page is neither branch nor leaf"),
        (2, 12, b"\x10\0", "a page has too few nodes"),
        (2, 12, b"\xff\xff", "a page is neither branch nor leaf"),
        (2, 16, b"\xfe\x0f", "a record reaches out of its page"),  # the first node lies at its page's end
        (1, 16, b"\0\0", "a record reaches out of its page"),  # before the nodes
        (1, 12, b"\x12\0", "a page has too few nodes"),
    ],
)
def test_a_page_that_would_be_read_beside_is_refused(
    kind: int, place: int, value: bytes, told: str, path: Path
) -> None:
    content = bytearray(path.read_bytes())
    page = page_of(bytes(content), kind)
    content[page + place : page + place + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^damaged: {told}"):
        check_pages(path)


@pytest.mark.parametrize(
    ("key", "place", "value"),
    [
        (b"image-000000001", -8, b"\xff\xff"),  # the length of a value in its page
        (b"image-000000050", -8, b"\0\0\xff\x7f"),  # that of one on pages of its own
        (b"image-000000050", 15, b"\xff\xff\xff\0"),  # the first of these
    ],
)
def test_a_value_that_is_longer_than_the_file_is_refused(key: bytes, place: int, value: bytes, path: Path) -> None:
    content = bytearray(path.read_bytes())
    node = content.rindex(key)
    content[node + place : node + place + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(ValueError, match="^damaged: a record reaches out of its page, or of the file"):
        check_pages(path)


def test_a_page_below_itself_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    page = page_of(bytes(content), 1)
    node = page + int.from_bytes(content[page + 16 : page + 18], "little")
    content[node : node + 2] = (page // PAGE).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match="^damaged: "):
        check_pages(path)


@pytest.mark.parametrize(
    ("place", "told"), [(16, "not a readable LMDB file"), (24, "of another kind"), (40, "not a re")]
)
def test_a_file_of_another_kind_is_refused(place: int, told: str, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for page in (0, PAGE):
        content[page + place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        check_pages(path)
