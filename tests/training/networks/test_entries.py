"""The networks' entries in the model zoo describe these networks."""

import importlib
from dataclasses import asdict, fields

import pytest
import torch

from mlops_tasks.modeling.model_zoo.zoo import model_zoo
from mlops_tasks.modeling.networks.informer import InformerConfig
from mlops_tasks.modeling.networks.layers import parameter_count
from mlops_tasks.modeling.networks.mlp import MLPConfig
from mlops_tasks.modeling.networks.patchtst import PatchTSTConfig
from mlops_tasks.modeling.networks.recurrent import RecurrentConfig
from mlops_tasks.modeling.networks.timesnet import TimesNetConfig
from mlops_tasks.modeling.networks.transformer import TransformerConfig

CONFIGS = {
    "mlp": MLPConfig,
    "lstm": RecurrentConfig,
    "gru": RecurrentConfig,
    "transformer": TransformerConfig,
    "informer": InformerConfig,
    "timesnet": TimesNetConfig,
    "patchtst": PatchTSTConfig,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_defaults_are_the_networks_own(name):
    """Every field of the architecture is a hyper-parameter with the same default, and the class makes a network."""
    entry = model_zoo()[name]
    defaults = entry.defaults()
    config = CONFIGS[name]
    assert {field.name: defaults[field.name] for field in fields(config)} == asdict(config())
    module, _, attribute = entry.class_path.partition(":")
    network = getattr(importlib.import_module(module), attribute)(features=158, window=20, **asdict(config()))
    assert 10_000 < parameter_count(network) < 1_000_000
    assert network(torch.zeros(2, 20, 158)).shape == (2,)
