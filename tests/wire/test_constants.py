"""R-67: the numbers of the protocol, compared with another library's."""

from __future__ import annotations

import pamqp.constants
import pamqp.exceptions

from txmsg import errors
from txmsg.wire import constants
from txmsg.wire.constants import Role


def test_frame_types_and_limits_are_those_of_another_library() -> None:
    """R-67: frame types 1, 2, 3, 8, the end octet 206, the smallest frame_max 4096."""
    assert constants.FRAME_METHOD == pamqp.constants.FRAME_METHOD
    assert constants.FRAME_HEADER == pamqp.constants.FRAME_HEADER
    assert constants.FRAME_BODY == pamqp.constants.FRAME_BODY
    assert constants.FRAME_HEARTBEAT == pamqp.constants.FRAME_HEARTBEAT
    assert constants.FRAME_END == pamqp.constants.FRAME_END == 206
    assert constants.FRAME_MIN_SIZE == pamqp.constants.FRAME_MIN_SIZE
    assert b"AMQP\x00" + bytes(pamqp.constants.VERSION) == constants.PROTOCOL_HEADER
    assert pamqp.constants.VERSION == constants.PROTOCOL_VERSION


def test_reply_codes_are_those_of_another_library() -> None:
    """R-67: every reply code has its number and its name; pamqp calls 311, 312 and 541 what we do too."""
    theirs = {
        code: vars(made)["name"].replace("-", "_")
        for code, made in pamqp.exceptions.CLASS_MAPPING.items()
        if isinstance(code, int)
    }
    ours = {code: name for code, name in constants.REPLY_NAMES.items() if code != constants.REPLY_SUCCESS}
    assert ours == theirs
    for code, name in constants.REPLY_NAMES.items():
        assert getattr(constants, name) == code


def test_every_reply_code_that_has_an_error_class_is_known() -> None:
    """The classes of txmsg.errors and the constants speak of the same codes."""
    classes = [made for made in vars(errors).values() if isinstance(made, type) and issubclass(made, errors.TxmsgError)]
    codes = {code for code in (getattr(made, "default_code", 0) for made in classes) if code}
    assert codes <= set(constants.REPLY_NAMES)


def test_a_role_knows_its_peer() -> None:
    """The client's peer is the server, and the reverse."""
    assert Role.CLIENT.peer is Role.SERVER
    assert Role.SERVER.peer is Role.CLIENT


def test_all_is_complete() -> None:
    """Every constant is exported."""
    public = {name for name in vars(constants) if name.isupper() and not name.startswith("_")}
    assert public | {"Role"} == set(constants.__all__)
