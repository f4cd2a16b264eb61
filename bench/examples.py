"""The worked examples, each beside training on everybody's examples in one place.

    python bench/examples.py [--only images|shakespeare|lora] [--quick] [--json]

Data and weights are fetched the first time (11.5, 5.4 and 103 MB). The long form takes some
minutes for each example on two cores; the short one shows that everything runs, and its figures
mean nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

EXAMPLES = ("images", "shakespeare", "lora")


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=EXAMPLES, help="one example")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args(argv)
    found = {
        name: importlib.import_module(f"bench.worked.{name}").run(quick=args.quick)
        for name in EXAMPLES
        if args.only in (None, name)
    }
    print(json.dumps(found, indent=None if args.json else 2))


if __name__ == "__main__":
    main()
