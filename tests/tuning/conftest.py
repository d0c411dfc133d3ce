"""The model zoo with a model whose best hyper-parameters are known."""

import pytest

from mlops_tasks.modeling.model_zoo import zoo
from mlops_tasks.modeling.model_zoo.family import FAMILIES
from tests.tuning import pointer


@pytest.fixture
def pointer_zoo(monkeypatch):
    """Adds the model `pointer`."""
    monkeypatch.setitem(FAMILIES, pointer.NAME, pointer.FAMILY)
    monkeypatch.setattr(zoo, "model_zoo", pointer.zoo)
