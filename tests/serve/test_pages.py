from __future__ import annotations

import functools
import gzip
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from llavar.serve import pages

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "src/llavar/serve/page"
SERVED = (
    "app.css",
    "app.js",
    "asking.js",
    "endpoint.js",
    "examples/morning.png",
    "examples/needle.png",
    "examples/percent.png",
    "favicon.svg",
    "icons.svg",
    "index.html",
    "models.js",
    "picture.js",
    "settings.js",
    "snippets.js",
    "state.js",
    "talk.js",
    "turns.js",
    "vendor/LICENSES.txt",
    "vendor/webawesome.css",
    "vendor/webawesome.js",
    "viewer.js",
)


@functools.cache
def _client() -> TestClient:
    app = FastAPI()
    pages.mount(app)
    return TestClient(app)


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def elements() -> list[tuple[str, dict[str, str | None]]]:
    parser = _Elements()
    parser.feed((FOLDER / "index.html").read_text("utf-8"))
    return parser.all


# --------------------------------------------------------------------------------------------- what is served


@pytest.mark.parametrize("path", ["/", "/page"])
def test_the_page_stands_at_both_places(path: str) -> None:
    reply = _client().get(path)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.text == (FOLDER / "index.html").read_text("utf-8")


@pytest.mark.parametrize("name", SERVED)
def test_its_files_come_whole_and_with_their_type(name: str) -> None:
    reply = _client().get(f"/page/{name}")
    types = {
        "js": "text/javascript; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "svg": "image/svg+xml; charset=utf-8",
        "png": "image/png",
        "txt": "text/plain; charset=utf-8",
        "html": "text/html; charset=utf-8",
    }
    assert reply.content == (FOLDER / name).read_bytes()
    assert reply.headers["content-type"] == types[name.rpartition(".")[2]]


def test_the_list_above_is_complete() -> None:
    client = _client()
    there = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert {name for name in there if client.get(f"/page/{name}").status_code == 200} == set(SERVED)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "vendor/build.mjs",
        "vendor",
        "vendor/",
        "",
        "../pages.py",
        "..%2fpages.py",
        "%2e%2e/pages.py",
        "vendor/../../pages.py",
        "..\\pages.py",
        "//etc/passwd",
        "/etc/passwd",
        "app.js%00.png",
        "app.js/",
        "APP.JS",
    ],
)
def test_nothing_else_is_served(name: str) -> None:
    assert _client().get(f"/page/{name}").status_code == 404


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40))
def test_no_name_makes_it_fail_or_leave_its_folder(name: str) -> None:
    reply = _client().get("/page/" + quote(name.encode("utf-8", "replace")))
    if reply.status_code == 200:
        assert name.split("?")[0].split("#")[0] in (*SERVED, "relay")
    else:
        assert reply.status_code in (400, 404)
        assert "Traceback" not in reply.text


def test_only_reading_is_possible() -> None:
    client = _client()
    assert client.head("/page/app.js").status_code == 200
    assert client.head("/page/app.js").content == b""
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, "/page/app.js").status_code == 405


def test_it_is_no_part_of_the_described_api() -> None:
    app = FastAPI()
    pages.mount(app)
    assert app.openapi()["paths"] == {}


# ---------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("path", ["/", "/page", "/page/app.js", "/page/examples/needle.png"])
def test_the_policy_allows_this_origin_alone(path: str) -> None:
    headers = _client().get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert not {"script-src", "style-src", "connect-src", "font-src"} & set(policy)
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "camera=(self)" in headers["permissions-policy"]


def test_a_client_that_has_a_file_gets_it_no_second_time() -> None:
    client = _client()
    first = client.get("/page/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/page/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = client.get("/page/app.js", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


def test_text_is_packed_for_those_who_can_unpack_it() -> None:
    client = _client()
    with client.stream("GET", "/page/app.css", headers={"Accept-Encoding": "gzip"}) as reply:
        packed = b"".join(reply.iter_raw())
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == (FOLDER / "app.css").read_bytes()
    plain = client.get("/page/app.css", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept-Encoding"


# --------------------------------------------------------------------------------------- the frame for others


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8001", "https://models.example.org", "http://[::1]:8000", "http://localhost"]
)
def test_the_frame_may_ask_the_origin_it_was_made_for(origin: str) -> None:
    reply = _client().get("/page/relay", params={"to": origin})
    assert reply.status_code == 200
    assert reply.headers["content-security-policy"] == (
        f"default-src 'none'; connect-src {origin}; frame-ancestors 'self'"
    )
    assert "script" not in reply.text


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "*",
        "https:",
        "http://a b",
        "http://a;script-src *",
        "http://a/path",
        "http://a, http://b",
        "http://a\nX-Evil: 1",
        "http://a\r\nX-Evil: 1",
        "http://user@host",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://a'",
        "http://ä",
        "http://a:123456",
        "http://" + "a" * 300,
    ],
)
def test_anything_but_an_origin_is_refused(origin: str) -> None:
    reply = _client().get("/page/relay", params={"to": origin})
    assert reply.status_code == 400
    assert "is no origin" in reply.text
    assert reply.headers["content-type"].startswith("text/plain")
    assert "connect-src" not in reply.headers["content-security-policy"]


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60))
def test_no_text_gets_a_second_directive_into_the_policy(text: str) -> None:
    reply = _client().get("/page/relay", params={"to": text.encode("utf-8", "replace").decode()})
    assert reply.headers["content-security-policy"].count(";") == (2 if reply.status_code == 200 else 0)


# ----------------------------------------------------------------------------------------- what the files say


def test_nothing_in_the_page_is_inline_or_elsewhere(
    elements: list[tuple[str, dict[str, str | None]]],
) -> None:
    for tag, attributes in elements:
        assert tag != "style"
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action"):
            assert not re.match(r"[a-z]+:|//|/", attributes.get(name) or ""), "a proxy may add a prefix"
    scripts = [attributes for tag, attributes in elements if tag == "script"]
    assert [set(attributes) for attributes in scripts] == [{"type", "src"}]


def test_what_it_names_is_there(elements: list[tuple[str, dict[str, str | None]]]) -> None:
    named = {
        path
        for _, attributes in elements
        for name in ("src", "href", "data-example")
        if (path := attributes.get(name)) and path.startswith("page/")
    }
    icons = {attributes["name"] for tag, attributes in elements if tag == "wa-icon"}
    drawn = set(re.findall(r'<symbol id="([a-z-]+)"', (FOLDER / "icons.svg").read_text("utf-8")))
    assert {path.removeprefix("page/") for path in named} <= set(SERVED)
    assert len(named) >= 7
    assert icons <= drawn


def test_the_examples_are_what_their_recipe_draws() -> None:
    from dataclasses import replace

    from llavar.render.layouts import scene
    from llavar.render.paint import paint
    from llavar.study.nano.questions import HELD_OUT

    recipe = (FOLDER / "examples/README.md").read_text("utf-8")
    pairs = re.findall(r'\("(\w+)", (\d+)\)', recipe)
    assert len(pairs) == 3
    for name, seed in pairs:
        drawn = paint(replace(scene(f"page:{seed}", HELD_OUT), noise=0.0), 384)
        with Image.open(FOLDER / f"examples/{name}.png") as kept:
            apart = ImageStat.Stat(ImageChops.difference(drawn, kept.convert("RGB"))).mean
        assert max(apart) < 2  # versions of the text renderer differ at the edges of letters
        assert (FOLDER / f"examples/{name}.png").stat().st_size < 20_000


def test_what_others_wrote_is_small_and_says_whose_it_is() -> None:
    vendor = FOLDER / "vendor"
    assert sum(path.stat().st_size for path in vendor.glob("webawesome.*")) < 400_000
    licences = (vendor / "LICENSES.txt").read_text("utf-8")
    for name in ("@awesome.me/webawesome", "lit", "@floating-ui/core"):
        assert re.search(rf"^{re.escape(name)} \d+\.\d+\.\d+ \((MIT|BSD-3-Clause)\)$", licences, re.MULTILINE)
    code = (vendor / "webawesome.js").read_text("utf-8")
    assert "fontawesome" not in code.lower()
    version = re.search(r"webawesome@(\d+\.\d+\.\d+)", (vendor / "README.md").read_text("utf-8"))
    assert version
    assert f"webawesome {version[1]} " in licences


def test_the_package_carries_the_page() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "serve/page/**" in settings["tool"]["setuptools"]["package-data"]["llavar"]


def test_no_script_of_ours_turns_text_into_html_or_keeps_anything_for_good() -> None:
    way = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|\.write\(|\beval\(|new Function|localStorage")
    for path in FOLDER.glob("*.js"):
        assert not way.search(path.read_text("utf-8"))
