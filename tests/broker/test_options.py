"""The settings of `twistd txmsg-broker`: from the command line and the environment to a configuration."""

from __future__ import annotations

import os

import pytest

from txmsg.broker.kinds import Address, Flag, ListenAddress, Number, Size, Text
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.options import DEFAULT_LISTEN, SETTINGS, BrokerConfig, OptionError, load_options, nearest_option


def refusal(given: dict[str, object], environ: dict[str, str] | None = None) -> OptionError:
    with pytest.raises(OptionError) as caught:
        load_options(given, environ or {})
    return caught.value


def test_nothing_given() -> None:
    """R37: loopback, in memory, all limits on."""
    config = load_options({}, {})
    assert config == BrokerConfig()
    assert config.uses_default_addresses
    assert all(address.is_loopback for address in DEFAULT_LISTEN)
    assert (config.data_dir, config.management, config.limits) == (None, None, BrokerLimits())


def test_every_setting_has_help_and_a_name_of_its_own() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    for setting in SETTINGS:
        assert setting.help.endswith("."), setting.name
        assert setting.is_flag or setting.metavar, setting.name


def test_no_setting_takes_a_password() -> None:
    """C3.5: command lines can be seen by everybody on the machine."""
    assert not [setting.name for setting in SETTINGS if "password" in setting.name]


def test_an_option_wins_over_the_environment() -> None:
    environ = {"TXMSG_BROKER_LISTEN": "127.0.0.1:1, [::1]:2", "TXMSG_BROKER_STRICT_4": "yes", "TXMSG_BROKER_USERS": ""}
    config = load_options({}, environ)
    assert config.listen == (Address("127.0.0.1", 1), Address("::1", 2))
    assert (config.strict_4, config.users) == (True, None)
    config = load_options({"listen": ["127.0.0.1:3"]}, environ)
    assert config.listen == (Address("127.0.0.1", 3),)


def test_limits() -> None:
    """C7.3: each has an option."""
    config = load_options(
        {"max_memory": "1g", "max_message_size": "2MiB", "max_connections": "5", "heartbeat": "0"}, {}
    )
    assert config.limits == BrokerLimits(broker_bytes=1 << 30, max_message_size=2 << 20, connections=5, heartbeat=0)
    assert load_options({"handshake_timeout": "2.5"}, {}).limits.handshake_timeout == 2.5


def test_paths_are_absolute() -> None:
    """A daemon may leave the directory it was started in."""
    given = {"data_dir": "data", "users": "users.toml", "definitions": "/etc/definitions.json"}
    config = load_options(given, {"TXMSG_BROKER_DATA_DIR": "other"})
    here = os.getcwd()
    assert (config.data_dir, config.users) == (f"{here}/data", f"{here}/users.toml")
    assert config.definitions == "/etc/definitions.json"


@pytest.mark.parametrize("name", ["listen", "management"])
@pytest.mark.parametrize("address", ["0.0.0.0:5672", "[::]:5672", "192.0.2.1:5672"])
def test_other_machines(name: str, address: str) -> None:
    """C7.1, R37: an address beyond this machine needs TLS, or the words that say that it may be read."""
    value: object = [address] if name == "listen" else address
    error = refusal({name: value})
    assert error.on_command_line
    assert "--allow-remote-plaintext" in str(error)
    config = load_options({name: value, "allow_remote_plaintext": True}, {})
    assert config.allow_remote_plaintext
    if name == "listen":
        assert load_options({"tls_listen": [address], "tls_cert": "cert.pem"}, {}).tls_listen


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"listen": ["5672"]}, "must be HOST:PORT"),
        ({"listen": ["localhost:http"]}, "must be HOST:PORT"),
        ({"listen": ["127.0.0.1:65536"]}, "must be HOST:PORT"),
        ({"listen": ["::1:5672"]}, "in brackets"),
        ({"listen": ["broker.example:5672"]}, "IP address"),
        ({"listen": [":5672"]}, "IP address"),
        ({"tls_listen": ["127.0.0.1:1"]}, "set --tls-cert too"),
        ({"tls_cert": "c.pem"}, "no effect without --tls-listen"),
        ({"tls_key": "k.pem"}, "no effect without --tls-listen"),
        ({"tls_listen": ["127.0.0.1:1"], "tls_cert": "c", "tls_verify": "optional"}, "no effect without --tls-ca"),
        ({"tls_verify": "never"}, "must be required or optional"),
        ({"max_memory": "many"}, "such as 16MiB"),
        ({"max_memory": "1"}, "must be from 1048576"),
        ({"max_memory": "2MiB", "max_queue_memory": "3MiB"}, "must not be above --max-memory"),
        ({"max_connections": "0"}, "must be an integer from 1"),
        ({"max_connections": "1.5"}, "must be an integer from 1"),
        ({"heartbeat": "65536"}, "from 0 to 65535"),
        ({"handshake_timeout": "nan"}, "must be a number"),
        ({"data_dir": ""}, "not empty"),
        ({"users": "a\0b"}, "not empty"),
    ],
)
def test_refused(given: dict[str, object], said: str) -> None:
    error = refusal(given)
    assert error.on_command_line
    assert said in str(error)
    assert str(error).startswith("option --")


def test_refused_in_the_environment() -> None:
    error = refusal({}, {"TXMSG_BROKER_STRICT_4": "perhaps"})
    assert not error.on_command_line
    assert str(error) == "environment variable TXMSG_BROKER_STRICT_4: must be true or false, not 'perhaps'"


def test_the_nearest_option() -> None:
    assert nearest_option("lisen") == "did you mean --listen?"
    assert "--help" in nearest_option("zzz")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("65536", 65536), ("64k", 65536), ("64KiB", 65536), ("64 kb", 65536), ("1m", 1 << 20), ("2G", 2 << 30)],
)
def test_sizes(text: str, expected: int) -> None:
    assert Size(1).from_text(text) == expected


@pytest.mark.parametrize("text", ["", "k", "1.5m", "-1", "1e6", "1 m b", "9" * 30, "\u0663m"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Size(1).from_text(text)


@pytest.mark.parametrize(
    ("text", "shown"), [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:5672", "[::1]:5672"), ("localhost:1", "127.0.0.1:1")]
)
def test_addresses(text: str, shown: str) -> None:
    assert str(ListenAddress().from_text(text)) == shown


def test_kinds() -> None:
    assert [Flag().from_text(word) for word in ("true", "YES", "1", "on")] == [True] * 4
    assert [Flag().from_text(word) for word in ("false", "No", "0", "off")] == [False] * 4
    assert Number(0, 5).from_text("5") == 5
    assert Text().from_text(" x ") == " x "
