"""The hub: ids, keys, limits, who is a client of what."""

import json
import threading
from dataclasses import fields

import pytest

from live2diff_core.errors import ConfigError
from live2diff_core.live.credit import FIRST_PATIENCE, PATIENCE, Credit
from live2diff_core.live.protocol import ProtocolError
from live2diff_core.live.statistics import Ledger
from live2diff_core.live.streams import Limits, Streams, new_id
from tests.live.wire import Clock, FakeStream


class Guest:
    """A client that remembers what it was told."""

    def __init__(self) -> None:
        self.posted: list[str] = []
        self.dismissed: list[str | None] = []

    def post(self, text: str) -> None:
        self.posted.append(text)

    def dismiss(self, error: ProtocolError | None) -> None:
        self.dismissed.append(error and error.code)


def code_of(call, *arguments) -> str:
    with pytest.raises(ProtocolError) as caught:
        call(*arguments)
    return caught.value.code


def test_the_defaults_are_those_that_were_thought_over() -> None:
    assert {field.name: field.default for field in fields(Limits)} == {
        "streams": 8,
        "clients": 8,
        "sockets": 64,
        "message_bytes": 8_388_608,
        "picture_pixels": 16_777_216,
        "messages_per_second": 240.0,
        "requests_per_second": 20.0,
        "hello_seconds": 10.0,
        "heartbeat_seconds": 15.0,
        "linger_seconds": 20.0,
        "statistics_seconds": 0.5,
    }


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_a_limit_is_above_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: -1})
    if name != "linger_seconds":
        with pytest.raises(ConfigError, match=name):
            Limits(**{name: 0})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [f.name for f in fields(Limits) if isinstance(f.default, float)])
def test_a_limit_is_a_number(name: str, value: float) -> None:
    """Clients are told of some of them in JSON, which has no others."""
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("", {}),
        (" , ,", {}),
        ("clients=16", {"clients": 16}),
        (" clients = 16 , message_bytes=4000000,", {"clients": 16, "message_bytes": 4_000_000}),
        (
            "linger_seconds=0, statistics_seconds=.25",
            {"linger_seconds": 0, "statistics_seconds": 0.25},
        ),
        ("requests_per_second=5", {"requests_per_second": 5.0}),
    ],
)
def test_limits_are_read_by_name_and_the_others_stay(text: str, given: dict[str, float]) -> None:
    read = Limits.read(text)
    assert read == Limits(**given)
    for limit in fields(Limits):
        assert type(getattr(read, limit.name)) is type(limit.default)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "clients",
            "expected limits such as clients=16, got 'clients'; there are streams, clients",
        ),
        ("clients=", "got 'clients='"),
        ("=8", "got '=8'"),
        ("client=8", "got 'client=8'.*requests_per_second"),
        ("clients=8;sockets=2", "got 'clients=8;sockets=2'"),
        ("clients=eight", "got 'clients=eight'"),
        ("clients=8.5", "got 'clients=8.5'"),
        ("clients=nan", "got 'clients=nan'"),
        ("clients=8, __init__=1", "got '__init__=1'"),
        ("clients=0", "clients must be above 0, got 0"),
        ("message_bytes=-1", "message_bytes must be above 0, got -1"),
        ("hello_seconds=nan", "hello_seconds must be above 0, got nan"),
        ("messages_per_second=inf", "messages_per_second"),
    ],
)
def test_what_is_no_limit_is_told(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Limits.read(text)


def test_ids_cannot_be_guessed() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(each) for each in ids} == {32}  # 192 bits


def test_a_stream_is_found_by_its_id_and_steered_by_its_key() -> None:
    hub, stream, other = Streams(), FakeStream(), FakeStream()
    key, other_key = hub.add(stream), hub.add(other)
    assert hub.get(stream.id) is stream
    assert hub.unlock(stream.id, key) is stream
    for wrong in (None, "", other_key, key[:-1], key + "x", "ä", "\ud800"):
        assert code_of(hub.unlock, stream.id, wrong) == "forbidden"
    assert code_of(hub.get, "other") == "no_such_stream"
    assert code_of(hub.unlock, "other", key) == "no_such_stream"


def test_a_stream_may_keep_its_key() -> None:
    hub, stream = Streams(), FakeStream()
    key = hub.add(stream)
    hub.remove(stream.id)
    again = FakeStream(stream.id)
    assert hub.add(again, key) == key
    with pytest.raises(ConfigError, match="this id"):
        hub.add(FakeStream(stream.id))


def test_what_is_removed_is_closed_and_its_clients_sent_home() -> None:
    hub, stream, other = Streams(), FakeStream(), FakeStream()
    hub.add(stream)
    hub.add(other)
    guest, stranger = Guest(), Guest()
    with hub.joined(stream.id, guest), hub.joined(other.id, stranger):
        assert hub.list() == [(stream, 1), (other, 1)]
        assert hub.remove(stream.id)
        assert not hub.remove(stream.id)
    assert (stream.closed, guest.dismissed) == (True, [None])
    assert (other.closed, stranger.dismissed) == (False, [])
    assert hub.list() == [(other, 0)]


def test_events_go_to_the_clients_of_their_stream() -> None:
    hub, stream, other = Streams(), FakeStream(), FakeStream()
    hub.add(stream)
    hub.add(other)
    guest, stranger = Guest(), Guest()
    with hub.joined(stream.id, guest), hub.joined(other.id, stranger):
        hub.publish(stream.id, "changed", "it shows", 7)
        hub.publish("gone", "reset", "nobody hears this")
    hub.publish(stream.id, "reset", "too late")
    (said,) = map(json.loads, guest.posted)
    assert said == {"type": "event", "event": "changed", "message": "it shows", "frame": 7}
    assert stranger.posted == []


def test_no_more_streams_than_the_limit() -> None:
    hub = Streams(Limits(streams=2), lambda stream_id, _: FakeStream(stream_id))
    stream = FakeStream()
    hub.add(stream)
    hub.open({})
    assert code_of(hub.add, FakeStream()) == "limit"
    assert code_of(hub.open, {}) == "limit"
    hub.remove(stream.id)
    hub.open({})


def test_streams_that_are_being_opened_count() -> None:
    opening, go_on = threading.Event(), threading.Event()

    def open_stream(stream_id: str, _: object) -> FakeStream:
        opening.set()
        assert go_on.wait(10)
        return FakeStream(stream_id)

    hub = Streams(Limits(streams=1), open_stream)
    thread = threading.Thread(target=hub.open, args=({},))
    thread.start()
    assert opening.wait(10)
    assert code_of(hub.add, FakeStream()) == "limit"
    go_on.set()
    thread.join()
    assert len(hub.list()) == 1


def test_a_stream_that_could_not_be_opened_takes_no_place() -> None:
    def fail(stream_id: str, _: object) -> FakeStream:
        raise ConfigError("no")

    hub = Streams(Limits(streams=1), fail)
    for _ in range(3):
        with pytest.raises(ConfigError, match="no"):
            hub.open({})
    hub.add(FakeStream())


def test_a_stream_that_comes_after_the_end_is_closed() -> None:
    made: list[FakeStream] = []

    def open_stream(stream_id: str, _: object) -> FakeStream:
        made.append(FakeStream(stream_id))
        hub.close()
        return made[0]

    hub = Streams(opener=open_stream)
    assert code_of(hub.open, {}) == "limit"
    assert made[0].closed
    assert hub.list() == []


def test_no_more_clients_than_the_limit() -> None:
    hub, stream = Streams(Limits(clients=2)), FakeStream()
    hub.add(stream)
    with hub.joined(stream.id, Guest()), hub.joined(stream.id, Guest()):
        assert code_of(hub.joined(stream.id, Guest()).__enter__) == "limit"
    with hub.joined(stream.id, Guest()):
        pass


def test_a_new_source_takes_the_place_of_the_old_one_even_at_the_limit() -> None:
    hub, stream = Streams(Limits(clients=1)), FakeStream()
    hub.add(stream)
    old, new = Guest(), Guest()
    with hub.joined(stream.id, old, source=True):
        with hub.joined(stream.id, new, source=True):
            assert old.dismissed == ["replaced"]
            assert hub.list() == [(stream, 1)]
        assert new.dismissed == []
    assert hub.list() == [(stream, 0)]


def test_the_place_of_a_source_whose_line_broke_is_kept() -> None:
    hub = Streams(Limits(clients=2), opener=lambda stream_id, _: FakeStream(stream_id))
    own, _ = hub.open({})
    with hub.joined(own.id, Guest(), source=True):
        pass
    with hub.joined(own.id, Guest()):
        assert code_of(hub.joined(own.id, Guest()).__enter__) == "limit"
        with hub.joined(own.id, Guest(), source=True):
            assert hub.list() == [(own, 2)]


def test_a_stream_of_a_client_is_abandoned_without_it() -> None:
    hub = Streams(opener=lambda stream_id, _: FakeStream(stream_id))
    own, _ = hub.open({})
    added = FakeStream()
    hub.add(added)
    with hub.joined(own.id, Guest(), source=True), hub.joined(added.id, Guest(), source=True):
        assert not hub.is_abandoned(own.id)
    with hub.joined(own.id, Guest()):
        assert hub.is_abandoned(own.id)  # a viewer feeds nothing
    assert not hub.is_abandoned(added.id)
    hub.remove(own.id)
    assert not hub.is_abandoned(own.id)


# ---- credit


def credit(window: int = 1) -> tuple[Credit, Ledger, Clock]:
    clock = Clock()
    ledger = Ledger(clock)
    return Credit(ledger.snapshot("running", None), window, clock), ledger, clock


def test_a_frame_is_allowed_for_every_one_that_is_taken() -> None:
    given, ledger, _ = credit(window=3)
    assert given.until(ledger.snapshot("running", None)) == 3
    for _ in range(3):
        given.came()
    assert given.until(ledger.snapshot("running", None)) == 3
    assert given.waits
    ledger.took("wait", 0.0)
    ledger.dropped("capture")
    given.lost(1)
    assert given.until(ledger.snapshot("running", None)) == 6
    assert not given.waits


def test_what_others_sent_before_gives_no_credit() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    for _ in range(5):
        ledger.took("wait", 0.0)
    given = Credit(ledger.snapshot("running", None), 1, clock)
    assert given.until(ledger.snapshot("running", None)) == 1
    ledger.took("wait", 0.0)  # of the client before
    assert given.until(ledger.snapshot("running", None)) == 1


def test_frames_that_were_left_behind_are_given_up() -> None:
    given, ledger, clock = credit()
    given.came()
    for seconds, until in ((0.0, 1), (FIRST_PATIENCE, 1), (0.1, 2)):
        clock.now += seconds
        assert given.until(ledger.snapshot("running", None)) == until
    given.came()
    assert given.until(ledger.snapshot("running", None)) == 2
    ledger.took("wait", 0.0)
    assert given.until(ledger.snapshot("running", None)) == 3


def test_patience_is_that_which_the_engine_needs() -> None:
    given, ledger, clock = credit()
    ledger.took("engine", 2.0)
    given.came()
    for seconds, until in ((2 * PATIENCE, 1), (0.1, 2)):
        clock.now += seconds
        assert given.until(ledger.snapshot("running", None)) == until


def test_a_frame_that_was_given_up_and_comes_gives_no_credit_twice() -> None:
    given, ledger, clock = credit()
    given.came()
    clock.now += FIRST_PATIENCE + 1
    assert given.until(ledger.snapshot("running", None)) == 2
    ledger.took("wait", 0.0)
    assert given.until(ledger.snapshot("running", None)) == 2
    given.came()
    assert given.until(ledger.snapshot("running", None)) == 2
    ledger.took("wait", 0.0)
    assert given.until(ledger.snapshot("running", None)) == 3
