"""Who may do what: keys, origins, the server's token, and how often."""

import pytest
from aiohttp import WSServerHandshakeError

from live2diff_core.errors import ConfigError
from live2diff_core.live.access import Policy, RateLimit, is_loopback
from tests.live.wire import MANY, TOKEN, Clock, FakeStream, Site, message_of, site, works

pytestmark = pytest.mark.anyio


async def test_no_stream_without_its_key(here: Site) -> None:
    stream, _ = here.stream()
    _, other_key = here.stream()
    for role in ("source", "controller"):
        for key in (None, "", other_key, "\ud800"):
            async with here.talk() as talk:
                await talk.hello(role, stream=stream.id, key=key)
                assert await talk.refused() == ("forbidden", 4004)
    one = f"/live2diff/streams/{stream.id}"
    for headers in ({}, {"X-Live2Diff-Key": other_key}):
        async with here.client.post(one, json={"panic": True}, headers=headers) as answer:
            assert answer.status == 403
        async with here.client.delete(one, headers=headers) as answer:
            assert answer.status == 403
    assert stream.changes == []
    assert not stream.closed


async def test_no_id_is_given_away(here: Site) -> None:
    stream, key = here.stream()
    for path in ("streams", "metrics"):
        async with here.client.get(f"/live2diff/{path}") as answer:
            text = await answer.text()
            assert answer.status == 200
            assert stream.id not in text
            assert key not in text
            assert "fake-" in text


@pytest.mark.parametrize("role", ["viewer", "controller", "source"])
async def test_an_unknown_stream_is_none(here: Site, role: str) -> None:
    async with here.talk() as talk:
        await talk.hello(role, stream="guessed", key="guessed")
        assert await talk.refused() == ("no_such_stream", 4005)
    async with here.talk() as talk:
        await talk.hello(role)
        assert await talk.refused() == ("no_such_stream", 4005)


async def test_a_role_does_what_is_its_own(here: Site) -> None:
    stream, key = here.stream()
    async with here.viewer(stream) as viewer:
        await viewer.say("control", changes={"panic": True})
        assert await viewer.refused() == ("not_allowed", None)
        await viewer.socket.send_bytes(message_of(0))
        assert await viewer.refused() == ("not_allowed", None)
        await works(stream, viewer, 1)
    async with here.talk() as controller:
        await controller.hello("controller", stream=stream.id, key=key)
        await controller.socket.send_bytes(message_of(0))
        assert await controller.refused() == ("not_allowed", None)
        await controller.say("configure", settings={})
        assert await controller.refused() == ("not_allowed", None)
    assert stream.changes == []


async def test_a_stream_with_a_source_of_its_own_takes_no_frames(here: Site) -> None:
    stream, key = here.stream(feeds=False)
    async with here.talk() as source:
        await source.hello("source", stream=stream.id, key=key)
        await source.socket.send_bytes(message_of(0))
        assert await source.refused() == ("not_allowed", None)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
    ],
)
async def test_other_sites_have_no_say(here: Site, headers: dict[str, str]) -> None:
    stream, key = here.stream()
    one = f"/live2diff/streams/{stream.id}"
    headers = {**headers, "X-Live2Diff-Key": key}
    with pytest.raises(WSServerHandshakeError) as caught:
        async with here.talk(**headers):
            pass
    assert caught.value.status == 403
    for method, path in (
        ("POST", one),
        ("DELETE", one),
        ("GET", "/live2diff/streams"),
        ("GET", "/live2diff/metrics"),
    ):
        async with here.client.request(method, path, json={}, headers=headers) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
    assert not stream.closed


async def test_the_own_page_and_allowed_origins_may(here: Site) -> None:
    own = str(here.client.make_url("")).rstrip("/")
    async with here.talk(Origin=own):
        pass
    policy = Policy(origins=frozenset({"https://friend.example"}))
    async with site(MANY, policy) as there, there.talk(Origin="https://friend.example"):
        pass


async def test_a_token_is_asked_of_everybody_but_viewers() -> None:
    async with site(MANY, Policy("0.0.0.0", TOKEN)) as here:
        stream, key = here.stream()
        for path in ("", "streams", "metrics"):
            async with here.client.get(f"/live2diff/{path}") as answer:
                assert answer.status == 401
        async with here.talk() as talk:
            await talk.hello("source", stream=stream.id, key=key)
            assert await talk.refused() == ("forbidden", 4004)
        async with here.viewer(stream) as viewer:
            await works(stream, viewer, 1)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with here.client.get("/live2diff/streams", headers=bearer) as answer:
            assert answer.status == 200
        async with here.talk(**bearer) as talk:
            await talk.hello("controller", stream=stream.id, key=key)
            await talk.hear("stream")
        wrong = {"Authorization": f"Bearer {TOKEN}x"}
        async with here.client.get("/live2diff/streams", headers=wrong) as answer:
            assert answer.status == 401


async def test_the_page_trades_the_token_for_a_cookie() -> None:
    async with site(MANY, Policy("0.0.0.0", TOKEN), lambda i, _: FakeStream(i)) as here:
        page = "/live2diff/"
        async with here.client.get(page, params={"token": "wrong"}) as answer:
            assert answer.status == 401
        async with here.client.get(page, params={"token": TOKEN}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, page)
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        value = {"Cookie": cookie.partition(";")[0]}
        async with here.client.get(page, headers=value) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.168.1.2", "example.org", "::"])
def test_a_bind_beyond_this_computer_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="give it a token"):
        Policy(host)
    Policy(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_computer_needs_none(host: str) -> None:
    assert Policy(host).is_local
    assert not is_loopback(host + ".example")


@pytest.mark.parametrize(
    "settings", [{"token": "short"}, {"token": "ä" * 20}, {"origins": frozenset({"friend"})}]
)
def test_a_policy_that_cannot_be_is_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        Policy(**settings)


def test_a_rate_has_a_burst_and_fills_up_again() -> None:
    clock = Clock()
    limit = RateLimit(10, clock)
    assert [limit.take("a") for _ in range(21)] == [True] * 20 + [False]
    assert limit.take("b")
    clock.now += 0.125
    assert [limit.take("a") for _ in range(2)] == [True, False]
    clock.now += 100
    assert sum(limit.take("a") for _ in range(100)) == 20


def test_a_rate_remembers_no_more_keys_than_it_should() -> None:
    limit = RateLimit(1, Clock())
    for number in range(5000):
        limit.take(str(number))
    assert len(limit._left) == 1024
