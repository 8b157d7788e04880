"""The page in a real browser: questions, answers, two models, errors."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

# ----------------------------------------------------------------------------------------------------- asking


def test_a_picture_and_two_questions_make_a_conversation(page: Any, server: Any, sign: Path) -> None:
    page.hold(sign)
    assert page.text("#caption") == "sign.png, 120 × 80 pixels"
    page.ask("What does it say?")
    assert page.text(".answer .text") == "small reads: What does it say?"
    assert re.fullmatch(r"6 tokens in \d+\.\d s", page.text(".answer .note"))
    page.ask("And below?")

    first, second = server.asked
    url = "data:image/png;base64," + base64.b64encode(sign.read_bytes()).decode()
    shown = {"type": "image_url", "image_url": {"url": url}}
    asked = {"role": "user", "content": [shown, {"type": "text", "text": "What does it say?"}]}
    assert first == {
        "model": "small",
        "messages": [asked],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert second["messages"] == [
        asked,
        {"role": "assistant", "content": "small reads: What does it say?"},
        {"role": "user", "content": "And below?"},
    ]


def test_text_alone_can_be_asked_about_and_a_new_conversation_forgets(page: Any, server: Any) -> None:
    page.ask("Hello")
    page.click("#restart")
    page.wait("document.querySelectorAll('.turn').length === 0")
    page.ask("Again")
    assert [one["messages"] for one in server.asked] == [
        [{"role": "user", "content": "Hello"}],
        [{"role": "user", "content": "Again"}],
    ]


@pytest.mark.parametrize("way", ["Escape", "button"])
def test_an_answer_comes_in_pieces_and_can_be_stopped(page: Any, server: Any, way: str) -> None:
    page.ask("be slow", until=f"{page.LAST}?.querySelector('.text').textContent === 'small '")
    assert page.js(f"{page.LAST}.getAttribute('aria-busy')") == "true"
    page.press("Enter")  # a second question has to wait
    assert len(server.asked) == 1
    page.press("Escape") if way == "Escape" else page.click("#stop")
    page.wait(page.ENDED)
    assert server.cancelled.wait(10)
    assert page.text(".answer .note") == "Stopped."
    assert page.js("document.activeElement.id") == "question"
    assert page.js("document.querySelector('#stop').hidden")
    page.ask("Go on")
    assert server.asked[-1]["messages"][1] == {"role": "assistant", "content": "small "}


def test_what_a_model_says_is_text(page: Any) -> None:
    page.ask("some markup")
    assert page.text(".answer .text") == "<img src=x onerror=alert(1)><b>bold</b>"
    assert page.js("document.querySelectorAll('.answer img, .answer b').length") == 0


def test_a_screen_reader_hears_each_answer_once(page: Any) -> None:
    page.ask("first")
    assert page.js("document.querySelector('#said').getAttribute('aria-live')") == "polite"
    assert page.text("#said") == "small: small reads: first"
    page.ask("second")
    assert page.text("#said") == "small: small reads: second"
    assert page.js("document.querySelectorAll('.turn [aria-live], .turns[aria-live]').length") == 0


def test_long_answers_are_read_sentence_by_sentence(page: Any) -> None:
    sentences = ["One sentence that is rather long, to be read alone. ", "Then ", "another. ", "End"]
    said = page.js(
        "import('./page/talk.js').then(({ Announcer }) => {"
        " const log = document.createElement('div'); const stream = new Announcer(log).stream('A', false);"
        f" for (const piece of {json.dumps(sentences)}) stream.add(piece); stream.end('');"
        " return [...log.children].map(line => line.textContent) })"
    )
    assert said == [f"A: {sentences[0]}".strip(), "Then another. End"]


# ------------------------------------------------------------------------------------------------- two models


def test_two_models_answer_side_by_side(page: Any, server: Any, sign: Path) -> None:
    page.hold(sign)
    page.ask("alone")
    page.click("#compare")
    page.wait("document.querySelector('#model-1').value")
    page.ask("both", until=f"document.querySelectorAll('.answer').length === 3 && {page.ENDED}")
    page.wait("!document.querySelector('[aria-busy=true].answer')")
    assert {one["model"]: len(one["messages"]) for one in server.asked[1:]} == {"small": 3, "large": 1}
    assert all(one["messages"][0]["content"][0]["type"] == "image_url" for one in server.asked)
    left, right = page.js(
        "[...document.querySelectorAll('.turn:last-child .answer')].map(e => {"
        " const r = e.getBoundingClientRect();"
        " return [r.x, r.y, r.width, e.querySelector('.text').textContent] })"
    )
    assert left[0] + left[2] <= right[0]
    assert left[1] == right[1]
    assert (left[3], right[3]) == ("small reads: both", "large reads: both")
    page.click("#close-compare")
    page.ask("one again")
    assert server.asked[-1]["model"] == "small"


def test_models_that_are_still_being_loaded_appear_by_themselves(chromium: Any, servers: Any) -> None:
    server = servers.start(())
    chromium.open(server.url + "/")
    chromium.wait("document.querySelector('#page-error').textContent.includes('may still be loading')")
    server.models = ("small",)
    chromium.wait(chromium.READY)
    assert chromium.js("document.querySelector('#page-error').hidden")
    server.models = ("small", "large")
    chromium.click("#compare")
    chromium.wait("document.querySelector('#model-1').value")
    assert chromium.js("document.querySelector('#model-1').value") == "0:1"


def test_another_server_can_be_the_second(page: Any, server: Any, servers: Any) -> None:
    other = servers.start(("elsewhere",), key="its-key", page=False, origins=(server.url,))
    page.js(
        "(select => { select.value = 'other'; select.dispatchEvent(new Event('change')) })"
        "(document.querySelector('#model-0'))"
    )
    page.opened("other", "other-base")
    page.type(other.url + "/v1")
    page.press("Enter")
    page.wait("document.querySelector('#other-error').textContent.includes('API key')")
    page.js("document.querySelector('#other-key').focus()")
    page.type("its-key")
    page.press("Enter")
    page.wait("!document.querySelector('#other').open")
    host = other.url.removeprefix("http://")
    page.ask("who?")
    assert page.text(".who") == f"elsewhere ({host})"
    assert page.text(".answer .text") == "elsewhere reads: who?"
    assert other.asked
    assert not server.asked
    # The policy of the page itself still forbids it.
    assert page.js(f"fetch('{other.url}/v1/models').then(() => 'allowed', () => 'forbidden')") == "forbidden"
    page.forget(other.url)


def test_a_server_that_does_not_let_the_page_ask_is_explained(page: Any, server: Any, servers: Any) -> None:
    closed = servers.start(page=False)
    page.js("document.querySelector('#model-0').value = 'other'")
    page.js("document.querySelector('#model-0').dispatchEvent(new Event('change'))")
    page.opened("other", "other-base")
    for typed, sentence in (
        ("nonsense", '"nonsense" is no URL; write one like http://127.0.0.1:8001/v1.'),
        ("ftp://a/v1", '"ftp://a/v1" cannot be a base URL; write one like http://127.0.0.1:8001/v1.'),
        (server.url + "/v1/", "That is the server of this page; its models are in the list already."),
        (closed.url + "/v1", f"allows requests from {server.url} (CORS)."),
    ):
        page.js(
            "document.querySelector('#other-base').value = ''; document.querySelector('#other-base').focus()"
        )
        page.type(typed)
        page.press("Enter")
        page.wait(f"document.querySelector('#other-error').textContent.endsWith({json.dumps(sentence)})")
    page.forget(closed.url)


def test_the_picture_can_be_seen_as_the_model_sees_it(page: Any, server: Any, sign: Path) -> None:
    page.hold(sign)
    page.click('#view wa-radio[value="0"]')
    page.wait("document.querySelector('#caption').textContent === 'All that small sees: 32 × 32 pixels'")
    assert server.shown[0]["model"] == "small"
    assert page.js("document.querySelector('#shown').alt") == "The picture as small sees it"
    page.click('#view wa-radio[value="own"]')
    page.wait("document.querySelector('#caption').textContent.startsWith('sign.png')")


# ----------------------------------------------------------------------------------------------------- errors


def test_a_refusal_is_shown_in_the_words_of_the_server_and_can_be_tried_again(page: Any, server: Any) -> None:
    page.ask("Are you busy")
    assert page.text(".answer .sentence") == server.BUSY
    server.busy = False
    page.click(".answer .problem wa-button")
    page.wait(
        f"{page.ENDED} && {page.LAST}.querySelector('.text').textContent === 'small reads: Are you busy'"
    )
    assert page.js("document.querySelector('.answer .problem').hidden")


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("be broken", "the model failed on this request"),
        ("be cut", "The answer broke off: the connection to the server was lost."),
    ],
)
def test_an_answer_that_breaks_off_says_so(page: Any, server: Any, question: str, sentence: str) -> None:
    page.ask(question)
    assert page.text(".answer .sentence") == sentence
    assert page.text(".answer .text").startswith("small ")  # what came stays
    page.ask("Next")
    assert [one["content"] for one in server.asked[-1]["messages"]] == ["Next"]


def test_a_server_that_is_gone_is_told_apart_from_one_that_refuses(chromium: Any, servers: Any) -> None:
    mortal = servers.start()
    chromium.open(mortal.url + "/page")
    chromium.wait(chromium.READY)
    mortal.close()
    chromium.ask("Anyone?")
    sentence = "The server does not answer; check that it still runs, then try again."
    assert chromium.text(".answer .sentence") == sentence


def test_a_key_is_asked_for_and_kept_for_the_session_alone(chromium: Any, servers: Any) -> None:
    server = servers.start(key="open-sesame")
    chromium.open(server.url + "/")
    chromium.opened("settings", "key")
    assert "The API key is missing" in chromium.text("#page-error .sentence")
    chromium.type("open-sesame")
    chromium.press("Enter")
    chromium.wait(f"{chromium.READY} && !document.querySelector('#settings').open")
    chromium.ask("Hello")
    assert chromium.text(".answer .text") == "small reads: Hello"
    assert "open-sesame" in chromium.js("JSON.stringify(sessionStorage)")
    assert chromium.js("localStorage.length + document.cookie.length") == 0


def test_a_key_that_changed_can_be_given_in_the_middle(page: Any, server: Any) -> None:
    server.key = "new-key"
    page.ask("Hello")
    assert "The API key is missing" in page.text(".answer .sentence")
    for key, sentence in (("schlüssel", "no request can carry"), ("new-key", "")):
        page.click("#open-settings")
        page.opened("settings", "temperature")
        page.js(f"document.querySelector('#key').value = {json.dumps(key)}")
        page.click("#save-settings")
        page.wait("!document.querySelector('#settings').open")
        page.wait(f"document.querySelector('#page-error').textContent.includes({json.dumps(sentence)})")
    page.wait(page.READY)
    page.click(".answer .problem wa-button")
    page.wait(f"{page.ENDED} && {page.LAST}.querySelector('.text').textContent === 'small reads: Hello'")
    page.js("sessionStorage.clear()")


def test_settings_go_into_requests(page: Any, server: Any) -> None:
    page.click("#open-settings")
    page.opened("settings", "temperature")
    page.js("document.querySelector('#temperature').value = '0.7'")
    page.js("document.querySelector('#max-tokens').value = '33'")
    page.click("#save-settings")
    page.wait("!document.querySelector('#settings').open")
    page.ask("Hello")
    assert (server.asked[0]["temperature"], server.asked[0]["max_tokens"]) == (0.7, 33)


@pytest.mark.parametrize("stored", ["{", "[]", "null", '{"temperature": "x", "maxTokens": -3, "key": 7}'])
def test_spoilt_settings_are_as_none(page: Any, server: Any, stored: str) -> None:
    page.js(f"sessionStorage.setItem('llavar.settings', {json.dumps(stored)})")
    page.open(server.url + "/")
    page.wait(page.READY)
    page.ask("Hello")
    assert server.asked[0]["temperature"] == 0
    assert "max_tokens" not in server.asked[0]
    page.js("sessionStorage.clear()")
