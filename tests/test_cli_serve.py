"""``llavar serve``: what it is told, and one run with nano from start to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from llavar.cli import main
from llavar.serve import run, vllm
from llavar.serve.settings import Settings


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAVAR_API_KEY", raising=False)
    monkeypatch.delenv("LLAVAR_VLLM", raising=False)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Applications that would have been served; nothing is loaded."""
    apps: list[Any] = []

    def note(app: Any, listener: socket.socket, *_: Any, **__: Any) -> None:
        listener.close()
        apps.append(app)

    monkeypatch.setattr(run, "serve", note)
    return apps


def settings_of(app: Any) -> Settings:
    return app.state.desk.settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nano", "--host", "0.0.0.0"], "force it with --unsafe-public"),
        (["nano", "--port", "70000"], "there is no port 70000"),
        (["nano", "--host", "no such host"], "is no address of this machine"),
        (["nano", "--api-key", ""], "the API key is empty"),
        (["nano", "--api-key", "a b"], "without spaces"),
        (["nano", "--api-key-file", "missing.txt"], "no file of keys"),
        (["nano", "--allow-origin", "example.org"], "is no origin of web pages"),
        (["nano", "--allow-domain", "http://x"], "no domain that pictures can be allowed from"),
        (["nano", "nano"], "give each a name of its own"),
        (["nano", "--served-model-name", "a", "--served-model-name", "b"], "1 models and 2 names"),
        (["nano", "--engine", "vllm", "--page"], "vLLM does not do --page"),
        (["nano", "x", "--engine", "vllm"], "vLLM does not do 2 models at a time"),
        (["nano", "--engine", "vllm", "--vllm", "/nowhere/vllm"], "no vllm that can be run"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(
    served: Any, arguments: list[str], said: str, capsys: Any
) -> None:
    assert main(["serve", "--port", "0", *arguments]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1
    assert not served
    assert out == ""


def test_a_port_in_use(served: Any, capsys: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert main(["serve", "nano", "--port", str(other.getsockname()[1])]) == 2
    assert "is in use" in capsys.readouterr().err


def test_keys_come_from_flags_files_and_the_environment(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfrom-file\n\nfrom-flag\n", encoding="utf-8")
    monkeypatch.setenv("LLAVAR_API_KEY", "from-environment")
    command = ["serve", "nano", "--port", "0", "--host", "0.0.0.0", "--engine", "native"]
    assert main([*command, "--api-key", "from-flag", "--api-key-file", str(file)]) == 0
    (app,) = served
    assert settings_of(app).keys == ("from-flag", "from-file", "from-environment")
    assert not settings_of(app).local_pages_only
    file.write_text("# none\n", encoding="utf-8")
    assert main([*command, "--api-key-file", str(file)]) == 2
    out, err = capsys.readouterr()
    assert "holds none" in err
    assert "from-" not in out + err


def test_names_are_those_of_folders_and_not_paths(served: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    flags = ["--port", "0", "--engine", "native"]
    assert main(["serve", "nano", str(tmp_path / "mine"), "org/llava", *flags]) == 0
    assert main(["serve", "nano", "--served-model-name", "reader", *flags, "--allow-domain", "a.org"]) == 0
    first, second = served
    assert settings_of(first).names == ("nano", "mine", "org/llava")
    assert settings_of(second).names == ("reader",)
    assert settings_of(second).domains == ("a.org",)
    assert settings_of(second).local_pages_only


def test_vllm_is_taken_where_it_is_and_nothing_asks_for_ours(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    launched: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(vllm, "find", lambda given: Path("/opt/vllm"))
    monkeypatch.setattr(vllm, "launch", launched.append)
    assert main(["serve", "nano", "--port", "0", "--engine", "native"]) == 0
    assert main(["serve", "nano", "--port", "0", "--page"]) == 0
    assert (len(served), len(launched)) == (2, 0)
    main(["serve", "nano", "--port", "0"])
    assert launched[0].command[0] == "/opt/vllm"
    main(["serve", "nano", "--port", "0", "--allow-domain", ".example.org"])  # which vLLM cannot do
    assert (len(served), len(launched)) == (3, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["serve", "nano", "--port", "0"]) == 0
    assert len(served) == 4


def test_nano_from_start_to_end() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "llavar", "serve", "nano", "--port", "0", "--page", "--engine", "native"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(run.__file__).parents[2])},
    )
    assert process.stdout
    first, second = process.stdout.readline(), process.stdout.readline()
    try:
        url = first.split(" at ")[1].split("/v1")[0]
        assert first.startswith("llavar: serving nano at http://127.0.0.1:")
        assert second.startswith(f"curl {url}/v1/chat/completions -H ")
        with httpx.Client(trust_env=False, timeout=60) as client:
            body = {"messages": [{"role": "user", "content": "What does it say?"}], "max_tokens": 32768}
            reply = client.post(f"{url}/v1/chat/completions", json=body)
            assert reply.status_code == 200
            usage = reply.json()["usage"]
            assert usage["prompt_tokens"] > 5
            assert usage["completion_tokens"] >= 1
            assert "<html" in client.get(f"{url}/").text
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "What does it say" not in err
    assert "POST /v1/chat/completions 200 " in err
    assert "Traceback" not in err
