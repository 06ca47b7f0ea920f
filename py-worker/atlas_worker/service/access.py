"""Who may use a worker: its TLS certificate, the certificates it asks for, and the bearer token of every call."""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from atlas_worker.errors import InvalidInput, Unauthenticated

from .failures import unary

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_KEYGEN = "make one with: atlas worker keygen"
_MIN_TOKEN = 16


@dataclass(frozen=True)
class Access:
    """What a worker asks of its clients; by default nothing, which is for the loopback interface only."""

    tls: grpc.ServerCredentials | None = None
    token: str | None = None


def server_tls(certificate: Path, key: Path, client_ca: Path | None = None) -> grpc.ServerCredentials:
    """From PEM files; with ``client_ca``, clients must show a certificate that it has signed. Raises ``InvalidInput``."""
    pems = [_read(certificate, "--tls-cert"), _read(key, "--tls-key")]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key must fail, not ask for its password.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError):
        raise InvalidInput(
            f"{certificate} and {key} are not a certificate and its private key",
            "--tls-cert",
            "PEM files that belong together, the key not encrypted",
            _KEYGEN,
        ) from None
    authority = None if client_ca is None else _read(client_ca, "--tls-client-ca")
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError:
            raise InvalidInput(
                f"{client_ca} is no certificate", "--tls-client-ca", "certificates in PEM", _KEYGEN
            ) from None
    return grpc.ssl_server_credentials([(pems[1], pems[0])], authority, client_ca is not None)


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it. Raises ``InvalidInput``."""
    return check_token(_read(path, "--token-file").decode(errors="replace").strip(), f"{path}")


def check_token(token: str, source: str) -> str:
    """The token; ``InvalidInput`` when it cannot be sent in a header or is too short to be a secret."""
    if re.fullmatch(rf"[!-~]{{{_MIN_TOKEN},}}", token) is None:
        raise InvalidInput(
            f"{source} holds no token",
            "--token-file",
            f"one word of at least {_MIN_TOKEN} printable ASCII characters",
            _KEYGEN,
        )
    return token


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path}: {error.strerror}", field, "a file", "check the path"
        ) from None


class TokenRequired(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets through what has the token, and ``grpc.health.v1.Health/Check``, which tells no more than that the worker
    serves: what watches over containers has no token. Everything else is refused alike, before it is looked at."""

    def __init__(self, token: str) -> None:
        self._expected = _digest(f"Bearer {token}")
        self._refusal = grpc.unary_unary_rpc_method_handler(unary("a call without the token", _refuse))

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        if details.method == _HEALTH_CHECK:
            return continuation(details)
        given = [value for key, value in details.invocation_metadata if key == "authorization"]
        # Of digests, so that not even the length of the token can be told from the time this takes.
        if len(given) == 1 and hmac.compare_digest(_digest(given[0]), self._expected):
            return continuation(details)
        return self._refusal


def _digest(text: str | bytes) -> bytes:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()


def _refuse(_: bytes, __: grpc.ServicerContext) -> bytes:
    raise Unauthenticated(
        "this worker asks for a token, which is missing or wrong",
        remedy="give the one that it was started with: --token-file FILE, or ATLAS_TOKEN",
    )
