"""A broker on a clock, and questions to its management API without HTTP."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.server_peer import make_broker
from txmsg.broker.management.api import ManagementAPI
from txmsg.broker.management.calls import Answer, encode

__all__ = ["ManagementTestCase"]


class ManagementTestCase(SynchronousTestCase):
    """Asks as guest, an administrator, unless told otherwise."""

    #: More for the broker's constructor.
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = make_broker(self.clock, **self.options)
        self.successResultOf(self.broker.start())
        self.api = ManagementAPI(self.broker)
        self.vhost = self.broker.vhosts["/"]

    def add_user(self, name: str, *tags: str, permissions: str | None = ".*") -> None:
        """A user, with that one pattern three times in "/", or with no access at all."""
        self.broker.users.add(name, "secret", tags)
        if permissions is not None:
            self.broker.users.set_permissions(name, "/", permissions, permissions, permissions)

    def answer(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        user: str = "guest",
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """The answer to a question; its body as a client would read it."""
        found = self.broker.users.get(user)
        assert found is not None
        bare, _, query = path.partition("?")
        content = raw if raw is not None else b"" if document is None else json.dumps(document).encode()
        segments = [unquote(segment) for segment in bare.split("/")]
        asked = self.api.answer(found, method, segments, dict(parse_qsl(query)), headers or {}, content)
        answer: Answer = self.successResultOf(asked)
        return Answer(answer.status, json.loads(encode(answer.body)), answer.headers)

    def get(self, path: str, *, user: str = "guest") -> Any:
        """The JSON of a 200."""
        answer = self.answer("GET", path, user=user)
        self.assertEqual(answer.status, 200, answer)
        return answer.body

    def do(self, method: str, path: str, document: Any = None, *, user: str = "guest") -> int:
        """The status of a change that is done."""
        answer = self.answer(method, path, document, user=user)
        self.assertIn(answer.status, (200, 201, 204), answer)
        return answer.status

    def refused(self, method: str, path: str, document: Any = None, **options: Any) -> tuple[int, str, Any]:
        """The status, the `error` and the `reason` of a refusal."""
        answer = self.answer(method, path, document, **options)
        self.assertGreaterEqual(answer.status, 400, answer)
        self.assertEqual(sorted(answer.body), ["error", "reason"])
        return answer.status, answer.body["error"], answer.body["reason"]
