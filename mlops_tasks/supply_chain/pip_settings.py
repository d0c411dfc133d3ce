"""What pip is set up with, and the same for uv, which does not read pip's configuration."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse


def pip_setting(name: str) -> str:
    """What pip is set up with, by its environment or its files; empty for nothing."""
    lines = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    settings = dict(line.partition("=")[::2] for line in lines)
    places = (f":env:.{name}", f"install.{name}", f"global.{name}")
    return next((settings[place].strip("'\"") for place in places if place in settings), "")


def index_environment() -> dict[str, str]:
    """What makes uv ask the index that pip asks, as long as pip would wait."""
    chosen = {
        "UV_DEFAULT_INDEX": pip_setting("index-url"),
        "SSL_CERT_FILE": pip_setting("cert"),
        "UV_HTTP_TIMEOUT": pip_setting("default-timeout") or pip_setting("timeout"),
    }
    return {name: value for name, value in chosen.items() if value}


def index_options() -> list[str]:
    """The other places where pip looks for packages, as options of uv; without those that are not on this machine."""
    options = ["--no-index"] if pip_setting("no-index") in ("1", "true", "yes", "on") else []
    for place in filter(_is_there, pip_setting("extra-index-url").split()):
        options += ["--index", place]
    for place in filter(_is_there, pip_setting("find-links").split()):
        options += ["--find-links", place]
    # As pip does: the best file of all places; which files may be taken is what the hashes say.
    return [*options, "--index-strategy=unsafe-best-match"]


def _is_there(place: str) -> bool:
    """Whether a folder is there; addresses elsewhere are taken to be."""
    address = urlparse(place)
    if address.scheme in ("", "file"):
        return Path(unquote(address.path)).exists()
    return True
