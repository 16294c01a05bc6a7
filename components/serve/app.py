"""The HTTP service of a recogniser: POST /read, GET /health, GET /metrics, and a page for people at /."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from components.serve.batching import MOST, Batcher, FullError
from components.serve.body import Named, images_of
from components.serve.metrics import ServiceMetrics
from components.serve.page import add_page
from wordmill.inference.packaged.pyfunc import TextRecogniser
from wordmill.pictures.image import Picture

REQUESTS = 256  # that may be in hand at a time: their bodies are in memory
QUIET: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
MOST_ALTERNATIVES = 20
GONE = 499  # as web servers have it of a client that has gone before it said all
FILE = {"type": "string", "format": "binary"}
FORM = {"type": "object", "properties": {"images": {"type": "array", "items": FILE}}}
PACKED = {"type": "object", "properties": {"images": {"type": "array", "items": {"type": "string", "format": "byte"}}}}
BODY = {"requestBody": {"required": True, "content": {
    "image/*": {"schema": FILE}, "multipart/form-data": {"schema": FORM}, "application/json": {"schema": PACKED},
}}}  # fmt: skip
AGAIN = {"Retry-After": "1"}
Fitted = tuple[Picture, float]  # a picture as the network takes it, and the share of the width that it fills

log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a request asks for beside text and confidence."""

    characters: bool
    alternatives: int

    @property
    def asked(self) -> bool:
        """Tell whether it asks for anything."""
        return self.characters or self.alternatives > 0


def wanted_details(request: Request) -> Details:
    """Return what a request's query asks for; HTTPException for what nobody can be asked for."""
    text = request.query_params.get("alternatives", "0")
    if not text.isdecimal() or int(text) > MOST_ALTERNATIVES:
        raise HTTPException(422, f"alternatives: found {text!r}, expected a number of 0 to {MOST_ALTERNATIVES}")
    characters = request.query_params.get("characters", "0")
    if characters not in ("0", "1"):
        raise HTTPException(422, f"characters: found {characters!r}, expected 0 or 1")
    return Details(characters=characters == "1", alternatives=int(text))


class ReadingService:
    """What the requests of one application share."""

    def __init__(self, recogniser: TextRecogniser) -> None:
        self.recogniser, self.metrics = recogniser, ServiceMetrics()
        self.batcher = Batcher(recogniser.read, self.metrics.batches.observe)
        self.metrics.waiting.set_function(lambda: len(self.batcher.waiting))
        self.in_hand = 0

    async def answer(self, request: Request) -> list[dict[str, Any]]:
        """Return what is read of a request's pictures, in their order; HTTPException where it is refused."""
        if self.in_hand >= REQUESTS:
            raise HTTPException(503, f"{REQUESTS} requests are in hand already: try again", AGAIN)
        self.in_hand += 1
        try:
            images, more = await images_of(request), wanted_details(request)
            fitted = await self._fitted(images)
            found = await self.batcher.read([picture for picture, _ in fitted])
            details = await self._details(fitted, more.alternatives) if more.asked and fitted else [{}] * len(fitted)
        except FullError:
            raise HTTPException(503, "too many pictures are waiting: try again", AGAIN) from None
        finally:
            self.in_hand -= 1
        return [{"name": name, "text": text, "confidence": round(confidence, 4)} | detail
                for (name, _), (text, confidence), detail in zip(images, found, details, strict=True)]  # fmt: skip

    async def _details(self, fitted: list[Fitted], alternatives: int) -> list[dict[str, Any]]:
        """Return characters and alternatives of pictures, by the thread that runs the network, a batch at a time."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(fitted), MOST):
            pictures, shares = zip(*fitted[start : start + MOST], strict=True)
            work = partial(self.recogniser.details, np.stack(pictures), shares, alternatives)
            try:
                found += await asyncio.get_running_loop().run_in_executor(self.batcher.thread, work)
            except ValueError as error:  # this recogniser has no alternatives
                raise HTTPException(422, str(error)) from None
        return found

    async def _fitted(self, images: list[Named]) -> list[Fitted]:
        """Decode and fit pictures in another thread, where a large one keeps nobody else waiting."""

        def fit() -> list[Fitted | str]:
            fitted: list[Fitted | str] = []
            for number, (name, content) in enumerate(images):
                try:
                    fitted.append(self.recogniser.fit_and_share(content))
                except ValueError as error:
                    fitted.append(f"image {number}{f' ({name})' if name else ''}: {error}")
            return fitted

        fitted = await asyncio.get_running_loop().run_in_executor(None, fit)
        if wrong := [told for told in fitted if isinstance(told, str)]:
            raise HTTPException(422, f"{len(wrong)} of {len(images)} cannot be read: {'; '.join(wrong)}")
        return [one for one in fitted if not isinstance(one, str)]


def make_app(recogniser: TextRecogniser) -> FastAPI:
    """Return the application of a recogniser that is loaded and warm."""
    service = ReadingService(recogniser)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        app.state.batches = asyncio.create_task(service.batcher.run())
        yield
        app.state.batches.cancel()

    # The pages of documentation need a network; Prometheus gets the counters, and gets them at less cost.
    app = FastAPI(title="Wordmill", lifespan=lifespan, docs_url=None, redoc_url=None, telemetry=QUIET)
    add_page(app, recogniser)

    @app.post("/read", openapi_extra=BODY)
    async def read(request: Request) -> Response:
        """Read the picture that is the body, the files of a form, or JSON's: text and confidence in 0..1 of each.

        `?characters=1` adds each character's confidence and place, `?alternatives=3` so many of the likeliest texts.
        """
        started, status, readings = time.perf_counter(), 500, []
        try:
            readings = await service.answer(request)
            status = 200
        except HTTPException as error:
            status = error.status_code
            raise
        except ClientDisconnect:
            status = GONE
            return Response(status_code=GONE)
        except Exception as error:
            log.exception("a batch failed")
            raise HTTPException(500, f"the network failed: {type(error).__name__}") from None
        finally:
            service.metrics.answered(status, time.perf_counter() - started, len(readings))
        return JSONResponse({"readings": readings})

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> JSONResponse:
        """Return 200 while batches are read."""
        alive = not app.state.batches.done()
        return JSONResponse({"status": "ready" if alive else "stopped"}, 200 if alive else 503)

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics")
    async def metrics() -> Response:
        """Return the counters in Prometheus' text format."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
