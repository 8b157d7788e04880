"""A server of canned answers behind the page, for tests in a browser."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import threading
from collections.abc import AsyncGenerator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image

from llavar.serve import pages


class PageServer:
    """``models`` on loopback; the last word of a question decides what happens to it.

    slow: one word, then nothing more. busy: 429. broken: an error in the middle. cut: the stream just ends.
    markup: the answer holds HTML. Anything else is answered with the model's name and the question.
    """

    BUSY = "64 requests wait already, which is the limit; try again in 2 s."

    def __init__(
        self,
        models: tuple[str, ...] = ("small", "large"),
        *,
        key: str = "",
        page: bool = True,
        origins: tuple[str, ...] = (),
    ) -> None:
        self.asked: list[dict[str, Any]] = []
        self.shown: list[dict[str, Any]] = []
        self.cancelled, self.busy = threading.Event(), True
        self.models, self.key = models, key
        app = FastAPI()
        self._add(app)
        if page:
            pages.mount(app)
        if origins:
            app.add_middleware(
                CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]
            )
        config = uvicorn.Config(app, log_level="critical", ws="none", lifespan="off")
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def _refused(self, request: Request) -> JSONResponse | None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return _error(401, "The API key is missing or wrong; send it as Authorization: Bearer KEY.")
        return None

    def _add(self, app: FastAPI) -> None:
        @app.get("/v1/models")
        async def models(request: Request) -> Response:
            listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
            return self._refused(request) or JSONResponse(listed)

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            asked = await request.json()
            self.asked.append(asked)
            question = _question(asked)
            if question.endswith("busy") and self.busy:
                return _error(429, self.BUSY)
            if refused := self._refused(request):
                return refused
            if not asked.get("stream"):
                said = {"role": "assistant", "content": f"{asked['model']}: {question}"}
                return JSONResponse({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})
            return StreamingResponse(self._answer(asked["model"], question), media_type="text/event-stream")

        @app.post("/v1/seen")
        async def seen(request: Request) -> Response:
            asked = await request.json()
            self.shown.append(asked)
            image = Image.open(io.BytesIO(base64.b64decode(asked["image_url"].split(",")[1])))
            buffer = io.BytesIO()
            image.convert("RGB").resize((32, 32)).save(buffer, format="png")
            return self._refused(request) or Response(buffer.getvalue(), media_type="image/png")

        _ = models, chat, seen

    async def _answer(self, model: str, question: str) -> AsyncGenerator[bytes]:
        answer = f"{model} reads: {question}"
        if question.endswith("markup"):
            answer = "<img src=x onerror=alert(1)><b>bold</b>"
        words = answer.split(" ")
        try:
            for index, word in enumerate(words):
                text = word if index + 1 == len(words) else f"{word} "
                yield _event({"choices": [{"delta": {"content": text}}]})
                if question.endswith("slow"):
                    await asyncio.sleep(3600)
                if question.endswith("broken"):
                    yield _event({"error": {"message": "the model failed on this request"}})
                    return
                await asyncio.sleep(0)
            if question.endswith("cut"):
                return
            yield _event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            yield _event({"choices": [], "usage": {"completion_tokens": len(words)}})
            yield b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise


def _question(asked: dict[str, Any]) -> str:
    content = asked["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _error(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": {"message": sentence}}, status_code=status)
