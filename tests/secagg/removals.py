"""Takes the checks out of the protocol's code, one at a time, to see which test misses each.

    python -m tests.secagg.removals [--json] [MODULE ...]

Every statement that can refuse is found in the source: `raise`, every condition in front of one
that has several parts, and every call that only checks. A copy of the package without that one is
put before the real one, and the tests run against it. A removal that no test notices is a check
that is not needed, or a test that is missing.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = ROOT / "src" / "hansa" / "secagg"
SLOW = re.compile("bench|checks_are_needed")

FIRST = {
    "client": "misuse",
    "floor": "misuse_floor",
    "server": "flow",
    "cancel": "flow",
    "agreement": "misuse_shares",
    "shamir": "shamir",
    "parameters": "parameters",
}
"""Where the test of a module's checks is to be found; the others are run if it is not there."""
CHECK = re.compile(r"(_?check_\w+|_need|begin|_due|_open)$")


@dataclass(frozen=True)
class Removal:
    """One check and the module without it."""

    module: str
    line: int
    what: str
    source: str


def removals(module: str, source: str) -> Iterator[Removal]:
    """The module again and again, each time without one of its checks."""
    tree = ast.parse(source)
    for at, node in enumerate(ast.walk(tree)):
        for what, changed in _without(node):
            other = copy.deepcopy(tree)
            target = list(ast.walk(other))[at]
            target.__dict__.update(changed)
            text = ast.unparse(ast.fix_missing_locations(other))
            yield Removal(module, getattr(node, "lineno", 0), what, text)


def _without(node: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """What is taken out, and the fields of the node that change."""
    if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
        words = ast.unparse(node.test)
        yield words, {"test": ast.Constant(False)}
        if isinstance(node.test, ast.BoolOp):
            for part in node.test.values:
                rest = [other for other in node.test.values if other is not part]
                test = rest[0] if len(rest) == 1 else ast.BoolOp(node.test.op, rest)
                yield f"{ast.unparse(part)}  [of: {words}]", {"test": test}
    elif isinstance(node, ast.If) and isinstance(node.body[-1], ast.Continue):
        yield f"if {ast.unparse(node.test)}: continue", {"test": ast.Constant(False)}
    elif isinstance(node, ast.If) and isinstance(node.body[-1], ast.Return):
        yield f"only if {ast.unparse(node.test)}: return", {"test": ast.Constant(True)}
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        name = ast.unparse(node.value.func).rpartition(".")[2]
        if CHECK.match(name):
            yield ast.unparse(node), {"value": ast.Constant(None)}
    elif isinstance(node, ast.Try) and node.handlers:
        caught = f"except {ast.unparse(node.handlers[0].type or ast.Constant(None))}"
        yield (
            f"{caught}: {ast.unparse(node.handlers[0].body[-1])}",
            {
                "handlers": [
                    ast.ExceptHandler(ast.Name("MemoryError", ast.Load()), None, [ast.Raise()])
                ]
            },
        )


def noticed_by(removal: Removal, folder: Path, tests: list[str]) -> str:
    """The first test that fails without the check; nothing if all pass."""
    place = folder / "hansa" / "secagg" / f"{removal.module}.py"
    before = place.read_text()
    place.write_text(removal.source)
    try:
        first = [name for name in tests if re.search(FIRST[removal.module], name)]
        return _failing(folder, first) or _failing(
            folder, [name for name in tests if name not in first]
        )
    finally:
        place.write_text(before)


def _failing(folder: Path, tests: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-x", "--tb=no", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    found = re.search(r"^(?:FAILED|ERROR) (\S+::.*?|\S+)(?: - .*)?$", done.stdout, re.MULTILINE)
    return found.group(1) if found else "" if done.returncode == 0 else done.stdout[-300:]


def table(modules: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Where each check is, what it is, and the test that misses it."""
    tests = [str(p) for p in sorted(HERE.glob("test_*.py")) if not SLOW.search(p.name)]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src" / "hansa", Path(folder) / "hansa")
        for module in modules:
            for removal in removals(module, (SOURCE / f"{module}.py").read_text()):
                test = noticed_by(removal, Path(folder), tests).rpartition("/")[2]
                yield f"{module}.py:{removal.line}", removal.what, test


def main() -> int:
    """Prints each check and the test that misses it; the number of checks that none misses."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", default=list(FIRST))
    parser.add_argument("--json", action="store_true", help="one JSON list on standard output")
    args = parser.parse_args()
    rows = []
    for row in table(args.modules):
        rows.append(row)
        print(" | ".join(row), file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(rows))
    return sum(not test for *_, test in rows)


if __name__ == "__main__":
    sys.exit(main())
