"""Who we are at Derive: wallet and session key, read from where the configuration says, at the moment of use."""

from mmd.config.model import ExchangeConfig, NetworkKind
from mmd.config.secrets import Secret
from mmd.domain.errors import CredentialError
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.shell import logs

DERIVE_URLS = {
    NetworkKind.MAINNET: "wss://api.derive.xyz/v3/ws",
    NetworkKind.TESTNET: "wss://testnet.api.derive.xyz/v3/ws",
}


def derive_identity(config: ExchangeConfig) -> Identity:
    """The daemon's. CredentialError names the key of the configuration; what is wrong with the value is not shown."""
    wallet = config.wallet
    if wallet is None:
        raise CredentialError(f"exchanges.{config.name}.wallet: needed for network {config.network}")
    try:
        owner = wallet.owner()
    except CredentialError as error:
        raise _named(error, f"exchanges.{config.name}.wallet") from None
    return Identity(session_key(wallet.session_key, f"exchanges.{config.name}.session_key"), owner, wallet.subaccount)


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
