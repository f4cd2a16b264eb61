"""New job folders, copied from templates that are jobs themselves."""

from __future__ import annotations

from pathlib import Path

from hansa.errors import Refused
from hansa.jobfile.keys import LIMITS
from hansa.nearest import suggest

ROOT = Path(__file__).parent / "templates"
TEMPLATES = ("numpy", "torch")
"""What a task can be written with."""

_NAME = 'name = "my-job"'


def create(folder: Path, template: str) -> tuple[Path, ...]:
    """Writes a job folder that runs as it is.

    Args:
      folder: the folder to make; its last part names the job.
      template: one of `TEMPLATES`.

    Returns:
      The files that were written.

    Raises:
      Refused: the folder exists, or its name cannot be a job's; nothing was written.
    """
    if template not in TEMPLATES:
        raise Refused(
            f"there is no template '{template}'", fix=suggest(template, TEMPLATES, "templates")
        )
    name, allowed = folder.name, LIMITS["name",]
    if not allowed.admits(name):
        raise Refused(f"'{name}' cannot be the name of a job", fix=f"choose a name of {allowed}")
    if folder.exists():
        raise Refused(f"{folder} exists already", fix="choose another name, or remove it first")
    try:
        folder.mkdir(parents=True)
        job, task = folder / "job.toml", folder / "task.py"
        words = (ROOT / "job.toml").read_text(encoding="utf-8")
        job.write_text(words.replace(_NAME, f'name = "{name}"'), encoding="utf-8")
        task.write_bytes((ROOT / template / "task.py").read_bytes())
    except OSError as error:
        raise Refused(
            f"{folder} cannot be written: {error.strerror}", fix="choose a place you may write to"
        ) from error
    return job, task
