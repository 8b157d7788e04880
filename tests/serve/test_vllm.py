"""The launcher of vLLM: what it refuses and says, and, where vLLM is installed, what that then answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from llavar.cli import main
from llavar.errors import ConfigError, LlavarError, ModelError, NotFoundError
from llavar.generate.remote import png_uri
from llavar.serve import vllm
from llavar.serve.settings import Settings
from llavar.study.nano import weights

INSTALLED = "LLAVAR_TEST_VLLM"
"""The environment variable that names a vLLM to test against."""


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """Nano's folder to spoil; the weights are a link."""
    folder = tmp_path / "nano"
    folder.mkdir()
    for path in weights.folder("nano").iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).symlink_to(path)
        else:
            shutil.copy2(path, folder / path.name)
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    """Set fields of a JSON file; None removes one."""
    document = json.loads((folder / name).read_text()) | values
    kept = {key: value for key, value in document.items() if value is not None}
    (folder / name).write_text(json.dumps(kept))


def after(command: tuple[str, ...], flag: str) -> str:
    assert command.count(flag) == 1
    return command[command.index(flag) + 1]


# --- the plan -------------------------------------------------------------------------------------------


def test_a_plan_says_all_that_vllm_must_be_told(nano: Path) -> None:
    planned = vllm.plan(nano, Settings(), executable="/opt/vllm", extra=("--dtype", "float32"))
    assert planned.command[:3] == ("/opt/vllm", "serve", str(nano))
    assert planned.command[-2:] == ("--dtype", "float32")
    assert after(planned.command, "--served-model-name") == "nano"
    assert (after(planned.command, "--host"), after(planned.command, "--port")) == ("127.0.0.1", "8000")
    assert after(planned.command, "--allowed-media-domains") == vllm.NOWHERE  # an empty list would allow all
    assert json.loads(after(planned.command, "--limit-mm-per-prompt")) == {"image": 14}  # 2048 / 144
    assert after(planned.command, "--chat-template") == str(nano / "chat_template.jinja")
    assert json.loads(after(planned.command, "--hf-overrides")) == {
        "projector_hidden_act": "torch.nn.modules.linear.Identity"
    }
    assert planned.environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert planned.environment["VLLM_NO_USAGE_STATS"] == "1"
    assert "VLLM_API_KEY" not in planned.environment
    assert planned.notes == ()


def test_settings_become_vllms(nano: Path) -> None:
    settings = Settings(
        names=("a", "b"),
        domains=("example.org", "example.net"),
        origins=("https://chat.example.org",),
        max_pictures=2,
        max_pixels=1000,
        max_picture_bytes=2**20 + 1,
    )
    planned = vllm.plan(nano, settings, host="::1", port=9)
    line = " ".join(planned.command)
    assert "--served-model-name a b --host ::1 --port 9" in line
    assert "--allowed-media-domains example.org example.net" in line
    assert json.loads(after(planned.command, "--limit-mm-per-prompt")) == {"image": 2}
    assert json.loads(after(planned.command, "--allowed-origins")) == ["https://chat.example.org"]
    assert planned.environment["VLLM_MAX_IMAGE_PIXELS"] == "1000"
    assert planned.environment["VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"] == "2"


def test_the_fold_layout_needs_no_override(nano: Path) -> None:
    change(nano, "config.json", projector_hidden_act="gelu")
    assert "--hf-overrides" not in vllm.plan(nano, Settings()).command


def test_a_key_is_seen_nowhere(nano: Path) -> None:
    planned = vllm.plan(nano, Settings(keys=("sk-secret",)), host="0.0.0.0")
    assert planned.environment["VLLM_API_KEY"] == "sk-secret"
    assert "sk-secret" not in " ".join(planned.command) + planned.shown() + repr(planned)
    assert "VLLM_API_KEY=..." in planned.shown()
    assert any("/invocations" in note for note in planned.notes)  # which vLLM leaves open


def test_the_card_of_a_converted_folder_names_the_same_override() -> None:
    from llavar.models import card

    assert json.dumps(dict(vllm.VLLM_OVERRIDES)) in card._OVERRIDE


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        (Settings(), {"host": "0.0.0.0"}, "without a key"),
        (Settings(keys=("a", "b")), {}, "one API key"),
        (Settings(domains=(".example.org",)), {}, "native"),
    ],
)
def test_what_vllm_must_not_or_cannot_do(
    nano: Path, settings: Settings, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        vllm.plan(nano, settings, **options)


def test_a_public_address_can_be_forced(nano: Path) -> None:
    assert after(vllm.plan(nano, Settings(), host="0.0.0.0", public=True).command, "--host") == "0.0.0.0"


# --- the folder -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("config.json", {"architectures": ["LlavaLlamaForCausalLM"]}, "from-llava"),
        ("config.json", {"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ("config.json", {"architectures": None}, "no architecture"),
        ("config.json", {"vision_feature_layer": -6}, "4 layers"),
        ("config.json", {"image_seq_length": 143}, "143"),
        ("processor_config.json", {"patch_size": 14}, "patch_size = 14"),
        ("processor_config.json", {"num_additional_image_tokens": None}, "no num_additional_image_tokens"),
        ("processor_config.json", {"image_token": "<image>"}, "<im_patch>"),
        ("processor_config.json", {"vision_feature_select_strategy": "full"}, "'default'"),
    ],
)
def test_folders_that_vllm_would_run_wrongly(
    nano: Path, file: str, values: dict[str, Any], words: str
) -> None:
    change(nano, file, **values)
    with pytest.raises(ModelError, match=words):
        vllm.plan(nano, Settings())


@pytest.mark.parametrize(
    "missing", ["config.json", "processor_config.json", "model.safetensors", "tokenizer.json"]
)
def test_incomplete_folders(nano: Path, missing: str) -> None:
    (nano / missing).unlink()
    with pytest.raises(LlavarError, match=f"{missing}|tokenizer"):
        vllm.check(nano)


def test_a_chat_template_is_needed(nano: Path) -> None:
    (nano / "chat_template.jinja").unlink()
    change(nano, "tokenizer_config.json", chat_template=None)
    with pytest.raises(ModelError, match="chat template"):
        vllm.check(nano)


def test_a_template_in_the_tokenizers_file_is_found_by_vllm_itself(nano: Path) -> None:
    template = (nano / "chat_template.jinja").read_text()
    (nano / "chat_template.jinja").unlink()
    change(nano, "tokenizer_config.json", chat_template=template)
    assert "--chat-template" not in vllm.plan(nano, Settings()).command


def test_names_of_newer_transformers_are_refused(nano: Path) -> None:
    (nano / "model.safetensors").unlink()
    save_file({"vision_tower.embeddings.class_embedding": torch.zeros(1)}, nano / "model.safetensors")
    with pytest.raises(ModelError, match="vision_tower.vision_model"):
        vllm.check(nano)


def test_differences_are_told(nano: Path) -> None:
    change(nano, "preprocessor_config.json", llavar_transform="fit")
    template = (nano / "chat_template.jinja").read_text().replace("{{ bos_token }}", "")
    (nano / "chat_template.jinja").write_text(template)
    crops, first = vllm.check(nano).notes
    assert "crops" in crops
    assert "<s>" in first


# --- the process ----------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """An executable that prints its arguments and environment."""
    path = tmp_path / "env" / "bin" / "vllm"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
    )
    path.chmod(0o755)
    return path


def test_the_executable_is_found_by_itself_or_its_environment(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for given in (stand_in, stand_in.parent, stand_in.parent.parent):
        assert vllm.find(str(given), {}) == stand_in
        assert vllm.find("", {vllm.VARIABLE: str(given)}) == stand_in
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert vllm.find("", {"PATH": str(stand_in.parent)}) == stand_in
    with pytest.raises(NotFoundError, match="pip install vllm"):
        vllm.find("", {"PATH": str(tmp_path)})
    with pytest.raises(NotFoundError, match="no vllm that can be run"):
        vllm.find(str(tmp_path / "nothing"), {})
    stand_in.chmod(0o644)
    with pytest.raises(NotFoundError, match="no vllm that can be run"):
        vllm.find(str(stand_in), {})


def test_launching_becomes_vllm(stand_in: Path) -> None:
    code = (
        "from llavar.serve import vllm\n"
        f"plan = vllm.Launch(command=({str(stand_in)!r}, 'serve', 'x'), "
        "environment={'VLLM_API_KEY': 'k'})\n"
        "vllm.launch(plan)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(vllm.__file__).parents[2]), "KEPT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    arguments, found = json.loads(done.stdout)
    assert arguments == ["serve", "x"]
    assert (found["VLLM_API_KEY"], found["KEPT"]) == ("k", "1")
    assert "PYTHONPATH" not in found  # our packages are not those of vLLM's environment


def test_what_cannot_be_launched_is_told(tmp_path: Path) -> None:
    planned = vllm.Launch(command=(str(tmp_path / "nothing"),), environment={})
    with pytest.raises(NotFoundError, match="cannot be started"):
        vllm.launch(planned)


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = main([str(word) for word in argv])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_shows_what_it_would_start(
    nano: Path, stand_in: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAVAR_API_KEY", "sk-secret")
    options = ("--engine", "vllm", "--vllm", stand_in, "--dry-run", "--allow-domain", "example.org")
    status, out, err = run(capsys, "serve", *options, nano, "--", "--dtype", "float32")
    assert (status, err) == (0, "")
    assert out.endswith("--dtype float32\n")
    assert "--allowed-media-domains example.org" in out
    assert f"{stand_in} serve {nano} --served-model-name nano" in out
    assert "sk-secret" not in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--engine", "native", "--dry-run"), "is for vLLM"),
        (("--engine", "native", "--", "--dtype", "half"), "is for vLLM"),
        (("--engine", "vllm", "--page"), "--page"),
        (("--engine", "vllm", "--vllm", "/nowhere"), "/nowhere"),
    ],
)
def test_what_the_command_cannot_do(
    nano: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.setattr("llavar.serve.run.serve", lambda *given, **more: pytest.fail("it serves"))
    status, out, err = run(capsys, "serve", nano, *options)
    assert (status, out) == (2, "")
    assert words in err


@pytest.mark.parametrize(
    "argv", [("serve", "nano", "--tpyo"), ("tasks", "--tpyo"), ("doctor", "--", "x", "surplus")]
)
def test_arguments_that_nobody_takes_are_refused(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert argv[-1] in capsys.readouterr().err


# --- the real thing -------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a vLLM that the launcher started on nano."""
    named = os.environ.get(INSTALLED, "")
    if not named:
        pytest.skip(f"set {INSTALLED} to an environment with vLLM to test against it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    planned = vllm.plan(
        weights.folder("nano"),
        Settings(names=("reader",), keys=("sk-test",)),
        port=port,
        executable=vllm.find(named),
        extra=("--dtype", "float32", "--enforce-eager"),
    )
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", **planned.environment}
    running = subprocess.Popen(planned.command, env=environment, start_new_session=True)
    try:
        _wait(f"http://127.0.0.1:{port}/health", running)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def _wait(url: str, running: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert running.poll() is None, "vLLM ended"
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            time.sleep(1)
    raise AssertionError("vLLM did not start within 300 s")


def test_vllm_answers_as_we_do(server: str) -> None:
    from llavar.study.reader import Reader

    picture = Image.effect_noise((96, 96), 90).convert("RGB")
    reader = Reader.load("nano")

    def ask(question: str, url: str, key: str = "sk-test") -> httpx.Response:
        parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
        body = {"model": "reader", "temperature": 0, "max_tokens": 24}
        body["messages"] = [{"role": "user", "content": parts}]
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{server}/v1/chat/completions", json=body, headers=headers, timeout=120)

    for question in ("What does it say?", "How many circles do you see?"):
        answer = ask(question, png_uri(picture)).json()["choices"][0]["message"]["content"]
        assert answer.strip() == reader.ask(picture, question, max_new_tokens=24)
    assert ask("?", png_uri(picture), key="wrong").status_code == 401
    assert ask("?", "https://example.org/x.png").status_code == 400
    assert ask("?", "http://127.0.0.1/x.png").status_code == 400
    assert ask("?", "/etc/passwd").status_code == 400
