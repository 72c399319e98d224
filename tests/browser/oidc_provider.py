"""A small OpenID Connect provider on loopback: discovery, authorize, token, keys, userinfo, end of session.

It follows OpenID Connect Core 1.0 (authorization code flow, section 3.1) and RFC 7636 (PKCE), and refuses what a real
one would refuse: an unknown client, a wrong secret, a code used twice, a wrong verifier. Its sign-in page lists the
people of the test and signs in whoever is clicked, without a password.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Mapping
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID = "reader"
CLIENT_SECRET = "a secret of this test"  # noqa: S105
HOUR_SECONDS = 3600


class Provider:
    """Runs from `start` to `stop`; `people` are the claims of those who can sign in, by the name on the button."""

    def __init__(self, people: Mapping[str, Mapping[str, Any]]) -> None:
        self.people = people
        self.key = RSAKey.generate_key(2048, {"kid": "of-this-test", "use": "sig", "alg": "RS256"})
        self.codes: dict[str, dict[str, str]] = {}
        self.ended = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.answer(self, {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                provider.answer(self, {name: values[0] for name, values in parse_qs(body).items()})

            def log_message(self, *arguments: Any) -> None:
                """Keep the output of the tests quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def start(self) -> None:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def metadata_url(self) -> str:
        return f"{self.address}/.well-known/openid-configuration"

    def answer(self, request: BaseHTTPRequestHandler, body: dict[str, str]) -> None:
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/.well-known/openid-configuration":
            send_json(request, self.metadata())
        elif parts.path == "/keys":
            send_json(request, {"keys": [self.key.as_dict(private=False)]})
        elif parts.path == "/authorize":
            self.authorize(request, query)
        elif parts.path == "/token":
            self.token(request, body)
        elif parts.path == "/userinfo":
            send_json(request, {"error": "not used: the ID token carries the claims"}, 401)
        elif parts.path == "/end":
            self.ended += 1
            redirect(request, query["post_logout_redirect_uri"])
        else:
            send_json(request, {"error": "not_found"}, 404)

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/keys",
            "userinfo_endpoint": f"{self.address}/userinfo",
            "end_session_endpoint": f"{self.address}/end",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def authorize(self, request: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        if query.get("client_id") != CLIENT_ID or query.get("response_type") != "code":
            send_json(request, {"error": "unauthorized_client"}, 400)
            return
        if "person" in query:
            code = secrets.token_urlsafe(16)
            self.codes[code] = query
            redirect(request, f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}")
            return
        links = "".join(
            f'<p><a href="/authorize?{escape(urlencode({**query, "person": name}))}">{escape(name)}</a></p>'
            for name in self.people
        )
        send(request, 200, "text/html", f"<h1>Hospital sign-in</h1>{links}".encode())

    def token(self, request: BaseHTTPRequestHandler, body: dict[str, str]) -> None:
        asked = self.codes.pop(body.get("code", ""), None)
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        verifier = hashlib.sha256(body.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        if asked is None or asked["redirect_uri"] != body.get("redirect_uri"):
            send_json(request, {"error": "invalid_grant"}, 400)
        elif request.headers.get("Authorization") != f"Basic {basic}":
            send_json(request, {"error": "invalid_client"}, 401)
        elif challenge != asked.get("code_challenge"):
            send_json(request, {"error": "invalid_grant"}, 400)
        else:
            id_token = self.sign(self.people[asked["person"]], asked["nonce"])
            answer = {"access_token": "of-this-test", "token_type": "Bearer", "expires_in": HOUR_SECONDS}
            send_json(request, {**answer, "id_token": id_token})

    def sign(self, claims: Mapping[str, Any], nonce: str) -> str:
        now = int(time.time())
        standard = {"iss": self.address, "aud": CLIENT_ID, "iat": now, "exp": now + HOUR_SECONDS, "nonce": nonce}
        return jwt.encode({"alg": "RS256", "kid": "of-this-test"}, {**standard, **claims}, self.key)


def send_json(request: BaseHTTPRequestHandler, content: object, status: int = 200) -> None:
    send(request, status, "application/json", json.dumps(content).encode())


def redirect(request: BaseHTTPRequestHandler, address: str) -> None:
    request.send_response(302)
    request.send_header("Location", address)
    request.end_headers()


def send(request: BaseHTTPRequestHandler, status: int, kind: str, content: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)
