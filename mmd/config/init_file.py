"""The file that `mmd init` prints: what an `Order` says, with every figure explained."""

from mmd.config.init import COIN_TICK, DERIVE, Order

COMMENT_COLUMN = 42
WHOLE_BOOK_BPS = 10000
# For anything but options that is added later.
COLLAR_BPS = 200
# Of a perpetual, whose books are tight.
PERPETUAL_SPREAD_BPS, PERPETUAL_MIN_SPREAD_BPS, PERPETUAL_BAND_BPS = 10, 5, 100
ORDER_LIFE_SECONDS, ORDER_VALID_MS = 600, 1000
PROTECTION_INTERVAL_MS, PROTECTION_FROZEN_MS = 5000, 60000
PROTECTION_FILLS = 3  # of the perpetual within the interval are no reason to pull everything
WALLET_VARIABLE = "DERIVE_WALLET_ADDRESS"

Rows = list[tuple[str, str]]
"""(YAML, comment) pairs."""


def to_yaml(order: Order) -> str:
    """The file, ready for `mmd check`."""
    what = f"{order.underlying} options of {order.expiry}"
    if order.perpetual_size is not None:
        what += f" and {_perpetual(order)}"
    head = f"# {what} on {order.exchange} ({order.network}). Made by mmd init."
    lines = [head, *(f"# Note: {note}" for note in order.notes)]
    exchange = _derive_rows if order.exchange == DERIVE else _deribit_rows
    for text, comment in [
        *_service_rows(order),
        *exchange(order),
        *_spread_rows(order),
        *_instrument_rows(order),
        *_limit_rows(order),
    ]:
        lines.append(f"{text:<{COMMENT_COLUMN}}  # {comment}" if comment else text)
    return "\n".join(lines) + "\n"


def _perpetual(order: Order) -> str:
    return f"{order.underlying}-PERP"


def _service_rows(order: Order) -> Rows:
    means = "orders are sent" if order.live else "everything is decided, nothing is sent; write live to trade"
    return [
        ("version: 1", ""),
        ("", ""),
        ("service:", ""),
        ("  name: mmd", "part of every order's label"),
        (f"  mode: {'live' if order.live else 'shadow'}", means),
        ("", ""),
        ("exchanges:", ""),
        (f"  {order.exchange}:", ""),
        (f"    type: {order.exchange}", ""),
        (f"    network: {order.network}", "mainnet, testnet or sandbox"),
    ]


def _deribit_rows(order: Order) -> Rows:
    return [
        ("    credentials:", "where they are, never what they are"),
        ("      client_id: {env: DERIBIT_CLIENT_ID}", ""),
        (f"      client_secret: {{env: {order.secret_env}}}", ""),
        ("", ""),
    ]


def _account_rows(order: Order) -> Rows:
    if not order.subaccount:
        return [("    # The sandbox has an account. Other networks want: wallet, session_key, subaccount.", "")]
    wallet = f'"{order.wallet}"' if order.wallet else f"{{env: {WALLET_VARIABLE}}}"
    return [
        (f"    wallet: {wallet}", "the owner's address, or where that is"),
        (f"    session_key: {{env: {order.secret_env}}}", "where it is, never what it is; or {credential: NAME}"),
        (f"    subaccount: {order.subaccount}", "of the wallet; the whole wallet is mmd's alone"),
    ]


def _derive_rows(order: Order) -> Rows:
    coin = order.underlying
    max_delta = max(order.max_position, PROTECTION_FILLS * (order.perpetual_size or order.size))
    return [
        *_account_rows(order),
        (f"    order_valid_ms: {ORDER_VALID_MS}", "a request that takes longer to get there is refused there"),
        (f"    order_life_seconds: {ORDER_LIFE_SECONDS}", "an order's signature ends then; renewed before"),
        ("    maker_protection:", "the exchange pulls all our quotes of the coin"),
        (f"      - currency: {coin}", "options and perpetual together"),
        (f"        interval_ms: {PROTECTION_INTERVAL_MS}", "once within this time"),
        (f"        max_amount: {order.max_exposure}", f"more than this much {coin} was bought and sold"),
        (f"        max_delta: {max_delta}", f"or the net delta moved by more than this much {coin};"),
        (f"        frozen_ms: {PROTECTION_FROZEN_MS}", "it takes no quotes for so long then; 0: until a reset"),
        ("        reset: manual", "and a person ends that, with mmdctl protection"),
        ("", ""),
    ]


def _spread_rows(order: Order) -> Rows:
    coin = order.underlying
    style = [("    style: join", "at the best foreign price")]
    if order.improve_by is not None:
        step = f"by this much {coin} per {coin}; one tick is {COIN_TICK}"
        if order.exchange == DERIVE:
            step = f"by this many USDC per {coin}"
        style = [
            ("    style: improve", "better than the best foreign price"),
            (f'    improve_by: "{order.improve_by}"', step),
        ]
    options = [
        ("spreads:", ""),
        ("  options:", ""),
        ("    fair: mid", ""),
        *style,
        (f"    improve_min_size: {order.improve_min_size}", f"{coin}; thinner foreign levels are looked through"),
        (f"    spread_bps: {order.spread_bps}", "whole distance from bid to ask, 100 bps = 1 %"),
        (f"    min_spread_bps: {order.min_spread_bps}", "never less, evenly around the mid; the wider of both wins"),
        (f"    band_bps: {WHOLE_BOOK_BPS}", "no quote further from the reference than this"),
        (f"    size: {order.size}", f"{coin} on each side"),
        (f"    refresh_seconds: {order.refresh_seconds}", "quotes tighten at most this often, and widen at once"),
        ("    requote: amend", "replace: cancel first, then place anew"),
    ]
    return [*options, *(_perpetual_rows(order) if order.perpetual_size is not None else []), ("", "")]


def _perpetual_rows(order: Order) -> Rows:
    least = "" if order.perpetual_size == order.size else ", the least that it takes"
    return [
        ("  perpetual:", ""),
        ("    fair: microprice", "the mid, drawn to the side with less on it"),
        ("    style: around", "half the spread on each side of it"),
        (f"    spread_bps: {PERPETUAL_SPREAD_BPS}", "the fee of a maker is paid twice out of this"),
        (f"    min_spread_bps: {PERPETUAL_MIN_SPREAD_BPS}", "never less"),
        (f"    band_bps: {PERPETUAL_BAND_BPS}", "no quote further from the reference than this"),
        (f"    size: {order.perpetual_size}", f"{order.underlying} on each side{least}"),
        (f"    refresh_seconds: {order.refresh_seconds}", "as above"),
    ]


def _instrument_rows(order: Order) -> Rows:
    strikes = f"[{', '.join(str(strike) for strike in order.strikes)}]" if order.strikes else "all"
    perpetual = [
        (f"  - exchange: {order.exchange}", ""),
        (f"    symbol: {_perpetual(order)}", "the exchange's own name"),
        ("    spread: perpetual", ""),
    ]
    return [
        ("instruments:", ""),
        ("  - select:", ""),
        (f"      exchange: {order.exchange}", ""),
        (f"      underlying: {order.underlying}", ""),
        *([("      contract: linear", "settled in USDC, as all is there")] if order.exchange == DERIVE else []),
        (f"      expiry: {order.expiry}", "the day (UTC) on which they expire"),
        (f"      strikes: {strikes}", "of those the exchange lists"),
        ("      kinds: [call, put]", ""),
        ("    spread: options", ""),
        *(perpetual if order.perpetual_size is not None else []),
        ("", ""),
    ]


def _limit_rows(order: Order) -> Rows:
    coin = order.underlying
    perpetual = []
    if order.perpetual_size not in (None, order.size):
        perpetual = [("    perpetual:", ""), (f"      max_order_size: {order.perpetual_size}", coin)]
    return [
        ("limits:", "only here can a limit be made wider; an instrument may narrow it"),
        ("  per_symbol:", "in the symbol's own amount unit"),
        (f"    max_position: {order.max_position}", f"{coin}, long or short; that side stops there"),
        (f"    max_order_size: {order.size}", f"{coin}"),
        (f"    max_order_value_usd: {order.max_notional_usd}", "for options the worth of the underlying counts"),
        (f"    collar_bps: {COLLAR_BPS}", "an order further from the reference is refused"),
        ("  per_kind:", "wins over per_symbol, key by key"),
        ("    option:", ""),
        (f"      collar_bps: {WHOLE_BOOK_BPS}", "options move more"),
        *perpetual,
        ("  portfolio:", ""),
        (f"    max_exposure: {{{coin}: {order.max_exposure}}}", f"{coin}, sum of absolute positions"),
        (f"    max_notional_usd: {order.max_notional_usd}", "sum of absolute positions at the index price"),
        (f"    max_drawdown_usd: {order.max_drawdown_usd}", "losing this much from the best moment halts everything"),
    ]
