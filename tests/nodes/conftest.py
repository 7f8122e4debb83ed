"""Every test of the nodes begins and ends without sessions."""

from collections.abc import Iterator

import pytest

from tests.pack import pack_module


@pytest.fixture(autouse=True)
def sessions() -> Iterator[object]:
    registry = pack_module("nodes.registry").SESSIONS
    registry.close_all()
    yield registry
    registry.close_all()
