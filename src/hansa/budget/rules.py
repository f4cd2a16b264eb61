"""The rules of spending: pure functions over whole numbers of micro-RDP.

    hold ──► reserve ──► commit          spent = reserved + committed; it never decreases, except by
      │         └──────► refund          refund and by nothing else
      └──► settle                        free = capacity - held - spent; it is never negative

An `Account` is one block, a `Position` one job at one block, a `Draw` one charge at one block. Each
function takes what is and returns what will be; who calls it stores both or neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from hansa.errors import HansaError


class Fate(StrEnum):
    """What became of a reservation."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Account:
    """One block in numbers.

    Attributes:
      capacity: all that there is.
      held: set aside for open jobs, not drawn yet.
      reserved: drawn, and neither committed nor refunded.
      committed: spent for good.
    """

    capacity: int
    held: int = 0
    reserved: int = 0
    committed: int = 0

    @property
    def spent(self) -> int:
        """What counts as released."""
        return self.reserved + self.committed

    @property
    def free(self) -> int:
        """What new jobs can have."""
        return self.capacity - self.held - self.spent


@dataclass(frozen=True, slots=True)
class Position:
    """One job at one block.

    Attributes:
      declared: what it held at its start.
      left: of that, not drawn.
      reserved: drawn, and neither committed nor refunded.
      settled: whether the job is over.
    """

    declared: int
    left: int
    reserved: int = 0
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Draw:
    """One charge at one block.

    Attributes:
      urdp: what it costs.
      from_hold: the part of it that the job had set aside.
      fate: what became of it.
    """

    urdp: int
    from_hold: int
    fate: Fate = Fate.RESERVED


class NoRoom(Exception):
    """A block lacks room; the book that knows its name says so in words."""

    def __init__(self, free: int, wanted: int) -> None:
        super().__init__(f"{free} micro-RDP are free, {wanted} are wanted")
        self.free = free
        self.wanted = wanted


def hold(account: Account, urdp: int) -> tuple[Account, Position]:
    """Sets aside what a whole job declares.

    Raises:
      NoRoom: more than is free.
    """
    _whole(urdp)
    if urdp > account.free:
        raise NoRoom(account.free, urdp)
    return replace(account, held=account.held + urdp), Position(urdp, urdp)


def reserve(account: Account, position: Position, urdp: int) -> tuple[Account, Position, Draw]:
    """Draws one charge: from what its job has set aside, and beyond that from what is free.

    Raises:
      NoRoom: the part beyond is more than is free.
      HansaError: the job is over.
    """
    _whole(urdp)
    _running(position)
    from_hold = min(position.left, urdp)
    beyond = urdp - from_hold
    if beyond > account.free:
        raise NoRoom(account.free, beyond)
    # Written out: replace() takes as long as all the rest, and logs have millions of charges.
    return (
        Account(
            account.capacity,
            account.held - from_hold,
            account.reserved + urdp,
            account.committed,
        ),
        Position(position.declared, position.left - from_hold, position.reserved + urdp),
        Draw(urdp, from_hold),
    )


def commit(account: Account, position: Position, draw: Draw) -> tuple[Account, Position, Draw]:
    """Spends a reservation for good.

    Raises:
      HansaError: it is not open.
    """
    _open(position, draw)
    return (
        replace(
            account,
            reserved=account.reserved - draw.urdp,
            committed=account.committed + draw.urdp,
        ),
        replace(position, reserved=position.reserved - draw.urdp),
        replace(draw, fate=Fate.COMMITTED),
    )


def refund(account: Account, position: Position, draw: Draw) -> tuple[Account, Position, Draw]:
    """Takes a reservation back, exactly: to the hold what came from there, the rest is free.

    Raises:
      HansaError: it is not open.
    """
    _open(position, draw)
    return (
        replace(
            account,
            held=account.held + draw.from_hold,
            reserved=account.reserved - draw.urdp,
        ),
        replace(
            position,
            left=position.left + draw.from_hold,
            reserved=position.reserved - draw.urdp,
        ),
        replace(draw, fate=Fate.REFUNDED),
    )


def settle(account: Account, position: Position) -> tuple[Account, Position]:
    """Ends a job: what no reservation used is free again, open reservations are spent for good.

    Raises:
      HansaError: the job is over already.
    """
    _running(position)
    return (
        replace(
            account,
            held=account.held - position.left,
            reserved=account.reserved - position.reserved,
            committed=account.committed + position.reserved,
        ),
        replace(position, left=0, reserved=0, settled=True),
    )


def _whole(urdp: int) -> None:
    if type(urdp) is not int or urdp < 0:
        raise HansaError(
            f"{urdp!r} is no amount of micro-RDP", fix="charge whole numbers that are not negative"
        )


def _running(position: Position) -> None:
    if position.settled:
        raise HansaError("the job was settled: it is over", fix="submit the job again")


def _open(position: Position, draw: Draw) -> None:
    _running(position)
    if draw.fate is not Fate.RESERVED:
        raise HansaError(
            f"the charge is {draw.fate} already", fix="charge another attempt for another release"
        )
