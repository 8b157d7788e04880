"""The HTTP interface: OpenAI's chat completions for models that see pictures, and what operators need."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from fastapi import Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from llavar.generate.dialogue import Answering
from llavar.serve import exposition, failures, memory, questions
from llavar.serve.desk import Desk
from llavar.serve.edge import Edge
from llavar.serve.handling import Events, Handling, read
from llavar.serve.media import Intake, MediaPolicy
from llavar.serve.running import unless_gone
from llavar.serve.schema import (
    ChatRequest,
    Chunk,
    Completion,
    ErrorReply,
    Health,
    ModelCard,
    ModelList,
    SeenRequest,
)
from llavar.serve.settings import Settings
from llavar.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

_WORDS = {
    400: "The request breaks a rule or a limit, which the sentence names.",
    401: "The API key is missing or wrong.",
    403: "The request comes from a web page that may not ask.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "The body is longer than the limit.",
    415: "The body is not application/json.",
    429: "As many requests wait as may; Retry-After says when to ask again, in seconds.",
    500: "The server failed; its log says how.",
    503: "A model is being loaded or has failed, the server is shutting down, or the answer took too long.",
}
_ASKING = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503)


def build(
    models: Mapping[str, Answering],
    settings: Settings | None = None,
    *,
    page: bool = False,
    intake: questions.Opens | None = None,
) -> FastAPI:
    """The application that serves ``models`` under their names.

    ``models`` may be filled while it runs (see :attr:`Settings.names`). ``page`` adds the page for people.
    ``app.state.desk`` is its :class:`llavar.serve.desk.Desk`.
    """
    settings = settings or Settings()
    desk = Desk(models, settings, intake or Intake(_policy(settings)))
    app = FastAPI(
        title="llavar",
        version=__version__,
        description="Models that read the text in pictures, in the protocol of OpenAI's chat completions.",
        docs_url=None,  # its scripts would come from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.desk = desk
    _add_answers(app, desk)
    _add_models(app, desk)
    _add_state(app, desk)
    failures.add(app)
    if page:
        from llavar.serve import pages

        pages.mount(app)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type", "X-Request-ID"),
            expose_headers=("X-Request-ID", "Retry-After"),
        )
    app.add_middleware(Edge, exposition=desk.exposition)  # the outermost
    app.openapi = functools.cache(lambda: _document(app))
    return app


def _policy(settings: Settings) -> MediaPolicy:
    return MediaPolicy(
        domains=settings.domains, max_bytes=settings.max_picture_bytes, max_pixels=settings.max_pixels
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    tidying = asyncio.create_task(memory.keep_giving_back())
    yield
    tidying.cancel()
    cast(Desk, app.state.desk).intake.close()


# ------------------------------------------------------------------------------------------ what is described


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorReply, "description": _WORDS[status]} for status in statuses}


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """The description of a body that is read by :func:`llavar.serve.handling.read` and not by FastAPI."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for path in document["paths"].values():  # FastAPI's own form of errors, which nothing here has
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    kinds = [(kind, "validation") for kind in (ChatRequest, SeenRequest, Chunk)]
    _, schemas = models_json_schema(cast(Any, kinds), ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= schemas["$defs"]
    return document


def _door(desk: Desk) -> list[Any]:
    """Dependencies that let in whoever may ask."""
    if not desk.settings.keys:
        return [Depends(desk.check_origin)]
    scheme = HTTPBearer(auto_error=False, scheme_name="key", description="A key of the server's operator.")

    async def check(request: Request) -> None:
        given = await scheme(request)
        desk.check_key(given.credentials if given else None)

    return [Depends(scheme), Depends(check)]  # the scheme itself, so that it is described


# ---------------------------------------------------------------------------------------------------- answers


def _add_answers(app: FastAPI, desk: Desk) -> None:
    door = _door(desk)
    # Without a type: readers take it for one of the text, or of each event.
    streamed = {"schema": {"description": "Events whose data is a Chunk, then [DONE]."}}

    @app.post(
        "/v1/chat/completions",
        summary="Answer a conversation",
        response_model=Completion,
        responses={**_refusals(*_ASKING), 200: {"content": {"text/event-stream": streamed}}},
        openapi_extra=_body(ChatRequest),
        dependencies=door,
        tags=["answers"],
    )
    async def chat(request: Request) -> Response:
        with ExitStack() as stack:
            stack.enter_context(desk.place())
            with desk.body() as take:
                asked = await read(request, ChatRequest, desk.settings, take)
                stack.enter_context(desk.turn())
                handling = Handling(desk, request, asked)
                stack.callback(handling.cancel)
                stream = bool(asked.stream)
                await unless_gone(request, handling.start(asked))
                del asked  # it holds pictures as text
            if stream:
                return Events(handling.events(), stack.pop_all(), seconds=desk.settings.timeout)
            completion = await unless_gone(request, handling.whole())
        return Response(completion.model_dump_json(), media_type="application/json")

    @app.post(
        "/v1/seen",
        summary="Show a picture as the model sees it",
        response_class=Response,
        responses={**_refusals(*_ASKING), 200: {"content": {"image/png": {}}}},
        openapi_extra=_body(SeenRequest),
        dependencies=door,
        tags=["answers"],
    )
    async def seen(request: Request) -> Response:
        with desk.place(), desk.body() as take:
            asked = await read(request, SeenRequest, desk.settings, take)
            _, model = desk.find(asked.model)
            with desk.turn():
                return await unless_gone(request, _seen(desk, model, questions.url_of(asked.image_url)))

    _ = chat, seen


async def _seen(desk: Desk, model: Answering, url: str) -> Response:
    image = await questions.open_one(url, "image_url", desk.intake)
    return Response(await asyncio.to_thread(_png, model, image), media_type="image/png")


def _png(model: Answering, image: Image) -> bytes:
    buffer = io.BytesIO()
    model.seen(image).save(buffer, format="png")
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------- models and state


def _add_models(app: FastAPI, desk: Desk) -> None:
    door = _door(desk)

    def card(name: str, model: Answering) -> ModelCard:
        return ModelCard(id=name, created=desk.created, max_model_len=model.max_tokens)

    @app.get(
        "/v1/models",
        summary="List the models",
        responses=_refusals(401, 403, 500),
        dependencies=door,
        tags=["models"],
    )
    async def models() -> ModelList:
        return ModelList(data=[card(name, desk.models[name]) for name in desk.names if name in desk.models])

    @app.get(
        "/v1/models/{model:path}",
        summary="Describe a model",
        responses=_refusals(401, 403, 404, 500, 503),
        dependencies=door,
        tags=["models"],
    )
    async def one(model: str) -> ModelCard:
        return card(*desk.find(model))

    _ = models, one


def _add_state(app: FastAPI, desk: Desk) -> None:
    @app.get("/health", summary="Whether the server runs", responses=_refusals(500), tags=["state"])
    async def health() -> Health:
        return Health(status="ok")

    @app.get("/ready", summary="Whether it can answer", responses=_refusals(500, 503), tags=["state"])
    async def ready() -> Health:
        desk.check_ready()
        return Health(status="ready")

    @app.get(
        "/metrics",
        summary="Measurements for Prometheus",
        response_class=Response,
        responses={
            **_refusals(401, 403, 500),
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        },
        dependencies=_door(desk),
        tags=["state"],
    )
    async def metrics() -> Response:
        return Response(desk.exposition.text(), media_type=exposition.CONTENT_TYPE)

    _ = health, ready, metrics
