"""Texts to the tokens of BERT: WordPiece without upper case and accents (Devlin et al., 2019).

| step       | does                                                                          |
|------------|-------------------------------------------------------------------------------|
| clean      | control characters are dropped, Chinese characters and punctuation stand alone |
| normalise  | lower case, accents dropped                                                   |
| cut        | each word into the longest pieces of the vocabulary, from left to right       |
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

START, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
LONGEST = 100
"""Characters of a word that is cut; a longer one is unknown."""

_CONTROL = frozenset({"Cc", "Cf", "Co", "Cs"})
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def vocabulary_of(lines: str) -> dict[str, int]:
    """The number of each piece: of its line in `vocab.txt`."""
    return {piece: number for number, piece in enumerate(lines.removesuffix("\n").split("\n"))}


def tokens_of(text: str, vocabulary: Mapping[str, int], length: int) -> list[int]:
    """At most `length` tokens, a beginning and an end among them."""
    found = [vocabulary[START]]
    for word in _words(text):
        found += _pieces(word, vocabulary)
        if len(found) >= length:
            break
    return [*found[: length - 1], vocabulary[END]]


def table_of(texts: Sequence[str], vocabulary: Mapping[str, int], length: int) -> NDArray[np.int32]:
    """(n, length) tokens of each text, zeros after its end."""
    table = np.zeros((len(texts), length), np.int32)
    for row, text in zip(table, texts, strict=True):
        found = tokens_of(text, vocabulary, length)
        row[: len(found)] = found
    return table


def _words(text: str) -> Iterator[str]:
    """Words and signs in the order of the text."""
    word = ""
    for sign in unicodedata.normalize("NFD", _cleaned(text)).lower():
        if unicodedata.category(sign) == "Mn":
            continue
        alone = _punctuation(sign)
        if sign.isspace() or alone:
            if word:
                yield word
            word = ""
            if alone:
                yield sign
        else:
            word += sign
    if word:
        yield word


def _pieces(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    if len(word) > LONGEST:
        return [vocabulary[UNKNOWN]]
    found, start = [], 0
    while start < len(word):
        before = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if before + word[start:end] in vocabulary), None)
        if end is None:
            return [vocabulary[UNKNOWN]]
        found.append(vocabulary[before + word[start:end]])
        start = end
    return found


def _cleaned(text: str) -> str:
    return "".join(
        " " if sign.isspace() else f" {sign} " if _chinese(sign) else sign
        for sign in text
        if sign in "\t\n\r" or not (sign == "\ufffd" or unicodedata.category(sign) in _CONTROL)
    )


def _chinese(sign: str) -> bool:
    return any(low <= ord(sign) <= high for low, high in _CHINESE)


def _punctuation(sign: str) -> bool:
    return sign in string.punctuation or unicodedata.category(sign)[0] == "P"
