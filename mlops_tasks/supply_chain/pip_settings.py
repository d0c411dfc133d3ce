"""What pip is set up with, and the same for uv, which does not read pip's configuration."""

import ast
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

_TRUE = ("1", "true", "t", "yes", "y", "on")
"""As pip reads its settings."""


def pip_setting(name: str) -> str:
    """What pip is set up with, by its environment or its files; empty for nothing."""
    lines = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    settings = dict(line.partition("=")[::2] for line in lines)
    places = (f":env:.{name}", f"install.{name}", f"global.{name}")
    return next((str(ast.literal_eval(settings[place])) for place in places if place in settings), "")


def index_environment() -> dict[str, str]:
    """What makes uv ask where pip asks, as long as pip would wait; places that are not on this machine are left out.

    Not by options: an address may hold a password, and every user of the machine sees a command.
    """
    chosen = {
        "UV_DEFAULT_INDEX": pip_setting("index-url"),
        "UV_EXTRA_INDEX_URL": " ".join(filter(_is_there, pip_setting("extra-index-url").split())),
        "UV_FIND_LINKS": ",".join(filter(_is_there, pip_setting("find-links").split())),
        "SSL_CERT_FILE": pip_setting("cert"),
        "UV_HTTP_TIMEOUT": pip_setting("default-timeout") or pip_setting("timeout"),
    }
    return {name: value for name, value in chosen.items() if value}


def index_options() -> list[str]:
    """How uv looks there: as pip does."""
    options = ["--no-index"] if pip_setting("no-index").strip().lower() in _TRUE else []
    # The best file of all places; which files may be taken is what the hashes say.
    return [*options, "--index-strategy=unsafe-best-match"]


def _is_there(place: str) -> bool:
    """Whether a folder is there; addresses elsewhere are taken to be."""
    address = urlparse(place)
    if address.scheme in ("", "file"):
        return Path(unquote(address.path)).exists()
    return True
