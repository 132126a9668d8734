"""Rate limits: buckets of credits that refill continuously. Times are seconds of any steady clock, passed in."""

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """`rate` requests per second for ever, `burst` at once from a full bucket."""

    rate: float
    burst: float


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """One budget per class of method; the defaults are Deribit's, but the matching engine's is generous.

    `enforced` False: nothing is ever refused. `closes` True: the link that ran out is closed after the answer.
    """

    matching: Budget = Budget(250.0, 1000.0)
    cancel_all: Budget = Budget(250.0, 1000.0)
    default: Budget = Budget(20.0, 100.0)
    instruments: Budget = Budget(1.0, 50.0)
    subscribe: Budget = Budget(10.0 / 3.0, 10.0)
    transaction_log: Budget = Budget(1.0, 8.0)
    enforced: bool = True
    closes: bool = True


class Bucket:
    """Credits of one class of one owner, counted in requests."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.credits = budget.burst
        self._at = 0.0
        self._fresh = True

    def take(self, now_seconds: float) -> bool:
        """Spend one request; False if there is not enough."""
        if self._fresh:
            self._fresh = False
        else:
            refill = max(0.0, now_seconds - self._at) * self.budget.rate
            self.credits = min(self.budget.burst, self.credits + refill)
        self._at = now_seconds
        if self.credits < 1.0:
            return False
        self.credits -= 1.0
        return True


class Limiter:
    """The buckets of everybody: one set per owner (an account, or a link that did not log in)."""

    def __init__(self, budgets: Budgets) -> None:
        self.budgets = budgets
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def allow(self, owner: str, kind: str, now_seconds: float) -> bool:
        """Whether `owner` may send one more request of this kind (a field name of Budgets)."""
        if not self.budgets.enforced:
            return True
        bucket = self._buckets.get((owner, kind))
        if bucket is None:
            bucket = self._buckets[owner, kind] = Bucket(getattr(self.budgets, kind))
        return bucket.take(now_seconds)

    def forget(self, owner: str) -> None:
        """Drop the buckets of a link that is gone."""
        for key in [key for key in self._buckets if key[0] == owner]:
            del self._buckets[key]
