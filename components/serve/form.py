"""The parts of a form, as clients send them: a form that is cut off, or of which a part would be lost, is refused."""

import logging
from collections.abc import AsyncIterator
from email.message import Message

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from starlette.exceptions import HTTPException

FIELDS = 64  # parts of one form that are no pictures: nobody reads them
TYPES = ("application/octet-stream", "image/")  # of a picture

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line of every form that is none: its client is told


class FormFiles:
    """Takes in a form, chunk by chunk, and keeps its pictures in their order.

    A part is a picture that has a file's name or a picture's type, or that is no text.
    """

    def __init__(self, boundary: str, most: int) -> None:
        """Take the boundary, and how many pictures there may be."""
        self.most, self.files = most, list[tuple[str, bytes]]()
        self.headers, self.content = Message(), bytearray()
        self.field, self.value = bytearray(), bytearray()
        self.begun = self.whole = 0
        self.ended = False
        self.parser = MultipartParser(boundary, {
            "on_part_begin": self.on_part_begin, "on_part_data": self.on_part_data, "on_part_end": self.on_part_end,
            "on_header_field": self.on_header_field, "on_header_value": self.on_header_value,
            "on_header_end": self.on_header_end, "on_end": self.on_end,
        })  # fmt: skip

    async def read(self, chunks: AsyncIterator[bytes]) -> list[tuple[str, bytes]]:
        """Return name and content of each picture; HTTPException 422 of a form that is none or not whole, or 413."""
        try:
            async for chunk in chunks:
                self.parser.write(chunk)
            self.parser.finalize()
        except FormParserError:
            raise HTTPException(422, "Invalid multipart data.") from None
        if not self.ended:
            raise HTTPException(422, f"the form ends before its last boundary: {self.whole} of {self.begun} parts "
                                     "that it begins are whole")  # fmt: skip
        return self.files

    def on_part_begin(self) -> None:
        """Begin a part."""
        self.begun += 1
        self.headers, self.content = Message(), bytearray()
        if self.begun > self.most + FIELDS:
            raise HTTPException(413, f"Too many parts. Maximum number of parts is {self.most + FIELDS}.")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Take some of a header's name."""
        self.field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Take some of a header's value."""
        self.value += data[start:end]

    def on_header_end(self) -> None:
        """Keep a header."""
        self.headers[self.field.decode("latin-1")] = self.value.decode("utf-8", "replace")
        self.field, self.value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Take some of a part's content."""
        self.content += data[start:end]

    def on_part_end(self) -> None:
        """Keep a part that is a picture."""
        self.whole += 1
        name = self.headers.get_filename()
        if (
            name is None
            and not self.headers.get("content-type", "").lower().startswith(TYPES)
            and _is_text(self.content)
        ):
            return
        if len(self.files) == self.most:
            raise HTTPException(413, f"Too many files. Maximum number of files is {self.most}.")
        self.files.append((name or "", bytes(self.content)))

    def on_end(self) -> None:
        """Note that the last boundary has come."""
        self.ended = True


def _is_text(content: bytes | bytearray) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in content
