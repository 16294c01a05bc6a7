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
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from components.serve.batching import MOST_PICTURES, Batcher, FullError
from components.serve.body import Named, images_of
from components.serve.interface import HEALTH_ANSWERS, METRICS_ANSWERS, MOST_ALTERNATIVES, READ, READ_ANSWERS
from components.serve.load import Held, Load
from components.serve.metrics import ServiceMetrics
from components.serve.page import add_page
from components.serve.receiving import LATE
from components.serve.unpacking import check_unpacked
from wordmill.inference.packaged.pyfunc import FittedPicture, TextRecogniser

QUIET: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
GONE = 499  # as web servers have it of a client that has gone before it said all
AGAIN = {"Retry-After": "1"}
Detailed = tuple[str, float, dict[str, Any]]  # text, confidence in 0..1, and what a request asks for beside

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
    if not text.isdecimal() or len(text) > 3 or int(text) > MOST_ALTERNATIVES:
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
        self.load = Load()
        self.metrics.waiting.set_function(lambda: len(self.batcher.waiting))
        self.metrics.in_hand.set_function(lambda: self.load.requests)
        self.metrics.body_bytes.set_function(lambda: self.load.bytes)

    async def answer(self, request: Request) -> list[dict[str, Any]]:
        """Return what is read of a request's pictures, in their order; HTTPException where it is refused."""
        held = Held(self.load)
        try:
            more, images = wanted_details(request), await images_of(request, held.take)
            with self.load.taken(len(images)):
                names, fitted = [name for name, _ in images], await self._fitted(images)
                images.clear()
                held.give_back()
                return await self._read(names, fitted, more)
        except FullError as error:
            raise HTTPException(503, f"{error}: try again", AGAIN) from None
        finally:
            held.give_back()

    async def _read(self, names: list[str], fitted: list[FittedPicture], more: Details) -> list[dict[str, Any]]:
        """Return what is read of fitted pictures."""
        if more.asked:
            found = await self._in_detail(fitted, more.alternatives)
        else:
            found = [(*read, {}) for read in await self.batcher.read([picture for picture, _ in fitted])]
        return [{"name": name, "text": text, "confidence": round(confidence, 4)} | detail
                for name, (text, confidence, detail) in zip(names, found, strict=True)]  # fmt: skip

    async def _in_detail(self, fitted: list[FittedPicture], alternatives: int) -> list[Detailed]:
        """Return readings with what a request asks for beside, a batch at a time, in the thread of the batches."""
        found: list[Detailed] = []
        for start in range(0, len(fitted), MOST_PICTURES):
            pictures, shares = zip(*fitted[start : start + MOST_PICTURES], strict=True)
            work = partial(self.recogniser.read_in_detail, np.stack(pictures), shares, alternatives)
            try:
                (texts, sure), more = await asyncio.get_running_loop().run_in_executor(self.batcher.thread, work)
            except ValueError as error:  # this recogniser has no alternatives
                raise HTTPException(422, str(error)) from None
            self.metrics.batches.observe(len(pictures))
            found += zip(texts, sure.tolist(), more, strict=True)
        return found

    async def _fitted(self, images: list[Named]) -> list[FittedPicture]:
        """Decode and fit pictures in another thread, where a large one keeps nobody else waiting."""

        def fit() -> list[FittedPicture | str]:
            fitted: list[FittedPicture | str] = []
            for number, (name, content) in enumerate(images):
                try:
                    check_unpacked(content)
                    fitted.append(self.recogniser.fit_and_share(content))
                except ValueError as error:
                    fitted.append(f"image {number}{f' ({name})' if name else ''}: {error}")
            return fitted

        fitted = await asyncio.get_running_loop().run_in_executor(None, fit)
        if wrong := [told for told in fitted if isinstance(told, str)]:
            raise HTTPException(422, f"{len(wrong)} of {len(images)} cannot be read: {'; '.join(wrong)}")
        return [one for one in fitted if not isinstance(one, str)]


class Admission:
    """Refuses readings while too much is in hand, at a third of what FastAPI takes to find that out."""

    def __init__(self, app: ASGIApp, service: ReadingService) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http" and scope["path"] == "/read" and scope["method"] == "POST":
            try:
                self.service.load.check()
            except FullError as error:
                self.service.metrics.answered(503, 0.0, 0)
                await JSONResponse({"detail": f"{error}: try again"}, 503, AGAIN)(scope, receive, send)
                return
        await self.app(scope, receive, send)


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
    app.add_middleware(Admission, service=service)

    @app.post("/read", openapi_extra=READ, responses=READ_ANSWERS)
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
            status = 408 if request.scope.get("state", {}).get(LATE) else GONE
            return Response(status_code=status)  # to nobody
        except Exception as error:
            log.exception("a batch failed")
            raise HTTPException(500, f"the network failed: {type(error).__name__}") from None
        finally:
            service.metrics.answered(status, time.perf_counter() - started, len(readings))
        return JSONResponse({"readings": readings})

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses=HEALTH_ANSWERS)
    async def health() -> JSONResponse:
        """Return 200 while batches are read, and whether requests are refused now because too much is in hand."""
        alive = not app.state.batches.done()
        status = "stopped" if not alive else "saturated" if service.load.full else "ready"
        return JSONResponse({"status": status}, 200 if alive else 503)

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics", responses=METRICS_ANSWERS, response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return the counters in Prometheus' text format."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
