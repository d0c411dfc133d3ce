"""The bearer token that the scoring service asks for."""

import os

from mlops_tasks.config import Settings
from mlops_tasks.errors import ConfigError

TOKEN_VARIABLE = "MLOPS_SCORING_TOKEN"  # noqa: S105 - the name of a variable, not a token
TOKEN_FILE = "scoring_token"  # noqa: S105 - the name of a file

WHERE = f"it is in the variable {TOKEN_VARIABLE} or in <MLOPS_HOME>/secrets/{TOKEN_FILE}"


def scoring_token(settings: Settings) -> str:
    """The token, from the environment or from `<home>/secrets/scoring_token` (mode 0600).

    Raises
    ------
    ConfigError
        There is none, or the file can be read by others.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        return token
    path = settings.secrets_dir / TOKEN_FILE
    if not path.is_file():
        raise ConfigError(f"no scoring token: set {TOKEN_VARIABLE} or write one into {path} (mode 0600)")
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} can be read by others; run: chmod 600 {path}")
    token = path.read_text().strip()
    if not token:
        raise ConfigError(f"{path} is empty; write a token into it, or set {TOKEN_VARIABLE}")
    return token
