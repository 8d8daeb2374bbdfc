"""Tests of the URLs of brokers: kombu A10 to A16."""

from __future__ import annotations

import contextlib
import pickle
import unittest

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError
from txmsg.messaging.connection.hidden import HiddenText
from txmsg.messaging.connection.url import BrokerURL, parse_url, split_urls

#: Texts that every part of a URL must be able to hold.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


class ParseTests(unittest.TestCase):
    """Taking a URL apart (kombu AC8)."""

    def test_all_parts(self) -> None:
        """Each part is where it belongs (kombu A10)."""
        url = parse_url("AMQP://user:secret@host:1234/vhost?a=1&b=2")
        self.assertEqual((url.scheme, url.userid, url.password), ("amqp", "user", "secret"))
        self.assertEqual((url.hostname, url.port, url.virtual_host), ("host", 1234, "vhost"))
        self.assertEqual(url.options, {"a": "1", "b": "2"})

    def test_nothing_but_a_scheme(self) -> None:
        """What is not there is None, and nothing is made up (kombu A10, A15)."""
        self.assertEqual(parse_url("amqp://"), BrokerURL("amqp"))

    def test_examples(self) -> None:
        """The URLs of Kombu's documentation (kombu A11)."""
        expected = {
            "amqp://": (None, None),
            "redis://localhost:6379/": ("localhost", ""),
            "redis+socket:///tmp/redis.sock": (None, "tmp/redis.sock"),
            "qpid://localhost/": ("localhost", ""),
            "amqp://localhost//foo": ("localhost", "/foo"),
            "amqp://localhost/foo": ("localhost", "foo"),
            "pyro://localhost/kombu.broker": ("localhost", "kombu.broker"),
        }
        found = {text: (url.hostname, url.virtual_host) for text in expected for url in [parse_url(text)]}
        self.assertEqual(found, expected)

    def test_virtual_hosts(self) -> None:
        """No path, an empty one, one and two slashes are four things (kombu A12, CN12)."""
        expected = {
            "amqp://h": None,
            "amqp://h/": "",
            "amqp://h//": "/",
            "amqp://h/%2F": "/",
            "amqp://h/%2f": "/",
            "amqp://h//foo": "/foo",
            "amqp://h///foo": "//foo",
            "amqp://h/foo": "foo",
            "amqp://h/foo/": "foo/",
            "amqp://h/a/b": "a/b",
            "amqp://h/%252F": "%2F",
        }
        self.assertEqual({text: parse_url(text).virtual_host for text in expected}, expected)

    def test_each_part_is_decoded_once(self) -> None:
        """A password with everything in it that could be taken for something else (kombu A14)."""
        url = parse_url("amqp://us%40er:%40%3A%2F%3F%23%25%3B%2541+%C3%A4@h%C3%B6st/v?k%20y=a+b%2B%2525")
        self.assertEqual((url.userid, url.password, url.hostname), ("us@er", "@:/?#%;%41+ä", "höst"))
        self.assertEqual(url.options, {"k y": "a b+%25"})

    def test_ipv6(self) -> None:
        """An address in brackets, with and without a port; as_uri puts them back."""
        url = parse_url("amqp://u:p@[::1]:5673/v")
        self.assertEqual((url.hostname, url.port), ("::1", 5673))
        self.assertEqual(url.as_uri(), "amqp://u:**@[::1]:5673/v")
        self.assertEqual(parse_url("amqp://[fe80::1]").hostname, "fe80::1")

    def test_several_plus(self) -> None:
        """A scheme with "+" survives, several too, and the path behind it stays one (kombu A52)."""
        for text in ("sqla+mysql+driver://u@h/db", "redis+socket:///tmp/redis.sock", "a+b.c-d://h"):
            with self.subTest(url=text):
                self.assertEqual(parse_url(text).as_uri(), text)

    def test_empty_password_and_user(self) -> None:
        """An empty password is one; an empty user is none."""
        self.assertEqual(parse_url("amqp://u:@h").password, "")
        self.assertIsNone(parse_url("amqp://u@h").password)
        self.assertIsNone(parse_url("amqp://:p@h").userid)
        self.assertEqual(parse_url("redis://:p@h").password, "p")

    @given(TEXTS, TEXTS, TEXTS, st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3))
    def test_round_trip(self, userid: str, password: str, vhost: str, options: dict[str, str]) -> None:
        """What as_uri quotes, parse_url reads (kombu A14, A30)."""
        url = BrokerURL("amqp", "h", 1, userid or None, HiddenText(password), vhost, options)
        self.assertEqual(parse_url(url.as_uri(include_password=True)), url)
        self.assertEqual(parse_url(url.as_uri(include_password=True)).options, options)


class RefusedTests(unittest.TestCase):
    """What is no URL."""

    def test_refused(self) -> None:
        """Each mistake is a ConfigurationError that says what to do, and shows nothing of the URL."""
        refused = {
            "localhost": "scheme",
            "//h": "scheme",
            "1amqp://h": "scheme",
            "amqp://h:0": "port",
            "amqp://h:65536": "port",
            "amqp://h:S3CRET": "port",
            "amqp://h:٣": "port",
            "amqp://::1:5672": "brackets",
            "amqp://[h]": "IPv6",
            "amqp://u:a@b@h": "two @",
            "amqp://u:a:b@h": "two colons",
            "amqp://u:S3/CRET@h": "%2F",
            "amqp://u:S3?CRET@h": "%3F",
            "amqp://u:S3#CRET@h": "%23",
            "amqp://u:S3 CRET@h": "white space",
            "amqp://u:S3\nCRET@h": "white space",
            "amqp://u:S3%CRET@h": "%25",
            "amqp://u:S3CRET%ff@h": "UTF-8",
            "amqp://h/v?a": "key=value",
            "amqp://h/v?=a": "key=value",
            "amqp://h/v?a=1&a=2": "twice",
            "amqp://h1;h2": "amqp://one;amqp://two",
            "amqp://h%2Fx": "no name of a host",
        }
        for text, expected in refused.items():
            with self.subTest(url=text):
                with self.assertRaises(ConfigurationError) as caught:
                    parse_url(text)
                self.assertIn(expected, str(caught.exception))
                self.assertNotIn("CRET", str(caught.exception))

    def test_no_secret_in_a_traceback(self) -> None:
        """kombu U5: a verbose traceback, with the local variables of all frames of ours, has no part of the URL."""

        def attempt() -> Failure:
            try:
                parse_url(HiddenText("amqp://user:S3CRET:S3CRET@h"))
            except ConfigurationError:
                return Failure(captureVars=True)
            raise AssertionError("it was read")

        self.assertNotIn("S3CRET", attempt().getTraceback(detail="verbose"))

    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """Whatever it is: a URL, or a ConfigurationError."""
        for candidate in (text, f"amqp://{text}"):
            with contextlib.suppress(ConfigurationError):
                parse_url(candidate)

    def test_no_text(self) -> None:
        """What is no str is refused."""
        self.assertRaises(ConfigurationError, parse_url, 5)
        self.assertRaises(ConfigurationError, parse_url, None)


class SplitTests(unittest.TestCase):
    """Several URLs in one text, or in a list."""

    def test_semicolons(self) -> None:
        """They separate only where the next URL begins (kombu A51)."""
        self.assertEqual(
            split_urls("amqp://a;amqps://b ; redis+socket:///c;"), ["amqp://a", "amqps://b", "redis+socket:///c"]
        )
        self.assertEqual(split_urls("amqp://u:a;b@h;amqp://c"), ["amqp://u:a;b@h", "amqp://c"])

    def test_names_of_hosts(self) -> None:
        """Without a scheme every one separates."""
        self.assertEqual(split_urls("one;two:5673"), ["one", "two:5673"])

    def test_lists(self) -> None:
        """A list of texts, each of which may hold several."""
        self.assertEqual(split_urls(["amqp://a;amqp://b", "c"]), ["amqp://a", "amqp://b", "c"])
        self.assertEqual(split_urls(url for url in ("amqp://a", "amqp://b")), ["amqp://a", "amqp://b"])

    def test_refused(self) -> None:
        """Nothing, and what is no text."""
        for wrong in ("", ";", [], [""], 5, [5], [b"amqp://"]):
            with self.subTest(urls=wrong):
                self.assertRaises(ConfigurationError, split_urls, wrong)


class HiddenTextTests(unittest.TestCase):
    """A str that does not show itself."""

    def test_it_is_a_str(self) -> None:
        """It compares, hashes and formats as one; a pickle holds a plain str."""
        hidden = HiddenText("S3CRET")
        self.assertEqual((hidden, hash(hidden), f"{hidden}"), ("S3CRET", hash("S3CRET"), "S3CRET"))
        self.assertIs(type(pickle.loads(pickle.dumps(hidden))), str)

    def test_repr(self) -> None:
        """Its repr, and that of what holds it, is a mask (kombu U5)."""
        url = BrokerURL("amqp", "h", password=HiddenText("S3CRET"), options={"password": "S3CRET"})
        for shown in (repr(HiddenText("S3CRET")), repr([HiddenText("S3CRET")]), repr(url), str(url), url.as_uri()):
            self.assertNotIn("S3CRET", shown)
        self.assertIn("S3CRET", url.as_uri(include_password=True))
        self.assertIn("//:xxx@", url.as_uri(mask="xxx"))
