"""What privacy costs: accuracy by epsilon, what audits can show, and how fast noise is drawn.

    python bench/privacy.py [--quick] [--json] [--peers [--pfl PYTHON] [--opendp PYTHON]]
    python bench/privacy.py --write-docs FILE.json

Sections are `sampler`, `accuracy` and `audit`. Models are trained in simulation, with noise from
the seed, so that every figure can be repeated; the machine decides about the speed only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # run as a script, this file is not in a package

from bench.private import accuracy, audits, page, speed  # noqa: E402  after the path is set

SECTIONS = ("sampler", "accuracy", "audit")


def sampler(*, quick: bool, seconds: float) -> dict[str, Any]:
    """Million samples per second of CPU time."""
    found = {}
    for name, figure in speed.ours(200_000 if quick else 2_000_000, seconds):
        found[name] = round(figure, 3)
        _say(f"{name}: {figure:.2f} million samples per second")
    return found


def accuracies(*, quick: bool) -> list[dict[str, Any]]:
    """Accuracy by epsilon and unit."""
    found = []
    for row in accuracy.rows(quick=quick):
        found.append(row)
        _say_row("Hansa", row)
    return found


def audit(*, quick: bool) -> list[dict[str, Any]]:
    """Lower bounds on epsilon, by `hansa audit privacy`'s own attack on a job of each mechanism."""
    found = []
    for row in audits.rows(quick=quick):
        found.append(row)
        claimed = "nothing" if row["epsilon_claimed"] is None else f"{row['epsilon_claimed']:.3f}"
        _say(
            f"{row['data']}, {row['mechanism']}, {row['unit']}, {row['rounds']} rounds: claims "
            f"{claimed} at delta {row['delta']:g}, shown {row['epsilon_lower_bound']:.3f}, without "
            f"noise {row['epsilon_lower_bound_noise_off']:.3f}"
        )
    return found


def peers(*, quick: bool, pfl: str | None, opendp: str | None) -> dict[str, Any]:
    """The same of others; each where its Python is named."""
    found: dict[str, Any] = {"sampler": [], "accuracy": []}
    pythons = {"exact_fractions": sys.executable, "opendp": opendp}
    for name, script in speed.PEERS.items():
        python = pythons[name]
        if python:
            found["sampler"].append(speed.peer(script, python))
            _say(f"{name}: {found['sampler'][-1]}")
    if pfl:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "setting.npz"
            accuracy.export(data, quick=quick)
            seeds = accuracy.QUICK_SEEDS if quick else accuracy.PEER_SEEDS
            for row in accuracy.peer_rows("pfl 0.6.0", "peer_pfl.py", pfl, data, seeds):
                found["accuracy"].append(row)
                _say_row(row["peer"], row)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "site.npz"
        accuracy.export_site(data, quick=quick)
        seeds = accuracy.QUICK_SEEDS if quick else accuracy.PEER_SEEDS
        what = ("digits at one site", "example")
        for row in accuracy.peer_rows(
            "Opacus 1.6.0", "peer_opacus.py", sys.executable, data, seeds, what
        ):
            found["accuracy"].append(row)
            _say_row(row["peer"], row)
    return found


def _say_row(party: str, row: dict[str, Any]) -> None:
    epsilon = "without noise" if row["epsilon"] is None else f"at epsilon {row['epsilon']:g}"
    _say(
        f"{party}, {row['data']}, {row['unit']}: {row['metric']} {row['mean']:.4f} {epsilon}, "
        f"{row['seeds']} seeds"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and few rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--only", choices=SECTIONS, help="one section")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each speed; 1 as it stands")
    parser.add_argument("--peers", action="store_true", help="others on the same data")
    parser.add_argument("--pfl", help="a Python with pfl-research: see peer_pfl.py")
    parser.add_argument("--opendp", help="a Python with OpenDP: see peer_opendp.py")
    parser.add_argument("--export", type=Path, help="only write the digits for a peer, as .npz")
    parser.add_argument("--export-site", type=Path, help="the same of the digits at one site")
    parser.add_argument("--write-docs", type=Path, help="only make the page's table from a JSON")
    args = parser.parse_args(argv)
    if args.export_site:
        accuracy.export_site(args.export_site, quick=args.quick)
        return
    if args.export:
        accuracy.export(args.export, quick=args.quick)
        return
    if args.write_docs:
        page.write(json.loads(args.write_docs.read_text("utf-8")), ROOT / "docs")
        return
    found: dict[str, Any] = {}
    if args.only in (None, "sampler"):
        found["sampler"] = sampler(quick=args.quick, seconds=args.seconds)
    if args.only in (None, "accuracy"):
        found["accuracy"] = accuracies(quick=args.quick)
    if args.only in (None, "audit"):
        found["audit"] = audit(quick=args.quick)
    if args.peers:
        found["peers"] = peers(quick=args.quick, pfl=args.pfl, opendp=args.opendp)
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
