"""Logistic regression on four hospitals' patients: who has a heart disease?

The data are those of the UCI Machine Learning Repository (see `data/README.md` for the credit),
cleaned as in FLamby's Fed-Heart-Disease (Ogier du Terrail et al., NeurIPS 2022): three columns
that some hospitals did not fill in are dropped, then every patient with a missing value. That
leaves 303, 261, 46 and 130 patients.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hansa
from hansa.core.keys import ReplayKey

Array = NDArray[Any]

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
"""The hospitals, by their names in the files' names."""

COLUMNS = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak",
    "slope", "ca", "thal", "num",
)  # fmt: skip
_DROPPED = ("slope", "ca", "thal")
_MISSING = ("?", "-9", "-9.0")

FEATURES = (
    "age", "sex", "typical angina", "atypical angina", "other pain", "no pain",
    "resting blood pressure", "cholesterol", "cholesterol not measured", "fasting blood sugar",
    "maximum heart rate", "angina in exercise", "ST depression in exercise",
)  # fmt: skip
"""What the model sees of a patient, in order."""

_TRAINED_ON = 0.7


class Heart(hansa.NumpyTask):
    """Whether a patient has a heart disease, from 13 clinical features.

    Args:
      split_seed: chooses who is held out, at sites that do not choose themselves.
    """

    metrics = (hansa.Loss(), hansa.Accuracy(), hansa.AUROC(), hansa.Calibration())

    def __init__(self, split_seed: int = 0) -> None:
        self.split_seed = split_seed

    def parameters(self, rng: np.random.Generator) -> dict[str, Array]:  # noqa: ARG002  no chance
        """Nothing known yet: every patient has a probability of one half."""
        return {"weights": np.zeros(len(FEATURES)), "bias": np.zeros(1)}

    def probabilities(self, parameters: Any, inputs: Array) -> Array:
        """(n,) probability of a disease."""
        score = inputs @ parameters["weights"] + parameters["bias"]
        probability: Array = np.exp(-np.logaddexp(0, -score))  # 1 / (1 + exp(-score)), no overflow
        return probability

    def loss_and_gradients(
        self, parameters: Any, inputs: Array, targets: Array
    ) -> tuple[float, dict[str, Array]]:
        """Mean cross-entropy and its slope in the weights and the bias."""
        score = inputs @ parameters["weights"] + parameters["bias"]
        loss = np.logaddexp(0, score) - targets * score  # -log p of the right class
        error = (self.probabilities(parameters, inputs) - targets) / len(targets)
        return float(loss.mean()), {"weights": error @ inputs, "bias": error.sum(keepdims=True)}

    def clients(self, job: hansa.Job) -> tuple[str, ...]:  # noqa: ARG002  there are four hospitals
        """The names of the clients in a simulation."""
        return HOSPITALS

    def data(self, site: hansa.Site) -> hansa.Split:
        """One hospital's patients, 70 % to train on and 30 % held out.

        `site.config` has `path`, the hospital's file, and may have `split_seed`, which chooses
        who is held out. A site that is named like one of the hospitals needs no path where Hansa
        is installed.

        Raises:
          HansaError: there is no such file, or it does not hold such patients.
        """
        patients = clean(read(_path_of(site)))
        inputs, targets = features(patients), (patients[:, -1] > 0).astype(np.int64)
        seed = int(site.config.get("split_seed", self.split_seed))
        order = ReplayKey.of_seed(seed).generator("split").permutation(len(targets))
        at = round(_TRAINED_ON * len(targets))
        train, test = (hansa.Examples(inputs[i], targets[i]) for i in (order[:at], order[at:]))
        return hansa.Split(train, test)


def read(path: Path) -> Array:
    """(n, 14) the patients in a hospital's file; NaN where a value is missing.

    Raises:
      HansaError: the file cannot be read or is not such a file; no value of it is shown.
    """
    try:
        lines = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise hansa.HansaError(
            f"the patients' file '{path}' cannot be read: {type(error).__name__}",
            fix="set path in the site's [data] section to the hospital's file",
        ) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        values = line.split(",")
        try:
            row = [np.nan if value in _MISSING else float(value) for value in values]
        except ValueError:
            row = []
        if len(row) != len(COLUMNS):
            raise hansa.HansaError(
                f"line {number} of '{path}' is not {len(COLUMNS)} numbers with commas between",
                fix=f"give these columns: {', '.join(COLUMNS)}",
            )
        rows.append(row)
    return np.array(rows).reshape(-1, len(COLUMNS))


def clean(patients: Array) -> Array:
    """(n, 11) without the dropped columns, then without patients who lack a value."""
    kept = patients[:, [i for i, name in enumerate(COLUMNS) if name not in _DROPPED]]
    complete: Array = kept[~np.isnan(kept).any(axis=1)]
    return complete


def features(patients: Array) -> Array:
    """(n, 13) float32 features of cleaned patients, in the order of `FEATURES`.

    Scaled by fixed numbers in clinical use, not by statistics of anybody's data, which would have
    to be shared first. A cholesterol of 0 means that it was not measured.
    """
    c = dict(zip((n for n in COLUMNS if n not in _DROPPED), patients.T, strict=True))
    measured = c["chol"] > 0
    columns = [
        (c["age"] - 55) / 10,
        c["sex"],
        *(c["cp"] == kind for kind in (1, 2, 3, 4)),
        (c["trestbps"] - 130) / 20,
        np.where(measured, (c["chol"] - 240) / 50, 0),
        ~measured,
        c["fbs"],
        (c["thalach"] - 150) / 20,
        c["exang"],
        c["oldpeak"],
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _path_of(site: hansa.Site) -> Path:
    path = site.config.get("path")
    if path is not None:
        return Path(str(site.config.get("folder", "")), str(path))
    packaged = Path(__file__).parent / "data" / f"processed.{site.name}.data"
    if site.name not in HOSPITALS or not packaged.is_file():
        raise hansa.HansaError(
            f"site '{site.name}' does not say where its patients' file is",
            fix='write path = "FILE" into its [data] section',
        )
    return packaged
