"""Every test of the nodes begins and ends without sessions."""

from collections.abc import Iterator

import pytest

from tests.nodes.lives import own_threads
from tests.pack import pack_module


@pytest.fixture(autouse=True)
def sessions() -> Iterator[object]:
    module = pack_module("nodes.registry")
    module.SESSIONS.close_all()
    module._dropped.clear()
    yield module.SESSIONS
    module.SESSIONS.close_all()


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """No thread of a live stream, and no stream in the hub, when the test is over."""
    yield
    assert own_threads() == []
    assert pack_module("nodes.hub").streams().list() == []
