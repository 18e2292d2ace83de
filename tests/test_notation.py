"""The notation page: its names exist in the library, and its Rosetta lines follow from the papers.

Every conversion is read from the page itself, so a slip on the page is a failing test. What the
papers define is written down here, independently, and must hold once the page's lines are put in.
"""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sympy as sp

import diffusion_lib
from diffusion_lib import closed_forms
from diffusion_lib.derive import expectation
from diffusion_lib.prediction import PREDICTIONS
from diffusion_lib.schedule import NoiseSchedule

PAGE = (Path(__file__).parents[1] / "book" / "notation.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"### (.+)\n((?:(?!### ).*\n?)*)", PAGE))

k, h, v = sp.symbols("k h v", positive=True)
x_0, eps, eta = sp.symbols("x_0 eps eta", positive=True)
OURS = {  # every positive k is some alpha_bar in (0, 1), and written so the roots open up
    "alpha_bar": 1 / (1 + k**2),
    "eps": eps,
    "eta": eta,
    "x_t": (x_0 + k * eps) / sp.sqrt(1 + k**2),
}


def lines_of(section: str) -> list[tuple[str, str]]:
    """The assignments in the last column of a section's tables."""
    return re.findall(r"\| `(\w+) = (.+)` \|\n", SECTIONS[section])


def converted(section: str, ours: dict, spoilt: str = "") -> SimpleNamespace:
    """Every quantity of the other paper by the page's lines; `spoilt` names one to get wrong."""
    theirs = {
        name: sp.sympify(code, locals=ours) * (2 if name == spoilt else 1)
        for name, code in lines_of(section)
        if name not in ours
    }
    return SimpleNamespace(**theirs)


# --- What each paper defines: expressions that vanish ---------------------------------------------


def ddim(at: SimpleNamespace) -> list:
    a_t, a_s = at.ddim_alpha_t, 1 / (1 + h**2)
    return [
        sp.sqrt(a_t) * x_0 + sp.sqrt(1 - a_t) * eps - OURS["x_t"],
        a_t / a_s - at.ddim_ratio,
        eta**2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s) - at.ddim_sigma_t**2,
        # the variance that the other convention means is the square of this deviation
        at.eta_of_variance * DIALECTS["DDIM"][1]["beta_tilde_t"] - at.ddim_sigma_t**2,
    ]


def vdm(at: SimpleNamespace) -> list:
    return [
        at.vdm_alpha * x_0 + at.vdm_sigma * eps - OURS["x_t"],
        at.vdm_alpha**2 + at.vdm_sigma**2 - 1,
        at.vdm_snr - at.vdm_alpha**2 / at.vdm_sigma**2,
        sp.exp(-at.vdm_gamma) - at.vdm_snr,
    ]


def sde(at: SimpleNamespace) -> list:
    """Mean factor m and variance w from x_0 on: m' = -β m/2, w' = β (1 - w), β = B'."""
    t = sp.Symbol("t")
    B = sp.Function("B")(t)
    m, w = sp.exp(-B / 2), 1 - sp.exp(-B)
    return [
        m.diff(t) + B.diff(t) / 2 * m,
        w.diff(t) + B.diff(t) * (w - 1),
        m.subs(B, at.sde_B) * x_0 + sp.sqrt(w.subs(B, at.sde_B)) * eps - OURS["x_t"],
    ]


def edm(at: SimpleNamespace) -> list:
    best_denoiser = v * at.edm_x / (v + at.edm_sigma**2)  # data N(0, v), x = x_0 + σ n
    return [
        at.edm_s * (x_0 + at.edm_sigma * at.edm_n) - OURS["x_t"],
        at.edm_x - (x_0 + at.edm_sigma * at.edm_n),
        at.edm_D - (at.edm_x - at.edm_sigma * at.edm_n),
        at.edm_D - x_0,
        (best_denoiser - at.edm_x) / at.edm_sigma**2 - at.edm_score,
    ]


def flow(at: SimpleNamespace) -> list:
    u = sp.Symbol("u")
    y = u * x_0 + (1 - u) * eps
    return [y.subs(u, at.flow_u) - at.flow_y, y.diff(u) - at.flow_w]


# --- Habits of code, held against what that code computes -----------------------------------------

P, i, S, T, d = sp.symbols("P i S T d", positive=True)
t, leading_tau, trailing_tau, steps_offset = sp.symbols("t leading_tau trailing_tau steps_offset")
share = sp.Symbol("share", real=True)
LEVELS = {"alpha_bar_1": 1 / (1 + k**2), "alpha_bar_2": 1 / (1 + k**2 + h**2)}


def first_log_variance(at: SimpleNamespace) -> list:
    small = sp.log(closed_forms.posterior_variance(*LEVELS.values()))
    large = sp.log(1 - LEVELS["alpha_bar_2"] / LEVELS["alpha_bar_1"])
    fraction = (at.learned_y + 1) / 2  # as in improved-diffusion, LEARNED_RANGE
    return [
        at.clipped_log_variance - small,
        sp.exp(at.floored_log_variance) - sp.Rational(1, 10**20),
        fraction * large
        + (1 - fraction) * small
        - closed_forms.interpolated_log_variance(share, *LEVELS.values()),
    ]


def diffusers_steps(spacing: str, T: int, S: int) -> list[int]:
    """`DDIMScheduler.set_timesteps`, cleanest first, without its offset."""
    if spacing == "leading":
        return (np.arange(S) * (T // S)).tolist()
    if spacing == "trailing":
        return (np.round(np.arange(T, 0, -T / S)).astype(int) - 1)[::-1].tolist()
    return np.linspace(0, T - 1, S).round().astype(int).tolist()


def our_steps(spacing: str, T: int, S: int) -> list[int]:
    schedule = NoiseSchedule(np.linspace(1, 0.1, T + 1))  # only its times are looked at
    return schedule.strided(S, spacing).times[1:].tolist()


COUNTS = [(T, S) for T in (10, 12, 1000) for S in (2, 3, 4, 6, 7, 10)]


def spacing(at: SimpleNamespace) -> list:
    betas = [sp.Rational(n, 10) for n in range(1, 6)]
    without_1 = dict(enumerate(np.cumprod([1 - beta for beta in betas])))  # their table, from 0
    residuals = [
        without_1.get(int(at.diffusers_index.subs(t, n)), 0) - level
        for n, level in list(enumerate(closed_forms.alpha_bar_table(betas)))[1:]
    ]
    for T_, S_ in COUNTS:
        for offset in (0, 1):
            for ours, theirs in zip(
                our_steps("leading", T_, S_), diffusers_steps("leading", T_, S_), strict=True
            ):
                put = {leading_tau: ours, steps_offset: offset}
                residuals.append(at.diffusers_leading.subs(put) - (theirs + offset))
        for n, (ours, theirs) in enumerate(
            zip(our_steps("linspace", T_, S_), diffusers_steps("linspace", T_, S_), strict=True), 1
        ):
            exact = at.diffusers_linspace.subs({i: n, T: T_, S: S_})
            residuals += [sp.floor(exact) + 1 - ours, round(float(exact)) - theirs]
        if T_ % S_ == 0:
            residuals += [
                at.diffusers_trailing.subs(trailing_tau, ours) - theirs
                for ours, theirs in zip(
                    our_steps("trailing", T_, S_), diffusers_steps("trailing", T_, S_), strict=True
                )
            ]
    return residuals


def one_step_bound() -> tuple[sp.Expr, sp.Expr]:
    """For T = 1, a Gaussian decoder N(x_1/2, v) and one data point: L_T + L_0, and the ELBO.

    The first by the divergence and the reconstruction term, the second by its definition, the mean
    of log p(x_0, x_1) - log q(x_1 | x_0).
    """
    x_1 = sp.Symbol("x_1", real=True)
    noised = closed_forms.marginal(x_0, OURS["alpha_bar"])
    prior = closed_forms.Gaussian(sp.Integer(0), sp.Integer(1))
    decoder = closed_forms.normal_log_density(x_0, x_1 / 2, v)
    losses = closed_forms.gaussian_kl(noised, prior) - expectation(decoder, x_1, noised)
    log_joint = decoder + closed_forms.normal_log_density(x_1, *prior)
    log_ratio = log_joint - closed_forms.normal_log_density(x_1, *noised)
    return losses, expectation(log_ratio, x_1, noised)


L_VLB, ELBO = one_step_bound()


def bound(at: SimpleNamespace) -> list:
    return [
        at.elbo - ELBO,
        # so many bits for each of d coordinates: a probability of 2^(-bits d) or more
        sp.log(2) * at.bits * d + ELBO,
    ]


def clock(at: SimpleNamespace) -> list:
    theirs = -i / (h - 1) * sp.log(at.their_period)
    return [theirs - sp.expand_log(sp.log(closed_forms.clock_frequency(i, h, P)))]


beta_t = 1 - OURS["alpha_bar"] * (1 + h**2)
DIALECTS = {
    "DDIM": (
        ddim,
        OURS
        | {
            "alpha_bar_t": OURS["alpha_bar"],
            "beta_t": beta_t,
            "beta_tilde_t": (1 - 1 / (1 + h**2)) / (1 - OURS["alpha_bar"]) * beta_t,
        },
    ),
    "Variational diffusion models, and velocity": (vdm, OURS),
    "Score SDE": (sde, OURS),
    # the score of x_t for data N(0, v)
    "EDM": (edm, OURS | {"score": -OURS["x_t"] / (v / (1 + k**2) + k**2 / (1 + k**2))}),
    "Flow matching": (flow, OURS),
    "First log-variance": (
        first_log_variance,
        LEVELS | {"beta_2": 1 - LEVELS["alpha_bar_2"] / LEVELS["alpha_bar_1"]} | {"share": share},
    ),
    "Spacing of the kept steps": (
        spacing,
        {"t": t, "i": i, "S": S, "T": T}
        | {"leading_tau": leading_tau, "trailing_tau": trailing_tau}
        | {"steps_offset": steps_offset},
    ),
    "Sign of the bound": (bound, {"L_vlb": L_VLB, "d": d}),
    "The network's clock": (clock, {"P": P, "h": h}),
}
FORWARD = [
    (section, name)
    for section, (_, ours) in DIALECTS.items()
    for name, _ in lines_of(section)
    if name not in ours
]
BACK = [
    (section, name, code)
    for section, (_, ours) in DIALECTS.items()
    for name, code in lines_of(section)
    if name in ours
]


def vanishes(expression: sp.Expr) -> bool:
    expanded = sp.expand_log(sp.sympify(expression), force=True)
    return sp.simplify(sp.powsimp(expanded, force=True)) == 0


def test_every_section_is_checked_and_every_row_has_its_line_of_code():
    assert list(SECTIONS) == list(DIALECTS)
    for section in SECTIONS:
        rows = re.findall(r"^\| (?!theirs|---).*", SECTIONS[section], re.MULTILINE)
        assert len(rows) == len(lines_of(section)) > 0


@pytest.mark.parametrize("section", DIALECTS)
def test_the_conversions_satisfy_the_definitions_of_the_paper(section):
    definitions, ours = DIALECTS[section]
    for residual in definitions(converted(section, ours)):
        assert vanishes(residual)


@pytest.mark.parametrize(("section", "name"), FORWARD)
def test_a_wrong_conversion_breaks_a_definition(section, name):
    definitions, ours = DIALECTS[section]
    assert not all(map(vanishes, definitions(converted(section, ours, spoilt=name))))


@pytest.mark.parametrize(("section", "name", "code"), BACK)
def test_the_way_back_inverts_the_way_there(section, name, code):
    ours = DIALECTS[section][1]
    others = {other: value for other, value in ours.items() if other != name}
    known = others | vars(converted(section, ours))
    assert vanishes(sp.sympify(code, locals=known) - ours[name])


def test_eta_of_the_variance_is_eta_only_at_0_and_1():
    """The page says that η and η' agree at 0 and 1 and nowhere between."""
    eta_of_variance = sp.sympify(dict(lines_of("DDIM"))["eta_of_variance"])
    free = sp.Symbol("eta")
    assert sp.solveset(eta_of_variance - free, free, sp.Interval(0, sp.oo)) == {0, 1}


def test_the_first_log_variance_has_to_be_patched_somehow():
    assert closed_forms.posterior_variance(1, LEVELS["alpha_bar_1"]) == 0


@pytest.mark.parametrize("name", ["leading", "trailing", "linspace"])
def test_rounding_moves_a_kept_step_by_one_at_most(name):
    """The page says that the lists are equal for "leading", and else may differ by one."""
    gaps = {
        ours - (theirs + 1)
        for T_, S_ in COUNTS
        for ours, theirs in zip(our_steps(name, T_, S_), diffusers_steps(name, T_, S_), strict=True)
    }
    assert gaps == {"leading": {0}, "trailing": {0, 1}, "linspace": {-1, 0}}[name]


# --- The table of symbols -------------------------------------------------------------------------


def test_every_name_of_the_symbol_table_exists_in_the_library():
    table = PAGE.split("## Symbols")[1].split("(rosetta)=")[0]
    cited = {code.partition("=")[0] for code in re.findall(r"`([^`]+)`", table)}
    assert len(cited) > 25
    sources = Path(diffusion_lib.__file__).parent.rglob("*.py")
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    arguments = {node.arg for node in nodes if isinstance(node, ast.arg | ast.keyword)}
    for name in cited - functions - arguments - {"NoiseSchedule"}:
        assert name.startswith("."), f"{name} is nowhere in the library"
        assert hasattr(NoiseSchedule.linear(), name[1:])


def test_every_prediction_of_the_symbol_table_is_one_the_library_knows():
    named = re.findall(r'`prediction="(\w+)"`', PAGE)
    assert set(named) == set(PREDICTIONS) - {"x_0"}
