"""What an operator decides about a server."""

from __future__ import annotations

from dataclasses import dataclass, field

from llavar.errors import ConfigError

_LONGEST_KEY = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits, keys and names. Bytes, pixels, seconds, tokens; every limit is for one request.

    Raises :class:`ConfigError` for a setting that cannot work.
    """

    names: tuple[str, ...] = ()
    """Models that are or will be served, in the order in which they are listed; () for those that are there.
    Until one of them is loaded, the server is not ready."""
    keys: tuple[str, ...] = field(default=(), repr=False)
    """API keys, any of which opens the door; () for none needed."""
    domains: tuple[str, ...] = ()
    """Hosts that pictures are fetched from (see :class:`llavar.serve.media.MediaPolicy`); () for none."""
    origins: tuple[str, ...] = ()
    """Web origins whose pages may ask from a browser."""
    local_pages_only: bool = False
    """Refuse browsers whose page comes from elsewhere than this machine or ``origins``: a server without
    a key that listens on loopback can otherwise be used by any web page that is open (DNS rebinding)."""
    max_body_bytes: int = 32 * 2**20
    max_bodies_bytes: int = 256 * 2**20
    """Of all bodies that are being received or read, together. More get 429, so that memory has a bound."""
    max_picture_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    max_pictures: int = 16
    max_text: int = 400_000
    """Characters of all messages together: a bound on the work of counting tokens."""
    max_messages: int = 1000
    max_n: int = 16
    default_tokens: int = 1024
    """Length of an answer where a request names none."""
    timeout: float = 600.0
    """From the request to the end of its answer, the wait in the queue included."""
    upload_seconds: float = 60.0
    """For the body of a request to arrive."""
    open_requests: int = 512
    """Requests in hand at a time, in all states: those that are read and whose pictures are opened, that
    wait, and that are answered. More get 429 at once, so that memory has a bound."""
    connections: int = 1024
    """Open at a time, idle ones too; fewer where the system grants fewer files. More get 503 and an end."""
    head_seconds: float = 20.0
    """For the first line and the headers of a request to arrive."""

    def __post_init__(self) -> None:
        for name in (
            "max_body_bytes",
            "max_bodies_bytes",
            "max_picture_bytes",
            "max_pixels",
            "max_pictures",
            "max_text",
            "max_messages",
            "max_n",
            "default_tokens",
            "timeout",
            "upload_seconds",
            "open_requests",
            "connections",
            "head_seconds",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if len(set(self.names)) < len(self.names) or not all(name.strip() for name in self.names):
            raise ConfigError(
                f"the models would be served as {', '.join(map(repr, self.names))}; give each a name of its "
                "own with --served-model-name"
            )
        for key in self.keys:
            check_key(key)
        for origin in self.origins:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ConfigError(
                    f"{origin[:100]!r} is no origin of web pages; give it like https://chat.example.org, or *"
                )


def check_key(key: str) -> None:
    """Raise :class:`ConfigError` unless a client could send ``key`` in a header. The key is not repeated."""
    if not key or len(key) > _LONGEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"the API key is empty, longer than {_LONGEST_KEY} characters, or holds what no header carries; "
            "use letters, digits and signs without spaces"
        )
