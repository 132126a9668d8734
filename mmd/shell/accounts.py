"""Who we are at an exchange: keys, read from where the configuration says, at the moment of use."""

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from mmd.config.model import Credentials, ExchangeConfig, NetworkKind
from mmd.config.secrets import ExposedSecret, Secret
from mmd.domain.errors import CredentialError
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.sandbox.derive import known
from mmd.shell import logs

# In Deribit's sandbox every client id is an account of its own; with no key configured, this one.
SANDBOX_KEY = ("mmd-sandbox", "mmd-sandbox")

T = TypeVar("T")


def is_local(config: ExchangeConfig) -> bool:
    """A sandbox, in this process or in another one on this machine: no account of anybody's is there."""
    if config.network is NetworkKind.URL and config.url:
        return urlsplit(config.url).hostname in ("127.0.0.1", "::1", "localhost")
    return config.network is NetworkKind.SANDBOX


def _or_sandbox(config: ExchangeConfig, read: Callable[[], T], sandbox: Callable[[], T]) -> T:
    """What `read` reads; where no account can be, a key of our own takes the place of a missing one."""
    try:
        return read()
    except ExposedSecret:
        raise
    except CredentialError:
        if is_local(config):
            return sandbox()
        raise


def reapers_own(read: Callable[[], T], daemons: Callable[[], T], notes: list[str]) -> T:
    """The reaper's own key; the daemon's where it cannot be read, and a note that says so. Raises CredentialError."""
    try:
        return read()
    except CredentialError as error:
        notes.append(f"the reaper's own key cannot be read, so the daemon's is used: {error}")
    return daemons()


# --- Deribit -------------------------------------------------------------------------------------


def credentials(config: ExchangeConfig) -> tuple[str, str]:
    """Client id and secret, read now; CredentialError says what is missing or exposed.

    Where no account can be (`is_local`), a missing key is replaced by a name of our own.
    """
    return _or_sandbox(config, lambda: _credentials(config), lambda: SANDBOX_KEY)


def _credentials(config: ExchangeConfig) -> tuple[str, str]:
    if config.credentials is None:
        raise CredentialError(f"exchanges.{config.name}.credentials: needed for network {config.network}")
    found: list[str] = []
    missing: list[CredentialError] = []
    for secret in (config.credentials.client_id, config.credentials.client_secret):
        try:
            found.append(secret.reveal())
        except ExposedSecret:
            raise
        except CredentialError as error:
            missing.append(error)
    if missing:
        raise missing[0]
    client_id, client_secret = found
    logs.register_secret(client_secret)
    return client_id, client_secret


def reaper_credentials(config: ExchangeConfig, notes: list[str]) -> tuple[str, str]:
    """Its own, else the daemon's. Raises CredentialError."""
    own = config.reaper
    if own is None:
        return credentials(config)
    return reapers_own(lambda: _revealed(own), lambda: credentials(config), notes)


def _revealed(pair: Credentials) -> tuple[str, str]:
    client_id, client_secret = pair.client_id.reveal(), pair.client_secret.reveal()
    logs.register_secret(client_secret)
    return client_id, client_secret


# --- Derive --------------------------------------------------------------------------------------


def derive_identity(config: ExchangeConfig) -> Identity:
    """The daemon's. CredentialError names the key of the configuration; what is wrong with the value is not shown.

    In the sandbox of this process the wallet is the one that it has. Where else no account can be (`is_local`), that
    wallet takes the place of one that cannot be read.
    """
    if config.network is NetworkKind.SANDBOX:
        return sandbox_identity()
    return _or_sandbox(config, lambda: _identity(config), sandbox_identity)


def reaper_identity(config: ExchangeConfig, notes: list[str]) -> Identity:
    """With the reaper's own key, else the daemon's. Raises CredentialError."""
    own = config.wallet.reaper_key if config.wallet is not None else None
    if own is None:
        return derive_identity(config)

    def read() -> Identity:
        key = session_key(own, f"exchanges.{config.name}.reaper_session_key")
        return Identity(key, *_owner(config))

    return reapers_own(read, lambda: derive_identity(config), notes)


def derive_account(config: ExchangeConfig) -> str:
    """Whose orders they are, as far as that is known without a key. Raises CredentialError."""
    return account_text(*_owner(config))


def account_text(wallet: str, subaccount: int) -> str:
    return f"{wallet}/{subaccount}"


def sandbox_identity() -> Identity:
    """Of the wallet that Derive's sandbox has unless it is told of others."""
    return Identity(SessionKey(known.SESSION_SECRET), known.WALLET, known.SUBACCOUNT)


def _identity(config: ExchangeConfig) -> Identity:
    owner, subaccount = _owner(config)
    assert config.wallet is not None, "an owner without a wallet"
    return Identity(session_key(config.wallet.session_key, f"exchanges.{config.name}.session_key"), owner, subaccount)


def _owner(config: ExchangeConfig) -> tuple[str, int]:
    path = f"exchanges.{config.name}.wallet"
    if config.wallet is None:
        raise CredentialError(f"{path}: needed for network {config.network}")
    try:
        return config.wallet.owner(), config.wallet.subaccount
    except CredentialError as error:
        raise _named(error, path) from None


def session_key(secret: Secret, path: str) -> SessionKey:
    """The key that stands there; from now on it is not logged in any spelling. Raises CredentialError."""
    try:
        value = secret.reveal().strip()
        logs.register_secret(value.removeprefix("0x"))
        return SessionKey(value)
    except CredentialError as error:
        raise _named(error, path) from None


def _named(error: CredentialError, path: str) -> CredentialError:
    """The same, with where in the configuration; exposed secrets have an exit status of their own."""
    return type(error)(f"{path}: {error}")
