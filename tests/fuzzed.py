"""Inputs of strangers, changed at random: `python -m tests.fuzzed KIND SEED COUNT [FIRST]`.

Each is read, or refused by a ValueError; nothing half-written is left. A seed and a number make the same input again.
"""

import asyncio
import base64
import gzip
import io
import json
import pickle
import resource
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

EDGES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\1\0\0\0", b"\xff\xff\xff\x7f")
ROOT = Path(__file__).resolve().parents[1]

Read = Callable[[bytes, Path], object]
Rng = np.random.Generator


def changed(content: bytes, rng: Rng) -> bytes:
    """Return content with a few changes: bits, bytes, numbers at their edges, pieces lost, added, copied or cut off."""
    found = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        if not found:
            break
        place, other = (int(number) for number in rng.integers(0, len(found), 2))
        if rng.random() < 0.4:  # headers, and lists at the end of some, decide on most
            place = int(rng.integers(0, min(len(found), 200)))
        match rng.integers(0, 8):
            case 0:
                found[place] ^= 1 << int(rng.integers(8))
            case 1:
                found[place] = int(rng.integers(256))
            case 2:
                found[place : place + 4] = EDGES[rng.integers(len(EDGES))]
            case 3:
                del found[place : place + int(rng.integers(1, 40))]
            case 4:
                found[place:place] = rng.bytes(int(rng.integers(1, 12)))
            case 5:
                found[place : place + 20] = found[other : other + 20]
            case 6:
                del found[place:]
            case 7:
                found[-1 - place % min(len(found), 200)] = int(rng.integers(256))
    return bytes(found)


def picture(form: str, rng: Rng, mode: str = "RGB") -> bytes:
    shape = (int(rng.integers(8, 40)), int(rng.integers(8, 100)), 3)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).convert(mode).save(file, form)
    return file.getvalue()


def images(rng: Rng) -> tuple[list[bytes], Read]:
    from wordmill.pictures.decoder import decode

    plain = [picture(form, rng) for form in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")]
    others = [picture("PNG", rng, mode) for mode in ("RGBA", "P", "1", "L")]
    return [*plain, *others, *plain[:2] * 3], lambda content, _: decode(content, 1 + 2 * (len(content) % 2))


def archives(rng: Rng) -> tuple[list[bytes], Read]:
    from wordmill.sources.archives import lay_out

    members = {"labels.txt": b"a.png one\n" * 50, "crops/a.png": rng.bytes(700), "crops/b.png": rng.bytes(9)}
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file, tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

    def read(content: bytes, folder: Path) -> None:
        (folder / "archive").write_bytes(content)
        try:
            lay_out({"archive": folder / "archive"}, folder / "out")
        finally:
            left = {path.name for path in folder.iterdir()} - {"archive"}
            assert left <= {"out"}, f"left behind: {left}"

    return [zipped.getvalue(), tarred.getvalue(), gzip.compress(tarred.getvalue(), mtime=0)], read


def label_files(rng: Rng) -> tuple[list[bytes], Read]:
    from wordmill.readers.label_file import LabelFile

    lines = {"space": "a.png one\n", "dtrb": "a.png\tzwei ü\n", "icdar": 'a.png, "say \\"x\\""\n',
             "paddleocr": '["a.png", "b.png"]\tone\n', "csv": 'filename,words\n"a.png","x ""y"""\n',
             "jsonl": '{"filename": "a.png", "text": "x"}\n'}  # fmt: skip
    bases = [json.dumps([form, (line * 5).encode(encoding).decode("latin-1")]).encode("latin-1")
             for form, line in lines.items() for encoding in ("utf-8", "utf-16")]  # fmt: skip

    def read(content: bytes, folder: Path) -> None:
        form = list(lines)[len(content) % len(lines)]
        (folder / "labels.txt").write_bytes(content)
        (folder / "a.png").write_bytes(b"x")
        reader = LabelFile(folder, "labels.txt", form)
        assert len(list(reader.read(range(len(reader))))) == len(reader)

    return [json.loads(base)[1].encode("latin-1") for base in bases], read


def lmdbs(rng: Rng) -> tuple[list[bytes], Read]:
    from wordmill.readers.lmdb import Lmdb

    bases = []
    for count in (3, 60):
        with tempfile.TemporaryDirectory() as folder:
            with lmdb.open(folder, map_size=1 << 22) as file, file.begin(write=True) as transaction:
                for number in range(1, count + 1):
                    transaction.put(b"image-%09d" % number, rng.bytes(9000 if number % 7 == 0 else 300))
                    transaction.put(b"label-%09d" % number, b"word")
                transaction.put(b"num-samples", b"%d" % count)
            bases.append((Path(folder) / "data.mdb").read_bytes())

    def read(content: bytes, folder: Path) -> None:
        (folder / "data.mdb").write_bytes(content)
        reader = Lmdb(folder)
        count = min(len(reader), 200)
        assert len(list(reader.read(range(count)))) == count

    return bases, read


def tfrecords(rng: Rng) -> tuple[list[bytes], Read]:
    from tests.wordmill.readers.test_fsns import sign
    from tests.wordmill.shards.made_sets import framed
    from wordmill.readers.fsns import Fsns

    def read(content: bytes, folder: Path) -> None:
        (folder / "train-00000-of-00001").write_bytes(content)
        reader = Fsns(folder)
        count = min(len(reader), 200)
        assert len(list(reader.read(range(count)))) == count

    return [b"".join(framed(sign("rue", rng.bytes(50))) for _ in range(4))], read


def checkpoints(rng: Rng) -> tuple[list[bytes], Read]:
    from tests.wordmill.models.test_checkpoint import checkpoint
    from wordmill.models.checkpoint import load, save

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "model.safetensors", checkpoint())
        base = (Path(folder) / "model.safetensors").read_bytes()

    def read(content: bytes, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(content)
        load(folder / "model.safetensors")

    return [base], read


def foreign(rng: Rng) -> tuple[list[bytes], Read]:
    from tests.wordmill.models.ms.messages import message
    from wordmill.models.ms.foreign import read as read_ckpt

    weight = rng.normal(size=(3, 4)).astype(np.float32)
    base = message(("neck.weight", (3, 4), "Float32", weight.tobytes()), ("bias", (5,), "Float16", bytes(10)))

    def read(content: bytes, folder: Path) -> None:
        (folder / "a.ckpt").write_bytes(content)
        assert all(array.dtype == np.float32 for array in read_ckpt(folder / "a.ckpt").values())

    return [base], read


def pickles(rng: Rng) -> tuple[list[bytes], Read]:
    from wordmill.models.pdparams import read_pdparams

    weights = {"head.fc.weight": rng.normal(size=(3, 4)).astype(np.float32), "head.fc.bias": np.zeros(3, np.float16)}
    table = {"StructuredToParameterName@@": dict.fromkeys(weights, "linear_0.w_0")}

    def read(content: bytes, folder: Path) -> None:
        (folder / "a.pdparams").write_bytes(content)
        try:
            found = read_pdparams(folder / "a.pdparams")
        except ValueError as error:
            told = str(error)
            assert "\n" not in told
            assert len(told) < 1000
            raise
        assert all(array.dtype == np.float32 for array in found.values())

    return [pickle.dumps({**weights, **table}, protocol) for protocol in (2, 3, 4)], read


def torch_files(rng: Rng) -> tuple[list[bytes], Read]:
    import torch

    from wordmill.models.pt.foreign import read as read_pth

    weights = {"module.Prediction.bias": torch.zeros(3), "module.bn.weight": torch.ones(2, 2).half()}
    bases = []
    for zipped in (True, False):  # PyTorch's form, and that of before 1.6
        torch.save(weights, file := io.BytesIO(), _use_new_zipfile_serialization=zipped)
        bases.append(file.getvalue())

    def read(content: bytes, folder: Path) -> None:
        (folder / "a.pth").write_bytes(content)
        assert all(array.dtype == np.float32 for array in read_pth(folder / "a.pth").values())

    return bases, read


def recipes(rng: Rng) -> tuple[list[bytes], Read]:
    from wordmill.recipe.catalogue import load_catalogue
    from wordmill.recipe.loading import load_recipe

    def read(content: bytes, folder: Path) -> None:
        (folder / "mine.yaml").write_bytes(content)
        for load in (load_recipe, lambda path: load_catalogue([path])):
            try:
                load(folder / "mine.yaml")
            except ValueError as error:
                told = str(error)
                assert told

    paths = [ROOT / "pipelines" / "recipes" / "quickstart.yaml", ROOT / "pipelines" / "datasets.yaml"]
    return [path.read_bytes()[:3000] for path in paths], read


def charsets(rng: Rng) -> tuple[list[bytes], Read]:
    from wordmill.text.charset import load_charset, unusual

    def read(content: bytes, folder: Path) -> None:
        (folder / "mine.txt").write_bytes(content)
        load_charset(str(folder / "mine.txt"))
        unusual(str(folder / "mine.txt"))

    text = "\n".join("abcé中\u200c\U0002b86f") + "\n"
    return [text.encode(), text.encode("utf-16"), text.replace("\n", "\r\n").encode("utf-8-sig")], read


def bodies(rng: Rng) -> tuple[list[bytes], Read]:
    from fastapi import Request
    from starlette.exceptions import HTTPException
    from starlette.types import Message

    from components.serve.body import images_of

    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    form = b"".join(head + rng.bytes(60) + b"\r\n" for _ in range(3)) + b"--x--\r\n"
    packed = json.dumps({"images": [base64.b64encode(rng.bytes(60)).decode()] * 2}).encode()

    def read(content: bytes, folder: Path) -> None:
        kind = b"application/json" if content[:1] == b"{" else b"multipart/form-data; boundary=x"
        pieces = [content[start : start + 37] for start in range(0, len(content), 37)] or [b""]

        async def receive() -> Message:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        scope = {"type": "http", "method": "POST", "path": "/read", "headers": [(b"content-type", kind)]}
        try:
            found = asyncio.run(images_of(Request(scope, receive), lambda size: None))
        except HTTPException as error:
            if 400 <= error.status_code < 500:
                raise ValueError(error.detail) from None
            raise
        assert len(found) >= content.count(b"filename=") > 0 or kind == b"application/json" or b"--x--" in content

    return [form, packed], read


KINDS: dict[str, Callable[[Rng], tuple[list[bytes], Read]]] = {
    "images": images, "archives": archives, "label_files": label_files, "lmdbs": lmdbs, "tfrecords": tfrecords,
    "checkpoints": checkpoints, "foreign": foreign, "pickles": pickles, "torch_files": torch_files,
    "recipes": recipes, "charsets": charsets, "bodies": bodies,
}  # fmt: skip


def fuzz(kind: str, seed: int, count: int, first: int = 0) -> int:
    """Read so many changed inputs; return how many were refused. What is neither read nor refused is raised."""
    bases, read = KINDS[kind](np.random.default_rng(seed))
    refused = 0
    with tempfile.TemporaryDirectory() as place:
        for number in range(first, first + count):
            rng = np.random.default_rng((seed, number))
            content, folder = changed(bases[number % len(bases)], rng), Path(place) / str(number)
            folder.mkdir()
            try:
                read(content, folder)
            except ValueError:
                refused += 1
            except BaseException as error:
                raise AssertionError(f"{kind} {seed} {number}: {content[:60]!r}") from error
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            folder.rmdir()
    return refused


if __name__ == "__main__":
    kind, seed, count, *first = sys.argv[1:]
    refused = fuzz(kind, int(seed), int(count), *map(int, first))
    print(f"{kind}: {count} inputs, {refused} refused; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB")
