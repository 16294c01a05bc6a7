"""The page for people: one file, with everything in it, that asks no server but this one."""

import base64
import hashlib
import html
import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from wordmill.inference.packaged.pyfunc import TextRecogniser

TEMPLATE = Path(__file__).with_name("page.html")
SYMBOLS = 120  # characters of the charset that the page names


def add_page(app: FastAPI, recogniser: TextRecogniser) -> None:
    """Answer GET / with the page."""
    content, policy = page_text(recogniser), policy_of(TEMPLATE.read_text(encoding="utf-8"))
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff",
               "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}  # fmt: skip

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        """Return the page."""
        return HTMLResponse(content, headers=headers)


def page_text(recogniser: TextRecogniser) -> str:
    """Return the page with what it says of a recogniser: its characters, and whether it turns tall pictures."""
    symbols = recogniser.codec.charset.symbols
    named = html.escape(symbols[:SYMBOLS]) + (" …" if len(symbols) > SYMBOLS else "")
    told = {"COUNT": f"{len(symbols):,}", "CHARACTERS": named, "TURNED": str(recogniser.data.turn_tall).lower()}
    head, script, rest = TEMPLATE.read_text(encoding="utf-8").partition("<script>")
    return re.sub("|".join(told), lambda found: told[found[0]], head) + script + rest


def policy_of(page: str) -> str:
    """Return the content security policy of a page: its own script and style, its own server, pictures in memory."""
    allowed = {}
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        allowed[tag] = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return (f"default-src 'none'; script-src 'sha256-{allowed['script']}'; style-src 'sha256-{allowed['style']}'; "
            "img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'")  # fmt: skip
