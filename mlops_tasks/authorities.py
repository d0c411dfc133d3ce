"""The certificate authorities that clients of this process trust."""

import os
import ssl
from functools import lru_cache

import httpx


def trusted_authorities() -> ssl.SSLContext:
    """What httpx trusts by default, for all clients of the process: to read it takes 20 ms, a client's every time."""
    return _read(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _read(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Of these places, which httpx looks up in the environment."""
    return httpx.create_ssl_context()
