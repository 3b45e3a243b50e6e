import pytest
from core_driver import Core

from torch_xdna.kernels_xdna1 import host


@pytest.fixture(scope="session")
def kernels():
    return host.load()


@pytest.fixture(scope="session")
def checked_kernels():
    """Bounds and alignment checked, operations counted: the build of `python -m torch_xdna.kernels_xdna1 count`."""
    return host.load(debug=True, counting=True)


@pytest.fixture
def core(kernels):
    return Core(kernels)
