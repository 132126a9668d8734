"""The command `flatten`: a preview of the cost, a confirmation, then the order. One symbol at a time.

The order goes out with the size and the limit price of the preview that was confirmed: if the market
moved meanwhile, less is closed, but never at a worse price than was shown.
"""

import sys
from decimal import Decimal

from mmd.cli import risk_views, views
from mmd.cli.call import GRACE_SECONDS, OUTCOMES, Call, Exit, complain, say
from mmd.cli.tables import clean, number
from mmd.control.protocol import FlattenResult
from mmd.shell.desk import FlattenPreview, Outcome


def run_flatten(call: Call) -> int:
    """0 everything asked for was closed, 1 refused, 2 not confirmed for lack of a terminal, 5 some is left."""
    asked: Decimal | None = call.asked.size
    params: dict[str, object] = {"symbol": call.asked.symbol, "slippage_bps": call.asked.slippage_bps, "size": asked}
    raw, preview = call.fetch("flatten_preview", FlattenPreview, params)
    flat = not preview.position and asked is None
    ends_here = preview.refused is not None or flat or call.asked.dry_run
    if not call.as_json:
        say(risk_views.preview_lines(call.page, preview))
    elif ends_here:
        say([bytes(raw).decode()])
    if flat:
        complain("there is no position to close")
        return Exit.DONE
    if preview.refused is not None:
        complain(f"refused: {preview.refused}")
        return Exit.REFUSED
    if call.asked.dry_run:
        return Exit.DONE
    if not preview.size or preview.limit_price is None:
        complain("nothing of it can be had within the limit price: nothing was sent; see --slippage-bps")
        return Exit.REFUSED
    if call.as_json:
        print("\n".join(risk_views.preview_lines(call.page, preview)), file=sys.stderr)
    status = confirm(preview) if not call.asked.yes else Exit.DONE
    if status is not Exit.DONE:
        if call.as_json:
            say([bytes(raw).decode()])
        return status
    wanted = min(asked or abs(preview.position), abs(preview.position))
    return send(call, preview, wanted)


def confirm(preview: FlattenPreview) -> Exit:
    """Somebody at a terminal types the symbol's name; DONE if they did."""
    if sys.stdin is None or not sys.stdin.isatty():
        complain("nothing was sent: without a terminal to ask, flatten needs --yes")
        return Exit.USAGE
    try:
        print(f"type {clean(preview.symbol)} to send it: ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline().strip()
    except KeyboardInterrupt:
        complain("interrupted: nothing was sent")
        return Exit.INTERRUPTED
    if answer not in (preview.symbol, f"{preview.exchange}/{preview.symbol}"):
        complain(f"not confirmed, {answer!r} is not {preview.symbol}: nothing was sent")
        return Exit.REFUSED
    return Exit.DONE


def send(call: Call, preview: FlattenPreview, wanted: Decimal) -> int:
    """`wanted`: how much of the position was to be closed. Raises what the client raises."""
    result = call.ask(
        "flatten",
        FlattenResult,
        {
            "symbol": f"{preview.exchange}/{preview.symbol}",
            "size": preview.size,
            "limit_price": preview.limit_price,
            "reason": call.reason,
            "timeout_seconds": call.seconds(),
        },
        lambda answer: views.change_lines(call.page, answer),
        wait=call.seconds() + GRACE_SECONDS,
    )
    if result.outcome is not Outcome.DONE:
        return OUTCOMES[result.outcome]
    if result.closed is None or result.position is None:
        complain("the symbol has gone meanwhile: look at its position with the exchange")
        return Exit.TIMED_OUT
    if result.closed < wanted:
        complain(
            f"{number(result.closed)} of {number(wanted)} closed, the position is {number(result.position)}: "
            f"ask again, or allow a worse price with --slippage-bps"
        )
        return Exit.TIMED_OUT
    return Exit.DONE
