"""Job files: `job.toml`, in the same words as `hansa.core.job`.

    file ──► text ──► TOML ──► sections ──► values ──► rules ──► Job
     │         │        │          │          │          │
     none   not UTF-8  line     where it    type and   what goes
     like it           and why  belongs     range      together

Every mistake is collected and reported with its line, what was found, what is allowed and a fix.
"""

from __future__ import annotations

from hansa.jobfile.read import examples, load_job
from hansa.jobfile.words import job_from_words, job_to_words

__all__ = ["examples", "job_from_words", "job_to_words", "load_job"]
