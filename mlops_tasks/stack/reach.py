"""How a person's command reaches the services of this home's stack: as its stages do."""

import os

from mlops_tasks.config import ENV_PREFIX, Settings
from mlops_tasks.stack import keeper
from mlops_tasks.stack.credentials import read_credentials
from mlops_tasks.stack.environment import client_environment

_ADDRESSES = (f"{ENV_PREFIX}MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI")


def reach_services(settings: Settings) -> bool:
    """Give this process MLflow's address, user and password, where this home's stack runs; whether it does.

    MLflow's server keeps the files of models: whoever reads its database alone finds none. A command that was given an
    address of its own keeps it. The password lies in a file of the home, which only its owner can read.
    """
    given = any(os.environ.get(name) for name in _ADDRESSES)
    if given or not keeper.is_running(settings):
        return False
    for name, value in client_environment(settings, read_credentials(settings)).items():
        os.environ.setdefault(name, value)
    return True
