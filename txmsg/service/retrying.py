"""The service's delayed retries: from its settings to a :class:`txmsg.amqp.RetryPolicy`.

With `declare` the policy declares the work queue, too, with the dead letter queue as the place for what is rejected.
Without it that queue is somebody else's and is left as it is; only the queues of the retries are declared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from txmsg.amqp import Delivery, Publisher, RecoveringChannel
from txmsg.amqp.recovery.retry import RetryPolicy
from txmsg.errors import ConfigurationError
from txmsg.service.config import ConsumerConfig
from txmsg.service.settings import SettingError

__all__ = ["ServiceRetry", "dead_letter_policy", "retry_policy"]


def retry_policy(config: ConsumerConfig) -> RetryPolicy | None:
    """The policy for `config`; None without `retry_delays`.  Raises SettingError."""
    return _policy(config, config.retry_delays, "retry_delays") if config.retry_delays else None


def dead_letter_policy(config: ConsumerConfig) -> RetryPolicy:
    """A policy without retries: what it is given goes to the dead letter queue at once.  Raises SettingError."""
    return _policy(config, (), "dead_letter")


def _policy(config: ConsumerConfig, delays: tuple[float, ...], what: str) -> RetryPolicy:
    kind = config.queue_arguments.get("x-queue-type")
    try:
        return RetryPolicy(
            config.queue,
            delays=delays,
            dead_letter=config.dead_letter,
            durable=config.durable,
            queue_type=kind if kind in ("classic", "quorum") else None,
            arguments=config.queue_arguments,
        )
    except ConfigurationError as error:
        raise SettingError(f"{what}: {error}") from None


class ServiceRetry:
    """What declares the queues of the retries, and sends failed messages there.   publisher: what publishes."""

    def __init__(self, config: ConsumerConfig, policy: RetryPolicy, publisher: Publisher) -> None:
        self._config = config
        self._policy = policy
        self._publisher = publisher

    def declare(self, channel: RecoveringChannel) -> Deferred[None]:
        """Declare the delay queues, the dead letter queue and, with the setting `declare`, the work queue."""
        return self._policy.declare(_Declarations(self._config, channel))

    def retry(self, delivery: Delivery, error: BaseException) -> Deferred[float | None]:
        """Publish it for its next try, then ack it; fires with the seconds until then, None: no more tries."""
        return self._policy.retry(self._publisher, delivery, error).addCallback(lambda step: step.delay)


class _Declarations:
    """The channel as the policy sees it, with the service's own word on the work queue."""

    def __init__(self, config: ConsumerConfig, channel: RecoveringChannel) -> None:
        self._config = config
        self._channel = channel

    @property
    def queue_declare(self) -> Callable[..., Deferred[Any]]:
        return self._declare

    def _declare(self, queue: str, **details: Any) -> Deferred[Any]:
        if queue != self._config.queue:
            return self._channel.queue_declare(queue, **details)
        if not self._config.declare:
            return succeed(None)
        return self._channel.queue_declare(queue, auto_delete=self._config.auto_delete, **details)
