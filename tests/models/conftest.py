"""What the networks are held against: published counts, and recorded outputs of public implementations."""

import json
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fastcnn import models

GOLDEN = Path(__file__).parents[1] / "golden"


class Expected(NamedTuple):
    params: int
    macs: int
    golden: str
    classifier_std: float
    features: tuple[tuple[str, int, int], ...]


# Parameters and multiply-adds as counted from public implementations; features are (name, channels, stride);
# the classifier's initial deviation is the published one, or that of nn.Linear: 1 / sqrt(3 * inputs).
EXPECTED = {
    "resnet50": Expected(
        25_557_032,
        4_089_184_256,
        "resnet50.json",
        (3 * 2048) ** -0.5,
        (("stem", 64, 2), ("layer1", 256, 4), ("layer2", 512, 8), ("layer3", 1024, 16), ("layer4", 2048, 32)),
    ),
    "mobilenet_v3_large": Expected(
        5_483_032,
        216_589_760,
        "mobilenet_v3_large.json",
        0.01,
        (
            ("features.1", 16, 2),
            ("features.3", 24, 4),
            ("features.6", 40, 8),
            ("features.12", 112, 16),
            ("features.16", 960, 32),
        ),
    ),
}


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", models.list_models())


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Small layers gain nothing from a second thread, and wait minutes for it where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def expectations():
    return EXPECTED


@pytest.fixture
def expected(name):
    return EXPECTED[name]


@pytest.fixture
def golden(expected):
    return json.loads((GOLDEN / expected.golden).read_text())


def _values(name, shape):
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return 0.5 + random.random_sample(shape)
    if name.endswith("running_mean") or (len(shape) <= 1 and name.endswith("bias")):
        return 0.1 * random.standard_normal(shape)
    if len(shape) <= 1:
        return 0.5 + random.random_sample(shape)
    return random.standard_normal(shape) * math.sqrt(1 / math.prod(shape[1:]))


@pytest.fixture(scope="session")
def filled():
    """fill(net): gives every tensor the values that its name determines, as the records were made."""

    def fill(net):
        state = {key: torch.as_tensor(_values(key, tuple(t.shape))) for key, t in net.state_dict().items()}
        net.load_state_dict(state)
        return net.eval()

    return fill
