"""The page in a real browser: pictures in, code out, keys, sizes, colours, accessibility."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

AXE = Path(os.environ.get("AXE", Path(__file__).parents[3] / "node_modules/axe-core/axe.min.js"))


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_pictures_can_be_pasted_and_dropped(page: Any, sign: Path, kind: str) -> None:
    data = base64.b64encode(sign.read_bytes()).decode()
    page.js(
        "(bytes => { const data = new DataTransfer();"
        " data.items.add(new File([bytes], 'it.png', {type: 'image/png'}));"
        f" const drop = '{kind}' === 'drop'; dispatchEvent(drop"
        " ? new DragEvent('drop', {dataTransfer: data, cancelable: true})"
        " : new ClipboardEvent('paste', {clipboardData: data, cancelable: true})) })"
        f"(Uint8Array.from(atob('{data}'), c => c.charCodeAt(0)))"
    )
    page.wait(f"{page.HELD} && document.querySelector('#caption').textContent === 'it.png, 120 × 80 pixels'")
    page.click("#remove")
    page.wait("document.querySelector('#filled').hidden")


def test_a_photograph_can_be_taken(page: Any, server: Any) -> None:
    page.click("#empty .photograph")
    page.wait("document.querySelector('#camera').open && document.querySelector('#video').videoWidth > 0")
    page.click("#shutter")
    page.wait(f"{page.HELD} && !document.querySelector('#camera').open")
    page.wait("!document.querySelector('#video').srcObject")  # the camera is off again
    page.ask("What is this?")
    url = server.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")


def test_huge_pictures_are_reduced_and_that_is_said(page: Any, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (6144, 4200)).save(path)
    page.hold(path)
    caption = "huge.png, 3072 × 2100 pixels, reduced from 6144 × 4200 and sent as JPEG"
    assert page.text("#caption") == caption


def test_what_is_no_picture_is_refused_and_changes_nothing(page: Any, sign: Path, tmp_path: Path) -> None:
    page.hold(sign)
    for name, content in (("report.png", b"%PDF-1.7"), ("empty.png", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        page.choose_file("#file", path)
        page.wait(f"document.querySelector('#picture-error').textContent.startsWith('{name} is ')")
    assert page.text("#caption").startswith("sign.png")


def test_a_new_picture_begins_a_new_conversation(page: Any, server: Any, sign: Path) -> None:
    page.click("[data-example]")
    page.wait(
        f"{page.HELD} && document.querySelector('#question').value === 'Read all the text in the image.'"
    )
    page.press("Enter")
    page.wait(page.ENDED)
    page.hold(sign)
    assert page.js("document.querySelectorAll('.turn').length") == 0
    page.ask("And this?")
    assert len(server.asked[-1]["messages"]) == 1


# --------------------------------------------------------------------------------------------- copied as code

NASTY = 'What\'s "$HOME" `id` \\n $(id) 100% äö\nsecond line <<END'


@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_code_sends_the_same_request(page: Any, server: Any, tmp_path: Path, language: str) -> None:
    if language == "curl" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    path = tmp_path / "it's a $sign`.png"
    Image.new("RGB", (30, 20), (200, 30, 30)).save(path)
    page.hold(path)
    page.ask("First?")
    page.js(f"document.querySelector('#question').value = {json.dumps(NASTY)}")
    page.js("document.querySelector('#question').focus()")
    page.press("Enter")
    page.wait(f"document.querySelectorAll('.turn').length === 2 && {page.ENDED}")
    page.click("#code-0")
    page.opened("code")
    code = page.js(f"document.querySelector('#code-{language}').textContent")
    page.press("Escape")
    page.wait("!document.querySelector('#code').open")
    assert "base64," in code
    assert len(code) < 2000
    command = ["sh", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "second line" in done.stdout
    assert server.asked[-1] == {
        name: value for name, value in server.asked[-2].items() if not name.startswith("stream")
    }


def test_code_of_a_server_with_a_key_does_not_hold_the_key(page: Any) -> None:
    made = page.js(
        "import('./page/snippets.js').then(({ curl, python }) => { const asked = {"
        " base: 'http://h/v1', model: 'm', messages: [{role: 'user', content: 'q'}], file: null, type: '',"
        " options: {temperature: 0.5, maxTokens: 9}, key: true }; return [curl(asked), python(asked)] })"
    )
    assert all("OPENAI_API_KEY" in code and "base64" not in code for code in made)
    compile(made[1], "snippet", "exec")
    assert "max_tokens=9" in made[1]


# ----------------------------------------------------------------------------------- keyboard, sizes, colours


def test_everything_can_be_done_with_keys(page: Any, server: Any) -> None:
    page.press("Tab")
    assert page.text(":focus") == "Skip to the question"
    reached: list[str] = []
    while "data-example" not in reached:
        page.press("Tab")
        reached.append(
            page.js("(e => e.id || (e.dataset.example ? 'data-example' : ''))(document.activeElement)")
        )
        assert len(reached) < 12, reached
    page.press("Enter")
    page.wait(f"{page.HELD} && document.activeElement.id === 'question' && document.activeElement.value")
    page.press("Enter")
    page.wait(page.ENDED)
    page.type("Line one")
    page.press("Enter", shift=True)
    page.type("line two")
    page.press("Enter")
    page.wait(f"document.querySelectorAll('.turn').length === 2 && {page.ENDED}")
    assert server.asked[-1]["messages"][-1]["content"] == "Line one\nline two"
    assert {"choose", "open-settings"} <= set(reached)


@pytest.mark.parametrize(("width", "mobile"), [(360, True), (768, False), (1280, False)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(page: Any, sign: Path, width: int, mobile: bool, scheme: str) -> None:
    page.colours(scheme)
    page.size(width, 740, mobile=mobile)
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.js(fits)
    page.hold(sign)
    page.click("#compare")
    page.wait("document.querySelector('#model-1').value")
    page.ask("A" * 300, until=f"document.querySelectorAll('.answer').length === 2 && {page.ENDED}")
    assert page.js(fits)
    lightness = page.js(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (max(lightness) < 60) == (scheme == "dark")
    box = page.js(
        "(r => [r.top, r.bottom, innerHeight])(document.querySelector('#question').getBoundingClientRect())"
    )
    assert 0 <= box[0] < box[1] <= box[2]  # one can always go on asking


@pytest.mark.skipif(not AXE.is_file(), reason=f"axe-core is not at {AXE}; npm install axe-core brings it")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_rule_of_accessibility_is_broken(page: Any, sign: Path, scheme: str) -> None:
    page.colours(scheme)
    page.js(AXE.read_text("utf-8") + ";0")
    check = "axe.run().then(found => found.violations.map(one => [one.id, one.nodes.map(n => n.html)]))"
    assert page.js(check) == []
    page.hold(sign)
    page.click("#compare")
    page.wait("document.querySelector('#model-1').value")
    page.ask("Are you busy")
    assert page.js(check) == []
    for dialog, button in (("settings", "open-settings"), ("code", "code-0")):
        page.click(f"#{button}")
        page.opened(dialog)
        assert page.js(check) == []
        page.press("Escape")
        page.wait(f"!document.querySelector('#{dialog}').open")
