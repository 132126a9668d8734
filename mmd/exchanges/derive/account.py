"""What Derive is asked about the account: cancel-on-disconnect, what it is worth, what it may ask."""

from decimal import Decimal

from mmd.core.budget import Budget
from mmd.domain.errors import ExchangeMalformed
from mmd.exchanges.api import Account
from mmd.exchanges.connection import Connection
from mmd.exchanges.derive.instruments import SETTLEMENT
from mmd.exchanges.derive.messages import AccountData, Subaccount
from mmd.exchanges.derive.room import Room
from mmd.exchanges.derive.windows import MATCHING_RATE, RESERVE_SHARE, bucket
from mmd.exchanges.jsonrpc import Decoder

_decode_account: Decoder[AccountData] = Decoder(AccountData)
_decode_subaccount: Decoder[Subaccount] = Decoder(Subaccount)


def order_limits(per_second: float) -> tuple[float, float, float]:
    """(tokens a second, burst, reserve for cancels) of the orders' budget. ValueError for what is no budget."""
    rate, burst = bucket(per_second)
    return rate, burst, min(burst * RESERVE_SHARE, burst - 1.0)


def first_budget() -> Budget:
    """An ordinary account's."""
    return Budget(*order_limits(MATCHING_RATE))


def read_row(data: Subaccount) -> Account:
    """USDC, in which everything is margined. ExchangeMalformed where the exchange could not fetch it whole.

    Derive tells what is left of a margin; we tell what is needed: the account's worth less that, open orders
    included where margin is needed initially.
    """
    unknown = ExchangeMalformed(f"subaccount {data.subaccount_id} could not be fetched whole")
    try:
        worth = data.subaccount_value
        account = Account(
            currency=SETTLEMENT,
            equity=worth,
            balance=sum((row.amount for row in data.collaterals if row.asset_name == SETTLEMENT), Decimal(0)),
            initial_margin=worth - data.initial_margin - data.open_orders_margin,
            maintenance_margin=worth - data.maintenance_margin,
        )
    except ArithmeticError:
        raise unknown from None
    numbers = (account.equity, account.balance, account.initial_margin, account.maintenance_margin)
    if data.failed_to_fetch or not all(number.is_finite() for number in numbers):
        raise unknown
    return account


class DeriveAccount:
    """Implements AccountCalls.

    Cancel-on-disconnect is one flag of the whole wallet, which the exchange keeps. It is set where it is off, and
    never switched off: other programs of the wallet may rely on it.
    """

    def __init__(self, room: Room) -> None:
        self._room = room

    async def arm(self, connection: Connection) -> bool:
        if await self.is_armed(connection):
            return True
        await connection.call("private/set_cancel_on_disconnect", {"enabled": True})
        armed = await self.is_armed(connection)
        if armed:
            wallet = self._room.signer.owner
            text = f"it was off, and is on for all of wallet {wallet} from now on, also when this daemon does not run"
            cost = "any logged-in connection of the wallet that ends cancels all its orders, those of others as well"
            self._room.house.sink.report("cancel_on_disconnect.set", f"{text}: {cost}")
        return armed

    async def is_armed(self, connection: Connection) -> bool:
        return (await self._read(connection)).cancel_on_disconnect

    async def accounts(self, connection: Connection) -> list[Account]:
        """Renews the budget first: it is told of the wallet, also where the subaccount cannot be fetched."""
        house = self._room.house
        self._renew(await self._read(connection))
        params = {"subaccount_id": self._room.subaccount}
        data = _decode_subaccount(await connection.call("private/get_subaccount", params))
        if data.is_under_liquidation:
            house.sink.report(
                "account.liquidation", f"{house.name}: subaccount {data.subaccount_id} is being liquidated"
            )
        return [read_row(data)]

    async def _read(self, connection: Connection) -> AccountData:
        return _decode_account(await connection.call("private/get_account", {"wallet": self._room.signer.owner}))

    def _renew(self, data: AccountData) -> None:
        """Raises ExchangeMalformed where it is no budget: then what was known stays."""
        try:
            limits = order_limits(data.websocket_matching_tps)
            self._room.paces.hold(matching=data.websocket_matching_tps, questions=data.websocket_non_matching_tps)
        except ValueError as error:
            raise ExchangeMalformed(f"private/get_account: {error}") from error
        self._room.house.budget.set_limits(*limits)
