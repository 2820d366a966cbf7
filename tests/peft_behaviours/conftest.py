"""The behaviours that PEFT's own test suite asks of its tuners, asked of every method here."""

import pytest

from every_method import MERGEABLE, METHODS


@pytest.fixture(params=METHODS)
def method(request):
    """The name of a method."""
    return request.param


@pytest.fixture(params=MERGEABLE)
def mergeable(request):
    """The name of a method whose update is a weight."""
    return request.param
