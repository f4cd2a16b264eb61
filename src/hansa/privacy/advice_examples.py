"""What the noise of DP-SGD does to a model, in words with numbers, for `hansa plan`.

In norm bounds C of one example's gradient, for the smallest client that the plan allows: batches of
L examples, noise multiplier z, d parameters, T steps in all rounds together, and K clients whose
deltas are averaged.

    r = z sqrt(d) / L          norm of the noise of one step; the mean gradient has at most norm 1
    r sqrt(T) / sqrt(K)        how far noise alone moves the model; gradients do by at most T

Larger clients have less noise, and real gradients agree less than they may: no sentence is too
pessimistic about the smallest one.
"""

from __future__ import annotations

import math

from hansa.core.plan import Plan
from hansa.core.spec import Reader
from hansa.work.dpsgd import DpSgd


def advice_for_examples(plan: Plan, work: DpSgd) -> tuple[str, ...]:
    """What will happen to the model, and each alternative with its numbers."""
    pace, size = work.smallest, plan.facts["delta"].size
    batch, steps = pace.rate * work.examples, pace.steps * plan.charges
    length = pace.noise * math.sqrt(size) / batch
    clients = max(plan.parts.sampler.expected, 1.0)
    told = (
        f"At a client with {work.examples:,} examples the noise of a step is {length:.3g} norm "
        f"bounds long; the mean of {batch:g} clipped gradients is at most 1 long, if all agree. "
    )
    if length <= 1:
        return (told.rstrip(), *_masks(plan))
    moved = math.sqrt(steps / clients) * length
    told += (
        f"Over its {steps:,} steps, averaged over {clients:g} clients, noise moves the model by "
        f"about {moved:.3g}, and gradients by at most {steps:,}"
    )
    told += (
        ": this setting will destroy the model."
        if moved >= steps
        else ", in norm bounds: what many steps agree on can survive."
    )
    return (told, *_alternatives(work, size, length, batch), *_masks(plan))


def _alternatives(work: DpSgd, size: int, length: float, batch: float) -> tuple[str, ...]:
    fewer = math.floor(size / length**2)
    return (
        f"Larger batches: noise is averaged over {batch:g} examples of a step. Four times as many, "
        "with a quarter of the steps, draw each example as often and leave a step with less noise.",
        f"Larger clients: privacy.examples above {work.examples:,} leaves small ones out, so that "
        "each example is drawn less often and less noise will do.",
        *(
            (
                f"Fewer parameters: with {fewer:,} of the {size:,} trained and the others fixed, "
                "the same noise would be 1 norm bound long.",
            )
            if fewer >= 1
            else ()
        ),
    )


def _masks(plan: Plan) -> tuple[str, ...]:
    """Example-level noise says little about a site as a whole."""
    if plan.facts["delta"].reader is Reader.SUM:
        return ()
    return (
        "The coordinator reads each client's update, which single examples are hidden in, and not "
        "the client as a whole: use secure aggregation against that.",
    )
