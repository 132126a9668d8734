"""An order that is signed and shown to Derive, never placed: whether it verifies what we sign.

A login is signed without the network in it, so a wrong one shows at the first order, which is refused (14014).
`private/order_debug` carries nothing out and answers each step of the hash. Even as an order this one would do
nothing: it buys at the lowest price there is, at once or never, and only to reduce.
Source: docs.derive.xyz, Action signing; the published v3 specifications.
"""

import msgspec

from mmd.domain.reasons import Side
from mmd.exchanges.derive.instruments import Listed
from mmd.exchanges.derive.lifetimes import MMP_ORDER_SECONDS, NS
from mmd.exchanges.derive.orders import IMMEDIATE_OR_CANCEL, max_fee_e18
from mmd.exchanges.derive.requests import OrderParams
from mmd.exchanges.derive.signing import MAINNET, TESTNET, Domain, Signed, Signer
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.preflight import Notebook

METHOD = "private/order_debug"
CHECK = "signature"
NAMES = {MAINNET.separator: "mainnet", TESTNET.separator: "testnet"}
PRICE_TICKS = 1


class Steps(msgspec.Struct):
    """What the answer tells of the hash: hexadecimal digits, with or without 0x."""

    domain_separator: str
    encoded_data_hashed: str
    typed_data_hash: str


read_steps: Decoder[Steps] = Decoder(Steps)


def trial(signer: Signer, listed: Listed, now_ns: int) -> tuple[OrderParams, Signed]:
    """The request, and the steps as we make them; `now_ns` by the exchange's clock."""
    instrument = listed.instrument
    terms = (
        listed.asset,
        Side.BID,
        PRICE_TICKS * listed.tick_e18,
        max(1, instrument.min_lots) * listed.lot_e18,
        max_fee_e18(listed, PRICE_TICKS, 0.0, takes=True),
        now_ns,
        now_ns // NS + MMP_ORDER_SECONDS,
    )
    params = OrderParams(
        **msgspec.structs.asdict(signer.order(*terms)),
        instrument_name=instrument.symbol,
        label="",
        time_in_force=IMMEDIATE_OR_CANCEL,
        reduce_only=True,
    )
    return params, signer.trade(*terms)


def judge(book: Notebook, domain: Domain, ours: Signed, theirs: Steps) -> None:
    """Whether an order would be taken for what it is."""
    if not _same(theirs.domain_separator, domain.separator):
        known = [name for separator, name in NAMES.items() if _same(theirs.domain_separator, separator)]
        found = f"orders are signed for {_named(domain)}, and verified there for {(known or ['another network'])[0]}"
        wanted = f"chain: {known[0]}, beside the url" if known else f"chain: {' or '.join(NAMES.values())}"
        book.fail(CHECK, f"{found}: each would be refused", wanted)
    elif not _same(theirs.typed_data_hash, ours.typed_hash):
        what = "all but the terms" if _same(theirs.encoded_data_hashed, ours.data_hash) else "the terms"
        book.fail(CHECK, f"{what} of an order are hashed otherwise there: each would be refused")
    else:
        book.ok(CHECK, f"orders are verified there as they are signed, for {_named(domain)}")


def _named(domain: Domain) -> str:
    return f"{NAMES.get(domain.separator, 'a network of its own')} (chain id {domain.chain_id})"


def _same(text: str, digest: bytes) -> bool:
    return text.lower().removeprefix("0x") == digest.hex()
