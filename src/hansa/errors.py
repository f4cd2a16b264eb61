"""Everything that can go wrong, as one tree.

    HansaError                     1  something failed; every error says what, why and the fix
    ├── Refused                    2  a check said no before anything happened
    │   ├── JobError                  a job file or a site file is wrong (file, line)
    │   ├── JobRefused                a file with several mistakes; holds every JobError
    │   ├── PlanRefused               a job whose parts do not fit; holds every PlanError
    │   │   └── PlanError             one part, because, fix
    │   ├── PolicyRefused             a site's own policy said no
    │   ├── DigestMismatch            two parties compiled different plans from one job
    │   └── BudgetExceeded            the next release would spend more privacy than agreed
    ├── IdentityError                 a certificate, an invite or a role that is not good enough
    ├── UpdateRejected                one client's update broke its contract
    ├── VersionMismatch               two sides speak different versions
    ├── RoundVoid                     too few updates came back in time
    ├── ClientFailed                  a task raised on a client's data
    ├── Unavailable                   the other side cannot be reached
    ├── MissingExtra                  an optional dependency is not installed
    └── StoreError                    the coordinator's state cannot be read or written

The number is the exit code of the command line. Wrong command lines exit with 64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class HansaError(Exception):
    """Base of all errors that Hansa raises on purpose.

    Args:
      message: what happened and why, one sentence without a final dot.
      fix: what to do next, one imperative sentence without a final dot.
    """

    exit_code = 1

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}. Fix: {self.fix}."


class Refused(HansaError):
    """A check said no; nothing was changed, contacted or spent."""

    exit_code = 2


class JobError(Refused):
    """A job file or a site file says something that it cannot say.

    Args:
      file: the file as the user named it.
      line: the line the error is on, counted from 1; 0 if the file as a whole is wrong.
    """

    def __init__(self, message: str, *, fix: str, file: str = "", line: int = 0) -> None:
        super().__init__(message, fix=fix)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return where + super().__str__()


class JobRefused(Refused):
    """A job file or a site file with several mistakes; `errors` holds each, in file order."""

    def __init__(self, errors: Sequence[JobError]) -> None:
        self.errors = tuple(errors)
        lines = "".join(f"\n  {error}" for error in self.errors)
        super().__init__(f"{len(self.errors)} mistakes:{lines}", fix="see each mistake")

    def __str__(self) -> str:
        return self.message


class PlanError(Refused):
    """One part of a plan that cannot do its work where it stands.

    Args:
      part: the part, as the trail names it.
      because: what it lacks.
      fix: the smallest change to the job that helps.
    """

    def __init__(self, part: object, because: str, fix: str) -> None:
        self.part = part if isinstance(part, str) else repr(part)
        self.because = because
        super().__init__(f"{self.part}: {because}", fix=fix)


class PlanRefused(Refused):
    """A job whose parts do not fit; `errors` holds every reason, not only the first."""

    def __init__(self, errors: Sequence[PlanError]) -> None:
        self.errors = tuple(errors)
        count = "1 reason" if len(self.errors) == 1 else f"{len(self.errors)} reasons"
        lines = "".join(f"\n  {error}" for error in self.errors)
        super().__init__(f"the plan is refused for {count}:{lines}", fix="see each reason")

    def __str__(self) -> str:
        return self.message


class PolicyRefused(Refused):
    """A site's own policy does not allow this plan."""


class DigestMismatch(Refused):
    """Two parties compiled the same job and reached different plans."""


class BudgetExceeded(Refused):
    """The next release would spend more privacy than was agreed; no client was contacted."""


class IdentityError(HansaError):
    """A certificate, invite or role that does not allow the call."""


class UpdateRejected(HansaError):
    """One client's update broke its contract; it was not counted and the round goes on."""


class VersionMismatch(HansaError):
    """Two sides speak different versions; the message says who must upgrade."""


class RoundVoid(HansaError):
    """Fewer updates than the quorum arrived in time; the model is unchanged."""


class ClientFailed(HansaError):
    """A task raised on one client's data; the cause is chained.

    Args:
      again: a call that repeats exactly what failed; None where the data is out of reach.
    """

    def __init__(
        self, message: str, *, fix: str, again: Callable[[], object] | None = None
    ) -> None:
        super().__init__(message, fix=fix)
        self.again = again


class Unavailable(HansaError):
    """The other side cannot be reached or did not answer in time."""


class MissingExtra(HansaError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed",
            fix=f"run: pip install 'hansa[{extra}]'",
        )


class StoreError(HansaError):
    """The coordinator's state cannot be read or written."""
