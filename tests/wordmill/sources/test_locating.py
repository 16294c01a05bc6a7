import hashlib
import os
from pathlib import Path
from threading import Event

import pytest

from wordmill.recipe.catalogue import Entry
from wordmill.sources import locating as sources
from wordmill.sources.archives import lay_out
from wordmill.sources.locating import RENDERER, Located, check_sources, locate, numbered
from wordmill.store.artifacts import ROOT, digest
from wordmill.store.storage import Store

BODY = os.urandom(1 << 20)


def entry(source: str, sha256: str = "", inside: str = "") -> Entry:
    return Entry(source=source, reader="lmdb", samples=1, licence="CC0", sha256=sha256, inside=inside)


def find(store: Store, wanted: Entry) -> Located:
    return locate(store, "words", wanted, Event())


def bring(store: Store, wanted: Entry) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in find(store, wanted).bring(Event()).items()}


def test_a_local_file_is_known_by_its_content(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a b.zip").write_bytes(BODY)
    (tmp_path / "copy").write_bytes(BODY)
    located = find(store, entry(f"file://{tmp_path}/a%20b.zip"))
    assert located.identity == {"sha256": hashlib.sha256(BODY).hexdigest()}
    assert find(store, entry(f"file://{tmp_path}/copy")).identity == located.identity
    assert bring(store, entry(f"file://{tmp_path}/a%20b.zip")) == {"a b.zip": BODY}
    assert bring(store, entry(f"file://{tmp_path}/a%20b.zip")) == {"a b.zip": BODY}  # over what is left of the first


def test_a_folder_of_few_files_is_brought_file_by_file(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "data.mdb").write_bytes(b"1")
    (folder / "sub" / "lock.mdb").write_bytes(b"of this machine alone")
    wanted = entry(f"file://{folder}")
    before = find(store, wanted).identity
    assert bring(store, wanted) == {"sub/data.mdb": b"1"}
    os.utime(folder / "sub" / "data.mdb", (0, 0))
    assert find(store, wanted).identity == before
    (folder / "sub" / "data.mdb").write_bytes(b"2")
    assert find(store, wanted).identity != before


def test_a_folder_of_many_files_becomes_one(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FEW", 3)
    content = {f"{number}.png": b"%d" % number for number in range(4)}
    (tmp_path / "words").mkdir()
    for name, data in content.items():
        (tmp_path / "words" / name).write_bytes(data)
    for _ in range(2):
        files = find(store, entry(f"file://{tmp_path}/words")).bring(Event())
        assert list(files) == ["folder.tar"]
    lay_out(files, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == content


def release(folder: Path) -> Path:
    """Make a folder like an unpacked release of several data sets."""
    for name in ("training/MJ/MJ_train", "training/MJ/MJ_valid", "training/ST", "validation"):
        (folder / name).mkdir(parents=True)
        (folder / name / "data.mdb").write_bytes(name.encode())
    return folder


def test_of_a_folder_only_the_part_inside_is_read(store: Store, tmp_path: Path) -> None:
    source = f"file://{release(tmp_path / 'release')}"
    wanted = entry(source, inside="MJ/MJ_valid")
    files = find(store, wanted).bring(Event())
    assert {name: path.read_bytes() for name, path in files.items()} == {
        "training/MJ/MJ_valid/data.mdb": b"training/MJ/MJ_valid"
    }
    lay_out(files, tmp_path / "out", wanted.inside)
    assert (tmp_path / "out" / "data.mdb").read_bytes() == b"training/MJ/MJ_valid"
    assert find(store, wanted).identity != find(store, entry(source, inside="ST")).identity
    assert find(store, wanted).identity == find(store, entry(source, inside="mj/mj_VALID")).identity


def test_a_part_that_is_not_there_or_twice_is_refused(store: Store, tmp_path: Path) -> None:
    source = f"file://{release(tmp_path / 'release')}"
    with pytest.raises(ValueError, match=r"expected one folder 'MJ/MJ_test' below it, found \[\]"):
        find(store, entry(source, inside="MJ/MJ_test"))
    (tmp_path / "release" / "old" / "ST").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"expected one folder 'ST' below it, found .*old/ST"):
        find(store, entry(source, inside="ST"))


def test_what_is_not_there_or_empty_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'words': /no/where: no such file or folder"):
        find(store, entry("file:///no/where"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="'words': .* holds no file"):
        find(store, entry(f"file://{tmp_path}/empty"))


def test_an_object_of_s3_is_brought_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wordmill.sources.download.PIECE", 100_000)
    monkeypatch.setattr("wordmill.sources.download.SMALL", 1000)
    store.put_bytes("in/words.tar", BODY, "application/x-tar")
    wanted = entry(f"s3://{store.bucket}/in/words.tar")
    assert bring(store, wanted) == {"words.tar": BODY}
    part = find(store, wanted).downloads / "00000.part"
    part.write_bytes(BODY[:200_000] + bytes(100_000) + BODY[300_000:])
    assert bring(store, wanted) == {"words.tar": BODY}  # the piece that is wrong came again


def test_an_object_of_s3_that_changes_is_not_mixed(store: Store) -> None:
    store.put_bytes("words.tar", BODY, "application/x-tar")
    located = find(store, entry(f"s3://{store.bucket}/words.tar"))
    store.put_bytes("words.tar", BODY[::-1], "application/x-tar")
    with pytest.raises(RuntimeError, match=r"s3://.*/words\.tar: changed while it was downloaded"):
        located.bring(Event())


def test_a_folder_of_s3_is_brought(store: Store) -> None:
    for key in ("set/a/data.mdb", "set/b/data.mdb", "settings"):
        store.put_bytes(key, key.encode(), "application/octet-stream")
    wanted = entry(f"s3://{store.bucket}/set/")
    assert bring(store, wanted) == {"a/data.mdb": b"set/a/data.mdb", "b/data.mdb": b"set/b/data.mdb"}
    with pytest.raises(ValueError, match=r"s3://.*/none/: no object's key begins so"):
        find(store, entry(f"s3://{store.bucket}/none/"))


def test_an_object_of_s3_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"s3://.*/none: refused with 404"):
        find(store, entry(f"s3://{store.bucket}/none"))


def test_braces_stand_for_numbers() -> None:
    assert numbered("https://a/b-{08..11}-of-12") == [f"https://a/b-{n}-of-12" for n in ("08", "09", "10", "11")]
    assert numbered("https://a/b-{0..2}") == ["https://a/b-0", "https://a/b-1", "https://a/b-2"]
    assert numbered("https://a/b") == ["https://a/b"]


RENDERED = "synth://words?seed=7&count=9&fonts=train&words=train&difficulty=easy"


def test_rendered_words_need_no_bringing(store: Store) -> None:
    located = find(store, Entry(source=RENDERED, reader="synth", samples=9, licence="CC0"))
    assert located.bring(Event()) == {}
    assert located.identity["source"] == RENDERED
    assert located.identity["renderer"] == RENDERER.digest()


def test_a_renderer_is_known_by_what_draws_and_the_files_that_it_draws_from() -> None:
    found, folder = RENDERER.found(), ROOT / "wordmill" / "synth"
    assert {"Renderer", "Words", "Lines", "Signs", "Scene", "Dice"} <= found["code"].keys()
    assert not {"contact_sheet", "main"} & found["code"].keys()
    files = {path.name for path in (folder / "data").iterdir() if path.suffix != ".md" and "LICENCES" not in path.name}
    assert {name.removeprefix("wordmill/synth/data/") for name in found["data"]} == files


def test_a_rendering_must_have_the_catalogues_count() -> None:
    check_sources({"words": Entry(source=RENDERED, reader="synth", samples=9, licence="CC0")})
    with pytest.raises(ValueError, match="'words': expected 10 samples"):
        check_sources({"words": Entry(source=RENDERED, reader="synth", samples=10, licence="CC0")})


def test_manual_data_says_all_that_is_to_be_done() -> None:
    page = Entry(source="manual:", reader="lmdb", samples=1, licence="x", homepage="https://example.org")
    shared = Entry(source="manual:all.zip", reader="lmdb", samples=1, licence="x", steps="ask the authors for it")
    with pytest.raises(ValueError, match="a person must get some data") as raised:
        check_sources({"SVT": page, "a": shared, "b": shared, "local": entry("file:///x")})
    assert str(raised.value).split(": ", 1)[1] == (
        "SVT: get it from https://example.org, then run with --from SVT=PLACE, a path or s3://bucket/key; "
        "a, b: ask the authors for it, then run with --from all.zip=PLACE, a path or s3://bucket/key"
    )


@pytest.mark.parametrize("few", [0, 9])
def test_a_folder_has_names_in_any_encoding(
    few: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "FEW", few)
    (tmp_path / "words").mkdir()
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "words"), b"\xb1.png"))).write_bytes(b"1")
    located = find(store, entry((tmp_path / "words").as_uri()))
    assert len(digest(located.identity)) == 32
    lay_out(located.bring(Event()), tmp_path / "out")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"\xb1.png"]


@pytest.mark.parametrize("folder", ["set#1", "what?", "50%", "a b", "%41"])
def test_a_local_address_is_the_path_that_it_shows(folder: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "a.zip").write_bytes(BODY)
    for address in (f"file://{tmp_path}/{folder}/a.zip", f"file:///{tmp_path}//{folder}/a.zip",
                    f"file://localhost{tmp_path}/{folder}/a.zip", f"file:{tmp_path}/{folder}/a.zip",
                    (tmp_path / folder / "a.zip").as_uri()):  # fmt: skip
        assert bring(store, entry(address)) == {"a.zip": BODY}, address


def test_small_files_of_a_folder_become_one(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    for number in range(sources.FEW_SMALL + 1):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    assert list(bring(store, entry(folder.as_uri()))) == ["folder.tar"]
    (folder / "0.png").write_bytes(bytes(sources.SMALL * (sources.FEW_SMALL + 1)))
    assert len(bring(store, entry(folder.as_uri()))) == sources.FEW_SMALL + 1


def test_a_key_in_s3_may_have_a_sign_of_addresses_and_leftovers_are_no_data(store: Store) -> None:
    for key in ("set#1/a?b.zip", "set#1/._a?b.zip", "set#1/__MACOSX/x"):
        store.client.put_object(Bucket=store.bucket, Key=key, Body=b"1")
    assert bring(store, entry(f"s3://{store.bucket}/set#1/")) == {"a?b.zip": b"1"}
    assert bring(store, entry(f"s3://{store.bucket}/set#1/a?b.zip")) == {"a?b.zip": b"1"}
