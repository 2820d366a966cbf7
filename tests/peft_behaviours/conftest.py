"""The behaviours that PEFT's own test suite asks of its tuners.

What only the code that methods share can get wrong is asked of a method of each sort; what a method's own code can get
wrong, of all.
"""

import pytest

from every_method import MERGEABLE, METHODS, REPRESENTATIVES


@pytest.fixture(params=REPRESENTATIVES)
def method(request):
    """The name of a method, one of each sort."""
    return request.param


@pytest.fixture(params=[name for name in REPRESENTATIVES if name in MERGEABLE])
def mergeable(request):
    """The name of a method whose update is a weight, one of each sort."""
    return request.param


@pytest.fixture(params=METHODS)
def any_method(request):
    """The name of a method."""
    return request.param


@pytest.fixture(params=MERGEABLE)
def any_mergeable(request):
    """The name of a method whose update is a weight."""
    return request.param
