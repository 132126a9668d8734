"""The private key stays where it is: not in a repr, a pickle, a copy, a log, an error or a traceback's locals."""

import copy
import dataclasses
import gc
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import pytest

from mmd.domain.addresses import ORDER, checksum, parse_address
from mmd.domain.errors import CredentialError
from mmd.domain.keccak import keccak256
from mmd.exchanges.derive import signing
from mmd.exchanges.derive.keys import SessionKey

SECRET = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
OWNER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
RAW = bytes.fromhex(SECRET)
FORMS = (SECRET, SECRET.upper(), str(int(SECRET, 16)), repr(RAW)[2:-1])


@pytest.fixture
def key() -> SessionKey:
    return SessionKey("0x" + SECRET)


def shows_nothing(text: str) -> None:
    for form in FORMS:
        for at in range(len(form) - 11):
            assert form[at : at + 12] not in text


# --- reading one ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [SECRET, "0x" + SECRET, SECRET.upper(), f" {SECRET}\n"])
def test_a_key_knows_its_address(text: str) -> None:
    key = SessionKey(text)
    assert key.name == ADDRESS
    assert key.address == parse_address(ADDRESS)


BAD = [
    pytest.param("", id="nothing"),
    pytest.param("0x", id="only the prefix"),
    pytest.param(SECRET[:-1], id="63 digits"),
    pytest.param(SECRET + "0", id="65 digits"),
    pytest.param(SECRET[:-2], id="31 bytes"),
    pytest.param(SECRET[:30] + "  " + SECRET[32:], id="spaces for a byte"),
    pytest.param(SECRET[:32] + " " + SECRET[32:], id="a space inside"),
    pytest.param(SECRET[:-1] + "g", id="no digit"),
    pytest.param(SECRET[:-1] + "\u0663", id="a digit of another script"),
    pytest.param("00" * 32, id="zero"),
    pytest.param(f"{ORDER:064x}", id="the order of the group"),
    pytest.param("ff" * 32, id="beyond the order"),
]


def complaint(act: Callable[[], object]) -> tuple[BaseException, str]:
    """What was raised, and its traceback with all locals but those of this file."""
    try:
        act()
    except (CredentialError, TypeError, ValueError, AttributeError) as error:
        found = error
    else:
        pytest.fail("nothing was raised")
    below = found.__traceback__
    while below is not None and below.tb_frame.f_code.co_filename == __file__:
        below = below.tb_next
    shown = traceback.TracebackException(type(found), found, below, capture_locals=True)
    return found, "".join(shown.format())


@pytest.mark.parametrize("text", BAD)
def test_a_bad_key_is_refused_and_not_quoted(text: str) -> None:
    error, shown = complaint(lambda: SessionKey(text))
    assert isinstance(error, CredentialError)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "64 hexadecimal digits" in str(error)
    shows_nothing(shown)
    if len(text) > 2:
        assert text not in shown


def test_the_smallest_and_the_largest_key() -> None:
    assert SessionKey("00" * 31 + "01").name == "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
    assert SessionKey(f"{ORDER - 1:064x}").sign(keccak256(b""))


# --- not telling it ------------------------------------------------------------------------------


class Plain:
    def __init__(self, key: SessionKey) -> None:
        self.key = key


class Struct(msgspec.Struct):
    key: Any


@dataclasses.dataclass
class Data:
    key: SessionKey


SHOWS: list[Any] = [
    pytest.param(repr, id="repr"),
    pytest.param(str, id="str"),
    pytest.param(format, id="format"),
    pytest.param(lambda key: f"{key} {key!r} {key!s} {key!a} {key:}", id="f-string"),
    pytest.param(lambda key: "{} {!r}".format(*[key, key]), id="str.format"),
    pytest.param(lambda key: pprint.pformat({"key": [key]}), id="pprint"),
    pytest.param(lambda key: repr(Data(key)), id="dataclass"),
    pytest.param(lambda key: repr(Struct(key)), id="struct"),
    pytest.param(lambda key: repr(vars(Plain(key))), id="vars of its owner"),
    pytest.param(lambda key: repr([getattr(key, name) for name in dir(key)]), id="every attribute"),
    pytest.param(lambda key: repr(signing.Signer(key, signing.MAINNET, OWNER, 1)), id="signer"),
    pytest.param(lambda key: repr(signing.login_params(key, OWNER, 1)), id="login"),
]


@pytest.mark.parametrize("show", SHOWS)
def test_nothing_shows_it(key: SessionKey, show: Callable[[SessionKey], str]) -> None:
    shows_nothing(show(key))


def test_its_name_is_what_is_shown(key: SessionKey) -> None:
    assert repr(key) == str(key) == f"SessionKey({ADDRESS})"
    assert repr(signing.login_params(key, OWNER, 1)) == "LoginParams(...)"


REFUSES: list[Any] = [
    *[
        pytest.param(lambda key, n=n: pickle.dumps(key, n), id=f"pickle {n}")
        for n in range(pickle.HIGHEST_PROTOCOL + 1)
    ],
    pytest.param(lambda key: pickle.dumps({"in": [Plain(key)]}), id="pickle of its owner"),
    pytest.param(copy.copy, id="copy"),
    pytest.param(copy.deepcopy, id="deepcopy"),
    pytest.param(lambda key: copy.deepcopy(Plain(key)), id="deepcopy of its owner"),
    pytest.param(lambda key: dataclasses.asdict(Data(key)), id="asdict"),
    pytest.param(vars, id="vars"),
    pytest.param(lambda key: key.__getstate__(), id="getstate"),
    pytest.param(lambda key: key.__reduce__(), id="reduce"),
    pytest.param(lambda key: key.__dict__, id="dict"),
    pytest.param(json.dumps, id="json"),
    pytest.param(msgspec.json.encode, id="msgspec"),
    pytest.param(lambda key: msgspec.msgpack.encode(Struct(key)), id="msgpack of its owner"),
    pytest.param(msgspec.to_builtins, id="builtins"),
    pytest.param(lambda key: format(key, ">99"), id="format with a spec"),
    pytest.param(bytes, id="bytes"),
    pytest.param(iter, id="iter"),
    pytest.param(lambda key: key.sign(b"short"), id="a hash of the wrong length"),
    pytest.param(lambda key: key.sign("0" * 32), id="a text for a hash"),
    pytest.param(lambda key: type("Sub", (SessionKey,), {}), id="subclass"),
]


@pytest.mark.parametrize("act", REFUSES)
def test_what_would_take_it_along_is_refused_and_quotes_nothing(
    key: SessionKey, act: Callable[[SessionKey], object]
) -> None:
    _, shown = complaint(lambda: act(key))
    shows_nothing(shown)


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_refusal_says_what_was_tried(key: SessionKey, act: Callable[[SessionKey], object]) -> None:
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        act(key)


def test_a_log_does_not_have_it(key: SessionKey, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("derive")
    with caplog.at_level(logging.DEBUG):
        log.debug("%s %r", key, key, extra={"key": key})
        try:
            key.sign(b"short")
        except ValueError:
            log.exception("signing with %s", key)
    assert "32 bytes" in caplog.text
    shows_nothing(caplog.text)
    shows_nothing(repr([vars(record) for record in caplog.records]))


def reachable(root: object) -> list[object]:
    """Everything that can be reached from an object, code and classes left out."""
    found: dict[int, object] = {}
    todo = [root]
    while todo:
        item = todo.pop()
        if id(item) in found or isinstance(item, type | ModuleType | FunctionType):
            continue
        found[id(item)] = item
        todo += gc.get_referents(item)
    return list(found.values())


def test_no_text_or_number_of_it_can_be_reached(key: SessionKey) -> None:
    """The bytes can, inside coincurve's object: signing needs them."""
    items = reachable(key)
    assert RAW in [item for item in items if isinstance(item, bytes)]  # or this looks in the wrong place
    assert int(SECRET, 16) not in [item for item in items if isinstance(item, int)]
    for item in items:
        if isinstance(item, str):
            shows_nothing(item)


def test_it_holds_nothing_but_its_address_and_coincurves_object(key: SessionKey) -> None:
    assert SessionKey.__slots__ == ("__key", "address", "name")
    with pytest.raises(AttributeError):
        key.secret = SECRET  # type: ignore[attr-defined]  # that is the point


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0xde709f2102306220921060314715629080e2fb77",
    ],
)
def test_checksums_of_the_standard(text: str) -> None:
    assert checksum(parse_address(text.lower())) == text
    assert parse_address(text) == parse_address("0x" + text[2:].upper()) == bytes.fromhex(text[2:])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", "upper and lower case", id="one letter's case"),
        pytest.param("5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "40 hexadecimal digits", id="no prefix"),
        pytest.param("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeA", "40 hexadecimal digits", id="too short"),
        pytest.param("0x" + "5a " * 20, "40 hexadecimal digits", id="20 bytes and spaces"),
        pytest.param("0x" + "5a " * 13 + "5", "40 hexadecimal digits", id="spaces"),
        pytest.param("", "40 hexadecimal digits", id="nothing"),
        pytest.param("vitalik.eth", "40 hexadecimal digits", id="a name"),
    ],
)
def test_what_is_no_address(text: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        parse_address(text)
