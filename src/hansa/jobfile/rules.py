"""Which keys go together: what an author can write that has no effect or is not enough.

These rules are for files, which have an author to teach. A job that arrives over the wire may
have every number filled in, so it is checked word by word only, and by the plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hansa.core.job import Aggregation, Cohort, Defend, Job, Privacy, Quantization, Rounds
from hansa.jobfile.keys import toml
from hansa.jobfile.locate import Path
from hansa.jobfile.mistakes import Mistake, dotted

Words = Mapping[str, Any]
Rule = Callable[..., Iterator[Mistake]]


def check_rules(words: Words, right: Mapping[str, Any]) -> list[Mistake]:
    """All that is wrong with how the keys of a file go together.

    Args:
      words: what the file says, which tells a key that was written from its default.
      right: the job's fields that are right by themselves; what a rule reads must be among them.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(Job) if f.name not in words}
    fields = {**defaults, **right}
    return [
        mistake
        for rule, reads in _RULES.items()
        if all(name in fields and fields[name] is not dataclasses.MISSING for name in reads)
        for mistake in rule(words, *(fields[name] for name in reads))
    ]


COUNTING = ("krum", "multi_krum", "bulyan", "dnc")
"""Rules that are told how many may be bad."""

_SAMPLERS_OF = {
    "rate": ("poisson", "cyclic"),
    "cap": ("poisson",),
    "size": ("fixed",),
    "over_selection": ("fixed",),
    "separation": ("cyclic",),
    "buffer": ("arrival",),
    "concurrency": ("arrival",),
    "staleness_exponent": ("arrival",),
    "max_staleness": ("arrival",),
}
"""The keys of `[cohort]` that mean something to some samplers only."""


def _cohort(words: Words, cohort: Cohort) -> Iterator[Mistake]:
    for name, samplers in _SAMPLERS_OF.items():
        if cohort.sampler not in samplers and _says(words, "cohort", name):
            yield _unused(
                ("cohort", name),
                f'the sampler is "{cohort.sampler}"',
                f'write sampler = "{samplers[0]}", or leave {name} out',
            )
    if cohort.sampler == "poisson" and cohort.rate == 0:
        yield _needs(
            ("cohort", "rate"),
            'sampler "poisson" draws each client with a rate',
            "add rate = 0.1 to [cohort], or the probability that you want",
        )
    if cohort.sampler == "fixed" and cohort.size == 0:
        yield _needs(
            ("cohort", "size"),
            'sampler "fixed" draws that many clients',
            "add size = 10 to [cohort], or the number that you want",
        )
    if cohort.sampler == "cyclic" and cohort.separation == 0:
        yield _needs(
            ("cohort", "separation"),
            'sampler "cyclic" forms that many groups',
            "add separation = 4 to [cohort], or the fewest rounds between two turns of a client",
        )
    if cohort.sampler == "arrival":
        needs = {
            "buffer": "that many updates make a round",
            "concurrency": "that many clients work at one time",
        }
        for name, because in needs.items():
            if not getattr(cohort, name):
                yield _needs(
                    ("cohort", name),
                    f'sampler "arrival" takes updates as they come, and {because}',
                    f"add {name} = 10 to [cohort], or the number that you want",
                )
    for name in ("size", "cap", "separation", "buffer", "concurrency"):
        value = getattr(cohort, name)
        if cohort.sampler in _SAMPLERS_OF[name] and value > cohort.population:
            yield Mistake(
                ("cohort", name),
                f"cohort.{name} is {value}, more than the population of {cohort.population}",
                f"write {name} = {cohort.population} or less",
            )


def _privacy(words: Words, privacy: Privacy) -> Iterator[Mistake]:
    if privacy.mechanism == "none":
        for name in words.get("privacy", {}):
            if name not in ("mechanism", "unit", "colluding") and _says(words, "privacy", name):
                yield _unused(
                    ("privacy", name),
                    'the mechanism is "none", so nothing is private',
                    f'write mechanism = "gaussian", or leave {name} out',
                )
    if privacy.mechanism != "distributed" and "colluding" in words.get("privacy", {}):
        yield _unused(
            ("privacy", "colluding"),
            f'mechanism "{privacy.mechanism}" takes no noise from clients',
            'write mechanism = "distributed", or leave colluding out',
        )
    if privacy.mechanism == "none":
        return
    by_example = privacy.mechanism == "dpsgd"
    if privacy.clip == 0:
        what = "gradient of an example" if by_example else "update"
        yield _needs(
            ("privacy", "clip"),
            f"noise is scaled by the largest {what} there can be",
            "add clip = 1.0 to [privacy], or the norm bound that you want",
        )
    if by_example and not privacy.examples:
        yield _needs(
            ("privacy", "examples"),
            "how often an example is drawn depends on how many a client has",
            "add examples = 500 to [privacy], or the fewest training examples of a client",
        )
    if not by_example and _says(words, "privacy", "examples"):
        yield _unused(
            ("privacy", "examples"),
            f'mechanism "{privacy.mechanism}" hides all examples of a client together',
            'write mechanism = "dpsgd" and unit = "example", or leave examples out',
        )
    if privacy.epsilon and privacy.noise_multiplier:
        yield Mistake(
            ("privacy", "noise_multiplier"),
            f"the noise is given both ways: epsilon = {toml(privacy.epsilon)} and "
            f"noise_multiplier = {toml(privacy.noise_multiplier)}",
            "leave noise_multiplier out, so that the noise is found from epsilon",
        )
    if not privacy.epsilon and not privacy.noise_multiplier:
        yield _needs(
            ("privacy", "epsilon"),
            f'mechanism "{privacy.mechanism}" needs to know how much noise',
            "add epsilon = 8.0 to [privacy], or the target that you want",
        )
    if privacy.delta == 0:
        yield _needs(
            ("privacy", "delta"),
            "epsilon holds except with this probability",
            "add delta = 1e-5 to [privacy]; choose it below 1 / "
            + ("examples" if by_example else "population"),
        )
    if privacy.mechanism != "correlated" and "matrix" in words.get("privacy", {}):
        yield _unused(
            ("privacy", "matrix"),
            f'mechanism "{privacy.mechanism}" correlates no noise over rounds',
            'write mechanism = "correlated", or leave matrix out',
        )
    for name in ("clip_learning_rate", "clip_noise"):
        if not privacy.clip_quantile and _says(words, "privacy", name):
            yield _unused(
                ("privacy", name),
                "the norm bound is fixed while clip_quantile is 0",
                f"add clip_quantile = 0.5 to [privacy], or leave {name} out",
            )
    if privacy.metrics_noise_multiplier and not privacy.metrics_clip:
        yield _unused(
            ("privacy", "metrics_noise_multiplier"),
            "no metrics leave the sites while metrics_clip is 0",
            "add metrics_clip = 100.0 to [privacy], or leave metrics_noise_multiplier out",
        )
    if privacy.metrics_clip and not privacy.metrics_noise_multiplier:
        yield _needs(
            ("privacy", "metrics_noise_multiplier"),
            "metrics leave the sites with noise or not at all",
            "add metrics_noise_multiplier = 10.0 to [privacy], or leave metrics_clip out",
        )


def _aggregation(words: Words, aggregation: Aggregation, privacy: Privacy) -> Iterator[Mistake]:
    if aggregation.rule != "trimmed_mean" and "trim" in words.get("aggregation", {}):
        yield _unused(
            ("aggregation", "trim"),
            f'the rule is "{aggregation.rule}"',
            'write rule = "trimmed_mean", or leave trim out',
        )
    if aggregation.rule != "agnostic" and "tail" in words.get("aggregation", {}):
        yield _unused(
            ("aggregation", "tail"),
            f'the rule is "{aggregation.rule}"',
            'write rule = "agnostic", or leave tail out',
        )
    counted = aggregation.rule in COUNTING or (
        aggregation.mixing == "nearest" and aggregation.rule != "trimmed_mean"
    )
    if not counted and "bad" in words.get("aggregation", {}):
        yield _unused(
            ("aggregation", "bad"),
            f'the rule "{aggregation.rule}" is not told how many may be bad',
            'write rule = "multi_krum", or leave bad out',
        )
    if _says(words, "aggregation", "clip") and privacy.mechanism not in ("none", "dpsgd"):
        yield _unused(
            ("aggregation", "clip"),
            "privacy.clip is the norm bound of a private job",
            "leave it out, or write it as clip in [privacy]",
        )


def _quantization(words: Words, quantization: Quantization) -> Iterator[Mistake]:
    if quantization.step == 0 and "bits" in words.get("quantization", {}):
        yield _unused(
            ("quantization", "bits"),
            "nothing is quantized while step is 0",
            "add step = 1e-4 to [quantization], or leave the section out",
        )


def _defend(
    words: Words, defend: Defend, aggregation: Aggregation, evaluate_every: int
) -> Iterator[Mistake]:
    if defend.standing and aggregation.rule == "mean":
        yield _unused(
            ("defend", "standing"),
            "the mean keeps no update to compare with the others",
            'write rule = "geometric_median" in [aggregation], or leave standing out',
        )
    if defend.rollback == 0 and "rollback" in words.get("defend", {}):
        yield Mistake(
            ("defend", "rollback"),
            "defend.rollback is 0, which would reject a model for the least difference",
            "write how much worse rounds.watch may get, or leave rollback out",
        )
    if defend.rollback and evaluate_every == 0:
        yield _unused(
            ("defend", "rollback"),
            "it judges by measurements, and evaluate_every = 0 makes none before the end",
            "write evaluate_every = 1 above the first section, or leave rollback out",
        )


def _patience(_: Words, rounds: Rounds, evaluate_every: int) -> Iterator[Mistake]:
    if rounds.patience and evaluate_every == 0:
        yield _unused(
            ("rounds", "patience"),
            "it counts measurements, and evaluate_every = 0 makes none before the end",
            "write evaluate_every = 1 above the first section, or leave patience out",
        )


_RULES: Mapping[Rule, tuple[str, ...]] = {
    _cohort: ("cohort",),
    _privacy: ("privacy",),
    _aggregation: ("aggregation", "privacy"),
    _quantization: ("quantization",),
    _defend: ("defend", "aggregation", "evaluate_every"),
    _patience: ("rounds", "evaluate_every"),
}
"""Each rule, and the job's fields that it reads."""


def _says(words: Words, section: str, name: str) -> bool:
    """Whether the file gives the key a value that asks for something: not 0."""
    return bool(words.get(section, {}).get(name))


def _unused(path: Path, because: str, fix: str) -> Mistake:
    return Mistake(path, f"{dotted(path)} has no effect: {because}", fix)


def _needs(path: Path, because: str, fix: str) -> Mistake:
    return Mistake(path[:-1], f"{dotted(path)} is missing: {because}", fix)
