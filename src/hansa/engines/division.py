"""Who trains whom, where each actor is told its clients at once: fair shares, near the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hansa.engines.sums import Placed


def divide(
    placed: Sequence[Placed],
    examples: Mapping[str, int],
    homes: Mapping[str, int],
    actors: Sequence[int],
) -> dict[int, tuple[Placed, ...]]:
    """Divides clients among actors.

    Clients are taken in the order of their length, the longest first. One goes to the actor that
    trained it before and has its examples, unless that gives this actor more than its fair share;
    all others go to whoever has least (Graham, SIAM J. Appl. Math. 17, 1969: the largest share is
    then at most a third above the best division).

    | clients                      | result                                                   |
    |------------------------------|----------------------------------------------------------|
    | none, or fewer than actors   | some actors are not in the result                        |
    | one that was never seen      | counts as the mean of the others                         |
    | one whose actor is gone      | goes to another one                                      |

    Args:
      placed: whom to train, each with the number of its group.
      examples: how many each client trains on, as far as it is known.
      homes: the actor that has a client's examples.
      actors: who is there; at least one if there are clients.
    """
    known = [examples[client] for _, client in placed if client in examples]
    mean = sum(known) / len(known) if known else 1.0
    lengths = {client: examples.get(client, mean) for _, client in placed}
    fair = sum(lengths.values()) / max(1, len(actors))
    loads = dict.fromkeys(actors, 0.0)
    shares: dict[int, list[Placed]] = {actor: [] for actor in actors}
    away: list[Placed] = []

    def give(each: Placed, actor: int) -> None:
        shares[actor].append(each)
        loads[actor] += lengths[each[1]]

    longest_first = sorted(placed, key=lambda each: lengths[each[1]], reverse=True)
    for each in longest_first:
        home = homes.get(each[1])
        if home in loads and (not loads[home] or loads[home] + lengths[each[1]] <= fair):
            give(each, home)
        else:
            away.append(each)
    for each in away:
        give(each, min(loads, key=loads.__getitem__))
    return {actor: tuple(share) for actor, share in shares.items() if share}
