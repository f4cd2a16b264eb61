"""The privacy statement says all that an epsilon needs, and nothing that the plan does not."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from dataclasses import asdict, dataclass, fields, replace
from html.parser import HTMLParser
from typing import get_args, get_type_hints

import pytest

import hansa.mechanisms
from hansa.algorithms import fedavg
from hansa.core import events
from hansa.core.events import Gaussian, repeat
from hansa.core.job import Cohort, Job, Privacy, Quantization, Rounds, SecureAggregation
from hansa.core.plan import Plan, check
from hansa.core.spec import Reader, UpdateSpec
from hansa.errors import HansaError
from hansa.jobfile import load_job
from hansa.mechanisms.gaussian import CentralGaussian
from hansa.mechanisms.none import NoNoise
from hansa.privacy import statement_facts
from hansa.privacy.accountants import DpAccounting
from hansa.privacy.statement import Spent, Statement, of_json, statement_of
from hansa.privacy.statement_page import FORMS, save, written
from hansa.privacy.statement_parts import TrustModel
from hansa.recipes import compile_plan
from hansa.work.bundle import facts_of, load_task


def job(**words) -> Job:
    """A small private job over the hospitals' task."""
    base = load_job("heart")
    usual = {
        "cohort": Cohort(population=100),
        "rounds": Rounds(count=10),
        "privacy": Privacy(mechanism="gaussian", clip=1.0, noise_multiplier=8.0, delta=1e-5),
        "quantization": Quantization(),
        "secure_aggregation": SecureAggregation(),
        "aggregation": replace(base.aggregation, clip=0.0),
    }
    return replace(base, **{**usual, **words})


MASKS = SecureAggregation(enabled=True, corrupt=0.1, dropouts=0.1)
GRID = Quantization(step=1e-4)
DISTRIBUTED = Privacy(mechanism="distributed", clip=1.0, epsilon=8.0, delta=1e-5)

NAMED = get_args(get_type_hints(Privacy)["mechanism"])

JOBS = {
    "central": job(),
    "central, masked": job(
        secure_aggregation=MASKS, quantization=GRID, cohort=Cohort(population=20)
    ),
    "central, sampled": job(cohort=Cohort(population=200, sampler="poisson", rate=0.2)),
    "central, fixed": job(cohort=Cohort(population=200, sampler="fixed", size=20)),
    "central, adaptive": job(
        privacy=Privacy(
            mechanism="gaussian", clip=1.0, noise_multiplier=4.0, delta=1e-5, clip_quantile=0.5
        )
    ),
    "central, metrics": job(
        privacy=Privacy(
            mechanism="gaussian",
            clip=1.0,
            noise_multiplier=8.0,
            delta=1e-5,
            metrics_clip=10.0,
            metrics_noise_multiplier=20.0,
        )
    ),
    "distributed": job(
        privacy=DISTRIBUTED,
        secure_aggregation=MASKS,
        cohort=Cohort(population=20),
    ),
    "none": job(privacy=Privacy()),
    "discrete": job(
        privacy=Privacy(mechanism="discrete", clip=1.0, noise_multiplier=8.0, delta=1e-5)
    ),
    "correlated": job(
        privacy=Privacy(mechanism="correlated", clip=1.0, noise_multiplier=8.0, delta=1e-5),
        cohort=Cohort(population=100, sampler="cyclic", separation=5),
    ),
    "dpsgd": job(
        privacy=Privacy(
            unit="example",
            mechanism="dpsgd",
            clip=1.0,
            noise_multiplier=1.0,
            delta=1e-4,
            examples=100,
        ),
        algorithm=fedavg(client_lr=0.1, local_steps=2, batch_size=32),
    ),
    "local": job(
        privacy=Privacy(mechanism="local", clip=1.0, noise_multiplier=8.0, delta=1e-5),
        aggregation=replace(
            load_job("heart").aggregation, weighting="uniform", max_weight=0.0, clip=0.0
        ),
    ),
}


@pytest.fixture(scope="module", params=JOBS, ids=str)
def plan(request: pytest.FixtureRequest) -> Plan:
    return compile_plan(JOBS[request.param])


@pytest.fixture(scope="module")
def central() -> Plan:
    return compile_plan(JOBS["central"])


def test_the_jobs_have_every_mechanism_that_a_job_can_name():
    missing = set(NAMED) - {j.privacy.mechanism for j in JOBS.values()}
    assert len(NAMED) >= 3
    assert not missing, f"add a job for {missing}"


def test_every_field_is_named(plan):
    said = statement_of(plan)
    for field in fields(said):
        value = getattr(said, field.name)
        if isinstance(value, (str, tuple)):
            assert value, field.name
    assert said.private is plan.private
    assert said.plan_digest == plan.digest
    assert said.hansa == hansa.__version__
    if not plan.private:
        assert (said.epsilon, said.delta, said.trust_model) == (None, None, "none")
        assert "No differential privacy" in said.sentence
        return
    assert said.epsilon == plan.epsilon
    assert said.delta == plan.job.privacy.delta
    assert said.trust_model in ("central", "distributed", "local", "example")
    assert "not known" not in said.noise_sampler + said.noise_entropy
    assert said.noise_grid is not None
    assert said.noise_exact is not None
    for words in (
        f"epsilon {plan.epsilon:.4g} at delta {plan.job.privacy.delta:g}",
        f"unit: {said.unit}; relation: {plan.relation.value}; sampling: {said.sampling}",
        f"accountant: {said.accountant}; trust model: {said.trust_model}",
    ):
        assert words in said.sentence


def test_the_statement_agrees_with_the_claims(plan):
    """Claims and statement are derived apart; they may not contradict each other."""
    said, claims = statement_of(plan), " ".join(plan.claims)
    if not plan.private:
        return
    for words in (
        f"epsilon {said.epsilon:.4g} at delta {said.delta:g}",
        f"relation: {said.relation}",
        f"sampling: {said.sampling}",
        f"accountant: {said.accountant}",
        f"trust model: {said.trust_model}",
    ):
        assert words in claims


def told(name: str) -> Statement:
    return statement_of(compile_plan(JOBS[name]))


def test_who_sees_what_follows_from_masks_and_noise():
    assert "the update of each client" in told("central").sees_before
    assert "no single update" in told("central, masked").sees_before
    shared = told("distributed")
    assert shared.sees_before.startswith("nobody")
    assert (shared.adds_noise.split()[0], shared.noise_exact) == ("each", True)
    assert told("central").noise_exact is False


def test_hazards_follow_from_facts():
    def hazards(name: str) -> str:
        return " ".join(told(name).hazards)

    assert "k clients" in hazards("central")
    assert "cannot tell who took part" in hazards("central, sampled")
    assert "cannot tell who took part" not in hazards("central")
    assert "floating point" in hazards("central")
    assert "floating point" not in hazards("distributed")
    assert "how many examples each client counts for" in hazards("central")
    assert "how many examples" not in hazards("central, masked")
    assert "can be seen, without noise" in hazards("central")
    assert "knows who took part" in hazards("distributed")
    assert "seed" in hazards("central")
    assert "may reveal training data" in hazards("none")


@pytest.mark.parametrize(
    ("delta", "words"),
    [(0.006, ""), (0.0065, "Delta is above N**-1.1 for N = 100 clients"), (1e-5, "")],
)
def test_delta_is_compared_with_the_population(delta, words):
    privacy = replace(JOBS["central"].privacy, delta=delta)
    found = " ".join(statement_of(compile_plan(job(privacy=privacy))).hazards)
    assert words in found
    assert ("Delta is" in found) is bool(words)


def test_a_weak_epsilon_and_an_early_stop_are_hazards():
    weak = replace(JOBS["central"].privacy, noise_multiplier=1.0)
    found = " ".join(statement_of(compile_plan(job(privacy=weak, risk_tier="low"))).hazards)
    assert "Epsilon is above 10" in found
    patient = job(
        privacy=JOBS["central, metrics"].privacy, rounds=Rounds(count=10, patience=2, watch="loss")
    )
    assert any("may stop early" in h for h in statement_of(compile_plan(patient)).hazards)
    assert not any("may stop early" in h for h in told("central, metrics").hazards)
    assert "Epsilon is above" not in " ".join(told("central").hazards)


def test_scope_says_what_metrics_and_clipping_cost():
    assert "No metrics leave the clients." in told("central").scope
    assert any("metric values of every round" in s for s in told("central, metrics").scope)
    assert any("adapts" in s for s in told("central, adaptive").scope)
    assert any("1 is fixed in the job" in s for s in told("central").scope)
    assert any(s.startswith("Not covered: settings that were tuned") for s in told("central").scope)


def test_a_wrong_epsilon_is_no_statement(central):
    with pytest.raises(HansaError, match="counts"):
        statement_of(replace(central, epsilon=central.epsilon * 0.9))


# ------------------------------------------------------------------ parts that say nothing


@dataclass(frozen=True, slots=True)
class Silent:
    """A mechanism that does not say how it makes its noise."""

    inner: CentralGaussian

    def __str__(self) -> str:
        return "some noise"

    @property
    def relation(self):
        return self.inner.relation

    def infer(self, spec: UpdateSpec):
        return self.inner.infer(spec)

    def releases(self, spec: UpdateSpec) -> bool:
        return self.inner.releases(spec)

    def apply(self, total, spec, noise):
        return self.inner.apply(total, spec, noise)


def test_what_a_mechanism_does_not_say_is_stated_as_not_known(central):
    mechanism = central.parts.mechanism
    assert isinstance(mechanism, CentralGaussian)
    parts = replace(central.parts, mechanism=Silent(mechanism))
    facts = facts_of(central.job, load_task(central.job))
    said = statement_of(check(central.job, parts, facts, DpAccounting("pld")))
    assert said.mechanism == "some noise"
    assert said.noise_sampler == "not known: Silent does not say"
    assert (said.noise_grid, said.noise_exact) == (None, None)
    assert any("take floating point and a weak generator for possible" in h for h in said.hazards)
    assert said.epsilon == central.epsilon


@dataclass(frozen=True, slots=True)
class Local(Silent):
    """A mechanism that says against whom it holds, and nothing else."""

    @property
    def trust_model(self) -> TrustModel:
        return "local"


def test_a_mechanism_is_believed_where_the_facts_leave_it_open(central):
    inner = central.parts.mechanism
    assert isinstance(inner, CentralGaussian)

    def trust(mechanism: Silent, **known) -> statement_facts.Trust:
        delta = replace(central.facts["delta"], **known)
        parts = replace(central.parts, mechanism=mechanism)
        return statement_facts.trust_of(
            replace(central, parts=parts, facts={**central.facts, "delta": delta})
        )

    assert trust(Silent(inner)).model == "central"
    assert trust(Silent(inner), noise=1.0).model == "local"
    masked = trust(Silent(inner), noise=1.0, reader=Reader.SUM)
    assert (masked.model, masked.adds) == ("unknown", "not known: some noise")
    assert trust(Local(inner), noise=1.0, reader=Reader.SUM).model == "local"


def mechanisms() -> list[type]:
    found = [
        kind
        for module in pkgutil.iter_modules(hansa.mechanisms.__path__, "hansa.mechanisms.")
        for kind in vars(importlib.import_module(module.name)).values()
        if isinstance(kind, type) and kind.__module__ == module.name
    ]
    return [kind for kind in found if hasattr(kind, "infer") and kind is not NoNoise]


def test_every_mechanism_of_the_package_says_how_its_noise_is_made():
    assert len(mechanisms()) >= 2
    for kind in mechanisms():
        by_itself = hasattr(kind, "generation")
        by_a_stage = hasattr(kind, "trust_model")
        assert by_itself or by_a_stage, f"give {kind.__name__} a generation"


# ------------------------------------------------------------------ what ran


def test_before_a_run_nothing_is_released_and_it_says_so(central):
    said = statement_of(central)
    assert said.released is None
    assert "none yet" in said.audit
    assert written(said, ".txt").count("none yet") == 3


def test_a_run_that_did_all_costs_what_the_plan_says(central):
    spent = Spent(run="r", charges=(central.round_event,) * 10, rounds=10, head="ab", entries=20)
    said = statement_of(central, ledger=spent).released
    assert said is not None
    assert said.epsilon == pytest.approx(central.epsilon, rel=1e-9)
    assert (said.charges, said.declared, said.rounds) == (10, 10, 10)
    assert (said.ledger_entries, said.ledger_head) == (20, "ab")


def test_a_run_that_stopped_cost_less_and_void_rounds_count(central):
    oracle = DpAccounting("pld").epsilon(repeat(Gaussian(8.0), 4), 1e-5, central.relation)
    spent = Spent(run="r", charges=(central.round_event,) * 4, rounds=3)
    said = statement_of(central, ledger=spent).released
    assert said is not None
    assert said.epsilon == pytest.approx(oracle, rel=1e-9)
    assert said.epsilon < central.epsilon
    none = statement_of(central, ledger=Spent(run="r", charges=(), rounds=0)).released
    assert none is not None
    assert none.epsilon == 0.0


def test_noise_that_is_counted_as_a_whole_costs_as_a_whole():
    """One participation of several is no Gaussian by itself where rows of C overlap."""
    plan = compile_plan(JOBS["correlated"])
    assert plan.charges == 2
    for charges, epsilon in ((0, 0.0), (1, plan.epsilon), (2, plan.epsilon), (3, None)):
        spent = Spent(run="r", charges=(plan.round_event,) * charges, rounds=charges)
        said = statement_of(plan, ledger=spent).released
        assert said is not None
        assert said.epsilon == epsilon


def test_a_charge_without_a_guarantee_costs_everything(central):
    spent = Spent(run="r", charges=(central.round_event, events.NonPrivate()), rounds=2)
    said = statement_of(central, ledger=spent).released
    assert said is not None
    assert said.epsilon is None


# ------------------------------------------------------------------ pages


def test_json_reads_back(plan):
    spent = Spent(run="r", charges=(plan.round_event,), rounds=1, head="ab", entries=2)
    for said in (statement_of(plan), statement_of(plan, ledger=spent)):
        text = written(said, ".json")
        assert of_json(json.loads(text)) == said
        assert written(said, ".json") == text


def test_another_json_is_refused(central):
    said = json.loads(written(statement_of(central), ".json"))
    with pytest.raises(HansaError, match="format 1"):
        of_json({**said, "format": 2})
    with pytest.raises(HansaError, match="lacks or adds"):
        of_json({**said, "more": 1})


def test_text_is_80_columns_wide(plan):
    assert all(len(line) <= 80 for line in written(statement_of(plan), ".txt").splitlines())


def words_of(said: Statement) -> list[str]:
    flat = {k: v for k, v in asdict(said).items() if isinstance(v, str)}
    return [*flat.values(), *said.scope, *said.hazards]


def test_all_pages_say_the_same(plan):
    said = statement_of(plan)
    page = HtmlText()
    page.feed(written(said, ".html"))
    forms = {
        ".txt": written(said, ".txt"),
        ".md": written(said, ".md").replace("\\", ""),
        ".html": " ".join(page.text),
    }
    skip = {said.job, said.unit, said.relation, said.accountant, said.hansa}
    skip |= {said.mechanism} if not said.private else set()
    for suffix, text in forms.items():
        flat = re.sub(r"\s+", "", text)
        for words in words_of(said):
            if said.private or words not in skip:
                assert re.sub(r"\s+", "", words) in flat, (suffix, words)


class HtmlText(HTMLParser):
    """The text of a page, and what it loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.update(attrs)

    def handle_data(self, data):
        self.text.append(data)


def test_html_stands_alone_and_is_accessible(central):
    page = HtmlText()
    page.feed(written(statement_of(central), ".html"))
    assert page.attributes.keys() & {"src", "href"} == set()
    assert {"html", "title", "main", "h1", "h2", "th", "li"} <= set(page.tags)
    assert "script" not in page.tags
    assert (page.attributes["lang"], page.attributes["scope"]) == ("en", "row")
    assert "@media print" in "".join(page.text)


def test_html_and_markdown_quote_what_is_no_mark_up(central):
    said = replace(statement_of(central), mechanism="<b>|*x*")
    assert "&lt;b&gt;|*x*" in written(said, ".html")
    assert r"\<b\>\|\*x\*" in written(said, ".md")


def test_files_are_written_by_their_names(central, tmp_path):
    said = statement_of(central)
    for suffix in FORMS:
        save(said, tmp_path / f"s{suffix}")
        assert (tmp_path / f"s{suffix}").read_text("utf-8") == written(said, suffix)
    with pytest.raises(HansaError, match=r"\.pdf"):
        save(said, tmp_path / "s.pdf")
    with pytest.raises(HansaError, match="cannot be written"):
        save(said, tmp_path / "missing" / "s.md")
