"""`FlowTransport` against the transports that it stands for: one table, both must agree.

Each scenario drives a connection and is run twice, on the double and on a real loopback
connection of the same kind; what the protocol, the producer and the peer saw must be equal.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from pytest_twisted import ensureDeferred

from tests.live.connections import Connection, DoubleConnection, Kind, RealConnection

Scenario = Callable[[Connection], Awaitable[None]]

KIB = 1024
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Put a scenario into the table."""
    SCENARIOS[function.__name__] = function
    return function


def raised(action: Callable[[], object]) -> str:
    """The name of what *action* raises."""
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "nothing"


async def observed(connection: Connection, play: Scenario) -> list[object]:
    """What is seen on *connection* when the scenario is played."""
    try:
        await play(connection)
        seen = [*connection.events, ("peer got", len(connection.peer_got))]
    finally:
        await connection.end()
    return seen


# Writing.


@scenario
async def writes_of_other_types(c: Connection) -> None:
    await c.open()
    for data in (bytearray(b"a"), memoryview(b"b"), "c", None):
        c.events.append(raised(partial(c.transport.write, data)))
        c.events.append(raised(partial(c.transport.writeSequence, (b"d", data))))
    c.transport.write(b".")
    c.peer_listens()
    await c.until(lambda: c.peer_got.endswith(b"."))
    c.events.append(c.peer_got)


@scenario
async def sequences(c: Connection) -> None:
    await c.open()
    c.transport.writeSequence(piece for piece in (b"a generator,", b" lost "))
    c.transport.writeSequence((b"a tuple, ", b"kept "))
    c.transport.writeSequence([b"a list, ", b"kept "])
    c.transport.writeSequence(())
    c.peer_listens()
    await c.until(lambda: c.peer_got.endswith(b"list, kept "))
    c.events.append(c.peer_got)


@scenario
async def repeated_pauses(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    for _ in range(20):
        c.transport.write(bytes(16 * KIB))
    await c.peer_reads(320 * KIB)
    await c.until(lambda: "resume" in c.events)
    c.transport.unregisterProducer()


@scenario
async def one_long_sequence_pauses_once(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.transport.writeSequence([bytes(16 * KIB)] * 20)
    await c.peer_reads(320 * KIB)
    await c.until(lambda: "resume" in c.events)
    c.transport.unregisterProducer()


@scenario
async def the_mark_itself_does_not_pause(c: Connection) -> None:
    # TLS counts what its records add: 64 000 bytes and the aggregator's own limit stay below.
    await c.open()
    c.transport.registerProducer(c.producer, True)
    size = 64 * KIB if c.kind == "tcp" else 64_000
    c.transport.write(bytes(size))
    await c.peer_reads(size)
    await c.quiet()
    c.transport.unregisterProducer()


@scenario
async def resumes_only_when_empty(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.transport.write(bytes(24 * KIB * KIB))
    await c.peer_reads(KIB * KIB)
    await c.quiet()
    c.events.append("a part was read")
    await c.peer_reads(24 * KIB * KIB)
    await c.until(lambda: "resume" in c.events)
    c.transport.unregisterProducer()


@scenario
async def buffer_size_is_the_mark(c: Connection) -> None:
    await c.open()
    c.transport.bufferSize = 256 * KIB
    c.transport.registerProducer(c.producer, True)
    c.transport.write(bytes(200 * KIB))
    c.events.append("200 KiB written")
    c.transport.write(bytes(100 * KIB))
    await c.peer_reads(300 * KIB)
    await c.until(lambda: "resume" in c.events)
    c.transport.unregisterProducer()


@scenario
async def writes_in_connection_made(c: Connection) -> None:
    def made() -> None:
        c.transport.registerProducer(c.producer, True)
        c.transport.write(b"before the handshake")
        c.events.append("made")

    c.subject.on_made = made
    await c.open()
    await c.peer_reads(20)
    c.events.append(c.peer_got)
    c.transport.unregisterProducer()


# Registering.


@scenario
async def a_second_producer(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.events.append(raised(lambda: c.transport.registerProducer(c.producer, True)))
    c.transport.unregisterProducer()
    c.events.append(raised(c.transport.unregisterProducer))
    c.events.append(raised(lambda: c.transport.registerProducer(c.producer, True)))
    c.transport.unregisterProducer()


@scenario
async def a_producer_for_a_dead_transport(c: Connection) -> None:
    await c.open()
    transport = c.transport
    transport.abortConnection()
    await c.lost()
    transport.registerProducer(c.producer, True)
    c.events.append(raised(lambda: transport.write(b"late")))
    c.events.append(raised(transport.loseConnection))
    c.events.append(raised(transport.abortConnection))
    c.events.append(raised(transport.unregisterProducer))


# Closing.


@scenario
async def close_after_unregistering(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.transport.write(bytes(300 * KIB))
    c.transport.write(b"last")
    c.transport.unregisterProducer()
    c.transport.loseConnection()
    c.events.append(bool(c.transport.disconnecting))
    c.peer_listens()
    await c.lost()
    await c.until(lambda: len(c.peer_got) == 300 * KIB + 4)


@scenario
async def close_with_an_unpaused_producer(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.transport.write(b"early")
    c.transport.loseConnection()
    c.peer_listens()
    await c.until(lambda: c.peer_got == b"early")
    await c.quiet()
    c.transport.write(b"LATE")
    c.transport.unregisterProducer()
    await c.lost()
    await c.quiet()
    c.events.append(c.peer_got)


@scenario
async def close_with_a_paused_producer_that_finishes(c: Connection) -> None:
    def finish() -> None:
        c.transport.write(b"x" * 70_000)
        c.transport.write(b"small")
        c.transport.unregisterProducer()

    await c.open()
    c.producer.on_resume = finish
    c.transport.registerProducer(c.producer, True)
    c.transport.write(bytes(300 * KIB))
    c.transport.loseConnection()
    c.peer_listens()
    await c.lost()
    await c.quiet()


@scenario
async def close_with_a_paused_producer_that_does_nothing(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.transport.write(bytes(300 * KIB))
    c.transport.loseConnection()
    c.peer_listens()
    await c.until(lambda: "resume" in c.events)
    await c.quiet()
    c.events.append("still open")
    c.peer_resets()
    await c.quiet()
    c.events.append(c.subject.lost)


@scenario
async def write_between_close_and_flush(c: Connection) -> None:
    await c.open()
    c.transport.write(b"early")
    c.transport.loseConnection()
    c.transport.write(b" late")
    c.peer_listens()
    await c.lost()
    await c.quiet()
    c.events.append(c.peer_got)


@scenario
async def close_twice(c: Connection) -> None:
    await c.open()
    c.transport.loseConnection()
    c.transport.loseConnection()
    c.peer_listens()
    await c.lost()


@scenario
async def close_in_connection_made(c: Connection) -> None:
    c.subject.on_made = lambda: c.transport.loseConnection()
    await c.open()
    c.peer_listens()
    await c.lost()


@scenario
async def close_before_a_mute_peer(c: Connection) -> None:
    await c.open()
    c.transport.loseConnection()
    await c.quiet()
    c.events.append("waited")
    c.peer_listens()
    await c.lost()


@scenario
async def close_while_reading_is_paused(c: Connection) -> None:
    await c.open()
    c.peer_listens()
    c.transport.pauseProducing()
    c.transport.loseConnection()
    await c.quiet()
    c.events.append(c.subject.lost)


@scenario
async def stop_producing(c: Connection) -> None:
    await c.open()
    c.peer_listens()
    c.transport.stopProducing()
    await c.lost()


@scenario
async def abort(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.transport.write(bytes(300 * KIB))
    c.transport.abortConnection()
    c.events.append("aborted")
    await c.lost()


@scenario
async def abort_after_close(c: Connection) -> None:
    await c.open()
    c.transport.write(bytes(24 * KIB * KIB))
    c.transport.loseConnection()
    await c.quiet()
    c.events.append("waited")
    c.transport.abortConnection()
    c.transport.abortConnection()
    c.events.append("aborted")
    await c.lost()
    c.events.append(len(c.peer_got))


@scenario
async def close_after_abort(c: Connection) -> None:
    await c.open()
    c.transport.abortConnection()
    c.transport.loseConnection()
    await c.lost()


# The peer.


@scenario
async def peer_closes(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.peer_closes()
    c.peer_listens()
    await c.lost() if c.kind == "tcp" else await c.quiet()
    c.events.append("quiet")
    c.transport.unregisterProducer()
    await c.lost()


@scenario
async def peer_resets_with_a_paused_producer(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.transport.write(bytes(24 * KIB * KIB))
    await c.quiet()
    c.peer_resets()
    await c.lost()


@scenario
async def peer_resets(c: Connection) -> None:
    await c.open()
    c.transport.registerProducer(c.producer, True)
    c.peer_resets()
    await c.lost()


@scenario
async def peer_closes_while_reading_is_paused(c: Connection) -> None:
    await c.open()
    c.transport.pauseProducing()
    c.peer_closes()
    c.peer_listens()
    await c.quiet()
    c.events.append("quiet")
    c.transport.resumeProducing()
    await c.lost()


@scenario
async def peer_resets_while_reading_is_paused(c: Connection) -> None:
    await c.open()
    c.transport.pauseProducing()
    c.peer_resets()
    await c.quiet()
    c.events.append("quiet")
    c.transport.write(b"are you there?")
    await c.lost()


@scenario
async def write_to_a_peer_that_closed_while_reading_is_paused(c: Connection) -> None:
    await c.open()
    c.transport.pauseProducing()
    c.peer_closes()
    c.peer_listens()
    await c.quiet()
    for _ in range(3):
        c.transport.write(b"are you there?")
        await c.quiet()
    c.events.append(c.subject.lost)


# Reading.


@scenario
async def reads_after_a_pause(c: Connection) -> None:
    await c.open()
    c.transport.pauseProducing()
    await c.peer_sends(bytes(300 * KIB))
    await c.quiet()
    c.events.append("sent")
    c.subject.on_data = lambda data: c.transport.pauseProducing()
    c.transport.resumeProducing()
    c.events.append("resumed")
    await c.quiet()


@scenario
async def close_in_data_received(c: Connection) -> None:
    await c.open()
    c.transport.pauseProducing()
    await c.peer_sends(bytes(300 * KIB))
    await c.quiet()
    c.peer_listens()
    c.subject.on_data = lambda data: c.transport.loseConnection()
    c.transport.resumeProducing()
    await c.lost()


@scenario
async def abort_in_data_received(c: Connection) -> None:
    await c.open()
    c.transport.pauseProducing()
    await c.peer_sends(bytes(300 * KIB))
    await c.quiet()
    c.subject.on_data = lambda data: c.transport.abortConnection()
    c.transport.resumeProducing()
    await c.lost()


@scenario
async def an_error_in_data_received(c: Connection) -> None:
    def fail(data: bytes) -> None:
        raise LookupError("not Twisted's")

    await c.open()
    c.transport.pauseProducing()
    await c.peer_sends(bytes(300 * KIB))
    await c.quiet()
    c.subject.on_data = fail
    c.transport.registerProducer(c.producer, True)
    c.transport.resumeProducing()
    await c.quiet()


@scenario
async def buffer_size_is_the_read_size(c: Connection) -> None:
    await c.open()
    c.transport.pauseProducing()
    await c.peer_sends(bytes(300 * KIB))
    await c.quiet()
    c.transport.bufferSize = 16 * KIB
    c.subject.on_data = lambda data: c.transport.pauseProducing()
    c.transport.resumeProducing()
    await c.quiet()


# Options.


@scenario
async def socket_options(c: Connection) -> None:
    await c.open()
    c.transport.setTcpNoDelay(True)
    c.transport.setTcpKeepAlive(True)
    c.events.append((c.transport.getTcpNoDelay(), c.transport.getTcpKeepAlive()))
    c.transport.setTcpNoDelay(False)
    c.events.append(c.transport.getTcpNoDelay())
    c.events.append((c.transport.getHost().host, c.transport.getPeer().host))
    c.events.append(c.transport.getHandle() is not None)


# Twisted 26.10 with pyOpenSSL 26.4, in a server's certificate options.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("name", SCENARIOS)
@ensureDeferred
async def test_behaves_as_the_real_transport(name: str, kind: Kind) -> None:
    """The double and the real transport of its kind show the same in each scenario."""
    real = await observed(RealConnection(kind), SCENARIOS[name])
    double = await observed(DoubleConnection(kind), SCENARIOS[name])
    assert double == real, inspect.getsource(SCENARIOS[name])
