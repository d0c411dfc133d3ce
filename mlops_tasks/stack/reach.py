"""How a command run by a person reaches the services of this home's stack: in the same way as its stages."""

import os

from mlops_tasks.config import ENV_PREFIX, Settings
from mlops_tasks.stack import keeper
from mlops_tasks.stack.credentials import read_credentials
from mlops_tasks.stack.environment import client_environment

_ADDRESSES = (f"{ENV_PREFIX}MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI")


def reach_services(settings: Settings) -> bool:
    """Give this process MLflow's address, user and password if this home's stack runs; returns whether it does.

    MLflow's server keeps the files of models, which its database alone does not contain. A command that was given
    another address keeps it. The password is in a file of the home, which only its owner can read.
    """
    given = any(os.environ.get(name) for name in _ADDRESSES)
    if given or not keeper.is_running(settings):
        return False
    for name, value in client_environment(settings, read_credentials(settings)).items():
        os.environ.setdefault(name, value)
    return True
