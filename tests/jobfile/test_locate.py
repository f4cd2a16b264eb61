"""The scanner against `tomllib`: the same keys, on the lines where a builder put them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.jobfile.locate import NotToml, locate, sightings

TEXT = r"""# a comment with a = 1 and [brackets]
first = 1
a.b = 2

list = [1, # not the end ]
  "]", { z = 1 },
]
"quoted key".'literal' = QQQtwo
lines = "" \QQQ and quotesQQQ""
inline = { e = 1, f.g = "}", 'h' = '''three
lines''', i = [{}] }

[section]  # after a header
key = 1979-05-27 07:32:00

[ section . "deep est" ]
text = '[not.a.header]'
number = -inf # and a comment
last = true""".replace("QQQ", '"""')

LINES = {
    ("first",): 2,
    ("a",): 3,
    ("a", "b"): 3,
    ("list",): 5,
    ("quoted key",): 8,
    ("quoted key", "literal"): 8,
    ("inline",): 10,
    ("inline", "e"): 10,
    ("inline", "f"): 10,
    ("inline", "f", "g"): 10,
    ("inline", "h"): 10,
    ("inline", "i"): 11,
    ("section",): 13,
    ("section", "key"): 14,
    ("section", "deep est"): 16,
    ("section", "deep est", "text"): 17,
    ("section", "deep est", "number"): 18,
    ("section", "deep est", "last"): 19,
}


def paths(words: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that `tomllib` found, tables included; what arrays hold has no name."""
    for key, value in words.items():
        yield (*at, key)
        if isinstance(value, Mapping):
            yield from paths(value, (*at, key))


def test_lines_of_a_text_with_everything_in_it():
    assert dict(locate(TEXT)) == LINES


def test_sees_exactly_the_keys_that_tomllib_sees():
    assert set(locate(TEXT)) == set(paths(tomllib.loads(TEXT)))


def test_lists_of_tables_are_seen_once_each():
    text = "[[a]]\nx = 1\n[[a]]\nx = 2\n[a.b]\ny = 3\n"
    assert locate(text) == {("a",): 1, ("a", "x"): 2, ("a", "b"): 5, ("a", "b", "y"): 6}
    assert [s.line for s in sightings(text) if s.path == ("a",) and s.kind == "header"] == [1, 3]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb = [1,\n2\nc = 3\n", 2),
        ('a = 1\nb = """one\ntwo\n', 2),
        ("a = 1\n\nb = { c = 1\n", 3),
        ("[a\nb = 1\n", 1),
        ("a = 1\nb 2\n", 2),
        ("a =\n", 1),
        ('a = "x\n', 1),
        ("= 1", 1),
    ],
)
def test_says_where_the_open_piece_began(text, line):
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    with pytest.raises(NotToml) as caught:
        sightings(text)
    assert caught.value.line == line


# ------------------------------------------------------------------ texts from a builder

bare = st.text("abcXYZ019_-", min_size=1, max_size=4)
texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x7f", exclude_categories=["Cc"]), max_size=6
)
quoted = texts.map(lambda t: json.dumps(t, ensure_ascii=False))  # then JSON is TOML
key_pieces = st.one_of(bare, quoted)
newlines_in = st.sampled_from(["", "\n", ' # ] " comment\n  '])
long_text = texts.map(lambda t: t.replace("\\", "").replace('"', ""))
scalars = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["true", "1.5e3", "-inf", "07:32:00", "1979-05-27 07:32:00", "'] # x'"]),
    quoted,
    long_text.map(lambda t: f'"""{t}\n# {t} = ["x"]\n"""'),
    long_text.map(lambda t: "'''\n" + t.replace("'", "") + "\n[x]\n'''"),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.tuples(st.lists(inner, max_size=3), newlines_in).map(
            lambda p: "[" + p[1] + ("," + p[1]).join(p[0]) + p[1] + "]"
        ),
        st.dictionaries(bare, inner, max_size=2).map(
            lambda d: "{ " + ", ".join(f"{k} = {v}" for k, v in d.items()) + " }"
        ),
    ),
    max_leaves=4,
)
between = st.lists(st.sampled_from(["", "# comment = [", "   "]), max_size=2)
entries = st.tuples(between, values, st.sampled_from(["", '  # why """']), st.booleans())
documents = st.lists(
    st.tuples(st.lists(st.tuples(key_pieces, entries), max_size=4), between), min_size=1, max_size=4
)


@given(documents)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_lines_are_those_that_the_builder_wrote(document):
    """Keys get a number, so that they are unique; the builder notes the line of each."""
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    for number, (pairs, gap) in enumerate(document):
        table: tuple[str, ...] = ()
        lines += gap
        if number:
            table = (f"table{number}", "in ner")
            lines.append(f'[ table{number} ."in ner" ] # header')
            expected[table[:1]] = expected[table] = len(lines)
        for index, (piece, (blank, value, comment, is_dotted)) in enumerate(pairs):
            lines += blank
            name = tomllib.loads(f"{piece} = 1").popitem()[0]
            path = (f"k{index}", name) if is_dotted else (f"k{index}",)
            written = f"k{index}.{piece}" if is_dotted else f"k{index}"
            lines += f"{written} = {value}{comment}".split("\n")
            line = len(lines) - value.count("\n")
            for end in range(1, len(path) + 1):
                expected[(*table, *path[:end])] = line
    text = "\n".join(lines)
    found = locate(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    assert {path: found[path] for path in expected} == expected
