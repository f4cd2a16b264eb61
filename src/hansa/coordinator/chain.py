"""Append-only hash chains: h_i = SHA256(h_{i-1} || SHA256(entry_i)), entries in canonical JSON.

Only the hash of an entry enters, so that whoever kept a head can be shown that another one extends
it by 32 bytes an entry, without a word of the entries. Each entry names its chain and its place, so
that no entry can be moved. Where a chain ends is kept beside it, so that a chain that lost its tail
is noticed; that the whole store was set back to an older copy is noticed by whoever kept a `Head`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from hansa.coordinator import schema
from hansa.coordinator.rows import Head
from hansa.core import canonical
from hansa.errors import StoreError

START = Head(0, "0" * 64)


@dataclass(frozen=True, slots=True)
class Link:
    """One stored entry: its text and hash, and what the columns beside it say again."""

    seq: int
    entry: str
    hash: str
    columns: Mapping[str, object]


def digest(entry: str) -> str:
    """SHA-256 of an entry."""
    return hashlib.sha256(entry.encode("utf-8")).hexdigest()


def link(before: str, entry: str) -> str:
    """The hash after an entry."""
    return follow(before, digest(entry))


def follow(before: str, entry_sha256: str) -> str:
    """The hash after an entry of which only the SHA-256 is known."""
    return hashlib.sha256(bytes.fromhex(before + entry_sha256)).hexdigest()


def head(connection: Connection, chain: str) -> Head:
    """Where a chain ends."""
    row = connection.execute(
        select(schema.heads.c.seq, schema.heads.c.hash).where(schema.heads.c.chain == chain)
    ).one_or_none()
    return START if row is None else Head(row.seq, row.hash)


def extend(connection: Connection, chain: str, body: Mapping[str, object]) -> tuple[Head, str]:
    """Adds an entry to a chain's end; the caller stores its text.

    Returns:
      The new head and the entry's text.
    """
    new, links = extend_all(connection, chain, [body])
    return new, links[0].entry


def extend_all(
    connection: Connection, chain: str, bodies: Sequence[Mapping[str, object]]
) -> tuple[Head, list[Link]]:
    """Adds entries to a chain's end; the caller stores them.

    Returns:
      The new head, and for each body its place, text and hash.
    """
    before = last = head(connection, chain)
    links = []
    for body in bodies:
        entry = canonical.dumps({"chain": chain, "seq": last.seq + 1, **body})
        last = Head(last.seq + 1, link(last.hash, entry))
        links.append(Link(last.seq, entry, last.hash, {}))
    if before.seq:
        change = update(schema.heads).where(schema.heads.c.chain == chain)
        connection.execute(change.values(seq=last.seq, hash=last.hash))
    elif links:
        connection.execute(insert(schema.heads).values(chain=chain, seq=last.seq, hash=last.hash))
    return last, links


def verify(
    chain: str,
    links: Iterable[Link],
    end: Head,
    seen: Head | None = None,
    each: Callable[[Mapping[str, Any]], None] | None = None,
) -> Head:
    """Recomputes a whole chain.

    Args:
      chain: its name.
      links: all entries, in order.
      end: where the store says that it ends.
      seen: a head that was handed out earlier and must still be in it.
      each: called with what each entry says, once its place in the chain is sure.

    Returns:
      The end.

    Raises:
      StoreError: an entry was changed, moved, added, removed, or the chain was set back.
    """
    last = START
    for item in links:
        last = Head(last.seq + 1, link(last.hash, item.entry))
        said = _parsed(item.entry)
        told = {"chain": chain, "seq": item.seq, **item.columns}
        if (item.seq, item.hash) != (last.seq, last.hash) or any(
            said.get(name) != value for name, value in told.items()
        ):
            raise _broken(chain, f"entry {last.seq} is not the one that was written")
        if seen is not None and seen.seq == last.seq and seen.hash != last.hash:
            raise _broken(chain, f"entry {last.seq} is another one than was seen before")
        if each is not None:
            each(said)
    if last != end:
        raise _broken(chain, f"it ends after {last.seq} entries, not after {end.seq}")
    if seen is not None and seen.seq > last.seq:
        raise _broken(chain, f"it was seen with {seen.seq} entries and has {last.seq} now")
    return last


def verify_stored(
    connection: Connection,
    chain: str,
    query: Select[Any],
    columns: Callable[[Row[Any]], Mapping[str, object]],
    seen: Head | None,
    each: Callable[[Mapping[str, Any]], None] | None = None,
) -> Head:
    """Recomputes a chain from its table, a thousand entries at a time.

    Args:
      connection: an open transaction.
      chain: its name.
      query: its rows in order, with `seq`, `entry` and `hash`.
      columns: what the other columns of a row say again.
      seen: see `verify`.
      each: see `verify`.

    Raises:
      StoreError: see `verify`.
    """
    end = head(connection, chain)
    with connection.execute(query, execution_options={"yield_per": 1000}) as found:
        links = (Link(row.seq, row.entry, row.hash, columns(row)) for row in found)
        return verify(chain, links, end, seen, each)


def _parsed(entry: str) -> dict[str, object]:
    """What an entry says; nothing if it is no JSON object, which no entry of ours is."""
    try:
        said = json.loads(entry)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _broken(chain: str, why: str) -> StoreError:
    return StoreError(
        f"the chain '{chain}' is broken: {why}",
        fix="find out who changed the store; restore it from a copy whose chain is whole",
    )
