"""The portfolio machine: totals become position bounds for each symbol, losses and breaches become trips.

Room moves only after the symbol that gives it up has acknowledged: the hot path then compares
integers and shares nothing, and the sum of worst cases never passes a total. What no bound can
prevent (marks that jump, positions found at start, lower limits, losses) trips a kill switch, once,
until an operator has reset it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mmd.core.losses import Account, Losses, daily_breach, day_start_ns, drawdown_breach
from mmd.core.totals import ROOT, Room, Share, Span, Use, order_uses, room_left, rooms_for, targets_for, use_of
from mmd.domain.reasons import Scope, Switch
from mmd.domain.settings import KillSwitches, PortfolioLimits
from mmd.domain.totals import (
    BoundsAcked,
    CarriedLosses,
    ClearSwitch,
    ExchangeAwaited,
    ExchangeTold,
    GrantBounds,
    LeftCounted,
    LimitChanged,
    LossLimits,
    OperatorReset,
    PortfolioAction,
    PortfolioEvent,
    SymbolJoined,
    SymbolLeft,
    TotalsChanged,
    TripSwitch,
    Valued,
)

NS = 1_000_000_000
PORTFOLIO = ""  # the target of what concerns everybody
DRAWDOWN_KEY = f"{ROOT}.max_drawdown_usd"
DAILY_LOSS_KEY = f"{ROOT}.max_daily_loss_usd"
VALUATION_KEY = "kill_switches.valuation.max_seconds"


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """For status and metrics; None: a position cannot be valued."""

    exposure: dict[str, float]
    worst_exposure: dict[str, float]
    notional_usd: float
    pnl_usd: float | None
    day_pnl_usd: float | None
    high_water_usd: float
    drawdown_usd: float | None


class PortfolioMachine:
    """`handle` events, get grants and trips. Pure: same events, same actions. `held`: trips until their reset.

    `awaited`: exchanges that have not told yet what is held there, and whether an earlier process knew.
    """

    def __init__(
        self, limits: PortfolioLimits, switches: KillSwitches, now_ns: int, carried: CarriedLosses | None = None
    ) -> None:
        """`carried`: what an earlier run left in `carried()`."""
        self.limits = limits
        self.switches = switches
        self.shares: dict[str, Share] = {}
        self.left_behind: dict[str, Share] = {}
        self.awaited: dict[str, bool] = {}
        self.held: dict[tuple[Switch, str], TripSwitch] = {}
        self._day_ns = day_start_ns(now_ns, limits.day_starts_hour)
        self.losses = Losses(self._day_ns, carried.everything if carried else None)
        self.accounts: dict[str, Account] = {}
        if carried is not None:
            self.accounts = {
                key: Account(Losses(self._day_ns, one), LossLimits(), one.expiry_ns)
                for key, one in carried.symbols.items()
                if not is_over(one.expiry_ns, now_ns)
            }
            self.left_behind = {left.instrument.key: Share.of(left) for left in carried.left}
        self._parted_pnl_usd = 0.0  # of symbols that are gone, by their own count
        self._expired_gain_usd = 0.0  # of accounts that are closed for good
        self._rooms: list[Room] = []
        self._blind_since_ns: dict[str, int] = {}
        self._version = 0

    def handle(self, events: Sequence[PortfolioEvent], now_ns: int) -> list[PortfolioAction]:
        """Take a batch, allocate once if anything that matters changed, then look what trips."""
        out: list[PortfolioAction] = []
        again = self._expire(now_ns)
        self._roll(now_ns)
        acked_only = bool(events)
        for event in events:
            again = self._take(event, now_ns, out) or again
            acked_only = acked_only and type(event) is BoundsAcked
        if again:
            self._allocate(out)
        if not acked_only:
            self._watch_losses(out)
            self._watch_exposure(out)
            self._watch_valuation(now_ns, out)
        return out

    def reset(self, keys: Iterable[str], now_ns: int) -> list[PortfolioAction]:
        """An operator has reset these symbols: a tripped drawdown counts from here again.

        The portfolio's as well, whoever of its symbols it was. Daily loss, exposure and valuation
        trip again at once where their condition still holds. What had not tripped stays as it is.
        """
        found = tuple(sorted(set(keys)))
        return self.handle([OperatorReset(found)], now_ns) if found else []

    # --- events ----------------------------------------------------------------------------------

    def _take(self, event: PortfolioEvent, now_ns: int, out: list[PortfolioAction]) -> bool:
        """True if the totals are to be divided anew."""
        match event:
            case Valued():
                return self._value(event)
            case BoundsAcked(key=key, version=version):
                share = self.shares.get(key)
                if share is None or version != share.version:
                    return False
                shrunk = share.acked > share.granted
                share.acked = share.granted
                return shrunk  # room came free for others
            case SymbolJoined():
                self._join(event, out)
            case SymbolLeft(key=key, lots=lots):
                self._leave(key, lots, now_ns, out)
            case LeftCounted(key=key, lots=lots):
                return self._count_left(key, lots)
            case ExchangeAwaited():
                self._await(event, now_ns)
            case ExchangeTold(exchange=exchange):
                self._told(exchange)
            case LimitChanged(key=key, max_lots=max_lots, losses=losses):
                self.shares[key].max_lots = max_lots
                self.accounts[key].limits = losses
            case TotalsChanged(limits=limits, switches=switches):
                self.limits, self.switches = limits, switches
                self._rooms = []
            case OperatorReset(keys=keys):
                self._reset(keys, out)
                return False
        return True

    def _join(self, event: SymbolJoined, out: list[PortfolioAction]) -> None:
        """What tripped for everybody holds for the newcomer as well."""
        instrument = event.instrument
        key = instrument.key
        joined = self.shares[key] = Share(instrument, event.max_lots)
        left = self.left_behind.pop(key, None)
        if left is not None:
            joined.follow(left)
        account = self.accounts.get(key)
        if account is None:
            self.accounts[key] = Account(Losses(self._day_ns), event.losses, instrument.expiry_ns)
        else:
            account.rejoin(event.losses, instrument.expiry_ns)
        self._rooms = []
        for trip in self.held.values():
            concerned = trip.target in (PORTFOLIO, instrument.exchange)
            if concerned and trip.switch is not Switch.VALUATION:  # that one clears itself
                out.append(TripSwitch(trip.switch, Scope.SYMBOL, key, trip.detail))

    def _leave(self, key: str, lots: int, now_ns: int, out: list[PortfolioAction]) -> None:
        share = self.shares.pop(key, None)
        if share is None:
            return
        self._parted_pnl_usd += share.pnl_usd
        if lots:
            share.depart(lots)
            self.left_behind[key] = share
        if is_over(share.instrument.expiry_ns, now_ns):  # it never comes back
            self._close_account(key)
        # If it comes back as bad as it was, it trips anew.
        self._clear(Switch.DRAWDOWN, key, out)
        self._clear(Switch.DAILY_LOSS, key, out)
        self._rooms = []

    def _count_left(self, key: str, lots: int) -> bool:
        """Somebody closed it, or orders that were left filled after all."""
        share = self.left_behind.get(key)
        if share is None or share.lots == lots:
            return False
        if lots or share.acked:
            share.depart(lots, share.acked)
        else:
            del self.left_behind[key]
        self._rooms = []
        return True

    def _await(self, event: ExchangeAwaited, now_ns: int) -> None:
        """Orders that may be out there fill or not: until it tells, nobody else gets the room that they may need."""
        self.awaited[event.exchange] = event.known
        for left in event.left:
            if not is_over(left.instrument.expiry_ns, now_ns):
                self.left_behind[left.instrument.key] = Share.of(left)
        self._rooms = []

    def _told(self, exchange: str) -> None:
        """What nobody has taken over is held there without orders."""
        self.awaited.pop(exchange, None)
        for key, share in list(self.left_behind.items()):
            if share.instrument.exchange == exchange and share.acked:
                share.depart(share.lots)
                if not share.lots:
                    del self.left_behind[key]
        self._rooms = []

    def _value(self, event: Valued) -> bool:
        share = self.shares.get(event.key)
        if share is None:
            return False
        bound = max(share.granted, share.acked)
        outgrown = event.lots != share.lots and max(abs(event.lots), abs(share.lots)) > bound
        blind = bool(share.missing)
        share.value(event.lots, event.mark, event.index, event.pnl_usd)
        if event.pnl_usd is not None:
            self.accounts[event.key].see(event.pnl_usd)
        return outgrown or share.drifted or bool(share.missing) is not blind

    def _reset(self, keys: Iterable[str], out: list[PortfolioAction]) -> None:
        exchanges = {self.shares[key].instrument.exchange for key in keys if key in self.shares}
        for key in keys:
            if self._clear(Switch.DRAWDOWN, key, out):
                self.accounts[key].losses.count_anew()
            self._clear(Switch.DAILY_LOSS, key, out)
        if self._clear(Switch.DRAWDOWN, PORTFOLIO, out):
            self.losses.count_anew()
        self._clear(Switch.DAILY_LOSS, PORTFOLIO, out)
        for target in (PORTFOLIO, *sorted(exchanges)):
            self._clear(Switch.EXPOSURE, target, out)
        self._clear(Switch.VALUATION, PORTFOLIO, out)

    def _close_account(self, key: str) -> None:
        """Nothing can be gained or lost there any more; what was counts in the total."""
        self._expired_gain_usd += self.accounts.pop(key).losses.gain_usd

    def _expire(self, now_ns: int) -> bool:
        """Forget positions left behind whose instrument is no more; True if there was one."""
        gone = [key for key, share in self.left_behind.items() if is_over(share.instrument.expiry_ns, now_ns)]
        for key in gone:
            del self.left_behind[key]
            self._rooms = []
        return bool(gone)

    def _roll(self, now_ns: int) -> None:
        """Begin a new day where one begins; close the accounts of what left and has expired since."""
        day_ns = day_start_ns(now_ns, self.limits.day_starts_hour)
        if day_ns == self._day_ns:
            return
        left = self.accounts.keys() - self.shares.keys()
        for key in sorted(left):
            if is_over(self.accounts[key].expiry_ns, now_ns):
                self._close_account(key)
        self._day_ns = day_ns
        for losses in (self.losses, *(account.losses for account in self.accounts.values())):
            losses.roll(day_ns)

    # --- allocation ------------------------------------------------------------------------------

    def _everybody(self) -> Iterable[Share]:
        """Those that are gone and left a position included."""
        return (*self.shares.values(), *self.left_behind.values()) if self.left_behind else self.shares.values()

    def _allocate(self, out: list[PortfolioAction]) -> None:
        """Give every symbol its share; raise nobody above what the others have let go of."""
        rooms = self._made_rooms()
        for share in self._everybody():
            share.weight = share.latest
        if not all(self.awaited.values()) or any(share.missing for share in self._everybody()):
            targets = dict.fromkeys(self.shares, 0)  # it may be any size, and lose anything: no room for anybody
        else:
            targets = targets_for(rooms, self.shares)
        for room in rooms:
            room.count_worst()
        for key in sorted(self.shares):
            self._grant(self.shares[key], targets[key], out)

    def _made_rooms(self) -> list[Room]:
        if not self._rooms:
            self._rooms = rooms_for(self.limits, self._everybody())
        return self._rooms

    def _grant(self, share: Share, target: int, out: list[PortfolioAction]) -> None:
        if target > share.granted:
            target = max(share.granted, min(target, room_left(share)))
        if target == share.granted and share.version:
            return
        before = share.worst_lots
        self._version += 1
        share.version = self._version
        share.acked = max(share.acked, share.granted, target)
        share.granted = target
        grown = share.worst_lots - before
        if grown:
            for room in share.rooms:
                room.worst += grown * share.weight[room.at]
        out.append(GrantBounds(share.instrument.key, share.version, -target, target))

    # --- trips -----------------------------------------------------------------------------------

    def _trip(self, switch: Switch, scope: Scope, target: str, detail: str, out: list[PortfolioAction]) -> None:
        """Once, until it is reset."""
        if (switch, target) not in self.held:
            trip = self.held[(switch, target)] = TripSwitch(switch, scope, target, detail)
            out.append(trip)

    def _clear(self, switch: Switch, target: str, out: list[PortfolioAction]) -> bool:
        """True if it was tripped; the next time the condition holds it trips again."""
        trip = self.held.pop((switch, target), None)
        if trip is not None:
            out.append(ClearSwitch(switch, trip.scope, target))
        return trip is not None

    def _gain(self) -> float | None:
        """Of everything since it was first valued; None while a position cannot be marked."""
        if any(share.lots and not share.pnl_known for share in self.shares.values()):
            return None
        return self._expired_gain_usd + math.fsum(account.losses.gain_usd for account in self.accounts.values())

    def _watch_losses(self, out: list[PortfolioAction]) -> None:
        """Reaching a limit is enough: at exactly the limit it trips."""
        limits = self.limits
        for key in self.shares:
            account = self.accounts[key]
            own, losses = account.limits, account.losses
            detail = drawdown_breach(losses, own.max_drawdown_usd, own.drawdown_key)
            if detail is not None:
                self._trip(Switch.DRAWDOWN, Scope.SYMBOL, key, detail, out)
            detail = daily_breach(losses, own.max_daily_loss_usd, own.daily_loss_key, limits.day_starts_hour)
            if detail is not None:
                self._trip(Switch.DAILY_LOSS, Scope.SYMBOL, key, detail, out)
        gain = self._gain()
        if gain is None:
            return
        self.losses.see(gain)
        detail = drawdown_breach(self.losses, limits.max_drawdown_usd, DRAWDOWN_KEY)
        if detail is not None:
            self._trip(Switch.DRAWDOWN, Scope.PORTFOLIO, PORTFOLIO, detail, out)
        detail = daily_breach(self.losses, limits.max_daily_loss_usd, DAILY_LOSS_KEY, limits.day_starts_hour)
        if detail is not None:
            self._trip(Switch.DAILY_LOSS, Scope.PORTFOLIO, PORTFOLIO, detail, out)

    def _watch_exposure(self, out: list[PortfolioAction]) -> None:
        """Positions, not worst cases, held against every total; exactly the limit is allowed, more is not.

        Bounds leave room for marks that move within the drift allowance; a mark that moves further
        may make what was granted too much, and that is a breach like any other.
        """
        passed: dict[tuple[Scope, str], list[str]] = {}
        for room in self._made_rooms():
            if not room.passed:
                continue
            total = room.total
            of_exchange = total.span is Span.EXCHANGE
            whom = (Scope.EXCHANGE, total.target) if of_exchange else (Scope.PORTFOLIO, PORTFOLIO)
            detail = f"{room.used():.10g} {total} held, allowed {total.limit:f} ({total.key})"
            passed.setdefault(whom, []).append(detail)
        for (scope, target), details in passed.items():
            self._trip(Switch.EXPOSURE, scope, target, "; ".join(details), out)

    def _watch_valuation(self, now_ns: int, out: list[PortfolioAction]) -> None:
        """Trips once something could not be valued for the configured time; clears itself when everything can."""
        missing = {share.instrument.key: share.missing for share in self._everybody() if share.missing}
        since = {key: self._blind_since_ns.get(key, now_ns) for key in missing}
        self._blind_since_ns = since
        if not since:
            self._clear(Switch.VALUATION, PORTFOLIO, out)
            return
        allowed = self.switches.max_unvalued_seconds
        late = [key for key in sorted(since) if now_ns - since[key] >= allowed * NS]
        if late:
            details = [
                f"{key}: {' and '.join(missing[key])} missing for {(now_ns - since[key]) / NS:.1f} s" for key in late
            ]
            detail = f"{'; '.join(details)}, allowed {allowed:g} s ({VALUATION_KEY})"
            self._trip(Switch.VALUATION, Scope.PORTFOLIO, PORTFOLIO, detail, out)

    # --- reports ---------------------------------------------------------------------------------

    def totals(self) -> Totals:
        exposure: dict[str, float] = {}
        worst: dict[str, float] = {}
        notional = 0.0
        for share in self._everybody():
            base = share.instrument.base
            coins, usd, _ = share.latest
            exposure[base] = exposure.get(base, 0.0) + abs(share.lots) * coins
            worst[base] = worst.get(base, 0.0) + share.worst_lots * coins
            notional += abs(share.lots) * usd
        known = self._gain() is not None
        pnl = self._parted_pnl_usd + math.fsum(share.pnl_usd for share in self.shares.values())
        return Totals(
            exposure=exposure,
            worst_exposure=worst,
            notional_usd=notional,
            pnl_usd=pnl if known else None,
            day_pnl_usd=self.losses.day_usd if known else None,
            high_water_usd=pnl + self.losses.drawdown_usd,
            drawdown_usd=self.losses.drawdown_usd if known else None,
        )

    def losses_of(self, key: str) -> Losses | None:
        """Day's gain and drawdown of one symbol; None: not known, or a position that cannot be valued."""
        share, account = self.shares.get(key), self.accounts.get(key)
        if share is None or account is None or (share.lots and not share.pnl_known):
            return None
        return account.losses

    def worth(self, key: str) -> tuple[float, float]:
        """Of one lot, as last known: coins and USD; 0.0 = never known."""
        share = self.shares.get(key) or self.left_behind.get(key)
        return share.latest[:2] if share is not None else (0.0, 0.0)

    def carried(self) -> CarriedLosses:
        """For the next run."""
        symbols = {key: account.carried() for key, account in self.accounts.items()}
        left = tuple(share.left() for share in self._everybody() if share.lots)
        return CarriedLosses(everything=self.losses.carried(), symbols=symbols, left=left)

    def uses(self, resting: Mapping[str, int]) -> list[Use]:
        """Every total. `resting`: by symbol's key, orders that are or may be at the exchange."""
        instruments = [share.instrument for share in self.shares.values()]
        rows = [use_of(room) for room in self._made_rooms()]
        return [*rows, *order_uses(self.limits, instruments, resting), *self._loss_uses()]

    def _loss_uses(self) -> list[Use]:
        limits = self.limits
        known = self._gain() is not None
        rows = [("USD lost", self.losses.drawdown_usd, limits.max_drawdown_usd, DRAWDOWN_KEY)]
        if limits.max_daily_loss_usd is not None:
            rows.append(("USD lost today", max(0.0, -self.losses.day_usd), limits.max_daily_loss_usd, DAILY_LOSS_KEY))
        return [
            Use(
                scope=Span.PORTFOLIO,
                target="",
                unit=unit,
                used=lost if known else None,
                worst=None,
                limit=float(limit),
                oversubscribed=None,
                key=key,
            )
            for unit, lost, limit, key in rows
        ]


def is_over(expiry_ns: int | None, now_ns: int) -> bool:
    return expiry_ns is not None and expiry_ns <= now_ns
