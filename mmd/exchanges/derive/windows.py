"""Derive's request budgets: windows of 5 s, kept by token buckets, and what of ours they pace. Pure.

A wallet (or, without a login, an address) has N requests of a class in each window of 5 s; when a window begins is
not told. A bucket of N/2 tokens that fills at N/10 a second lets at most N/2 + 5 * N/10 = N pass in any 5 s, so in
every window, wherever its borders are. Source: docs.derive.xyz, "Rate limits".
"""

from mmd.exchanges.paces import Pace, Paces

WINDOW_SECONDS = 5
# An ordinary account's, until the account says what it has: the lower of what the exchange's two pages say.
MATCHING_RATE, QUESTION_RATE = 1.0, 5.0
CANCEL_ALL = 5  # in a window
RESERVE_SHARE = 0.25  # of the orders' burst, for cancels
OUR_SHARE = 0.8  # of the questions: the wallet's owner, and others behind this address, ask as well
LISTING_SHARE = 0.5  # of what is asked without a login, for the pages of the listing
MATCHING = ("private/cancel", "private/cancel_by_nonce", "private/cancel_by_instrument", "private/cancel_by_label")


def bucket(per_second: float) -> tuple[float, float]:
    """(tokens a second, burst) that keep windows of 5 times `per_second` requests. ValueError for less than one each.

    A bucket holds a whole request at least: one of 1 + N/2 in 5 s is no more than N where N is a whole number.
    """
    most = per_second * WINDOW_SECONDS
    if not 1.0 <= most < float("inf"):
        raise ValueError(f"{per_second:g} requests a second are no budget")
    return most / (2 * WINDOW_SECONDS), max(1.0, most / 2)


class WindowPace(Pace):
    """At most `most` requests in any window of 5 s; it makes the caller wait."""

    def __init__(self, most: float) -> None:
        """ValueError for less than one."""
        super().__init__(*bucket(most / WINDOW_SECONDS))

    def hold(self, most: float) -> None:
        """Another limit from now on. ValueError for less than one."""
        self.set_limits(*bucket(most / WINDOW_SECONDS))


class WalletPaces(Paces):
    """Of the link that is logged in: what the session asks, besides the orders, which the gate's budget counts."""

    def __init__(self) -> None:
        self._questions = WindowPace(QUESTION_RATE * WINDOW_SECONDS * OUR_SHARE)
        self._matching = WindowPace(MATCHING_RATE * WINDOW_SECONDS)
        special: dict[str, Pace] = dict.fromkeys(MATCHING, self._matching)
        super().__init__(self._questions, special | {"private/cancel_all": WindowPace(CANCEL_ALL)})

    def hold(self, *, matching: float, questions: float) -> None:
        """What the account has, requests a second. ValueError for what is no budget: then nothing changes."""
        bucket(matching)
        self._questions.hold(questions * WINDOW_SECONDS * OUR_SHARE)
        self._matching.hold(matching * WINDOW_SECONDS)


def address_paces() -> Paces:
    """Of a link without a login. The pages of a listing leave room for what else is asked."""
    ours = QUESTION_RATE * WINDOW_SECONDS * OUR_SHARE
    listing = ours * LISTING_SHARE
    return Paces(WindowPace(ours - listing), {"public/get_all_instruments": WindowPace(listing)})
