"""The command line: thin verbs over the library, each in a module that is loaded when it is used.

hansa VERB ... ──► run.main ──► group (finds the verb in `verbs`) ──► the verb's module
                      │
                      └─ one place turns errors into exit codes and words
"""

from __future__ import annotations

from hansa.cli.run import main

__all__ = ["main"]
