"""The pictures of a request's body, within limits."""

import asyncio
import base64
import json
from collections.abc import Callable
from email.message import Message as Headers

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from components.serve.form import TYPES, FormFiles

IMAGES = 64  # of one request
IMAGE_BYTES = 2 << 20
REQUEST_BYTES = 16 << 20
LONGEST_BOUNDARY = 70  # RFC 2046, 5.1.1

Named = tuple[str, bytes]  # a file's name, empty where it has none, and what is in it
Tell = Callable[[int], None]  # is told of every chunk's size


async def images_of(request: Request, tell: Tell) -> list[Named]:
    """Return the pictures, encoded, of a body that is one, of a form's files, or of JSON.

    `tell` is called with the size of each chunk as it comes. HTTPException says what is wrong, before the body is asked
    for where its head says so.
    """
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        told = f"content encoding '{coding}': pictures are packed already, send the body as it is"
        raise HTTPException(415, told, {"Accept-Encoding": "identity"})
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _files(request, tell)
    if kind == "application/json":
        body = await _limited(request, REQUEST_BYTES, tell).body()
        return await asyncio.get_running_loop().run_in_executor(None, _from_json, body)
    if kind.startswith(TYPES):
        return [("", await _limited(request, IMAGE_BYTES, tell).body())]
    told = f"content type '{kind}': expected image/*, application/octet-stream, multipart/form-data or application/json"
    raise HTTPException(415, told)


async def _files(request: Request, tell: Tell) -> list[Named]:
    """Return the files of a form, whatever its fields are called."""
    headers = Headers()
    headers["content-type"] = request.headers["content-type"]
    boundary = headers.get_boundary()
    if not boundary or len(boundary) > LONGEST_BOUNDARY:
        raise HTTPException(422, f"Missing boundary in multipart, or one of more than {LONGEST_BOUNDARY} characters.")
    files = await FormFiles(boundary, IMAGES).read(_limited(request, REQUEST_BYTES, tell).stream())
    if not files:
        raise HTTPException(422, "the form has no file: expected one for each picture")
    return _checked(files)


def _from_json(body: bytes) -> list[Named]:
    """Return the pictures of `{"images": ["<base64>", ...]}`, each perhaps a data: address."""
    try:
        document = json.loads(body)
        images = document["images"]
        if not isinstance(images, list) or not images:
            raise TypeError
    except (ValueError, RecursionError, LookupError, TypeError):
        raise HTTPException(422, 'expected JSON {"images": ["<base64 of a picture>", ...]}') from None
    if len(images) > IMAGES:
        raise HTTPException(413, f"Too many images. Maximum number of images is {IMAGES}.")
    return _checked([("", _from_base64(number, text)) for number, text in enumerate(images)])


def _from_base64(number: int, text: object) -> bytes:
    try:
        if not isinstance(text, str):
            raise TypeError
        packed = text.partition(",")[2] if text.startswith("data:") else text
        return base64.b64decode("".join(packed.split()), validate=True)
    except (ValueError, TypeError):
        raise HTTPException(422, f"image {number}: expected a picture's bytes in base64") from None


def _checked(files: list[Named]) -> list[Named]:
    for name, content in files:
        if len(content) > IMAGE_BYTES:
            raise HTTPException(413, f"{name or 'a file'}: {len(content)} bytes, expected at most {IMAGE_BYTES}")
    return files


def _limited(request: Request, most: int, tell: Tell) -> Request:
    """Return a request whose body has an end: HTTPException at once for what announces more, else at the chunk."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise HTTPException(413, f"the body has more than {most} bytes")
    return Request(request.scope, _counted(request.receive, most, tell))


def _counted(receive: Receive, most: int, tell: Tell) -> Receive:
    """Return `receive` with an end to its patience: HTTPException from the chunk on that is too much."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        size = len(message.get("body", b""))
        taken += size
        if taken > most:
            raise HTTPException(413, f"the body has more than {most} bytes")
        tell(size)
        return message

    return counted
