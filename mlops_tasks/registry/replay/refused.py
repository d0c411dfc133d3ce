"""Why a replay is not tried, as an error on its way to the report."""

from mlops_tasks.errors import ErrorKind, RegistryError
from mlops_tasks.states import ReplayRefusal


class ReplayRefusedError(RegistryError):
    """A version cannot be replayed; the message says why and what can be done."""

    kind = ErrorKind.DATA

    def __init__(self, refusal: ReplayRefusal, said: str) -> None:
        super().__init__(said)
        self.refusal = refusal
