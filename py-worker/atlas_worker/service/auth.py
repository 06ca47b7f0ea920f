"""Access to a worker: its TLS certificate, its clients' certificates, and the bearer token."""

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

from .status import unary

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_MIN_TOKEN = 16


@dataclass(frozen=True)
class Access:
    """What a worker asks of its clients. Nothing by default, which is for loopback only."""

    tls: grpc.ServerCredentials | None = None
    """The worker's certificate, and the authority of its clients' certificates if they need one."""
    token: str | None = None
    """Bearer token that every call needs."""


def server_tls(
    certificate: Path, key: Path, client_ca: Path | None = None
) -> grpc.ServerCredentials:
    """Read TLS credentials from PEM files.

    Args:
        certificate: The worker's certificate.
        key: Its private key, not encrypted.
        client_ca: Certificates of the authority that must have signed the clients' certificates;
            None if clients need no certificate.

    Returns:
        The credentials.

    Raises:
        InvalidInput: A file cannot be read, or does not contain what it should.
    """
    pems = [_read(certificate, "tls_cert"), _read(key, "tls_key")]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password makes an encrypted key fail, instead of asking for its password.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError):
        raise InvalidInput(
            f"{certificate} and {key} are not a certificate and its private key",
            "tls_cert",
            "PEM files that belong together, the key not encrypted",
        ) from None
    authority = None if client_ca is None else _read(client_ca, "tls_client_ca")
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError:
            raise InvalidInput(
                f"{client_ca} is no certificate", "tls_client_ca", "certificates in PEM"
            ) from None
    return grpc.ssl_server_credentials([(pems[1], pems[0])], authority, client_ca is not None)


def read_token(path: Path) -> str:
    """Read a token from a file, without the white space around it. Raises ``InvalidInput``."""
    return check_token(_read(path, "token_file").decode(errors="replace").strip(), f"{path}")


def check_token(token: str, source: str) -> str:
    """Check a token and return it.

    Args:
        token: The token.
        source: Where the token comes from, for the error.

    Returns:
        The token.

    Raises:
        InvalidInput: The token is too short to be secret, or cannot be sent in a header.
    """
    if re.fullmatch(rf"[!-~]{{{_MIN_TOKEN},}}", token) is None:
        raise InvalidInput(
            f"{source} holds no token",
            "token_file",
            f"one word of at least {_MIN_TOKEN} printable ASCII characters",
        )
    return token


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot read {path}: {error.strerror}", field, "a readable file", "check the path"
        ) from None


class TokenRequired(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Refuses every call without the token before reading it, and always in the same way.

    Only ``grpc.health.v1.Health/Check`` passes without a token: it tells no more than that the
    worker serves, and programs that monitor containers have no token.
    """

    def __init__(self, token: str) -> None:
        self._expected = _digest(f"Bearer {token}")
        self._refusal = grpc.unary_unary_rpc_method_handler(
            unary("a call without the token", _refuse)
        )

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Return the handler of a call, or one that refuses it."""
        if details.method == _HEALTH_CHECK:
            return continuation(details)
        given = [value for key, value in details.invocation_metadata if key == "authorization"]
        # Digests are compared, so that timing does not reveal even the token's length.
        if len(given) == 1 and hmac.compare_digest(_digest(given[0]), self._expected):
            return continuation(details)
        return self._refusal


def _digest(text: str | bytes) -> bytes:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()


def _refuse(_: bytes, __: grpc.ServicerContext) -> bytes:
    raise Unauthenticated("the token is missing or wrong")
