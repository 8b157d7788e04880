"""Bad requests from a seed, of every kind that a server on the internet gets. No command.

Each is the bytes of a connection and the way they are sent. Most have to be refused; some are odd but within
the protocol, or are one token away from a proper request, and may be answered as well.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from serve_child import CHAT, request
from serve_words import CANARY, HOSTS, LOCAL, MEDIA_TYPES, METHODS, PATHS, SPECIAL

LONG, RARE = 200_000, ("large_pictures", "long_bodies")

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``parts``, ``pause``, ``end``: see :func:`serve_child.talk`."""

    family: str
    parts: tuple[bytes, ...]
    pause: float = 0.0
    end: str = "read"
    may_pass: bool = False
    """Being answered with 200 is right too."""
    may_be_silent: bool = False
    """So is no response: the request never ended, or its sender went away."""


class Bad:
    """Endless bad requests; equal seeds give equal ones.

    ``key`` is one that the server takes, ``most_bytes`` the length of a body that it takes, ``side`` that of
    large pictures in pixels, and ``pause`` what the slowest clients wait between pieces, in seconds.
    """

    def __init__(
        self,
        seed: int,
        *,
        key: str = "",
        picture: bytes,
        most_bytes: int = 32 * 2**20,
        side: int = 7000,
        pause: float = 0.5,
    ) -> None:
        self.rng, self.key, self.picture, self.most_bytes = random.Random(seed), key, picture, most_bytes
        self.large, self.pause = _flat(side, side), pause
        self.families: dict[str, Callable[[], Case]] = {
            name.removeprefix("_of_"): getattr(self, name) for name in dir(self) if name.startswith("_of_")
        }

    def __iter__(self) -> Iterator[Case]:
        names = sorted(self.families)
        while True:
            name = self.rng.choice(names)
            if name in RARE and self.rng.random() > 0.1:  # they cost seconds
                continue
            yield self.families[name]()

    # Proper requests, to be spoiled.

    def document(self, *, tokens: int = 4) -> Json:
        parts: list[Json] = [
            {"type": "text", "text": f"{CANARY} What does it say?"},
            {"type": "image_url", "image_url": {"url": self.url(self.picture)}},
        ]
        return {
            "model": "nano",
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": tokens,
            "temperature": 0,
            "n": 1,
            "top_p": 1,
            "seed": 1,
            "stop": ["\n\n"],
            "stream": False,
            "logprobs": False,
        }

    @staticmethod
    def url(data: bytes, kind: str = "image/png") -> str:
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"

    def with_picture(self, url: Json) -> Json:
        document = self.document()
        document["messages"][0]["content"][1]["image_url"] = self.rng.choice((url, {"url": url}))
        return document

    def chat(self, family: str, document: Json, *, may_pass: bool = False) -> Case:
        body = json.dumps(document).encode()  # NaN and lone surrogates as they are
        return Case(family=family, parts=(request(body=body, key=self.key),), may_pass=may_pass)

    def body(self, family: str, body: bytes, *, may_pass: bool = False, **headers: str) -> Case:
        given = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return Case(
            family=family, parts=(request(body=body, headers=given, key=self.key),), may_pass=may_pass
        )

    def junk(self) -> Json:
        number = self.rng.choice((0, -1, 1, 2**31, 2**63, 2**64, 10**30, 10**4000, 0.5, 1e308, -1e308, -0.0))
        text = self.rng.choice(
            ("", " ", "\0", CANARY, "ü" * 50, "\ud800", "1", "null", "__proto__", "%s%n", "{{7*7}}")
        )
        return self.rng.choice(
            (None, True, False, number, text, [], {}, [[]], [None], {"": {}}, [CANARY] * 40, {"type": "text"})
        )

    # Fields.

    def _of_wrong_types(self) -> Case:
        """One value anywhere in a proper request is replaced."""
        document = self.document()
        places = list(_places(document))
        holder, name = self.rng.choice(places)
        holder[name] = self.junk()
        return self.chat("wrong types", document, may_pass=True)

    def _of_missing_fields(self) -> Case:
        document = self.document()
        message = document["messages"][0]
        what = self.rng.choice(("messages", "role", "content", "text", "url", "image_url", "type", "all"))
        if what == "messages":
            del document["messages"]
        elif what in ("role", "content"):
            del message[what]
        elif what == "text":
            del message["content"][0]["text"]
        elif what == "url":
            message["content"][1]["image_url"] = {}
        elif what == "image_url":
            del message["content"][1]["image_url"]
        elif what == "type":
            del message["content"][self.rng.randrange(2)]["type"]
        else:
            document = {}
        return self.chat("missing fields", document)

    def _of_numbers_out_of_range(self) -> Case:
        document = self.document()
        name, values = self.rng.choice(
            (
                ("max_tokens", (0, -1, -(2**70), 1.5, 1e400, "4")),
                ("temperature", (-1, -1e-9, 1e9, 1e308, "hot")),
                ("top_p", (0, -0.1, 1.0001, 2**80)),
                ("n", (0, -5, 17, 2**40, 1.5)),
                ("seed", (2**70, -(2**70), 0.1, "1")),
                ("top_logprobs", (-1, 21, 10**9, 1)),
                ("stop", ("", [""], ["x"] * 17, ["x" * 300], [1], {"a": 1})),
            )
        )
        document[name] = self.rng.choice(values)
        return self.chat("numbers out of range", document)

    def _of_not_a_number(self) -> Case:
        document = self.document()
        name = self.rng.choice(("temperature", "top_p", "max_tokens", "n", "seed"))
        document[name] = float(self.rng.choice(("nan", "inf", "-inf")))
        return self.chat("NaN and infinity", document)

    def _of_conversations(self) -> Case:
        user, said = {"role": "user", "content": CANARY}, {"role": "assistant", "content": "yes"}
        picture = self.document()["messages"][0]["content"][1]
        messages = self.rng.choice(
            (
                [],
                [said],
                [user, said],
                [user, user, said],
                [{"role": "system", "content": "s"}],
                [user, said, {"role": "system", "content": "late"}, said],
                [{"role": "tool", "content": "x"}],
                [{"role": "User", "content": "x"}],
                [{"role": "assistant", "content": [picture]}, said],
                [{"role": "system", "content": [picture]}, user],
                [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
                [{"role": "user", "content": [picture] * 17}],
                [{"role": "user", "content": "x " * 25_000}],
                [{"role": "user", "content": "x" * 500_000}],
                [user, said] * 600,
            )
        )
        return self.chat("conversations", self.document() | {"messages": messages})

    def _of_placeholders(self) -> Case:
        """Text that a tokenizer or a template could take for its own."""
        text = self.rng.choice(SPECIAL)
        document = self.document()
        document["messages"][0]["content"][0]["text"] = text * self.rng.choice((1, 3, 500))
        return self.chat("placeholders", document, may_pass=True)

    def _of_unknown_models(self) -> Case:
        name = self.rng.choice(
            ("gpt-4", "", "nano ", "../nano", "NANO", "nano\0", "x" * 10_000, "/etc/passwd", "\ud800")
        )
        return self.chat("unknown models", self.document() | {"model": name})

    def _of_features_that_are_not_there(self) -> Case:
        more = self.rng.choice(
            (
                {"tools": [{"type": "function", "function": {"name": "f"}}]},
                {"functions": [{"name": "f"}]},
                {"response_format": {"type": "json_object"}},
                {"response_format": {"type": "json_schema", "json_schema": {}}},
            )
        )
        return self.chat("features that are not there", self.document() | more)

    # Bodies.

    def _of_deep_nesting(self) -> Case:
        depth = self.rng.choice((50, 1000, 5000, 100_000))
        opening, closing = self.rng.choice(((b"[", b"]"), (b'{"messages":', b"}"), (b'{"a":[', b"]}")))
        inside = self.rng.choice((b"1", b""))
        whole = opening * depth + inside + (closing * depth if self.rng.random() < 0.7 else b"")
        field = self.rng.choice(
            (b"", b'{"model":"nano","messages":', b'{"messages":[{"role":"user","content":')
        )
        return self.body("deep nesting", field + whole + (b"}" if field else b""))

    def _of_encodings(self) -> Case:
        text = json.dumps(
            self.document() | {"messages": [{"role": "user", "content": "Grüße"}]}, ensure_ascii=False
        )
        bodies = {
            "utf-16": text.encode("utf-16"),
            "utf-16 without mark": text.encode("utf-16-be"),
            "utf-32": text.encode("utf-32"),
            "latin-1": text.encode("latin-1"),
            "cut in a letter": text.encode()[: text.encode().index(b"\xc3") + 1],
            "overlong": text.encode().replace(b"G", b"\xc1\x87"),
            "surrogate": text.encode().replace(b"G", b"\xed\xa0\x80"),
            "zeros": text.encode().replace(b"G", b"\0"),
        }
        # UTF-16 and UTF-32 are JSON by older standards.
        name = self.rng.choice(sorted(bodies))
        return self.body("encodings", bodies[name], may_pass=name.startswith("utf"))

    def _of_random_bodies(self) -> Case:
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.body("random bodies", self.rng.randbytes(self.rng.choice((0, 1, 100, 100_000))))
        if kind == 1:
            document = json.dumps(self.document()).encode()
            return self.body("random bodies", document[: self.rng.randrange(len(document))])
        if kind == 2:
            return self.body(
                "random bodies", self.rng.choice((b"null", b"1", b'"x"', b"[]", b"true", b"{}", b"{]"))
            )
        spoiled = bytearray(json.dumps(self.document()).encode())
        for _ in range(self.rng.randint(1, 8)):
            spoiled[self.rng.randrange(len(spoiled))] = self.rng.randrange(256)
        return self.body("random bodies", bytes(spoiled), may_pass=True)

    def _of_media_types(self) -> Case:
        body = json.dumps(self.document()).encode()
        kind = self.rng.choice(MEDIA_TYPES)
        if self.rng.random() < 0.3:
            return self.body("media types", zlib.compress(body), Content_Encoding="gzip")
        return self.body("media types", body, may_pass=True, Content_Type=kind)

    def _of_long_bodies(self) -> Case:
        """One that announces too much, and one that sends too much in chunks."""
        if self.rng.random() < 0.8:
            length = self.rng.choice((self.most_bytes + 1, 2**31, 2**63, 10**30))
            head = request(headers=[("Content-Length", str(length))], key=self.key)
            return Case(family="long bodies", parts=(head, b"{" * 1000), end="half", may_be_silent=True)
        head = request(headers=[("Transfer-Encoding", "chunked"), ("Content-Length", "")], key=self.key)
        head = head.replace(b"Content-Length: \r\n", b"")
        piece = b"100000\r\n" + b" " * 2**20 + b"\r\n"
        return Case(
            family="long bodies",
            parts=(head, *[piece] * (self.most_bytes // 2**20 + 2), b"0\r\n\r\n"),
            may_be_silent=True,
        )

    # Pictures.

    def _of_bytes_as_pictures(self) -> Case:
        magic = self.rng.choice(
            (
                b"",
                b"\x89PNG\r\n\x1a\n",
                b"\xff\xd8\xff\xe0",
                b"GIF89a",
                b"BM",
                b"RIFF\x20\0\0\0WEBPVP8 ",
                b"II*\0",
                b"P6 ",
            )
        )
        data = magic + self.rng.randbytes(self.rng.choice((0, 1, 30, 3000)))
        # A header of a few letters and random bytes can be a picture: P6 hardly ever, BM never.
        return self.chat("random bytes as pictures", self.with_picture(self.url(data)), may_pass=True)

    def _of_damaged_pictures(self) -> Case:
        data = bytearray(self.picture)
        for _ in range(self.rng.randint(0, 5)):
            data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        cut = bytes(data[: self.rng.randrange(len(data))])
        return self.chat("damaged pictures", self.with_picture(self.url(cut)), may_pass=True)

    def _of_bombs(self) -> Case:
        width, height = self.rng.choice(
            ((20_000, 20_000), (2**31 - 1, 2**31 - 1), (200_000, 10), (65_500, 65_500))
        )
        header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
        rows = zlib.compress(b"\0" * 3_000_000, 9)
        bomb = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in ((b"IHDR", header), (b"IDAT", rows)))
        comment = b"a\0\0" + zlib.compress(b"x" * 80_000_000, 1) if self.rng.random() < 0.1 else b"a\0\0"
        others = (
            bomb + _chunk(b"zTXt", comment) + _chunk(b"IEND", b""),
            b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
            b"P6 50000 50000 255\n",
        )
        return self.chat("bombs", self.with_picture(self.url(self.rng.choice(others))))

    def _of_large_pictures(self) -> Case:
        """Of a hundred kilobytes that take a hundred megabytes once they are open, just within the limit."""
        return self.chat("large pictures", self.with_picture(self.url(self.large)), may_pass=True)

    def _of_no_pictures(self) -> Case:
        others = (
            self.url(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "image/svg+xml"),
            self.url(b"<!doctype html><script>alert(1)</script>", "image/png"),
            self.url(b"%PDF-1.7", "image/png"),
            self.url(b"PK\x03\x04"),
            self.url(b"", "image/png"),
            self.url(self.picture, "text/html"),
            self.url(self.picture)[:-5] + "*****",
            self.url(self.picture).replace(";base64", ""),
            self.url(self.picture).replace("data:", ""),
            "data:",
            "data:image/png;base64",
            "data:image/png," + quote(b"\0\1\2"),
            "data:image/png;base64," + "A" * (28 * 2**20) if self.rng.random() < 0.05 else "data:,",
            base64.b64encode(self.picture).decode(),
            "",
        )
        return self.chat("no pictures", self.with_picture(self.rng.choice(others)))

    def _of_private_urls(self) -> Case:
        host = self.rng.choice(HOSTS)
        scheme = self.rng.choice(("http", "https", "HTTP", " http", "http:", "ftp", "gopher", "dict", "ws"))
        path = self.rng.choice(
            ("", "/", "/metrics", "/latest/meta-data/", ":8000/health", f"?{CANARY}", "/a.png")
        )
        return self.chat("private URLs", self.with_picture(f"{scheme}://{host}{path}"))

    def _of_local_paths(self) -> Case:
        path = self.rng.choice([*LOCAL, "../" * self.rng.randint(1, 12) + "etc/passwd"])
        return self.chat("local paths", self.with_picture(path))

    # Lines and headers.

    def _of_paths_and_methods(self) -> Case:
        path = self.rng.choice(PATHS)
        method = self.rng.choice(METHODS)
        if self.rng.random() < 0.4:
            path = self.rng.choice((CHAT, "/v1/models", "/metrics", "/health", "/ready", "/openapi.json"))
        raw = request(path, b"{}" if method in ("PUT", "PATCH") else b"", method=method, key=self.key)
        return Case(family="paths and methods", parts=(raw,), may_pass=True)

    def _of_keys(self) -> Case:
        close = [f"Bearer {self.key}x", f"Bearer {self.key[:-1]}", f"Bearer {self.key.swapcase()}"]
        wrong = ["", "Bearer", "Bearer ", "Bearer wrong", "Bearer \xff", "Bearer " + "x" * 9000, "Basic YTpi"]
        value = self.rng.choice([*close, *wrong, f"bearer{self.key}", f"Token {self.key}"])
        body = json.dumps(self.document()).encode()
        headers = [("Authorization", value)] if self.rng.random() < 0.9 else []
        return Case(family="keys", parts=(request(body=body, headers=headers),))

    def _of_smuggled_headers(self) -> Case:
        body = json.dumps(self.document()).encode()
        inner = request("/metrics", method="GET", key=self.key)
        odd: tuple[list[tuple[str, str]], ...] = (
            [("Content-Length", "0"), ("Transfer-Encoding", "chunked")],
            [("Content-Length", "5"), ("Content-Length", str(len(body)))],
            [("Content-Length", "-1")],
            [("Content-Length", "+5")],
            [("Content-Length", "0x10")],
            [("Content-Length", "5, 5")],
            [("Content-Length", "٣")],
            [("Content-Length", "9" * 500)],
            [("Transfer-Encoding", "xchunked")],
            [("Transfer-Encoding", "identity, chunked")],
            [("Transfer-Encoding ", "chunked")],
            [("Transfer-Encoding", "\x0bchunked")],
            [("Host", "a"), ("Host", "b")],
            [("Host", "evil.example\r\nX-Injected: 1")],
            [("X-Request-ID", "a\r\n\r\nGET /metrics HTTP/1.1")],
            [("Expect", "200-nothing")],
            [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")],
            [("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAA")],
        )
        chosen = self.rng.choice(odd)
        raw = request(
            body=b"0\r\n\r\n" + inner if "Transfer-Encoding" in dict(chosen) else body,
            headers=chosen,
            key=self.key,
        )
        return Case(family="smuggled headers", parts=(raw,), end="half", may_pass=True, may_be_silent=True)

    def _of_broken_http(self) -> Case:
        lines = (
            b"GET /health\r\n\r\n",
            b"GET /health HTTP/9.9\r\n\r\n",
            b"GET /health HTTP/1.1\nHost: a\n\n",
            b"GET  /health  HTTP/1.1\r\n\r\n",
            b"GET http://127.0.0.1/metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
            b"GET /health HTTP/1.1\r\nNo colon here\r\n\r\n",
            b"GET /health HTTP/1.1\r\n folded: 1\r\n\r\n",
            b"GET /health HTTP/1.1\r\nA: b\0c\r\n\r\n",
            b"GET /health HTTP/1.1\r\n" + b"X: " + b"y" * LONG + b"\r\n\r\n",
            b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
            b"GET /" + b"x" * LONG + b" HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + self.rng.randbytes(500),
            b"\r\n" * 1000,
            b"\0" * 1000,
            self.rng.randbytes(self.rng.randint(1, 4000)),
            b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
            b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"fffffffffffffffff\r\n{}",
        )
        return Case(
            family="broken HTTP",
            parts=(self.rng.choice(lines),),
            end="half",
            may_pass=True,
            may_be_silent=True,
        )

    # Clients that are slow or go away.

    def _of_cut_bodies(self) -> Case:
        raw = request(body=json.dumps(self.document()).encode(), key=self.key)
        cut = raw[: self.rng.randrange(1, len(raw))]
        end = self.rng.choice(("half", "leave", "reset"))
        return Case(family="cut bodies", parts=(cut,), end=end, may_be_silent=True)

    def _of_slow_clients(self) -> Case:
        """In up to five pieces. Such a request is right in the end, or left unfinished."""
        raw = request(body=json.dumps(self.document()).encode(), key=self.key)
        cuts = sorted(self.rng.randrange(len(raw)) for _ in range(self.rng.randint(1, 4)))
        parts = tuple(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True))
        pause = self.pause * self.rng.choice((0.02, 0.2, 1))
        if self.rng.random() < 0.5:
            # Refused early, it may be told so while it sends, and miss it.
            return Case(family="slow clients", parts=parts, pause=pause, may_pass=True, may_be_silent=True)
        return Case(family="slow clients", parts=parts[:-1], pause=pause, end="half", may_be_silent=True)

    def _of_clients_that_leave(self) -> Case:
        """Proper requests for long answers whose client goes away before them or in the middle."""
        document = self.document(tokens=400) | {
            "stream": self.rng.random() < 0.7,
            "n": self.rng.choice((1, 2, 4)),
        }
        document["temperature"] = 1.5 if self.rng.random() < 0.5 else 0
        raw = request(body=json.dumps(document).encode(), key=self.key)
        end = self.rng.choice(("first", "leave", "reset"))
        return Case(
            family="clients that leave",
            parts=(raw, b""),
            pause=self.rng.choice((0, 0.02)),
            end=end,
            may_be_silent=True,
        )


def _places(value: Json) -> Iterator[tuple[Json, Any]]:
    """Every holder and name or index in a JSON value."""
    for name in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, name
        if isinstance(value[name], dict | list):
            yield from _places(value[name])


def _flat(width: int, height: int) -> bytes:
    """A PNG of one colour."""
    rows = zlib.compress((b"\0" + b"\x80" * width) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
