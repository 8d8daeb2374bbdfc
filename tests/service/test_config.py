"""Configuration: the four sources, their order, and everything that can be wrong with them."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest

from txmsg.amqp.secret import Secret
from txmsg.service.config import ConsumerConfig, load_config
from txmsg.service.settings import SETTINGS, SettingError, nearest_name

NEEDED = {"queue": "work", "handler": "tasks:run"}
CANARY = "c4n4ry-p4ss"


def load(environ: dict[str, str] | None = None, **options: Any) -> ConsumerConfig:
    return load_config({**NEEDED, **options}, environ or {})


def refused(environ: dict[str, str] | None = None, **options: Any) -> tuple[int, str]:
    """The exit code and the text of what load() raises; the text must be one line without the secret."""
    with pytest.raises(SettingError) as caught:
        load(environ, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert CANARY not in text
    # What a verbose traceback would print of our own frames.
    frames = [frame for frame, _ in traceback.walk_tb(caught.tb) if frame.f_globals["__name__"].startswith("txmsg")]
    assert frames
    assert CANARY not in repr([frame.f_locals for frame in frames])
    return caught.value.exit_code, text


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a configuration file (mode 600) and returns its path."""

    def write_file(text: str, name: str = "consumer.toml") -> str:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    return write_file


def test_defaults() -> None:
    """What the documentation says is the default is the default."""
    config = load()
    assert config == ConsumerConfig(queue="work", handler="tasks:run")
    assert (config.url, config.username, config.password) == ("amqp://localhost", None, None)
    assert (config.prefetch, config.concurrency, config.threads) == (20, 1, 0)
    assert (config.declare, config.durable, config.auto_delete, config.exclusive) == (False, True, False, False)
    assert (config.on_failure, config.requeue_delay, config.drain) == ("requeue_once", 1.0, 30.0)


def test_option_before_environment_before_file(write: Any) -> None:
    path = write('url = "amqp://file"\nusername = "file"\npassword = "file"\nprefetch = 5\n')
    environ = {"TXMSG_URL": "amqp://environment", "TXMSG_USERNAME": "environment"}
    config = load(environ, config=path)
    assert (config.url, config.username, config.prefetch) == ("amqp://environment", "environment", 5)
    assert config.password is not None
    assert config.password.reveal() == "file"
    config = load(environ, config=path, url="amqp://option", username="option", prefetch="7")
    assert (config.url, config.username, config.prefetch) == ("amqp://option", "option", 7)


def test_every_setting_can_stand_in_the_file(write: Any, tmp_path: Path) -> None:
    """The keys of the file are those of the options, with underscores; relative paths are relative to the file."""
    path = write(
        """
        url = "amqps://broker/shop"
        username = "bob"
        password = "pw"
        tls_ca = "ca.pem"
        tls_cert = "/etc/cert.pem"
        tls_key = "key.pem"
        heartbeat = 20
        connection_name = "shop"
        allow_plaintext_auth = true
        queue = "orders"
        declare = true
        durable = false
        auto_delete = true
        bind = ["events:order.*", "amq.fanout:", "x:a:b"]
        prefetch = 100
        concurrency = 4
        consumer_tag = "tag"
        exclusive = true
        host_order = "listed"
        start_limit = 0
        recovery_limit = 3600
        refused_limit = "unlimited"
        resubscribe_limit = "unlimited"
        attempt_timeout = 5
        backoff_initial = 0.1
        backoff_maximum = 10
        dedupe_window = 1000
        handler = "shop.tasks:handle"
        rpc = ["shop.prices:server"]
        celery = "shop.tasks:tasks"
        threads = 8
        on_failure = "retry"
        retry_delays = [1, 2.5]
        dead_letter = "orders.failed"
        publish_timeout = 5
        requeue_delay = 2
        drain = 12.5
        [queue_arguments]
        x-dead-letter-exchange = "dlx"
        x-max-length = 1000
        """
    )
    config = load_config({"config": path}, {})
    assert config == ConsumerConfig(
        url="amqps://broker/shop",
        username="bob",
        password=config.password,
        tls_ca=str(tmp_path / "ca.pem"),
        tls_cert="/etc/cert.pem",
        tls_key=str(tmp_path / "key.pem"),
        heartbeat=20,
        connection_name="shop",
        allow_plaintext_auth=True,
        queue="orders",
        declare=True,
        durable=False,
        auto_delete=True,
        queue_arguments={"x-dead-letter-exchange": "dlx", "x-max-length": 1000},
        bind=(("events", "order.*"), ("amq.fanout", ""), ("x", "a:b")),
        prefetch=100,
        concurrency=4,
        consumer_tag="tag",
        exclusive=True,
        host_order="listed",
        start_limit=0.0,
        recovery_limit=3600.0,
        refused_limit=float("inf"),
        resubscribe_limit=None,
        attempt_timeout=5.0,
        backoff_initial=0.1,
        backoff_maximum=10.0,
        dedupe_window=1000,
        handler="shop.tasks:handle",
        rpc=("shop.prices:server",),
        celery=("shop.tasks:tasks",),
        threads=8,
        on_failure="retry",
        retry_delays=(1.0, 2.5),
        dead_letter="orders.failed",
        publish_timeout=5.0,
        requeue_delay=2.0,
        drain=12.5,
    )
    assert isinstance(config.drain, float)
    assert isinstance(config.requeue_delay, float)


def test_options_are_read_by_the_kind_of_their_setting() -> None:
    config = load(
        declare=True,
        bind=["events:order.*"],
        queue_arguments=["x-queue-type=quorum", "x-max-length=10", "x-single-active-consumer=true", "x=-007x"],
        prefetch="unlimited",
        drain="0.5",
    )
    assert config.bind == (("events", "order.*"),)
    assert config.queue_arguments == {
        "x-queue-type": "quorum",
        "x-max-length": 10,
        "x-single-active-consumer": True,
        "x": "-007x",
    }
    assert (config.prefetch, config.drain) == (0, 0.5)


def test_unlimited_in_the_file(write: Any) -> None:
    """R24: by name only."""
    assert load(config=write('prefetch = "unlimited"')).prefetch == 0


def test_a_flag_takes_no_text() -> None:
    assert refused(declare="yes") == (64, "option --declare: must be given without a value")


def test_a_path_given_as_option_is_relative_to_the_current_directory() -> None:
    """twistd changes the directory (--rundir) after the options are read."""
    assert load(url="amqps://h", tls_ca="ca.pem").tls_ca == os.path.abspath("ca.pem")


@pytest.mark.parametrize(
    ("options", "concurrency", "prefetch"),
    [
        ({}, 1, 20),
        ({"threads": "5"}, 5, 20),
        ({"threads": "40"}, 40, 80),
        ({"threads": "5", "concurrency": "2"}, 2, 20),
        ({"concurrency": "65535"}, 65535, 65535),
    ],
)
def test_concurrency_and_prefetch_follow_from_the_threads(
    options: dict[str, Any], concurrency: int, prefetch: int
) -> None:
    """R24: the prefetch is bounded unless "unlimited" is asked for by name."""
    config = load(**options)
    assert (config.concurrency, config.prefetch) == (concurrency, prefetch)


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("prefech = 1", "unknown key 'prefech'"),
        ("prefech = 1", "did you mean 'prefetch'?"),
        ('tls-ca = "x"', "did you mean 'tls_ca'?"),
        ("xyzzy = 1", "known are: allow_plaintext_auth, app, attempt_timeout, auto_delete, backoff_initial"),
        ('prefetch = "ten"', "key 'prefetch' in"),
        ('prefetch = "ten"', "must be an integer from 1 to 65535 or 'unlimited', not a string"),
        ("prefetch = true", "not a boolean"),
        ("prefetch = 1.5", "not a float"),
        ("prefetch = 0", "not 0"),
        ("prefetch = 65536", "not 65536"),
        ("concurrency = []", "not an array"),
        ("drain = nan", "must be a number from 0 to 86400, not nan"),
        ("drain = -1", "not -1"),
        ("drain = 2024-01-01", "not a date"),
        ('declare = "yes"', "must be true or false, not a string"),
        ('bind = "events:k"', "must be an array of strings EXCHANGE:KEY, not a string"),
        ("bind = [1]", "but one of them is an integer"),
        ('bind = ["events"]', "must be EXCHANGE:KEY (the key may be empty), not 'events'"),
        ('bind = [":key"]', "must be EXCHANGE:KEY"),
        ("queue_arguments = 1", "must be a table, not an integer"),
        ('on_failure = "again"', "must be one of requeue_once, reject, retry, not 'again'"),
        ('on_failure = "retry"', "needs retry_delays"),
        ("retry_delays = 1", "must be an array of numbers, not an integer"),
        ('retry_delays = ["1"]', "must be a number from 0.001 to 2.592e+06, not a string"),
        ("retry_delays = [0]", "not 0"),
        (f"retry_delays = {[1] * 21}", "must have at most 20 numbers, not 21"),
        ('dead_letter = "dead"', "has no effect without retry_delays"),
        ("url = []", "must not be empty"),
        ("url = [1]", "must be a string or an array of strings, not an integer"),
        ('start_limit = "never"', "must be a number from 0 to 86400 or 'unlimited', not a string"),
        ('consumer_tag = ""', "must not be empty"),
        ("queue = 5", "must be a string, not an integer"),
        ("prefetch = ", "is not valid TOML"),
        ("password = 5", "must be a string, not an integer"),
    ],
)
def test_a_bad_line_in_the_file_is_named(write: Any, line: str, expected: str) -> None:
    """Issue: unknown keys are refused with the nearest known one, wrong types are named; 78 (EX_CONFIG)."""
    path = write(line)
    code, text = refused(config=path)
    assert code == 78
    assert expected in text
    assert path in text


def test_a_file_that_cannot_be_read(tmp_path: Path, write: Any) -> None:
    missing = str(tmp_path / "none.toml")
    assert refused(config=missing) == (78, f"option --config: cannot read {missing!r}: No such file or directory")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "is not valid TOML" in refused(config=str(binary))[1]
    deep = write("a = " + "[" * 100_000)
    assert refused(config=deep)[0] == 78


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("prefetch", "ten", "option --prefetch: must be an integer from 1 to 65535 or 'unlimited', not 'ten'"),
        ("concurrency", "0", "option --concurrency: must be an integer from 1 to 65535, not 0"),
        ("drain", "inf", "option --drain: must be a number from 0 to 86400, not inf"),
        ("bind", ["events"], "option --bind: must be EXCHANGE:KEY (the key may be empty), not 'events'"),
        ("queue_arguments", ["x"], "option --queue-arguments: must be NAME=VALUE, not 'x'"),
        ("queue", "", "option --queue: must not be empty"),
    ],
)
def test_a_bad_option_is_a_usage_error(option: str, value: Any, expected: str) -> None:
    assert refused(**{option: value}) == (64, expected)


def test_what_is_required() -> None:
    """A queue is not, as the handler may declare its own; see test_plan.py."""
    code, text = refused(handler=None)
    assert code == 64
    assert text == (
        "--handler is required (or --app, --rpc, --celery; or these or [[consumer]] in a file given with --config)"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tls_key": "k.pem", "url": "amqps://h"}, "a key without a certificate"),
        ({"tls_ca": "ca.pem"}, "needs a URL that begins with amqps://"),
        ({"tls_cert": "c.pem", "url": "h"}, "needs a URL that begins with amqps://"),
        ({"threads": "2", "concurrency": "3"}, "must not be above the number of threads (2)"),
        ({"durable": False}, "has no effect without declare"),
        ({"on_failure": "retry"}, "needs retry_delays"),
        ({"on_failure": "reject", "retry_delays": ["1"]}, "has no effect with on_failure 'reject'"),
        ({"dead_letter": "dead"}, "has no effect without retry_delays"),
        ({"tls_ca": "ca.pem", "url": ["amqps://a", "amqp://b"]}, "needs a URL that begins with amqps://"),
        ({"queue_arguments": ["a=b"]}, "has no effect without declare"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], expected: str) -> None:
    code, text = refused(**options)
    assert code == 64
    assert expected in text


def test_a_prefetch_below_the_concurrency_is_a_warning() -> None:
    (warning,) = load(prefetch="2", concurrency="3").warnings
    assert "only 2 handlers can be busy" in warning


# -- credentials -------------------------------------------------------------------------------------


def credentials(config: ConsumerConfig) -> tuple[str, str | None, str | None]:
    url = config.url.reveal() if isinstance(config.url, Secret) else config.url
    return url, config.username, None if config.password is None else config.password.reveal()


URL = "amqp://b%40b:p%2Fw%3A@broker:5673/shop%2F1?heartbeat=5"


def test_a_url_with_all_it_needs_is_left_as_it_is() -> None:
    config = load({"TXMSG_URL": URL})
    assert credentials(config) == (URL, None, None)
    assert isinstance(config.url, Secret)


def test_what_is_given_apart_replaces_its_part_of_the_url() -> None:
    """At the same rank the setting of its own wins over the URL; the parts are percent-decoded."""
    bare = "amqp://broker:5673/shop%2F1?heartbeat=5"
    assert credentials(load({"TXMSG_URL": URL, "TXMSG_PASSWORD": "x"})) == (bare, "b@b", "x")
    assert credentials(load({"TXMSG_URL": URL, "TXMSG_USERNAME": "x"})) == (bare, "x", "p/w:")
    assert credentials(load({"TXMSG_PASSWORD": "x"}, url=URL)) == (URL, None, None)


def test_several_urls(write: Any) -> None:
    """R11: as an option that is repeated, as an array, with ";" between them; the value is one."""
    expected = "amqp://a;amqps://b/v"
    assert load(url=["amqp://a", "amqps://b/v"]).url == expected
    assert load(config=write('url = ["amqp://a", "amqps://b/v"]')).url == expected
    assert load({"TXMSG_URL": expected}).url == expected


def test_credentials_of_several_urls() -> None:
    """C3.5: those given apart are for all of them; those in a URL for that one only."""
    urls = ["amqp://a:1@x", "amqp://b:2@y"]
    assert credentials(load(url=urls)) == (";".join(urls), None, None)
    environ = {"TXMSG_USERNAME": "bob", "TXMSG_PASSWORD": "pw"}
    assert credentials(load({"TXMSG_URL": ";".join(urls), **environ})) == ("amqp://x;amqp://y", "bob", "pw")
    code, text = refused({"TXMSG_URL": ";".join(urls), "TXMSG_PASSWORD": CANARY})
    assert code == 78
    assert "several URLs with users of their own" in text


def test_delays_mean_retries() -> None:
    config = load(retry_delays=["1", "10"])
    assert (config.on_failure, config.retry_delays) == ("retry", (1.0, 10.0))
    assert load(retry_delays=["1"], on_failure="retry").on_failure == "retry"


def test_environment_credentials_fill_a_url_without() -> None:
    """C3.5: the URL on the command line, the secret not."""
    environ = {"TXMSG_USERNAME": "bob", "TXMSG_PASSWORD": "pw"}
    config = load(environ, url="amqp://broker")
    assert credentials(config) == ("amqp://broker", "bob", "pw")
    assert config.warnings == ()
    config = load({"TXMSG_PASSWORD": "pw"}, url="amqp://eve@broker")
    assert credentials(config) == ("amqp://broker", "eve", "pw")


def test_an_empty_variable_is_an_absent_one_but_for_the_password() -> None:
    config = load({"TXMSG_URL": "", "TXMSG_USERNAME": "bob", "TXMSG_PASSWORD": ""})
    assert credentials(config) == ("amqp://localhost", "bob", "")


def test_credentials_of_an_overridden_url_are_not_used(write: Any) -> None:
    """The file's user and password are for the file's broker, not for the one on the command line."""
    path = write(f'url = "amqp://bob:{CANARY}@internal"')
    config = load(config=path, url="amqp://elsewhere")
    assert credentials(config) == ("amqp://elsewhere", None, None)


def test_a_password_file(tmp_path: Path, write: Any) -> None:
    """Its first line, without the line end, is the password; relative to the file that names it."""
    secret = tmp_path / "secret"
    secret.write_bytes("pä ss\r\nrest\n".encode())
    secret.chmod(0o600)
    path = write('username = "bob"\npassword_file = "secret"')
    config = load(config=path)
    assert credentials(config)[2] == "pä ss"
    assert config.warnings == ()
    config = load({"TXMSG_PASSWORD_FILE": str(secret), "TXMSG_USERNAME": "bob"})
    assert credentials(config)[2] == "pä ss"
    config = load({"TXMSG_PASSWORD": "other"}, config=path)
    assert credentials(config)[2] == "other"


def test_a_password_that_others_can_read_gives_a_warning(tmp_path: Path, write: Any) -> None:
    """C3.5: mode check of the password file, and of a configuration file with a password in it."""
    secret = tmp_path / "secret"
    secret.write_text(CANARY)
    secret.chmod(0o640)
    (warning,) = load({"TXMSG_USERNAME": "bob"}, password_file=str(secret)).warnings
    assert warning == f"password file {secret} can be read by others: chmod 600 it"
    for text in (f'username = "bob"\npassword = "{CANARY}"', f'url = "amqp://bob:{CANARY}@h"'):
        path = write(text)
        assert load(config=path).warnings == ()
        os.chmod(path, 0o644)
        (warning,) = load(config=path).warnings
        assert warning == f"{path} holds a password and can be read by others: chmod 600 it"


def test_a_password_on_the_command_line_gives_a_warning() -> None:
    (warning,) = load(url=f"amqp://bob:{CANARY}@h").warnings
    assert "list of processes" in warning
    assert CANARY not in warning
    assert load({"TXMSG_URL": f"amqp://bob:{CANARY}@h"}).warnings == ()


def test_incomplete_or_doubled_credentials(tmp_path: Path, write: Any) -> None:
    assert "a user name without a password" in refused({"TXMSG_USERNAME": "bob"})[1]
    assert "a password without a user name" in refused({"TXMSG_PASSWORD": CANARY})[1]
    path = write(f'username = "b"\npassword = "{CANARY}"\npassword_file = "f"')
    assert refused(config=path)[1].endswith(f"give this or key 'password_file' in {path}, not both")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file or directory"),
        (b"", "does not begin with a line that is a password"),
        (b"\n" + CANARY.encode(), "does not begin with a line that is a password"),
        (CANARY.encode() * 10_000, "does not begin with a line that is a password"),
        (CANARY.encode() + b"\xff", "is not valid UTF-8"),
    ],
)
def test_a_bad_password_file(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    code, text = refused({"TXMSG_USERNAME": "bob", "TXMSG_PASSWORD_FILE": str(path)})
    assert code == 78
    assert expected in text


def test_no_secret_in_the_repr(write: Any) -> None:
    """C3.1: the configuration can be printed."""
    for environ in ({"TXMSG_URL": f"amqp://b:{CANARY}@h"}, {"TXMSG_USERNAME": "b", "TXMSG_PASSWORD": CANARY}):
        config = load(environ)
        assert CANARY not in f"{config!r} {config} {config.password} {config.url}"


# -- names -------------------------------------------------------------------------------------------


def test_nearest_name() -> None:
    assert nearest_name("Queu", ["queue", "url"]) == "did you mean 'queue'?"
    assert nearest_name("zzz", ["queue", "url"]) == "known are: queue, url"


def test_every_setting_is_a_field_or_a_credential() -> None:
    """The table and the dataclass tell the same story."""
    fields = set(ConsumerConfig.__dataclass_fields__) - {"warnings", "consumers", "connection_given"}
    assert {setting.name for setting in SETTINGS} - {"password_file"} == fields


def test_no_password_option() -> None:
    """C3.5: what would put a secret on the command line does not exist."""
    assert [setting.name for setting in SETTINGS if not setting.is_option] == ["password"]
