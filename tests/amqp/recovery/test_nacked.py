"""A publisher whose channel gets nothing but nacks (R2, F16, F18)."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from txmsg.amqp import ReconnectingConnection
from txmsg.amqp.recovery import Publisher
from txmsg.errors import PublishNacked
from txmsg.testing.broker import EmbeddedBroker
from txmsg.testing.disruption import Simulation


def _declare(broker: EmbeddedBroker) -> None:
    broker.declare_queue("jobs", durable=True)


def _publisher(simulation: Simulation) -> tuple[ReconnectingConnection, Publisher]:
    connection = ReconnectingConnection(
        simulation.parameters(), reactor=simulation.clock, endpoint=simulation.endpoints()
    )
    simulation.run_until(connection.start())
    publisher = connection.publisher()
    simulation.run_until(publisher.publish("", "jobs", b"first"))
    return connection, publisher


def _publish_for(simulation: Simulation, publisher: Publisher, seconds: float) -> list[str]:
    """Publish ten times a second; how each ended, and when the channel was another one than before."""
    seen, channel = [], publisher._channel
    for _ in range(int(seconds * 10)):
        outcome = simulation.watch(publisher.publish("", "jobs", b"next"))
        simulation.advance(0.1)
        seen.append("nacked" if isinstance(outcome.error, PublishNacked) else "confirmed")
        if publisher._channel is not channel:
            channel = publisher._channel
            seen.append("opened anew")
    return seen


def _close(simulation: Simulation, connection: ReconnectingConnection, publisher: Publisher) -> None:
    closing: Deferred[object] = publisher.close().addCallback(lambda _: connection.close())
    simulation.run_until(closing)
    simulation.check()


def test_a_channel_of_which_all_is_refused() -> None:
    """F18, R2: after a second of nacks the channel is opened anew, and what comes then is confirmed there."""
    with Simulation(seed=1, set_up=_declare) as simulation:
        connection, publisher = _publisher(simulation)
        refusing = simulation.broker.embedded.faults.nack(routing_key="jobs", times=None)
        seen = _publish_for(simulation, publisher, 1.4)
        assert seen.count("opened anew") == 1
        assert seen.index("opened anew") in (10, 11, 12)
        refusing.stop()
        assert _publish_for(simulation, publisher, 1.0) == ["confirmed"] * 10
        assert connection.epoch == 1
        _close(simulation, connection, publisher)


def test_a_full_queue() -> None:
    """R12: a queue that refuses for long costs few channels: after 1, 2, 4, 8, 16, 30 seconds, and so on."""
    with Simulation(seed=1, set_up=_declare) as simulation:
        connection, publisher = _publisher(simulation)
        simulation.broker.embedded.faults.nack(routing_key="jobs", times=None)
        seen = _publish_for(simulation, publisher, 100)
        assert 5 <= seen.count("opened anew") <= 7
        assert "confirmed" not in seen
        _close(simulation, connection, publisher)


def test_some_nacks() -> None:
    """Nacks with confirms between them are no reason."""
    with Simulation(seed=1, set_up=_declare) as simulation:
        connection, publisher = _publisher(simulation)
        seen = []
        for _ in range(10):
            simulation.broker.embedded.faults.nack(routing_key="jobs", times=5)
            seen += _publish_for(simulation, publisher, 0.6)
        assert seen.count("nacked") == 50
        assert "opened anew" not in seen
        _close(simulation, connection, publisher)
