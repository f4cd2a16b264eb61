"""A book: blocks, jobs and charges, and the rules over them. Every change is an entry of its log.

One command changes all blocks that a job touches, or none. The same entries, in the same order,
make the same book: `replay` is how a log is audited. A book over a database loads what it is asked
for by overriding the three `_find...` methods, and stores `log` and `changed` afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hansa.budget import rules
from hansa.budget.block import Block, block_of
from hansa.budget.cost import Need
from hansa.budget.entry import Entry, Key, Kind
from hansa.budget.rules import Account, Draw, Fate, NoRoom, Position
from hansa.core import canonical
from hansa.core.canonical import Json
from hansa.core.events import Event
from hansa.errors import BudgetExceeded, HansaError, Refused


@dataclass(frozen=True, slots=True)
class Change:
    """What an entry makes of its block; None is as before."""

    account: Account
    position: Position | None = None
    draw: Draw | None = None


class Book:
    """Blocks, jobs and charges in memory.

    Attributes:
      log: entries that were added since the book was opened, in order.
      changed: blocks and (block, job) whose numbers changed since then.
    """

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.changed: set[tuple[str, str]] = set()
        self._blocks: dict[str, Block] = {}
        self._accounts: dict[str, Account] = {}
        self._positions: dict[str, dict[str, Position]] = {}
        self._draws: dict[str, dict[Key, dict[str, Draw]]] = {}

    # -------------------------------------------------------------- what there is

    def blocks(self) -> Mapping[str, Block]:
        """All blocks, by name."""
        return self._find_blocks()[0]

    def account(self, block: str) -> Account:
        """One block in numbers.

        Raises:
          HansaError: there is no such block.
        """
        found = self._find_blocks()[1].get(block)
        if found is None:
            raise HansaError(f"there is no privacy budget '{block}'", fix="see: hansa budget show")
        return found

    def positions(self, job: str) -> Mapping[str, Position]:
        """One job at the blocks that it touches, by their names."""
        return self._find_positions(job)

    def all_positions(self) -> Mapping[tuple[str, str], Position]:
        """Every job at every block, by (job, block); of a book in memory."""
        return {(j, b): p for j, found in self._positions.items() for b, p in found.items()}

    def draws(self, key: Key) -> Mapping[str, Draw]:
        """One charge at the blocks that it was charged to, by their names."""
        return self._find_draws(key)

    # -------------------------------------------------------------- commands

    def create(self, block: Block, now: float) -> None:
        """Adds a block; adding it twice changes nothing.

        Raises:
          Refused: there is another block of that name.
        """
        known = self.blocks().get(block.name)
        if known is not None:
            if known != block:
                raise Refused(
                    f"there is another privacy budget '{block.name}', and none ever changes",
                    fix="create it under another name",
                )
            return
        more: dict[str, Json] = {"definition": block.words}
        self._do([Entry(Kind.CREATE, block.name, "", "", 0, 0, block.capacity, now, more)])

    def hold(self, job: str, needs: Mapping[str, Need], now: float) -> None:
        """Sets aside what a job declares, at all its blocks or at none; once in its life.

        Raises:
          BudgetExceeded: a block lacks room: which, how much is left, what would fit.
          HansaError: the job held something else before.
        """
        known = self.positions(job)
        if known:
            before = {name: position.declared for name, position in known.items()}
            if before != {name: need.urdp for name, need in needs.items()}:
                raise HansaError(
                    f"job '{job}' held other amounts before",
                    fix="submit it again under a new identifier",
                )
            return
        entries = []
        for name, need in sorted(needs.items()):
            account = self.account(name)
            if need.urdp > account.free:
                raise _exceeded(self.blocks()[name], account, need)
            more: dict[str, Json] = {"each": need.each, "releases": need.releases}
            entries.append(Entry(Kind.HOLD, name, job, "", 0, 0, need.urdp, now, more))
        self._do(entries)

    def reserve(self, key: Key, event: Event, costs: Mapping[str, int], now: float) -> None:
        """Draws a charge from all blocks of its job or from none; a known charge changes nothing.

        Args:
          key: its name.
          event: what will be done to the data.
          costs: micro-RDP for each of the job's blocks.
          now: when.

        Raises:
          BudgetExceeded: it goes beyond what the job has set aside, and a block lacks room for
            that.
          HansaError: the job did not hold, is over, or was charged otherwise under this name.
        """
        positions, known = self.positions(key.job), self.draws(key)
        if positions.keys() != costs.keys():
            raise HansaError(
                f"job '{key.job}' holds {_names(positions)} and is charged at {_names(costs)}",
                fix="take the hold first, and charge each of its blocks",
            )
        if known:
            if {n: d.urdp for n, d in known.items()} != dict(costs):
                raise HansaError(f"{_words(key)} was charged for another amount", fix=_ANOTHER)
            if any(draw.fate is Fate.REFUNDED for draw in known.values()):
                raise HansaError(f"{_words(key)} was refunded", fix=_ANOTHER)
            return
        entries, said = [], canonical.plain(event)
        for name, urdp in sorted(costs.items()):
            from_hold = min(positions[name].left, urdp)
            account = self.account(name)
            if urdp - from_hold > account.free:
                beyond = Need(urdp - from_hold, urdp - from_hold, 1)
                raise _exceeded(self.blocks()[name], account, beyond, key)
            more: dict[str, Json] = {"from_hold": from_hold, "event": said}
            entries.append(_charge(Kind.RESERVE, name, key, urdp, now, more))
        self._do(entries)

    def commit(self, key: Key, now: float) -> None:
        """Spends a reservation for good, before anything is released; twice is once.

        Raises:
          HansaError: it was not reserved, was refunded, or its job is over.
        """
        draws = self._known(key)
        self._do(
            [
                _charge(Kind.COMMIT, name, key, draw.urdp, now)
                for name, draw in sorted(draws.items())
                if draw.fate is not Fate.COMMITTED
            ]
        )

    def refund(self, key: Key, statement: str, now: float) -> None:
        """Takes back a reservation that was never committed; twice is once.

        Args:
          key: its name.
          statement: why it is certain that nothing crossed the boundary; it stays in the log.
          now: when.

        Raises:
          HansaError: nothing is stated, it was not reserved, was committed, or its job is over.
        """
        if not statement.strip():
            raise HansaError(
                f"{_words(key)} is refunded only with a statement",
                fix="say why nothing of it was released",
            )
        draws, more = self._known(key), {"statement": canonical.plain(statement)}
        self._do(
            [
                _charge(Kind.REFUND, name, key, draw.urdp, now, more)
                for name, draw in sorted(draws.items())
                if draw.fate is not Fate.REFUNDED
            ]
        )

    def settle(self, job: str, now: float) -> None:
        """Ends a job: what it set aside and never drew is free again; twice is once.

        Reservations that are open count as released from now on.
        """
        entries = []
        for name, position in sorted(self.positions(job).items()):
            if not position.settled:
                more: dict[str, Json] = {"open": position.reserved}
                entries.append(Entry(Kind.SETTLE, name, job, "", 0, 0, position.left, now, more))
        self._do(entries)

    # -------------------------------------------------------------- entries

    def post(self, entry: Entry) -> None:
        """Applies one entry of a log, by the same rules as when it was written.

        Raises:
          HansaError: the entry cannot follow, or says another number than the rules give.
        """
        self._store(entry, self._change(entry))

    def _do(self, entries: list[Entry]) -> None:
        changes = [self._change(entry) for entry in entries]
        for entry, change in zip(entries, changes, strict=True):
            self._store(entry, change)
            self.log.append(entry)

    def _store(self, entry: Entry, change: Change) -> None:
        self._find_blocks()[1][entry.block] = change.account
        self.changed.add((entry.block, entry.job))
        if entry.kind is Kind.CREATE:
            self._blocks[entry.block] = block_of(_definition(entry))
        if change.position is not None:
            self._positions.setdefault(entry.job, {})[entry.block] = change.position
        if change.draw is not None:
            of_job = self._draws.setdefault(entry.job, {})
            of_job.setdefault(entry.key, {})[entry.block] = change.draw
        if entry.kind is Kind.SETTLE:
            self._draws.pop(entry.job, None)  # nothing about its charges can follow

    def _change(self, entry: Entry) -> Change:
        """What an entry makes of its block."""
        try:
            return self._ruled(entry)
        except NoRoom as error:
            raise _wrong(entry, str(error)) from None

    def _ruled(self, entry: Entry) -> Change:
        if entry.kind is Kind.CREATE:
            block = block_of(_definition(entry))
            if block.name != entry.block or block.name in self.blocks():
                raise _wrong(entry, "it names another block, or one that there is")
            _agree(entry, block.capacity)
            return Change(Account(block.capacity))
        account, position = self.account(entry.block), self.positions(entry.job).get(entry.block)
        if entry.kind is Kind.HOLD:
            if position is not None or not entry.job:
                raise _wrong(entry, "its job holds already")
            return Change(*rules.hold(account, entry.urdp))
        if position is None:
            raise _wrong(entry, "its job holds nothing there")
        if entry.kind is Kind.SETTLE:
            _agree(entry, position.left, open=position.reserved)
            return Change(*rules.settle(account, position))
        draw = self._find_draws(entry.key).get(entry.block)
        if entry.kind is Kind.RESERVE:
            if draw is not None:
                raise _wrong(entry, "the charge is known")
            change = Change(*rules.reserve(account, position, entry.urdp))
            _agree(entry, entry.urdp, from_hold=change.draw.from_hold if change.draw else -1)
            return change
        if draw is None:
            raise _wrong(entry, "the charge was not reserved")
        _agree(entry, draw.urdp)
        if entry.kind is Kind.REFUND and not str(entry.more.get("statement", "")).strip():
            raise _wrong(entry, "nothing is stated")
        rule = rules.commit if entry.kind is Kind.COMMIT else rules.refund
        return Change(*rule(account, position, draw))

    def _known(self, key: Key) -> Mapping[str, Draw]:
        draws, positions = self.draws(key), self.positions(key.job)
        if any(position.settled for position in positions.values()):
            raise HansaError(
                f"{_words(key)} comes too late: its job is over", fix="submit the job again"
            )
        if not draws and positions:
            raise HansaError(
                f"{_words(key)} was not reserved",
                fix="reserve a charge before the first client is contacted",
            )
        return draws

    # -------------------------------------------------------------- where it comes from

    def _find_blocks(self) -> tuple[dict[str, Block], dict[str, Account]]:
        return self._blocks, self._accounts

    def _find_positions(self, job: str) -> dict[str, Position]:
        return self._positions.get(job, {})

    def _find_draws(self, key: Key) -> dict[str, Draw]:
        return self._draws.get(key.job, {}).get(key, {})


def replay(entries: Iterable[Entry]) -> Book:
    """The book that a log makes.

    Raises:
      HansaError: an entry breaks a rule.
    """
    book = Book()
    for entry in entries:
        book.post(entry)
    return book


# ------------------------------------------------------------------ words

_ANOTHER = "charge what the plan says; another release is another attempt"


def _charge(
    kind: Kind,
    block: str,
    key: Key,
    urdp: int,
    now: float,
    more: Mapping[str, Json] | None = None,
) -> Entry:
    where = (key.job, key.purpose, key.round, key.attempt)
    return Entry(kind, block, *where, urdp, now, more or {})


def _definition(entry: Entry) -> Mapping[str, Json]:
    found = entry.more.get("definition")
    if not isinstance(found, dict):
        raise _wrong(entry, "it defines nothing")
    return found


def _agree(entry: Entry, urdp: int, **more: int) -> None:
    said = {name: entry.more.get(name) for name in more}
    if entry.urdp != urdp or said != more:
        raise _wrong(entry, f"by the rules it is {urdp} micro-RDP" + f" with {more}" * bool(more))


def _wrong(entry: Entry, why: str) -> HansaError:
    where = f"job '{entry.job}', round {entry.round}, attempt {entry.attempt}" if entry.job else ""
    return HansaError(
        f"an entry '{entry.kind}' of the privacy budget '{entry.block}' cannot stand here "
        f"({where}): {why}",
        fix="find out who wrote it; restore the log from a copy that is whole",
    )


def _words(key: Key) -> str:
    again = f", attempt {key.attempt}" if key.attempt else ""
    return f"{key.purpose} round {key.round}{again} of job '{key.job}'"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)) or "no privacy budget"


def _exceeded(block: Block, account: Account, need: Need, key: Key | None = None) -> BudgetExceeded:
    """Which block, how much is left, what would fit."""
    taken = block.epsilon_of(account.spent + account.held)
    what = f"{_words(key)}, beyond what its job declared," if key else "this job"
    count = account.free // need.each if need.each else 0
    fitting = f"; {count:,} of its {need.releases:,} releases would fit" if not key else ""
    return BudgetExceeded(
        f"the privacy budget '{block.name}' has {account.free:,} of {account.capacity:,} micro-RDP "
        f"left at order {block.order} (epsilon {taken:.4g} of {block.epsilon:g} at delta "
        f"{block.delta:g} is spent or held), {what} needs {need.urdp:,}{fitting}",
        fix="plan fewer rounds or more noise, wait until open jobs give back what they do not use, "
        "or ask the budget's owner for another one",
    )
