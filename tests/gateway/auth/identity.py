"""An identity provider on loopback that does as it is told: which keys it shows, and whether it answers at all."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import json_b64encode, urlsafe_b64encode

AUDIENCE = "pluggably"
Json = dict[str, Any]
SigningKey = RSAKey | ECKey | OKPKey | OctKey

# Made once: an RSA key takes a tenth of a second.
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "alg": "RS256", "use": "sig"})
RSA_OTHER = RSAKey.generate_key(2048, {"kid": "rsa-other"})
RSA_BARE = RSAKey.generate_key(2048, {"kid": "rsa-bare"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
EC_384 = ECKey.generate_key("P-384", {"kid": "ec-384"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
KEYS: tuple[SigningKey, ...] = (RSA, RSA_BARE, EC, EC_384, ED)
"""What it shows by default."""


class Identity:
    """`mode` says how it answers: up, slow, hang, drop, html, error, redirect, huge, other (another's documents)."""

    def __init__(self, url: str) -> None:
        self.url = url
        """The issuer: with a path, as Keycloak's."""
        self.keys: list[Json] = [shown(key) for key in KEYS]
        self.mode = "up"
        self.asked: list[str] = []
        """Paths, in order."""
        self.released = threading.Event()
        """Ends a hanging."""

    def readings(self) -> int:
        """How often its keys were read, or should have been."""
        return sum(path.endswith("openid-configuration") for path in self.asked)

    def claims(self, **changes: Any) -> Json:
        """Those of a good token; None leaves one out."""
        now = time.time()
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": int(now),
            "exp": int(now) + 600,
            "scope": "inference models:read",
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, key: SigningKey = RSA, header: Json | None = None, **changes: Any) -> str:
        return signed(self.claims(**changes), key, header)

    def document(self, path: str) -> bytes:
        if path.endswith("openid-configuration"):
            issuer = "https://login.example.com" if self.mode == "other" else self.url
            return json.dumps({"issuer": issuer, "jwks_uri": f"{self.url}/keys", "x": 1}).encode()
        padding = "x" * 3_000_000 if self.mode == "huge" else ""
        return json.dumps({"keys": self.keys, "padding": padding}).encode()


def shown(key: SigningKey, **changes: Any) -> Json:
    """A key as a JWKS has it."""
    return {k: v for k, v in {**key.as_dict(private=False), **changes}.items() if v is not None}


ALGORITHMS = {"RSA": "RS256", "OKP": "EdDSA", "oct": "HS256", "P-256": "ES256", "P-384": "ES384"}


def signed(claims: Json | bytes, key: SigningKey, header: Json | bytes | None = None) -> str:
    """A token, whatever it says; of the header's fields None leaves one out."""
    own = JWSRegistry.algorithms[ALGORITHMS[str(key.get("crv")) if key.key_type == "EC" else key.key_type]]
    fields = {"alg": own.name, "typ": "JWT", "kid": key.kid, **(header if isinstance(header, dict) else {})}
    plain = {name: value for name, value in fields.items() if value is not None}
    head = urlsafe_b64encode(header) if isinstance(header, bytes) else json_b64encode(plain)
    body = urlsafe_b64encode(claims) if isinstance(claims, bytes) else json_b64encode(claims)
    said = JWSRegistry.algorithms.get(str(fields["alg"]), own)
    signature = (said if said.key_type == key.key_type else own).sign(head + b"." + body, key)
    return (head + b"." + body + b"." + urlsafe_b64encode(signature)).decode()


@contextmanager
def identity() -> Iterator[Identity]:
    """Run one on a free port."""
    told: Identity

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            mode = told.mode
            if mode == "slow":
                time.sleep(0.3)
            if mode == "hang":
                told.released.wait(30)
            if mode in ("hang", "drop"):
                self.close_connection = True
                return
            status, kind, body = 200, "application/json", told.document(self.path)
            if mode == "html":
                kind, body = "text/html", b"<!doctype html><p>Sign in to the network."
            elif mode == "error":
                status = 500
            elif mode == "redirect":
                status = 302
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            if status == 302:
                self.send_header("location", f"{told.url}/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # the gateway hung up, as it may

    server = Server(("127.0.0.1", 0), Handler)
    told = Identity(f"http://127.0.0.1:{server.server_address[1]}/realms/acme")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        told.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
