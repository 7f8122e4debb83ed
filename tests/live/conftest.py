"""A server with a hub for the tests of the wire."""

from collections.abc import AsyncIterator

import pytest

from tests.live.wire import MANY, Site, site


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def here() -> AsyncIterator[Site]:
    async with site(MANY) as running:
        yield running
