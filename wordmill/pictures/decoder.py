"""Decoding pictures of strangers: their first bytes choose a decoder that is safe for them, or refuse them by name.

OpenCV, the fastest, gets plain JPEGs and plain PNGs alone: what has been found wrong with its other decoders (JPEG
2000, CVE-2025-53644 and CVE-2025-54874; palettes of PNGs; TIFF) is never reached. Pillow reads the other forms.
"""

import io
import re
import warnings
import zlib
from dataclasses import dataclass
from struct import unpack_from

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from wordmill.pictures.image import LIMITS, MAX_PIXELS, MAX_SIDE, Picture, to_channels

warnings.filterwarnings("ignore", module=r"PIL\.")  # what it thinks of damaged files; those that matter are errors
Bytes = bytes | memoryview

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
OTHERS = {b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP", b"RIFF": "WEBP", b"II*\0": "TIFF", b"MM\0*": "TIFF",
          **{b"P%d" % number: "PPM" for number in range(1, 7)}}  # fmt: skip
READ = "JPEG, PNG, GIF, BMP, WebP, TIFF or PNM"
REFUSED = {
    b"\0\x05\x16\x07": "what macOS keeps beside a file, no picture",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL", b"\xff\x0a": "JPEG XL", b"II\xbc": "JPEG XR",
    b"II+\0": "BigTIFF", b"MM\0+": "BigTIFF",
    b"v/1\x01": "OpenEXR", b"#?R": "Radiance HDR", b"8BPS": "Photoshop", b"PF": "PFM", b"Pf": "PFM",
    b"\0\0\1\0": "an icon", b"Y\xa6j\x95": "Sun raster", b"%PDF": "PDF", b"PK\x03\x04": "a zip file",
    b"<!": "a web page", b"<h": "a web page", b"<H": "a web page", b"<svg": "SVG", b"<?xml": "XML",
}  # fmt: skip
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"mif1": "HEIC or AVIF", b"msf1": "HEIC or AVIF",
          **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC")}  # fmt: skip
FILM = "a film, or another file in boxes"  # which begins with `ftyp`, too
FLAGS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR_RGB}
MARKER = re.compile(rb"\xff[^\xff]")  # of a JPEG's segment; decoders skip what lies between segments
MOST_MARKERS = 10_000  # before a JPEG's header
SEGMENTS = frozenset({0xC4, 0xCC, 0xDB, *range(0xDD, 0xE0), *range(0xE0, 0xFF)})
FRAMES, PROGRESSIVE = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}, 0xC2
PLAIN_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"tEXt", b"sRGB", b"gAMA", b"cHRM", b"sBIT"})
GRAY, RGB, GRAY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # colour types of a PNG
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # x, y, steps
PIECE = 1 << 20  # bytes that are unpacked at a time
DEPTHS = (8, 10, 12, 14, 16)  # bits that the values of a file of 16 bits may have
ORIENTATION, BITS = 0x0112, 258  # tags of EXIF and TIFF


@dataclass(frozen=True, kw_only=True)
class PngHeader:
    """What a PNG says of itself; the values of the transparent colour, where it has one."""

    width: int
    height: int
    depth: int
    colour: int
    plain: bool  # one picture of 8 bits, gray or RGB, without transparency or what has to be unpacked beside it
    transparent: tuple[int, ...]
    interlaced: bool
    chunks: tuple[tuple[bytes, int, int], ...]  # the kind of each, and where it begins and ends


def decode(data: Bytes, channels: int) -> Picture:
    """Decode a picture as a person sees it to uint8 (H, W, channels), RGB or gray; ValueError for what is none.

    Gray of a colour JPEG is its luma as stored. Transparency becomes white, CMYK RGB, an EXIF orientation is followed
    (MindOCR and PaddleOCR do that, DTRB and PARSeq do not), an animation is its first picture. Of 16 bits the upper 8
    count of those that the values use: 8, 10, 12, 14 or 16.
    """
    if not data:
        raise ValueError("empty file")
    head = bytes(data[:16])
    if head.startswith(JPEG):
        _check_size(*_jpeg_size(data))
        return _by_opencv(data, channels)
    if head.startswith(PNG):
        header = _png_header(data)
        _check_size(header.width, header.height)
        if header.plain:
            return _by_opencv(data, channels)
        _check_pixels(data, header)
        return _by_pillow(data, "PNG", channels, header)
    form = next((name for magic, name in OTHERS.items() if head.startswith(magic)), "")
    if form and (form != "WEBP" or head[8:12] == b"WEBP"):
        return _by_pillow(data, form, channels)
    raise ValueError(_refusal(data, head))


def is_picture(head: Bytes) -> bool:
    """Tell by the first bytes of a file, 16 or more, whether it is a picture of any form that is known here."""
    known = [JPEG, PNG, *(magic for magic in (*OTHERS, *REFUSED) if len(magic) > 3)]
    others = (b"<", b"%PDF", b"PK", b"\0\x05\x16\x07")
    boxed = bytes(head[4:8]) == b"ftyp" and bytes(head[8:12]) in BRANDS
    return boxed or (bytes(head).startswith(tuple(known)) and not bytes(head).startswith(others))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or width > MAX_SIDE or height > MAX_SIDE:
        raise ValueError(f"{LIMITS}: {width}x{height}")


def _broken(data: Bytes) -> ValueError:
    return ValueError(f"not a whole picture: {len(data)} bytes that begin with {bytes(data[:8])!r}")


def _refusal(data: Bytes, head: bytes) -> str:
    """Say of a file that no decoder gets what it is."""
    name = next((name for magic, name in REFUSED.items() if head.startswith(magic)), "")
    if head[4:8] == b"ftyp":
        name = BRANDS.get(head[8:12], FILM)
    if not name:
        return f"{_broken(data)}, expected {READ}"
    return f"not decodable: it is {name}, expected {READ}"


def _jpeg_size(data: Bytes) -> tuple[int, int]:
    """Return width and height of a JPEG of 8 bits, sequential or progressive; ValueError for all others."""
    place, end = 2, len(data) - 10
    for _ in range(MOST_MARKERS):
        found = MARKER.search(data, place)
        if not found or found.start() >= end:
            break
        place = found.start()
        marker, length = unpack_from(">BH", data, place + 1)
        if marker in SEGMENTS:
            place += 2 + length
        elif marker in FRAMES:
            depth, height, width, colours = unpack_from(">BHHB", data, place + 4)
            if marker > PROGRESSIVE or depth != 8 or colours not in (1, 3, 4):
                raise ValueError(f"not decodable: a JPEG of {depth} bits, coding {marker - 0xC0}, {colours} colours, "
                                 "expected 8 bits, coding 0 to 2, and 1, 3 or 4 colours")  # fmt: skip
            return width, height
        elif marker in (0xD9, 0xDA):  # the picture's end or its pixels, before any header
            break
        else:
            place += 2
    raise _broken(data)


def _png_header(data: Bytes) -> PngHeader:
    """Return what a PNG says of itself; ValueError where it is not whole."""
    view, place, chunks = memoryview(data), 8, list[tuple[bytes, int, int]]()
    while place + 12 <= len(view):
        length, kind = unpack_from(">I4s", view, place)
        chunks.append((kind, place + 8, place + 8 + length))
        place += 12 + length
        if kind == b"IEND":
            break
    kinds = {kind for kind, _, _ in chunks}
    if not kinds >= {b"IHDR", b"IDAT", b"IEND"} or chunks[0][0] != b"IHDR" or place > len(view):
        raise _broken(data)
    width, height, depth, colour, _, _, interlaced = unpack_from(">IIBBBBB", view, 16)
    transparent = next((view[start:end] for kind, start, end in chunks if kind == b"tRNS"), b"")
    values = unpack_from(f">{len(transparent) // 2}H", transparent) if colour in (GRAY, RGB) else ()
    return PngHeader(
        width=width, height=height, depth=depth, colour=colour, interlaced=bool(interlaced), transparent=values,
        plain=depth == 8 and colour in (GRAY, RGB) and kinds <= PLAIN_CHUNKS, chunks=tuple(chunks),
    )  # fmt: skip


def _check_pixels(data: Bytes, png: PngHeader) -> None:
    """Refuse a PNG whose sums are wrong or whose lines are too few: Pillow would leave them black."""
    view = memoryview(data)
    for kind, start, end in png.chunks:
        if kind[:1].isupper() and zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise _broken(data)
    if _lacks([view[start:end] for kind, start, end in png.chunks if kind == b"IDAT"], _bytes_of(png)):
        raise _broken(data)


def _bytes_of(png: PngHeader) -> int:
    """Return how many bytes a PNG's lines take, each with the byte of its filter."""
    bits = png.depth * {RGB: 3, GRAY_ALPHA: 2, RGB_ALPHA: 4}.get(png.colour, 1)
    passes = ADAM7 if png.interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(png.width - left) // right), -(-(png.height - top) // down)) for left, top, right, down in passes]
    return sum(lines * (1 + -(-columns * bits // 8)) for columns, lines in sizes if columns > 0 and lines > 0)


def _lacks(packed: list[memoryview], wanted: int) -> bool:
    """Tell whether a PNG's pixels unpack to fewer bytes than these."""
    unpacking, count = zlib.decompressobj(), 0
    try:
        for body in packed:
            waiting: Bytes = body
            while waiting and count < wanted:
                count += len(unpacking.decompress(waiting, PIECE))
                waiting = unpacking.unconsumed_tail
    except zlib.error:
        return True
    return count < wanted


def _by_opencv(data: Bytes, channels: int) -> Picture:
    try:
        image: Picture | None = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), FLAGS[channels])
    except cv2.error as error:
        raise ValueError(f"not decodable: {error.err}") from None
    if image is None:
        raise _broken(data)
    return image[:, :, None] if channels == 1 else image


def _by_pillow(data: Bytes, form: str, channels: int, png: PngHeader | None = None) -> Picture:
    try:
        with Image.open(io.BytesIO(data), formats=(form,)) as image:
            _check_size(*image.size)
            image.info.pop("xmp", None)  # viewers do not follow the orientation in it
            orientation = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1  # of TIFF Pillow's own
            pixels = _sixteen_bits(data, png) if png and png.depth == 16 else _eight_bits(image)
    except (ValueError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ValueError(LIMITS) from None
    except UnidentifiedImageError:
        raise _broken(data) from None
    except Exception as error:  # Pillow's readers raise all kinds at what is damaged
        raise ValueError(f"not decodable: {form}, damaged or cut off: {error}") from None
    return _upright(to_channels(_on_white(pixels), channels), orientation)


def _eight_bits(image: Image.Image) -> Picture:
    """Return the pixels of an opened picture, uint8 (H, W), (H, W, 3) or, with transparency, (H, W, 4)."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # of more than 8 bits
        return _upper_bits(np.asarray(image).astype(np.uint16))
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode not in ("P", "RGB", "RGBX", "CMYK", "YCbCr"):
        raise ValueError(f"not decodable: {image.format} with values of kind {image.mode}, expected whole numbers of "
                         "8 or 16 bits")  # fmt: skip
    pixels: Picture = np.asarray(image.convert("RGB"))
    if max(getattr(image, "tag_v2", {}).get(BITS, (8,))) > 8 and pixels.max(initial=0) < 16:
        raise ValueError("not decodable: TIFF with colours of 16 bits that use fewer: save it with 8")
    return pixels


def _sixteen_bits(data: Bytes, png: PngHeader) -> Picture:
    """Return the pixels of a PNG of 16 bits, uint8 (H, W) or (H, W, 3), with an alpha behind it (H, W, 2 or 4)."""
    values: npt.NDArray[np.uint16]
    if png.colour == GRAY:
        values = _unpacked(data, "I;16B")[:, :, None]
    elif png.colour == GRAY_ALPHA:  # its four bytes, as those of an RGBA of 8 bits
        values = np.ascontiguousarray(_unpacked(data, "RGBA").astype(np.uint8)).view(">u2").astype(np.uint16)
    else:
        mode = {RGB: "RGB", RGB_ALPHA: "RGBA"}[png.colour]
        values = _unpacked(data, f"{mode};16B") << np.uint16(8) | _unpacked(data, f"{mode};16L")
    if png.transparent:
        seen = (values != np.array(png.transparent, dtype=np.uint16)).any(axis=2, keepdims=True)
        values = np.concatenate([values * seen, seen * np.uint16(0xFFFF)], axis=2)
    if values.shape[2] in (2, 4):
        return np.concatenate([_upper_bits(values[:, :, :-1]), _upper_bits(values[:, :, -1:])], axis=2)
    return _upper_bits(values)


def _unpacked(data: Bytes, mode: str) -> npt.NDArray[np.uint16]:
    """Return a PNG's values as Pillow takes them from their bytes in this mode."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.tile = [tile._replace(args=mode) for tile in image.tile]
        return np.asarray(image).astype(np.uint16)


def _upper_bits(values: npt.NDArray[np.uint16]) -> Picture:
    """Return the upper 8 of the bits that the values use."""
    used = int(values.max(initial=0)).bit_length()
    return (values >> (next(depth for depth in DEPTHS if depth >= used) - 8)).astype(np.uint8)


def _on_white(pixels: Picture) -> Picture:
    """Return pixels uint8 (H, W), (H, W, 1 or 3), or with an alpha behind it (H, W, 2 or 4), without transparency."""
    if pixels.ndim == 2 or pixels.shape[2] in (1, 3):
        return pixels
    colour, alpha = pixels[:, :, :-1].astype(np.uint16), pixels[:, :, -1:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _upright(image: Picture, orientation: int) -> Picture:
    """Turn and mirror a picture (H, W, C) as EXIF says."""
    turned = np.rot90(image, {3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}.get(orientation, 0))
    mirrored = turned[:, ::-1] if orientation in (2, 4) else turned[::-1] if orientation in (5, 7) else turned
    return np.ascontiguousarray(mirrored)
