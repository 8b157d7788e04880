"""What goes over the wire: the parts of OpenAI's chat completions that a model with pictures can honour.

Requests are strict about the types of what they know, and ignore fields that they do not know. Nothing
here says what is too much; limits that an operator can set are in :mod:`llavar.serve.settings`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_serializer

MOST_STOPS = 16
"""Stop strings of one request. OpenAI takes 4; kits that evaluate send more."""
LONGEST_STOP = 256
MOST_TOP = 20
"""Of ``top_logprobs``, as OpenAI has it."""
ROLES = ("system", "developer", "user", "assistant")


class _Asked(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class _Given(BaseModel):
    """Base of what they get."""

    model_config = ConfigDict(frozen=True)


# ------------------------------------------------------------------------------------------------- requests


def _shape(value: object) -> str | None:
    """The tag of a value that is a text or something longer. Tags in brackets are no part of a place."""
    return "(text)" if isinstance(value, str) else "(longer)" if isinstance(value, list | dict) else None


def _kind(value: object) -> str | None:
    named = cast(dict[str, Any], value).get("type") if isinstance(value, dict) else None
    return f"({named})" if named in ("text", "image_url") else None


class TextPart(_Asked):
    type: Literal["text"]
    text: str


class ImageUrl(_Asked):
    """A picture: a ``data:`` URL, or an http(s) URL at a domain that the server fetches from."""

    url: str = Field(min_length=1)
    detail: Any = Field(default=None, description="Ignored: the model sees every picture in one size.")


ImageReference = Annotated[
    Annotated[str, Tag("(text)"), Field(min_length=1)] | Annotated[ImageUrl, Tag("(longer)")],
    Discriminator(_shape, custom_error_type="picture", custom_error_message="must be a URL or {'url': URL}"),
]


class ImagePart(_Asked):
    type: Literal["image_url"]
    image_url: ImageReference


Part = Annotated[
    Annotated[TextPart, Tag("(text)")] | Annotated[ImagePart, Tag("(image_url)")],
    Discriminator(
        _kind, custom_error_type="part", custom_error_message="must have the type 'text' or 'image_url'"
    ),
]

Content = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[list[Part], Tag("(longer)"), Field(min_length=1)],
    Discriminator(
        _shape, custom_error_type="content", custom_error_message="must be a text or a list of parts"
    ),
]


class Message(_Asked):
    """One turn. Only a user's may hold pictures; ``system`` and ``developer`` are one, and come first."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class StreamOptions(_Asked):
    include_usage: bool | None = Field(
        default=None, description="One more chunk before the end, with counts of tokens."
    )


class ResponseFormat(_Asked):
    type: Literal["text"] = Field(description="Answers are plain text; other formats are refused.")


class ChatRequest(_Asked):
    """A conversation that ends with the user's turn, and how it is to be answered."""

    model: str | None = Field(default=None, description="May be left out where one model is served.")
    messages: list[Message] = Field(min_length=1)
    n: int | None = Field(default=None, ge=1, description="Answers to give (default 1).")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Length of each answer in tokens. More than the model takes after the prompt means as "
        "many as it takes.",
    )
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="The same by its newer name, which goes before the older one."
    )
    temperature: float | None = Field(
        default=None, ge=0, le=100, description="0, which is the default here, takes the likeliest token."
    )
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(
        default=None, ge=-(2**63), lt=2**63, description="Equal requests with equal seeds get equal answers."
    )
    stop: (
        Annotated[
            Annotated[str, Tag("(text)"), Field(min_length=1, max_length=LONGEST_STOP)]
            | Annotated[
                list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]],
                Tag("(longer)"),
                Field(max_length=MOST_STOPS),
            ],
            Discriminator(
                _shape, custom_error_type="stop", custom_error_message="must be a text or a list of texts"
            ),
        ]
        | None
    ) = Field(default=None, description="The answer ends before the first of these texts.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = Field(default=None, description="Give the log probability of each token.")
    top_logprobs: int | None = Field(
        default=None, ge=0, le=MOST_TOP, description="And of so many of the likeliest; needs logprobs."
    )
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(
        default=None, description="Models here call no tools."
    )
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    user: str | None = Field(default=None, description="Ignored.")

    @property
    def limit(self) -> int | None:
        """Tokens of an answer as the client wants them."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class SeenRequest(_Asked):
    """A picture, to be shown as the model sees it."""

    model: str | None = Field(default=None, description="May be left out where one model is served.")
    image_url: ImageReference


# -------------------------------------------------------------------------------------------------- answers


class TopLogprob(_Given):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob] = []


class Logprobs(_Given):
    content: list[TokenLogprob]
    refusal: None = None


class Usage(_Given):
    """Tokens. Those of pictures are part of the prompt, which counts once for all ``n`` answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


FinishReason = Literal["stop", "length"]


class Answer(_Given):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(_Given):
    index: int
    message: Answer
    logprobs: Logprobs | None
    finish_reason: FinishReason


class Completion(_Given):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: None = None


class Delta(_Given):
    """What is new; fields without news are left out."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer
    def _news(self) -> dict[str, str]:
        return {name: value for name in ("role", "content") if (value := getattr(self, name)) is not None}


class ChunkChoice(_Given):
    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class Chunk(_Given):
    """A part of an answer, one server-sent event."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    system_fingerprint: None = None


class ModelCard(_Given):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "llavar"
    max_model_len: int = Field(description="Tokens of prompt and answer together.")


class ModelList(_Given):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(_Given):
    status: Literal["ok", "ready"]


class Failure(_Given):
    message: str = Field(description="One sentence, with the value, the limit and the remedy.")
    type: str
    param: str | None = Field(default=None, description="The field of the request that it is about.")
    code: str | None = None


class ErrorReply(_Given):
    """What every failed request gets."""

    error: Failure
