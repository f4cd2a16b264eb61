"""What Hansa needs of a machine, looked at one thing at a time. Nothing is changed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from hansa.errors import HansaError

State = Literal["ok", "warn", "fail"]

OLDEST, NEWEST = (3, 11), (3, 13)
LEAST_DISK, LITTLE_DISK = 200e6, 2e9
LEAST_FILES = 1024
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
PURPOSE = {
    "coordinator": "running a coordinator",
    "postgres": "a coordinator's state in PostgreSQL",
    "torch": "tasks in PyTorch",
}
"""What each extra is for; those for Hansa's own development are not looked at."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
      name: what.
      state: ok; warn: something will not work or be slow; fail: Hansa cannot work.
      found: how it is.
      fix: what to do; empty if it is ok.
    """

    name: str
    state: State
    found: str
    fix: str = ""


def examine(folder: Path, coordinator: Path | None = None) -> Iterator[Check]:
    """Looks at everything, in a fixed order.

    Args:
      folder: where jobs and state will be written.
      coordinator: a coordinator's folder, whose ports are looked at too.
    """
    yield python(sys.version_info[:3])
    yield from packages()
    yield writing(folder)
    yield disk(folder)
    yield clock(time.time())
    yield threads(os.environ, processors(), os.cpu_count() or 1)
    yield files()
    if coordinator is not None:
        yield from ports(coordinator)


def python(version: tuple[int, int, int]) -> Check:
    """The version of Python."""
    found = ".".join(map(str, version))
    if not OLDEST <= version[:2] <= NEWEST:
        wanted = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        return Check("Python", "fail", found, f"install Python {wanted}")
    return Check("Python", "ok", found)


def packages() -> Iterator[Check]:
    """What Hansa depends on, and each extra: one line each."""
    needed: dict[str, list[str]] = {}
    for line in metadata.requires("hansa") or []:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if name:
            needed.setdefault(extra[1] if extra else "", []).append(name[0])
    for label, names in needed.items():
        if not label or label in PURPOSE:
            yield _installed(label, names)


def writing(folder: Path) -> Check:
    """Whether files can be written, and moved into place as state is."""
    try:
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            written = Path(inside) / "a"
            written.write_bytes(b"hansa")
            written.replace(Path(inside) / "b")
    except OSError as error:
        return Check(
            "writing",
            "fail",
            f"{folder} cannot be written: {error.strerror}",
            "run in a folder that you may write to",
        )
    return Check("writing", "ok", str(folder))


def disk(folder: Path) -> Check:
    """Room for state."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", "fail", f"{folder}: {error.strerror}", "name a folder that exists")
    found = f"{free / 1e9:.1f} GB free"
    if free < LITTLE_DISK:
        state: State = "fail" if free < LEAST_DISK else "warn"
        return Check("disk", state, found, f"free at least {LITTLE_DISK / 1e9:.0f} GB")
    return Check("disk", "ok", found)


def clock(now: float) -> Check:
    """Whether the clock can be right: certificates are valid from a time to a time."""
    installed = Path(__file__).stat().st_mtime
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < installed - 86_400:
        return Check(
            "clock",
            "fail",
            f"{found}, before Hansa was installed",
            "set the clock, and keep it right with NTP",
        )
    return Check("clock", "ok", found)


def processors() -> int:
    """Processors that this process may use: affinity, and the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        share = int(quota) / int(period)
    except (OSError, ValueError):  # no control groups, or no quota: "max"
        share = float("inf")
    return max(1, int(min(allowed or 1, share)))


def threads(environment: Mapping[str, str], usable: int, present: int) -> Check:
    """Whether the linear algebra starts more threads than there are processors to run them."""
    name = next((name for name in THREADS if environment.get(name)), None)
    if name is None:
        found = f"{usable} of {present} processors, thread count not set"
        if usable < present:
            return Check(
                "threads",
                "warn",
                f"{found}: NumPy will start {present} threads",
                f"export {THREADS[0]}={usable}",
            )
        return Check("threads", "ok", found)
    value = environment[name]
    found = f"{usable} of {present} processors, {name}={value}"
    if not value.isdecimal() or int(value) > usable:
        return Check("threads", "warn", found, f"export {name}={usable}")
    return Check("threads", "ok", found)


def files() -> Check:
    """How many files and connections may be open at once."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return Check("open files", "ok", "no limit known")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < LEAST_FILES:
        return Check(
            "open files", "warn", f"at most {limit}", f"run: ulimit -n {LEAST_FILES} or more"
        )
    return Check("open files", "ok", f"at most {limit}" if limit >= 0 else "no limit")


def ports(coordinator: Path) -> Iterator[Check]:
    """Whether a coordinator could listen where its settings say."""
    try:
        from hansa.coordinator import config

        settings = config.load(coordinator)
    except (HansaError, ImportError) as error:
        fix = (
            error.fix if isinstance(error, HansaError) else "run: pip install 'hansa[coordinator]'"
        )
        yield Check("ports", "fail", f"{coordinator}: {error.args[0]}", fix)
        return
    for door in ("sites", "enrol", "people"):
        port = getattr(settings, f"{door}_port")
        yield port_is_free(f"{door} port", settings.listen, port, f"{door}_port")


def port_is_free(name: str, host: str, port: int, setting: str) -> Check:
    """Whether nothing listens on a port yet."""
    found = f"{host}:{port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return Check(
            name,
            "warn",
            f"{found}: {error.strerror or error}",
            f"fine if it is this coordinator that runs; else change {setting} in coordinator.toml",
        )
    return Check(name, "ok", f"{found} is free")


def _installed(extra: str, names: list[str]) -> Check:
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    label = f"extra {extra}" if extra else "packages"
    if not missing:
        return Check(label, "ok", ", ".join(versions))
    found = f"{', '.join(missing)} not installed"
    if not extra:
        return Check(label, "fail", found, "run: pip install --force-reinstall hansa")
    return Check(
        label, "warn", f"{found}: needed for {PURPOSE[extra]}", f"run: pip install 'hansa[{extra}]'"
    )
