"""The museum: every slip is refused, every right form accepted, and planting leaves no trace."""

import inspect
import re
import tomllib

import numpy as np
import pytest
import sympy as sp
import torch

from diffusion_lib import closed_forms as cf
from diffusion_lib import exhibits, process, samplers, schedule
from diffusion_lib.closed_forms import Gaussian, posterior_variance
from diffusion_lib.exhibits import EXHIBITS, Exhibit, planted, replaced
from diffusion_lib.exhibits.planting import named, unwrapped
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.verify import CheckFailed, interval, noise_levels, prove
from notebooks import LIBRARY, ROOT

CLOSED_FORMS = [exhibit for exhibit in EXHIBITS if exhibit.is_closed_form]
every_exhibit = pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda e: e.name)
every_formula = pytest.mark.parametrize("exhibit", CLOSED_FORMS, ids=lambda e: e.name)

# --- Symbols, one for each parameter, and where the formulas hold -------------------------------

s, t = sp.symbols(r"\bar\alpha_s \bar\alpha_t", positive=True)
x, x_0, x_s, x_t, eps, z, score, mean = sp.symbols("x x_0 x_s x_t epsilon z g mu", real=True)
eps_c, eps_u, m, n = sp.symbols("epsilon_c epsilon_u m n", real=True)
beta, v, w, sigma, eta, k = sp.symbols("beta v w sigma eta k", positive=True)
steps, T, first, last = sp.symbols("t T beta_1 beta_T", positive=True)
b, c, d = sp.symbols("b c d", positive=True)
NAMED = {
    "alpha_bar_s": s,
    "alpha_bar_t": t,
    "eps": eps,
    "eps_cond": eps_c,
    "eps_uncond": eps_u,
    "scale": k,
    "variance": v,
    "x_0_variance": v,
    "gaussian": Gaussian(m, v),
    "p": Gaussian(m, v),
    "q": Gaussian(n, w),
    "betas": [b, c, d],
    "share": k,
    "t": steps,
    "s": sp.Rational(1, 125),
    "beta_start": first,
    "beta_end": last,
    **{str(y): y for y in (x, x_0, x_s, x_t, z, beta, sigma, eta, T)},
    "score": score,
    "mean": mean,
}
LEVELS = noise_levels(s, t)


def symbolic(function):
    """A function of the library on symbols."""
    return function(*(NAMED[name] for name in inspect.signature(function).parameters))


def grade(answer, function):
    """What a student's answer is held against: the function itself, for all admissible values."""
    truth = symbolic(function)
    return prove("your formula", answer, truth, LEVELS & interval(beta, 0, 1))


# --- The grader ---------------------------------------------------------------------------------


@every_formula
def test_the_grader_refuses_every_slip(exhibit):
    with pytest.raises(CheckFailed, match="not proved: your formula"):
        grade(symbolic(exhibit.wrong), exhibit.function)


root = sp.sqrt
a, b_st = t / s, 1 - t / s  # alpha and beta between the two levels
tilde = b_st * (1 - s) / (1 - t)
snr_s, snr_t = s / (1 - s), t / (1 - t)
noise = (x_t - root(t) * x_0) / root(1 - t)
V_s, V_t = 1 + s * (v - 1), 1 + t * (v - 1)
RIGHT_FORMS = {
    "forward_step": [
        Gaussian(root(1 - beta) * x_s, beta),
        ((1 - beta) / root(1 - beta) * x_s, 1 - (1 - beta)),
    ],
    "marginal": [
        (root(t) * x_0, 1 - t),
        (root(a) * root(s) * x_0, a * (1 - s) + b_st),  # two steps
        (root(t) * x_0, (1 - root(t)) * (1 + root(t))),
        (x_0 / root(1 + 1 / snr_t), 1 / (1 + snr_t)),  # by the signal-to-noise ratio
        (t / root(t) * x_0, root(1 - t) ** 2),
    ],
    "noised": [
        root(t) * x_0 + root(1 - t) * eps,
        root(t) * (x_0 + eps / root(snr_t)),
        root(1 - t) * (root(snr_t) * x_0 + eps),
        (root(snr_t) * x_0 + eps) / root(1 + snr_t),
    ],
    "draw": [m + root(v) * eps, m + v * eps / root(v)],
    "alpha_bar_table": [
        [1, 1 - b, (1 - b) * (1 - c), (1 - b) * (1 - c) * (1 - d)],
        (1, 1 - b, 1 - b - c + b * c, (1 - b - c + b * c) - d * (1 - b - c + b * c)),
    ],
    "scaled_linear_beta": [
        (root(first) * (T - steps) / (T - 1) + root(last) * (steps - 1) / (T - 1)) ** 2,
        ((root(first) * (T - steps) + root(last) * (steps - 1)) / (T - 1)) ** 2,
    ],
    "normal_log_density": [
        -sp.log(2 * sp.pi) / 2 - sp.log(v) / 2 - (x - mean) ** 2 / (2 * v),
        -sp.log(root(2 * sp.pi * v)) - ((x - mean) / root(v)) ** 2 / 2,
        sp.log(1 / root(2 * sp.pi * v)) - (mean**2 - 2 * mean * x + x**2) / (2 * v),
    ],
    "gaussian_kl": [
        sp.log(root(w) / root(v)) + (v + (m - n) ** 2) / (2 * w) - sp.Rational(1, 2),
        (v / w - 1 - sp.log(v / w) + (m - n) ** 2 / w) / 2,
        sp.log(root(w)) - sp.log(root(v)) + (v + m**2 - 2 * m * n + n**2 - w) / (2 * w),
    ],
    "posterior_mean": [
        root(a) * (1 - s) / (1 - t) * x_t + root(s) * b_st / (1 - t) * x_0,
        root(t) * (1 - s) / (root(s) * (1 - t)) * x_t + (s - t) / (root(s) * (1 - t)) * x_0,
        tilde * (root(a) / b_st * x_t + root(s) / (1 - s) * x_0),  # precisions add
        (x_t - b_st / root(1 - t) * noise) / root(a),  # by the noise
        root(s) * x_0 + root(1 - s - tilde) * noise,  # a nested root
        root(s) * x_0 + root(a) * (1 - s) / (1 - t) * (x_t - root(t) * x_0),
        (root(a) * (1 - s) * x_t + root(s) * (1 - a) * x_0) / (1 - t),
        snr_t / snr_s / root(a) * x_t + root(s) * (1 - snr_t / snr_s) * x_0,
    ],
    "posterior_variance": [
        tilde,
        (1 - s) * (s - t) / (s * (1 - t)),
        1 / (a / b_st + 1 / (1 - s)),
        (1 - s) * (1 - snr_t / snr_s),
        (1 - s) - a * (1 - s) ** 2 / (1 - t),
        (1 - s - t / s + t) / (1 - t),
        (root((1 - s) / (1 - t)) * root(b_st)) ** 2,
        1 / (1 + snr_s) * (1 - snr_t / snr_s),
    ],
    "data_reverse": [
        (
            root(s) * mean + V_s / V_t * root(a) * (x_t - root(t) * mean),
            V_s * b_st / V_t,
        ),
        (
            (root(a) * V_s * x_t + root(s) * b_st * mean) / (a * V_s + b_st),
            1 / (a / b_st + 1 / V_s),
        ),
    ],
    "reverse_variance": [
        tilde + s * (b_st / (1 - t)) ** 2 * v,
        tilde + (s - t) ** 2 / (s * (1 - t) ** 2) * v,
        b_st * ((1 - s) + s * b_st * v / (1 - t)) / (1 - t),
    ],
    "interpolated_log_variance": [
        k * sp.log(b_st) + (1 - k) * sp.log(tilde),
        sp.log(tilde) + k * sp.log(b_st / tilde),
        sp.log(b_st) + (1 - k) * (sp.log(1 - s) - sp.log(1 - t)),
    ],
    "data_eps": [
        root(1 - t) * (x_t - root(t) * mean) / V_t,
        root(1 - t) / (t * v + 1 - t) * x_t - root(t * (1 - t)) * mean / (t * v + 1 - t),
        (x_t - root(t) * mean) / root(1 - t) / (1 + snr_t * v),
    ],
    "eps_from_score": [-root(1 - t) * score, -score / root(1 + snr_t)],
    "x_0_from_score": [
        (x_t + (1 - t) * score) / root(t),
        x_t / root(t) + root(t) / snr_t * score,
    ],
    "x_0_from_eps": [
        (x_t - root(1 - t) * eps) / root(t),
        x_t / root(t) - root(1 / t - 1) * eps,
        x_t / root(t) - eps / root(snr_t),
        root(1 / t) * x_t - root((1 - t) / t) * eps,
    ],
    "guided_eps": [
        k * eps_c - (k - 1) * eps_u,
        (1 + (k - 1)) * eps_c + (1 - k) * eps_u,
        eps_c + (k - 1) * (eps_c - eps_u),
    ],
    "ddim_sigma": [
        eta * root((1 - s) / (1 - t)) * root(1 - t / s),
        root(eta**2 * tilde),
        eta * root((1 - s) * (s - t)) / root(s * (1 - t)),
        eta * root(1 - s) * root(1 - snr_t / snr_s),
    ],
    "bound_weight_eps": [
        (1 - a) ** 2 / (2 * v * a * (1 - t)),
        b_st**2 * s / (2 * v * t * (1 - t)),
        (s - t) ** 2 / (2 * v * s * t * (1 - t)),
        (b_st / root(a * (1 - t))) ** 2 / (2 * v),
    ],
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [(name, answer) for name, answers in RIGHT_FORMS.items() for answer in answers],
)
def test_the_grader_accepts_right_forms(name, answer):
    assert grade(answer, getattr(cf, name)).kind == "proved"


inside = LEVELS & interval(sigma, 0, root(1 - s))
STEP_FORMS = [
    root(s) * x_0 + root(1 - s - sigma**2) * eps + sigma * z,
    root(s) * x_0 + root(1 - s) * (root(1 - sigma**2 / (1 - s)) * eps + sigma / root(1 - s) * z),
    root(s) * (x_0 + root((1 - s - sigma**2) / s) * eps) + sigma * z,
]


@pytest.mark.parametrize("answer", STEP_FORMS)
def test_the_grader_accepts_right_steps(answer):
    prove("your step", answer, cf.reverse_step(x_0, eps, z, s, sigma), inside)
    prove("its mean", answer.subs(z, 0), cf.reverse_mean(x_0, eps, s, sigma), inside)


def test_the_grader_accepts_a_whole_ddim_step():
    """With the prediction put in, and DDPM's weight of the bound by ratios of SNR."""
    answer = root(s / t) * x_t + (root(1 - s) - root(s * (1 - t) / t)) * eps
    step = cf.reverse_mean(cf.x_0_from_eps(x_t, eps, t), eps, s, 0)
    prove("your step", answer, step, LEVELS)
    weight = cf.bound_weight_eps(s, t, cf.posterior_variance(s, t))
    for form in ((snr_s / snr_t - 1) / 2, b_st / (2 * a * (1 - s)), (s - t) / (2 * t * (1 - s))):
        prove("your weight", form, weight, LEVELS)


def test_every_formula_with_an_exhibit_has_right_forms_too():
    """But for the cosine, which `prove` does not decide, and what is tested just above."""
    elsewhere = {"cosine_alpha_bar", "posterior", "reverse_mean", "reverse_step"}
    assert {e.function.__name__ for e in CLOSED_FORMS} - elsewhere <= RIGHT_FORMS.keys()


@pytest.mark.parametrize(
    "answer",
    [None, "(1-s)/(1-t)", 0.5, (tilde, tilde), 1.0 * tilde, cf.posterior_variance, np.ones(3)],
    ids=lambda answer: type(answer).__name__,
)
def test_an_answer_that_is_none_gets_a_sentence(answer):
    with pytest.raises(CheckFailed) as refusal:
        grade(answer, cf.posterior_variance)
    assert str(refusal.value).startswith("not proved: your formula. ")
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ((1 - sp.Symbol("s")) * b_st / (1 - t), "Only the left side has s"),
        (symbolic(cf.posterior_variance).subs(s, sp.Symbol(str(s))), "two different symbols"),
        (0.5 * tilde + 0.5 * tilde, "inexact"),
    ],
)
def test_an_answer_in_other_symbols_gets_a_hint(answer, hint):
    with pytest.raises(CheckFailed, match=hint):
        grade(answer, cf.posterior_variance)


# --- The exhibits -------------------------------------------------------------------------------


@every_exhibit
def test_its_check_passes_without_the_slip_and_fails_with_it(exhibit):
    exhibit.check()
    with planted(exhibit), pytest.raises(CheckFailed):
        exhibit.check()
    exhibit.check()


@every_exhibit
def test_it_has_the_signature_of_what_it_replaces(exhibit):
    right, wrong = (inspect.signature(f).parameters for f in (exhibit.function, exhibit.wrong))
    assert list(right) == list(wrong)
    for name in right:
        assert (right[name].kind, right[name].default) == (wrong[name].kind, wrong[name].default)


@every_formula
def test_its_residual_is_exact_and_not_zero(exhibit):
    residual = exhibit.residual()
    assert any(value != 0 for value in residual)
    assert not any(value.has(sp.Float) or value.free_symbols for value in residual)


def numbers(value, kind):
    if isinstance(value, Gaussian):
        return Gaussian(*(numbers(part, kind) for part in value))
    if isinstance(value, list):
        return [numbers(part, kind) for part in value]
    return kind(float(value))


# A level of the trained schedule is looked up, which has no symbol; and a pole has no number.
BY_TABLE = {"W16", "W17", "L8"}


@pytest.mark.parametrize(
    "exhibit",
    [e for e in CLOSED_FORMS if not BY_TABLE & set(e.seen) and not e.at],
    ids=lambda e: e.name,
)
@pytest.mark.parametrize(
    "kind", [float, lambda y: torch.full((3,), y, dtype=torch.float64)], ids=["float", "tensor"]
)
def test_it_computes_the_same_on_symbols_floats_and_tensors(exhibit, kind):
    def row(value):
        return value if isinstance(value, tuple | list) else [value]

    exact = row(exhibit.wrong(*exhibit.arguments()))
    got = row(exhibit.wrong(*(numbers(value, kind) for value in exhibit.arguments())))
    for want, have in zip(exact, got, strict=True):
        value = have if not torch.is_tensor(have) else have[0]
        assert float(value) == pytest.approx(float(want), rel=1e-12)


def test_a_single_step_is_looked_up_in_the_schedule():
    """At a level of DDPM's schedule, the wrong strided formula reads that step's own beta."""
    full = NoiseSchedule.linear()
    (exhibit,) = [e for e in EXHIBITS if e.name == "strided variance, single β"]
    alpha_bar = full.alpha_bar
    want = (1 - alpha_bar[100]) / (1 - alpha_bar[200]) * full.beta[200]
    levels = alpha_bar[100], alpha_bar[200]
    assert exhibit.wrong(*levels) == pytest.approx(want)
    assert exhibit.wrong(*map(float, levels)) == pytest.approx(want)
    as_tensors = (torch.tensor([level, level]) for level in levels)
    assert torch.allclose(exhibit.wrong(*as_tensors), torch.tensor([want, want]))
    assert exhibit.wrong(*levels) < full.strided(10).posterior_variance[2] / 50


# --- Planting -----------------------------------------------------------------------------------

by_name = {exhibit.name: exhibit for exhibit in EXHIBITS}


def test_planting_reaches_whoever_imported_the_function():
    table = NoiseSchedule.linear(5, 0.1, 0.3)
    rows, times = torch.ones(5, 1), torch.arange(1, 6)
    right = process.posterior(table, rows, rows, times).variance
    with planted(by_name["a missing denominator"]):
        assert posterior_variance(0.5, 0.2) == pytest.approx(0.5 * 0.6)
        assert schedule.closed_forms.posterior_variance(0.5, 0.2) == pytest.approx(0.5 * 0.6)
        wrong = process.posterior(table, rows, rows, times).variance
        assert not torch.equal(wrong, right)
    assert torch.equal(process.posterior(table, rows, rows, times).variance, right)


def test_planting_reaches_a_sampler():
    table = NoiseSchedule.linear().strided(4)
    start = torch.ones(2, 1)

    def run():
        return samplers.ddim(lambda x, t: x / 2, table, start)

    right = run()
    for name in ("an index off by one", "an index for a time"):
        with planted(by_name[name]):
            assert torch.equal(run(), right)  # this network does not look at the time
    with planted(by_name["one paper's α in the other's formula"]):
        assert not torch.equal(run(), right)
    assert torch.equal(run(), right)


@every_exhibit
def test_planting_leaves_no_trace_even_after_an_error(exhibit):
    def fail_inside():
        with planted(exhibit):
            assert exhibit.function.__code__ is not before
            raise ZeroDivisionError

    before = exhibit.function.__code__
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert exhibit.function.__code__ is before


def test_two_slips_can_be_planted_at_once():
    pair = [e for e in EXHIBITS if e.replaces == "closed_forms.ddim_sigma"][:2]
    right = cf.ddim_sigma(0.25, 0.5, 0.2)
    with planted(pair[0]):
        outer = cf.ddim_sigma(0.25, 0.5, 0.2)
        with planted(pair[1]):
            assert cf.ddim_sigma(0.25, 0.5, 0.2) not in (right, outer)
        assert cf.ddim_sigma(0.25, 0.5, 0.2) == outer != right
    assert cf.ddim_sigma(0.25, 0.5, 0.2) == right


def test_code_can_be_planted_too():
    def nothing(alpha_bar_t):
        return 0

    with replaced(cf.snr, nothing.__code__):
        assert cf.snr(0.5) == 0
    assert cf.snr(0.5) == 1


def test_only_plain_functions_can_be_replaced():
    outside = 1

    def closes():
        return outside

    for function in (len, closes, torch.nn.Linear, 3):
        with (
            pytest.raises(ValueError, match="it must be a plain Python function"),
            replaced(function, lambda: 2),
        ):
            pass


def test_names_lead_to_functions():
    assert named("closed_forms.snr") is cf.snr
    assert unwrapped(named("schedule.NoiseSchedule.beta")) is NoiseSchedule.beta.fget
    assert unwrapped(named("schedule.NoiseSchedule.linear")) is NoiseSchedule.linear.__func__
    assert unwrapped(named("process._tables")) is process._tables.__wrapped__
    with pytest.raises(ValueError, match="it must name a function of the library"):
        named("no_such_module.anything")


# --- The collection -----------------------------------------------------------------------------

WILD = {f"W{i}" for i in range(1, 23)}
FORMULAS_THAT_ARE_WRONG = {
    *("F2", "F3", "F5"),
    *("P1", "P3", "P6", "P8", "P10"),
    *("L7", "L8", "L11", "L12", "L13", "L14"),
    "S2",
    *("I1", "I3", "I7", "I8", "I19"),
    *("T3", "T4"),
}


def test_the_collection_is_complete():
    assert {place for e in EXHIBITS for place in e.seen} == WILD | FORMULAS_THAT_ARE_WRONG
    claims = tomllib.loads((LIBRARY / "claims.toml").read_text(encoding="utf-8"))["claim"]
    assert {claim["id"] for claim in claims} >= FORMULAS_THAT_ARE_WRONG
    assert len(by_name) == len(EXHIBITS)


def test_every_exhibit_names_a_chapter_of_the_book():
    chapters = set(re.findall(r"notebooks/(\w+)", (ROOT / "_toc.yml").read_text("utf-8")))
    assert {exhibit.chapter for exhibit in EXHIBITS} <= chapters


@every_exhibit
def test_an_exhibit_is_written_out(exhibit: Exhibit):
    assert exhibit.slip.endswith(".")
    assert exhibit.slip.count("$") % 2 == 0
    assert exhibit.right_tex != exhibit.wrong_tex
    assert "$" not in exhibit.right_tex + exhibit.wrong_tex


def test_no_module_of_the_library_imports_the_museum():
    for path in LIBRARY.rglob("*.py"):
        if path.parent.name != "exhibits":
            lines = path.read_text(encoding="utf-8").splitlines()
            assert not [
                line for line in lines if re.match(r"\s*(from|import)\b.*\bexhibits\b", line)
            ]
    assert exhibits.EXHIBITS is EXHIBITS


# --- Guidance, which has no chapter yet ---------------------------------------------------------


def test_guidance_is_the_straight_line_through_both_networks():
    """Linear in the scale, the one network at 0 and the other at 1: nothing else is left."""
    assert cf.guided_eps(eps_c, eps_u, 0) == eps_u
    prove("at 1", cf.guided_eps(eps_c, eps_u, 1), eps_c)
    prove("linear", sp.diff(cf.guided_eps(eps_c, eps_u, k), k, 2), 0)
    assert cf.guided_eps(2.0, 1.0, 3.0) == 4.0
