"""The bearer token of the scoring service."""

from mlops_tasks.config import Settings
from mlops_tasks.secret_files import SecretSource

TOKEN = SecretSource("scoring token", "MLOPS_SCORING_TOKEN", "scoring_token")


def scoring_token(settings: Settings) -> str:
    """The token, from the environment or from `<home>/secrets/scoring_token` (mode 0600).

    Raises
    ------
    ConfigError
        There is none, or the file can be read by others.
    """
    return TOKEN.read(settings)
