"""The app behind its reverse proxy: TLS, one limit on sizes, and the server's inner pages hidden."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPSConnection
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, expect

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNVERIFIED = ssl.create_default_context()  # Caddy's own certificate, made for this test, is signed by nobody we know
UNVERIFIED.check_hostname, UNVERIFIED.verify_mode = False, ssl.CERT_NONE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def proxied(streamlit_server: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The running app's address through Caddy."""
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("there is no Caddy on this machine")
    app_url = streamlit_server(ROOT / "app.py")
    port, home = free_port(), tmp_path_factory.mktemp("caddy")
    plain = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    config = home / "Caddyfile"
    config.write_text(plain.replace("admin off", "admin off\n\tauto_https disable_redirects\n\tskip_install_trust"))
    env = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home), "BUSI_HOST": f"https://localhost:{port}"}
    env |= {"BUSI_TLS": "internal", "BUSI_UPSTREAM": app_url.removeprefix("http://").rstrip("/")}
    command = [caddy, "run", "--config", str(config), "--adapter", "caddyfile"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"https://localhost:{port}/_stcore/health")
        yield f"https://localhost:{port}"
    finally:
        process.kill()
        process.wait()


def wait_for(url: str) -> None:
    for _ in range(120):
        try:
            with urllib.request.urlopen(url, timeout=2, context=UNVERIFIED):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} never answered")


@pytest.mark.browser
def test_a_scan_is_read_through_the_proxy(proxied: str, chromium: Browser) -> None:
    """The page and its WebSocket, over TLS."""
    context = chromium.new_context(ignore_https_errors=True)
    page = context.new_page()
    page.goto(proxied)
    page.get_by_role("button", name="Benign").click(timeout=120_000)
    expect(page.get_by_text("Model score").first).to_be_visible(timeout=120_000)
    context.close()


@pytest.mark.browser
def test_the_servers_own_figures_are_hidden(proxied: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(f"{proxied}/_stcore/metrics", context=UNVERIFIED)
    assert refusal.value.code == 404


@pytest.mark.browser
def test_answers_are_not_kept_and_not_framed(proxied: str) -> None:
    with urllib.request.urlopen(proxied, context=UNVERIFIED) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "max-age" in answer.headers["Strict-Transport-Security"]


@pytest.mark.browser
def test_a_body_too_large_is_refused_at_the_door(proxied: str) -> None:
    """U21: once more than the limit has come, and not when all of it has."""
    connection = HTTPSConnection(proxied.removeprefix("https://"), context=UNVERIFIED, timeout=60)
    connection.putrequest("PUT", "/_stcore/upload_file/none/none")
    connection.putheader("Content-Length", str(400_000_000))
    connection.endheaders()
    sent = 0
    with suppress(OSError):  # the door is shut while we speak
        for _ in range(300):
            connection.send(bytes(1_000_000))
            sent += 1_000_000
    assert sent < 300_000_000 or connection.getresponse().status == 413
    connection.close()


# ---- What cannot be run here: read ------------------------------------------------------------------------------


def test_the_compose_file_names_files_that_are_there() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    build = compose["x-reader"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve().is_file()
    assert (DEPLOY / "Caddyfile").is_file()
    assert compose["services"]["app"]["read_only"]
    assert any(mount.startswith("/tmp:") for mount in compose["services"]["app"]["tmpfs"])
    assert compose["services"]["worker"]["command"][0] == "busi"


def test_app_and_worker_get_the_variables_that_the_documents_name() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    compose, documents = yaml.safe_load(text), (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    for service in ("app", "worker"):
        environment = compose["services"][service]["environment"]
        assert environment["BUSI_DEVICE"] == "${BUSI_DEVICE:-auto}", "an empty one would be refused"
        assert environment["BUSI_JOBS_DATABASE"] == "${BUSI_JOBS_DATABASE:-}"
    assert compose["services"]["app"]["environment"]["BUSI_CORRECTIONS_DIR"] == "${BUSI_CORRECTIONS_DIR:-}"
    assert "corrections" in compose["volumes"]
    assert not {name for name in re.findall(r"\$\{(\w+)", text) if f"`{name}" not in documents and name != "BUSI_HOST"}


def test_the_proxy_lets_through_what_the_app_accepts() -> None:
    accepted = tomllib.loads((ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))["server"]["maxUploadSize"]
    caddyfile = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    limit = int(caddyfile.split("max_size ")[1].split("MB")[0])
    assert accepted < limit <= accepted + 20


def test_the_image_copies_and_runs_what_is_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert all((ROOT / name).exists() for name in copied)
    assert "app.py" in lines[-1]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".streamlit/secrets.toml", "deploy/secrets.toml", "deploy/data", "state"} <= set(ignored)
    assert "weights" not in ignored


def test_the_commands_of_the_image_find_what_lies_beside_the_code() -> None:
    """`busi worker` once looked for weights/ and promotion.toml among the installed packages, and could not write."""
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    (install,) = [line for line in lines if line.endswith(" .") and "install" in line]
    assert "--editable" in install
    (owned,) = [line for line in lines if "chown" in line]
    assert {"-R", "/state", "/corrections", "weights"} <= set(owned.split())


def test_the_image_leaves_the_libraries_of_cuda_to_the_build_of_torch() -> None:
    """requirements.txt names them for PyPI's build; that for the CPU needs none of them."""
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    expression = dockerfile.split("sed -i -E '")[1].split("'")[0]
    command = ["sed", "-E", expression, str(ROOT / "requirements.txt")]
    kept = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {line.split("==")[0] for line in kept.splitlines() if "==" in line and not line.lstrip().startswith("#")}
    assert {"torch", "torchvision", "streamlit"} <= names
    assert not {name for name in names if name.startswith(("nvidia", "cuda", "triton"))}
