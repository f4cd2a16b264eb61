"""What a mistyped name was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant; None if nothing is close."""
    spelled = {k.lower(): k for k in known}
    close = get_close_matches(word.lower().replace("-", "_"), spelled, n=1, cutoff=0.6)
    return spelled[close[0]] if close else None


def suggest(word: str, known: Iterable[str], plural: str) -> str:
    """A fix for an unknown word: the nearest known one, then all of them."""
    names = sorted(known)
    near = nearest(word, names)
    return f"write {near}; " * bool(near) + f"the {plural} are {', '.join(names) or 'none'}"
