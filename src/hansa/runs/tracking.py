"""A run's parameters, metrics and files to an MLflow server or database, beside the run's folder.

| MLflow       | what                                                                        |
|--------------|-----------------------------------------------------------------------------|
| experiment   | the job's name, or one that was asked for                                   |
| run's name   | the name of its folder                                                      |
| params       | every word of the job as it runs: `algorithm.client_lr`, `cohort.size` ...  |
| metrics      | the task's, at step r for the model after r rounds; `clients`, `seconds`    |
| tags         | digests of plan, task and model, the commit, how the run ended              |
| artifacts    | the folder's files but for the checkpoints                                  |
| status       | FINISHED, KILLED if somebody interrupted it, FAILED                         |

A server that cannot be reached at the beginning is an error; one that is lost later is a warning,
since the folder holds everything.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hansa.core.plan import Plan
from hansa.core.round import RoundRecord
from hansa.errors import HansaError, MissingExtra
from hansa.jobfile import job_to_words
from hansa.runs import folder
from hansa.runs.disk import read_json, write_json
from hansa.runs.folder import Status
from hansa.runs.journal import METRICS
from hansa.runs.source import flat

FILE = "mlflow.json"
"""Beside the run's other files: which MLflow run it is, so that it goes on as the same one."""

FLUSH_SECONDS = 2.0
PARAM_CHARACTERS = 6000
BATCH_METRICS, BATCH_PARAMS = 1000, 100
"""Most that a server takes at once, as MLflow documents it."""

ARTIFACTS = (
    folder.JOB,
    folder.RESOLVED,
    folder.PLAN,
    folder.ENVIRONMENT,
    folder.RUN,
    folder.RESULT,
    folder.CHART,
    folder.MODEL,
    METRICS,
)

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is told to anybody but the server
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}

_STATES = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED"}


@dataclass(slots=True)
class Tracking:
    """A `hansa.runs.recorder.Listener` that sends a run to MLflow.

    Attributes:
      client: MLflow's.
      uri: where it sends to.
      experiment: its name; the job's if None.
      lost: why nothing is sent any more; empty while all is well.
    """

    client: Any
    uri: str
    experiment: str | None = None
    lost: str = ""
    _run: str = ""
    _seen: int = -1
    _waiting: list[Any] = field(default_factory=list)
    _flushed: float = field(default_factory=time.monotonic)

    @classmethod
    def to(cls, uri: str, experiment: str | None = None) -> Tracking:
        """A connection that was tried.

        Raises:
          MissingExtra: MLflow is not installed.
          HansaError: there is nothing at the URI that MLflow can write to.
        """
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise MissingExtra("mlflow-skinny", "mlflow", "logging to MLflow") from error
        try:
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
        except Exception as error:
            raise _unreachable(uri, error) from error
        return cls(client, uri, experiment)

    def experiment_of(self, job: str) -> str:
        """The identifier of the experiment, which is made if there is none.

        Raises:
          HansaError: the server refuses.
        """
        name = self.experiment or job
        try:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return str(self.client.create_experiment(name))
        except Exception as error:
            found = self.client.get_experiment_by_name(name)  # somebody else was faster
            if found is None:
                raise _unreachable(self.uri, error) from error
        return str(found.experiment_id)

    def begin(self, at: Path, plan: Plan) -> None:
        """Makes the MLflow run, or goes on with it.

        Raises:
          HansaError: the server refuses.
        """
        path = at / FILE
        known = read_json(path) if path.exists() else {}
        try:
            if known.get("uri") == self.uri:
                self._run = known["run"]
                self.client.update_run(self._run, status="RUNNING")
                self._seen = self._last_step()
                return
            made = self.client.create_run(
                self.experiment_of(plan.job.name), run_name=at.name, tags=_tags(at, plan)
            )
            self._run = made.info.run_id
            self._log_params(flat(job_to_words(plan.job)))
        except HansaError:
            raise
        except Exception as error:
            raise _unreachable(self.uri, error) from error
        write_json(path, {"uri": self.uri, "run": self._run})

    def heard(self, record: RoundRecord) -> None:
        """Sends a round's values, a few seconds' rounds at a time."""
        from mlflow.entities import Metric

        if record.void or record.round <= self._seen or self.lost:
            return
        now = int(time.time() * 1000)
        values = {
            **record.metrics,
            "clients": float(len(record.members)),
            "seconds": record.seconds,
        }
        self._waiting += [
            Metric(name, value, now, record.round)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        ]
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def end(self, at: Path, status: Status) -> None:
        """Sends what is left: values, how it ended, files."""
        self._flush()
        if self.lost:
            return
        try:
            if status.done:
                said = read_json(at / folder.RESULT)
                self._tag("hansa.model_sha256", said["model_sha256"])
                self._tag("hansa.engine", said["engine"])
            self._tag("hansa.state", status.state)
            self._tag("hansa.because", status.because)
            for name in ARTIFACTS:
                if (at / name).exists():
                    self.client.log_artifact(self._run, str(at / name))
            self.client.set_terminated(self._run, _STATES.get(status.state, "FAILED"))
        except Exception as error:  # noqa: BLE001  MLflow has many; the folder holds everything
            self._lose(error)

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        waiting, self._waiting = self._waiting, []
        try:
            for start in range(0, len(waiting), BATCH_METRICS):
                self.client.log_batch(self._run, metrics=waiting[start : start + BATCH_METRICS])
        except Exception as error:  # noqa: BLE001  a run is worth more than its log
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost = f"MLflow at {self.uri} does not have the whole run: {_first_line(error)}"

    def _log_params(self, words: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, _text(value)[:PARAM_CHARACTERS]) for name, value in words.items()]
        for start in range(0, len(params), BATCH_PARAMS):
            self.client.log_batch(self._run, params=params[start : start + BATCH_PARAMS])

    def _last_step(self) -> int:
        """The last round whose values the server has."""
        history = self.client.get_metric_history(self._run, "clients")
        return max((metric.step for metric in history), default=-1)

    def _tag(self, name: str, value: str) -> None:
        self.client.set_tag(self._run, name, value)


def _tags(at: Path, plan: Plan) -> dict[str, str]:
    run, environment = read_json(at / folder.RUN), read_json(at / folder.ENVIRONMENT)
    tags = {
        "mlflow.source.name": run["job_file"] or plan.job.task,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "hansa.version": environment["hansa"],
        "hansa.plan_digest": plan.digest,
        "hansa.task_digest": plan.task.digest,
        "hansa.folder": str(at.resolve()),
    }
    if environment["git"]:
        tags["mlflow.source.git.commit"] = environment["git"]["commit"]
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return str(os.getuid())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def _unreachable(uri: str, error: Exception) -> HansaError:
    return HansaError(
        f"MLflow cannot write to '{uri}' ({_first_line(error)})",
        fix="name a database such as sqlite:///mlflow.db, which also needs SQLAlchemy and Alembic "
        "(hansa[coordinator]), or the address of a server that runs",
    )
