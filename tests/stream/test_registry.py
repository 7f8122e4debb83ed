"""Open sessions by key: they never meet, are closed when they must be, and free what they held."""

import gc
import logging
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest
import torch

from live2diff_core.errors import ConfigError, StreamClosed
from live2diff_core.frames import Frame
from live2diff_core.stream.registry import SessionRegistry
from live2diff_core.stream.session import Session
from tests.tiny import make_frames, open_session, reference, same, stream_config

WARM, COUNT = 8, 14
PROMPTS = ("ink", "neon")


class Owner:
    """What sessions belong to."""


class Interrupt(BaseException):
    """A host's interrupt, which is no Exception."""


def warmed(prompt: str = "ink") -> Session:
    session = open_session(prompt=prompt)
    session.warmup(make_frames(WARM))
    return session


def make_registry(limit: int = 4) -> SessionRegistry[Session]:
    return SessionRegistry(limit)


def push(
    registry: SessionRegistry[Session],
    key: object,
    owner: object,
    frames: Sequence[Frame],
    prompt: str = "ink",
) -> list[Frame]:
    """A run of a graph: frames through the session of a key."""
    with registry.open(key, owner, lambda: warmed(prompt)) as session:
        return session.push(frames)


def use(registry: SessionRegistry[Session], key: object, owner: object) -> Session:
    """Open a session and leave it at once."""
    with registry.open(key, owner, open_session) as session:
        return session


def keys(registry: SessionRegistry[Session]) -> list[object]:
    return [found.key for found in registry.snapshot()]


def is_closed(session: Session) -> bool:
    try:
        session.reset()
    except StreamClosed:
        return True
    return False


def expected(prompt: str) -> list[Frame]:
    """What a session of its own gives for the frames after the warm-up; the last is in flight."""
    return list(reference(COUNT, stream_config(), prompt)[WARM : COUNT - 1])


# ---- sessions do not meet


def test_two_keys_of_one_owner_are_each_as_if_alone():
    registry, owner = make_registry(), Owner()
    out: dict[str, list[Frame]] = {prompt: [] for prompt in PROMPTS}
    for frame in make_frames(COUNT)[WARM:]:
        for prompt in PROMPTS:
            out[prompt] += push(registry, prompt, owner, [frame], prompt)
    assert all(same(out[prompt], expected(prompt)) for prompt in PROMPTS)


def test_threads_with_keys_of_their_own_do_not_meet():
    registry, owner, frames = make_registry(), Owner(), make_frames(COUNT)[WARM:]

    def run(prompt: str) -> list[Frame]:
        return [
            done
            for frame in frames
            for done in push(registry, (prompt, "node"), owner, [frame], prompt)
        ]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, PROMPTS))
    assert all(same(ours, expected(prompt)) for ours, prompt in zip(results, PROMPTS, strict=True))


def test_another_owner_closes_the_session_of_the_key_and_has_one_of_its_own():
    registry, old, new = make_registry(), Owner(), Owner()
    frames = make_frames(COUNT)[WARM:]
    push(registry, "a", old, frames[:3])
    replaced = registry.snapshot()[0].session
    assert same(push(registry, "a", new, frames), expected("ink"))
    assert is_closed(replaced)
    assert keys(registry) == ["a"]


def test_owners_are_told_apart_even_if_they_are_equal():
    class Equal(Owner):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None

    registry, owners = make_registry(), (Equal(), Equal())
    first, second = (use(registry, "a", owner) for owner in owners)
    assert first is not second
    assert is_closed(first)


# ---- what ends a session


def open_one() -> tuple[SessionRegistry[Session], Owner, list["weakref.ref[torch.Tensor]"]]:
    """A registry with a warm session under "a", its owner, and references to the cache."""
    registry, owner = make_registry(), Owner()
    with registry.open("a", owner, warmed) as session:
        layers = session._pipeline.state.layers
        held = [weakref.ref(tensor) for layer in layers for tensor in (layer.key, layer.value)]
    return registry, owner, held


def freed(held: list["weakref.ref[torch.Tensor]"]) -> bool:
    return bool(held) and all(reference() is None for reference in held)


def test_close_frees_the_cache():
    registry, _, held = open_one()
    assert not freed(held)
    assert registry.close("a")
    assert freed(held)
    assert not registry.close("a")


def test_close_all_frees_every_cache_and_says_how_many():
    registry, owner, held = open_one()
    other = use(registry, "b", owner)
    assert registry.close_all() == 2
    assert freed(held)
    assert is_closed(other)
    assert registry.close_all() == 0


def test_an_owner_that_is_gone_takes_its_sessions_with_it():
    registry, owner, held = open_one()
    other, stays = use(registry, "b", owner), Owner()
    use(registry, "c", stays)
    del owner
    assert freed(held)
    assert is_closed(other)
    assert keys(registry) == ["c"]


@pytest.mark.parametrize("error", [RuntimeError, Interrupt, KeyboardInterrupt])
def test_what_breaks_a_run_off_closes_the_session_and_comes_through(error):
    registry, owner, held = open_one()
    with pytest.raises(error), registry.open("a", owner, warmed):
        raise error
    assert freed(held)
    assert keys(registry) == []
    frames = make_frames(COUNT)[WARM:]
    assert same(push(registry, "a", owner, frames), expected("ink"))


def test_a_session_that_cannot_be_made_leaves_nothing_behind():
    registry, owner = make_registry(1), Owner()

    def fail() -> Session:
        raise MemoryError

    with pytest.raises(MemoryError), registry.open("a", owner, fail):
        raise AssertionError("there is no session")
    assert use(registry, "b", owner)
    assert keys(registry) == ["b"]


def test_an_owner_without_weak_references_leaves_nothing_behind():
    registry = make_registry(1)
    with pytest.raises(TypeError, match="weak reference"):
        use(registry, "a", 5)
    use(registry, "b", Owner)
    assert keys(registry) == ["b"]


# ---- in use


@pytest.mark.parametrize("end", [lambda r: r.close("a"), lambda r: r.close_all()])
def test_a_session_in_use_is_closed_when_it_is_left(end):
    registry, owner, held = open_one()
    frames = make_frames(COUNT)[WARM:]
    with registry.open("a", owner, warmed) as session:
        assert end(registry) == 1
        assert same(session.push(frames), expected("ink"))
    assert is_closed(session)
    assert freed(held)
    assert keys(registry) == []


def test_an_owner_lives_as_long_as_its_session_is_in_use():
    registry, owner = make_registry(), Owner()
    with registry.open("a", owner, open_session) as session:
        del owner
        gc.collect()
        assert not is_closed(session)
    gc.collect()
    assert is_closed(session)
    assert keys(registry) == []


def test_a_session_is_used_by_one_at_a_time():
    registry, owner = make_registry(), Owner()
    with registry.open("a", owner, open_session) as session:
        for other in (owner, Owner()):
            with pytest.raises(ConfigError, match="session a is in use"):
                use(registry, "a", other)
        assert not is_closed(session)
    assert use(registry, "a", owner) is session


def test_others_need_not_wait_for_a_session_that_is_being_made():
    registry, owner = make_registry(), Owner()
    making, go_on = Event(), Event()

    def slow() -> Session:
        making.set()
        assert go_on.wait(60)
        return open_session()

    def run() -> None:
        with registry.open("slow", owner, slow):
            pass

    thread = Thread(target=run)
    thread.start()
    assert making.wait(60)
    use(registry, "b", owner)
    assert keys(registry) == ["b"]
    assert registry.close("slow")
    go_on.set()
    thread.join()
    assert keys(registry) == ["b"]


# ---- the limit


def test_the_least_recently_used_session_makes_room(caplog):
    registry, owner = make_registry(2), Owner()
    first, second = use(registry, "a", owner), use(registry, "b", owner)
    assert use(registry, "a", owner) is first
    with caplog.at_level(logging.INFO):
        use(registry, "c", owner)
    assert keys(registry) == ["a", "c"]
    assert is_closed(second)
    assert not is_closed(first)
    assert "session b is closed" in caplog.text


def test_a_session_in_use_never_makes_room():
    registry, owner = make_registry(2), Owner()
    with registry.open("a", owner, open_session) as first:
        use(registry, "b", owner)
        with registry.open("c", owner, open_session):
            assert not is_closed(first)
            with pytest.raises(ConfigError, match="2 sessions are in use and 2 may be open"):
                use(registry, "d", owner)
    assert keys(registry) == ["c", "a"]


def test_a_lower_limit_takes_effect_when_the_next_session_is_opened():
    limit, owner = [3], Owner()
    registry: SessionRegistry[Session] = SessionRegistry(lambda: limit[0])
    sessions = [use(registry, key, owner) for key in "abc"]
    limit[0] = 1
    assert use(registry, "a", owner) is sessions[0]
    assert sorted(keys(registry)) == ["a", "b", "c"]
    use(registry, "d", owner)
    assert keys(registry) == ["d"]
    assert all(map(is_closed, sessions))


# ---- from one key to another


def test_a_warm_session_goes_to_the_first_that_adopts_it():
    registry, owner = make_registry(), Owner()
    frames = make_frames(COUNT)[WARM:]
    with registry.open("warm-up", owner, warmed) as session:
        pass
    assert registry.adopt("warm-up", "first", owner)
    assert not registry.adopt("warm-up", "second", owner)
    assert same(push(registry, "first", owner, frames), expected("ink"))
    assert same(push(registry, "second", owner, frames), expected("ink"))
    assert [found.session is session for found in registry.snapshot()] == [True, False]


def test_an_adopted_session_replaces_that_of_another_owner():
    registry, old, new = make_registry(), Owner(), Owner()
    before, after = use(registry, "a", old), use(registry, "warm-up", new)
    assert registry.adopt("warm-up", "a", new)
    assert is_closed(before)
    assert use(registry, "a", new) is after
    assert keys(registry) == ["a"]


def test_a_running_session_is_not_replaced_by_a_warm_one():
    registry, owner = make_registry(), Owner()
    running = use(registry, "a", owner)
    use(registry, "warm-up", owner)
    assert not registry.adopt("warm-up", "a", owner)
    assert use(registry, "a", owner) is running


def test_neither_another_owners_session_nor_one_in_use_is_adopted():
    registry, owner, other = make_registry(), Owner(), Owner()
    use(registry, "a", owner)
    assert not registry.adopt("a", "b", other)
    with registry.open("a", owner, open_session):
        assert not registry.adopt("a", "b", owner)
    with registry.open("b", other, open_session):
        assert not registry.adopt("a", "b", owner)
    assert sorted(keys(registry)) == ["a", "b"]


def test_an_adopted_session_ends_with_its_owner():
    registry, owner = make_registry(), Owner()
    session = use(registry, "warm-up", owner)
    registry.adopt("warm-up", "a", owner)
    del owner
    gc.collect()
    assert is_closed(session)


# ---- what there is


def test_a_snapshot_tells_what_each_session_did_and_holds():
    registry, owner = make_registry(), Owner()
    use(registry, ("client", "7"), owner)
    with registry.open("b", owner, warmed) as session:
        session.push(make_frames(3, first=WARM))
        idle, busy = registry.snapshot()
    assert (idle.key, idle.busy, idle.frames_in, idle.frames_out) == (("client", "7"), False, 0, 0)
    assert (busy.session, busy.busy) == (session, True)
    assert (busy.frames_in, busy.frames_out, busy.in_flight) == (WARM + 3, WARM + 2, 1)
    assert busy.state_bytes == session.spec.state_bytes > 0
    assert not registry.snapshot()[1].busy


def test_owners_collected_while_threads_open_and_close_leave_nothing_open():
    registry, sessions = make_registry(3), []

    def run(name: str) -> None:
        for _ in range(30):
            owner = Owner()
            owner.itself = owner  # only the collector ends it, on whatever thread it runs
            sessions.append(use(registry, name, owner))
            registry.snapshot()
            gc.collect(0)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, "abc"))
    gc.collect()
    assert keys(registry) == []
    assert len(sessions) == 90
    assert all(map(is_closed, sessions))
