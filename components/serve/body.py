"""The pictures of a request's body, within limits."""

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

IMAGES = 64  # of one request
IMAGE_BYTES = 2 << 20
REQUEST_BYTES = 16 << 20
TYPES = ("application/octet-stream", "image/")  # of a body that is one picture

Named = tuple[str, bytes]  # a file's name, empty where it has none, and what is in it


async def images_of(request: Request) -> list[Named]:
    """Return the pictures, encoded, of a body that is one, or of a form's files; HTTPException says what is wrong."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _files(request)
    if kind.startswith(TYPES):
        body = await Request(request.scope, _limited(request.receive, IMAGE_BYTES)).body()
        return [("", body)]
    told = f"content type '{kind}': expected image/*, application/octet-stream or multipart/form-data"
    raise HTTPException(415, told)


async def _files(request: Request) -> list[Named]:
    """Return the files of a form, whatever its fields are called."""
    counted = Request(request.scope, _limited(request.receive, REQUEST_BYTES))
    try:
        async with counted.form(max_files=IMAGES, max_fields=0) as form:
            files = [(file.filename or "", await file.read()) for _, file in form.multi_items()
                     if isinstance(file, UploadFile)]  # fmt: skip
    except HTTPException as error:
        if error.status_code != 400:
            raise
        # What the form's parser says: either of too many files, or of a form that is none.
        raise HTTPException(413 if "Too many files" in error.detail else 422, error.detail) from None
    if not files:
        raise HTTPException(422, "the form has no file: expected one for each picture")
    for name, content in files:
        if len(content) > IMAGE_BYTES:
            raise HTTPException(413, f"{name or 'a file'}: {len(content)} bytes, expected at most {IMAGE_BYTES}")
    return files


def _limited(receive: Receive, most: int) -> Receive:
    """Return `receive` with an end to its patience: HTTPException from the chunk on that is too much."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise HTTPException(413, f"the body has more than {most} bytes")
        return message

    return counted
