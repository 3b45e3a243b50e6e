"""Which address does what: OpenAI's audio interface, whisper.cpp's form, the page, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from torch_xdna.serve import form as forms
from torch_xdna.serve import formats
from torch_xdna.serve.form import Form
from torch_xdna.serve.formats import Transcript
from torch_xdna.serve.guard import Access, App, Guard, escaped, knows_key, read_headers
from torch_xdna.serve.limits import Limits
from torch_xdna.serve.metrics import CONTENT_TYPE, Metrics
from torch_xdna.serve.queue import Done, Event, Job, Queue, Some
from torch_xdna.serve.refused import Refused, stopping
from torch_xdna.serve.uploads import Left, Upload, discarded, received
from torch_xdna.speech.engine import Engine
from torch_xdna.speech.subtitles import Segment

DEVICE, NOTE = "X-Torch-Xdna-Device", "X-Torch-Xdna-Note"
_PAGE = Path(__file__).parent / "page"
_PAGES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_RETRY_SECONDS = 5  # where nothing is known of how long the queue takes

Understand = Callable[[list[tuple[str, str]]], Form]
Write = Callable[[Transcript, Form], tuple[str, str]]
Complain = Callable[[Refused], dict[str, Any]]


class Server:
    """What the requests of one server share. `app`: for uvicorn; `stop`: to be called on the event loop."""

    def __init__(self, engine: Engine, limits: Limits, access: Access) -> None:
        self.engine, self.limits, self.access = engine, limits, access
        self.metrics = Metrics()
        self.queue = Queue(engine, limits, self.metrics)
        self.admitted = 0
        self.stopping = asyncio.Event()
        self.metrics.gauge(
            "requests_admitted", "Requests received, waiting or running.", lambda: self.admitted
        )
        self.metrics.gauge("failed_calls", "Encoder calls computed again on the CPU.", self._failed_calls)
        for name in self.queue.state():
            self.metrics.gauge(
                f"queue_{name}", f"Of the queue: {name}.", functools.partial(self._queued, name)
            )
        self.app: App = self._built()

    def stop(self) -> None:
        """What has begun is finished, all else and all new is refused."""
        self.stopping.set()
        self.queue.stop()

    def _queued(self, name: str) -> float:
        return self.queue.state()[name]

    def _failed_calls(self) -> float:
        return sum(self.engine.failures().values())

    def _built(self) -> App:
        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self.queue.start()
            yield
            await asyncio.to_thread(self.queue.close, self.limits.grace_seconds)

        # FastAPI's own pages of documentation load scripts from elsewhere.
        app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        for path in _PAGES:
            app.add_api_route(path, self._page, methods=["GET"])
        app.add_api_route("/health", self._health, methods=["GET"])
        app.add_api_route("/metrics", self._metrics, methods=["GET"])
        app.add_api_route("/v1/models", self._models, methods=["GET"])
        app.add_api_route("/v1/models/{name:path}", self._model, methods=["GET"])
        app.add_api_route("/v1/audio/transcriptions", self._transcriptions, methods=["POST"])
        app.add_api_route("/v1/audio/translations", self._translations, methods=["POST"])
        app.add_api_route("/inference", self._inference, methods=["POST"])
        routes = tuple(path for route in app.routes if "{" not in (path := getattr(route, "path", "{")))
        return Guard(app, self.access, self.metrics, routes)

    # Addresses

    async def _page(self, request: Request) -> Response:
        name, kind = _PAGES[request.url.path]
        return Response((_PAGE / name).read_bytes(), media_type=f"{kind}; charset=utf-8")

    async def _health(self, request: Request) -> Response:
        status = {"status": "stopping" if self.stopping.is_set() else "ok"}
        code = 503 if self.stopping.is_set() else 200
        if self.access.key and not knows_key(self.access.key, read_headers(request.scope)):
            return JSONResponse(status, code)  # who has no key learns no more
        whole = {
            **status,
            "model": self.engine.name,
            "device": self.engine.device,
            "queue": {**self.queue.state(), "admitted": self.admitted, "limit": self.limits.jobs},
            "seconds_since_start": round(time.time() - self.queue.since, 1),
            "windows": self.queue.windows,
            "failures": self.engine.failures(),
        }
        return JSONResponse(whole, code)

    async def _metrics(self) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def _models(self) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, name: str) -> Response:
        try:
            forms.check_model(name, self.engine)
        except Refused as refused:
            return JSONResponse(refused.as_openai(), refused.status)
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        return {
            "id": self.engine.name,
            "object": "model",
            "created": int(self.queue.since),
            "owned_by": "torch-xdna",
        }

    async def _transcriptions(self, request: Request) -> Response:
        return await self._answer(request, "transcribe")

    async def _translations(self, request: Request) -> Response:
        return await self._answer(request, "translate")

    async def _answer(self, request: Request, task: str) -> Response:
        return await self._transcribe(
            request, lambda fields: forms.openai(fields, self.engine, task), formats.openai, Refused.as_openai
        )

    async def _inference(self, request: Request) -> Response:
        return await self._transcribe(
            request,
            lambda fields: forms.whisper_cpp(fields, self.engine),
            formats.whisper_cpp,
            Refused.as_whisper_cpp,
        )

    # One recording

    async def _transcribe(
        self, request: Request, understand: Understand, write: Write, complain: Complain
    ) -> Response:
        """Admits, receives, queues and answers. A streamed answer goes on after this returns, and cleans up itself."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                job, form = await self._begin(request, understand, stack)
                events = self._events(request, job)
                if form.stream:
                    first = await anext(events)
                    self._raise_if_refused(first)
                    later = stack.pop_all()
                    stream = self._stream(first, events, job, form, later, complain)
                    return StreamingResponse(
                        stream,
                        media_type="text/event-stream",
                        headers=_headers(job, form, self.engine.device),
                    )
                segments: list[Segment] = []
                async for event in events:
                    self._raise_if_refused(event)
                    segments += event.segments if isinstance(event, Some) else []
                content, kind = write(_transcript(segments, job), form)
                return Response(content, media_type=kind, headers=_headers(job, form, self.engine.device))
            except Refused as refused:
                return JSONResponse(complain(refused), refused.status, refused.headers)
            except Left:
                return Response(status_code=499)  # nobody hears it

    async def _begin(
        self, request: Request, understand: Understand, stack: contextlib.AsyncExitStack
    ) -> tuple[Job, Form]:
        """A place, the body, the fields, a job in the queue; `stack` gives each of them back."""
        try:
            self._admit(stack)
        except Refused:
            await discarded(request.receive, 8 << 20, 5.0)
            raise
        upload = await self._received(request)
        stack.callback(upload.close)
        form = understand(upload.fields)
        job = Job(upload.path, form.asked)
        stack.callback(self.queue.cancel, job)
        self.queue.submit(job)
        return job, form

    def _admit(self, stack: contextlib.AsyncExitStack) -> None:
        if self.stopping.is_set():
            raise stopping()
        if self.admitted >= self.limits.jobs:
            raise Refused(
                429,
                f"{self.admitted} requests are waiting already: ask again later",
                "queue_full",
                _RETRY_SECONDS,
            )
        self.admitted += 1
        stack.callback(self._leave)

    def _leave(self) -> None:
        self.admitted -= 1

    async def _received(self, request: Request) -> Upload:
        """The body, unless the server is told to stop first."""
        receiving = asyncio.ensure_future(received(request.receive, read_headers(request.scope), self.limits))
        stopped = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait((receiving, stopped), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            raise stopping()
        finally:
            stopped.cancel()
            await _ended(receiving)

    async def _events(self, request: Request, job: Job) -> AsyncIterator[Event]:
        """What the queue says of the job, up to its end. Raises Left when the client is gone, Refused (504) when it
        takes too long."""
        leaving = asyncio.ensure_future(_left(request))
        deadline = asyncio.get_running_loop().time() + self.limits.request_seconds
        try:
            while True:
                next_event = asyncio.ensure_future(job.events.get())
                try:
                    seconds = deadline - asyncio.get_running_loop().time()
                    await asyncio.wait(
                        (next_event, leaving), timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED
                    )
                    if leaving.done() and not next_event.done():
                        raise Left
                    if not next_event.done():
                        raise Refused(
                            504, f"it took longer than {self.limits.request_seconds:.0f} s", "too_slow"
                        )
                    event = next_event.result()
                finally:
                    next_event.cancel()
                yield event
                if not isinstance(event, Some):
                    return
        finally:
            leaving.cancel()

    def _raise_if_refused(self, event: Event) -> None:
        if isinstance(event, Refused):
            raise event

    async def _stream(
        self,
        first: Event,
        events: AsyncIterator[Event],
        job: Job,
        form: Form,
        stack: contextlib.AsyncExitStack,
        complain: Complain,
    ) -> AsyncIterator[str]:
        """Server-sent events: text as it comes. The head went out before all was computed, so the last event tells
        the device too."""
        segments: list[Segment] = []
        async with stack:
            try:
                event = first
                while isinstance(event, Some):
                    for segment in event.segments:
                        yield formats.delta(segment, is_first=not segments)
                        segments.append(segment)
                    event = await anext(events)
                self._raise_if_refused(event)
                yield formats.done(_transcript(segments, job), _devices(job, self.engine.device))
            except Refused as refused:
                yield formats.failed(complain(refused))
            except Left:
                return


async def _left(request: Request) -> None:
    """Returns when the client is gone: after the body nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _ended(receiving: asyncio.Future[Upload]) -> None:
    """An upload that nobody waits for any more closes its file."""
    if not receiving.done():
        receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError, Refused, Left):
            (await receiving).close()


def _transcript(segments: list[Segment], job: Job) -> Transcript:
    language = "en" if job.asked.task == "translate" else job.asked.language or job.heard.most or "en"
    return Transcript(segments, language, job.seconds)


def _devices(job: Job, device: str) -> list[str]:
    """What computed the encoder; where all was silence nothing ran, and it would have been `device`."""
    return sorted(job.devices, key=lambda name: (name != device, name)) or [device]


def _headers(job: Job, form: Form, device: str) -> dict[str, str]:
    headers = {DEVICE: ", ".join(_devices(job, device))}
    if notes := [*form.notes, *job.notes]:
        headers[NOTE] = escaped("; ".join(notes))[:1000]
    return headers


__all__ = ["DEVICE", "Done", "Server"]
