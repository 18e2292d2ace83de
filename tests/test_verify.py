"""A check that cannot fail proves nothing: every kind of check is seen failing."""

import json

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch

from diffusion_lib import closed_forms as cf
from diffusion_lib import verify
from diffusion_lib.verify import (
    CheckFailed,
    agree,
    claim,
    interval,
    noise_levels,
    prove,
    prove_positive,
    refute,
    sampled,
)

x, y = sp.symbols("x y", real=True)
s, t = sp.symbols("s t", positive=True)
LEVELS = noise_levels(s, t)

# --- prove ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((x + y) ** 2, x**2 + 2 * x * y + y**2),
        (sp.sqrt((1 - s) * (1 - t)), sp.sqrt(1 - s) * sp.sqrt(1 - t)),
        (sp.sqrt((1 - t) / (1 - s)) * sp.sqrt(1 - s), sp.sqrt(1 - t)),
        (sp.log((1 - t) / s), sp.log(1 - t) - sp.log(s)),
        (sp.log(sp.sqrt(1 - s)), sp.log(1 - s) / 2),
        (sp.log(sp.sqrt(2 * sp.pi * s)), sp.log(2 * sp.pi * s) / 2),
        (sp.log(12 * sp.pi * s), sp.log(2) * 2 + sp.log(3) + sp.log(sp.pi) + sp.log(s)),
        (sp.sqrt(s**2 - 2 * s + 1), 1 - s),  # the root of (1-s)² is 1-s only because s < 1
        (sp.sqrt(8), 2 * sp.sqrt(2)),
        (1 / sp.sqrt(s), sp.sqrt(s) / s),
        ((x, s), (x, s)),
        (s - s, 0),
    ],
)
def test_true_identities_are_proved(left, right):
    assert prove("it", left, right, LEVELS).kind == "proved"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (x + y, x - y),
        (sp.sqrt(1 - s), 1 - s),
        (sp.sqrt(1 - s - t**2), sp.sqrt(1 - s) - t),
        (sp.log(1 - s * t), sp.log(1 - s) + sp.log(1 - t)),
        (sp.sqrt(s**2 - 2 * s + 1), s - 1),
        (sp.sqrt(x**2), x),  # true for positive x only
        (cf.posterior_variance(s, t), cf.step_beta(s, t)),
        (x, x + sp.Rational(1, 10**12)),
        ((x, s), (x, t)),
        (sp.Symbol("z"), 0),
        (sp.sqrt(s - 1), sp.sqrt(1 - s)),  # the root of a negative number
        (sp.log(t - s), sp.log(s - t)),
        (sp.exp(x) * sp.exp(y), sp.exp(x - y)),
    ],
)
def test_false_identities_are_not(left, right):
    with pytest.raises(CheckFailed, match="not proved: it"):
        prove("it", left, right, LEVELS)


def test_the_domain_decides():
    """√((1-s)²) = 1-s needs s < 1. Without the domain it must not pass."""
    with pytest.raises(CheckFailed):
        prove("it", sp.sqrt((1 - s) ** 2), 1 - s)


def test_a_domain_covers_exactly_what_it_says():
    """Every point of the domain is some value of the free symbols, and no other point is."""
    for level_s, level_t in [(0.999, 0.998), (0.5, 1e-6), (0.3, 0.29)]:
        first = 1 / level_s - 1
        second = 1 / level_t - 1 / level_s
        assert first > 0
        assert second > 0
        free = sorted(LEVELS.parametrise(t).free_symbols, key=str)
        point = dict(zip(free, (first, second), strict=True))
        assert float(LEVELS.parametrise(s).subs(point)) == pytest.approx(level_s)
        assert float(LEVELS.parametrise(t).subs(point)) == pytest.approx(level_t)


def test_an_interval_may_depend_on_what_was_named_before():
    sigma = sp.Symbol("sigma", positive=True)
    domain = noise_levels(s) & interval(sigma, 0, sp.sqrt(1 - s))
    prove_positive("the radicand", 1 - s - sigma**2, domain)
    with pytest.raises(CheckFailed):
        prove_positive("the radicand", sp.Rational(99, 100) - s - sigma**2, domain)
    assert "sigma" in domain.text


def test_the_card_says_what_was_assumed_of_the_symbols():
    p, q = sp.symbols("p q", positive=True)
    assert prove("it", sp.sqrt(p**2 * q), p * sp.sqrt(q)).detail == "$p, q > 0$"
    assert prove("it", p * s, s * p, LEVELS).detail == "$0 < t < s < 1$, $p > 0$"
    assert prove("it", x + y, y + x).detail == "all values"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: interval(s, -1, 1), "declared positive"),
        (lambda: interval(x, 1, sp.oo), "must be finite"),
        (lambda: interval(sp.Symbol("i", integer=True), 0, 1), "must be a real or positive"),
        (lambda: noise_levels(sp.Rational(1, 2)), "must be a real or positive"),
        (lambda: prove("it", (), ()), "nothing to compare"),
        (lambda: agree("it", 1.0, 2.0, within=float("inf")), "within is inf"),
    ],
)
def test_contradictory_domains_and_empty_checks_get_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_message_shows_both_sides_at_a_point_of_the_domain():
    with pytest.raises(
        CheckFailed, match=r"Left 0\.2\d*, right -0\.2857\d* at \$s = 0\.7\d*\$, \$t = 0\.5"
    ):
        prove("it", s - t, t / s - 1, LEVELS)


@pytest.mark.parametrize("expression", [s - t, (1 - s) * (s - t) / t, 1 / s - 1, s**2 + t])
def test_positive_is_proved(expression):
    prove_positive("it", expression, LEVELS)


@pytest.mark.parametrize("expression", [t - s, s - 2 * t, s - s, x, s**2 - t])
def test_not_positive_is_not(expression):
    with pytest.raises(CheckFailed, match="not proved: it"):
        prove_positive("it", expression, LEVELS)


# --- refute, agree, sampled -----------------------------------------------------------------------


def test_refute_needs_a_real_difference():
    assert "1/3" in refute("it", x, 0, {x: sp.Rational(1, 3)}).detail.replace(r"\frac{1}{3}", "1/3")
    with pytest.raises(CheckFailed, match="equal"):
        refute("it", (x + 1) ** 2, x**2 + 2 * x + 1, {x: 5})
    with pytest.raises(CheckFailed, match="still depends"):
        refute("it", x, y, {x: 1})
    with pytest.raises(CheckFailed, match="equal"):
        refute("it", sp.sqrt(2) * sp.sqrt(3), sp.sqrt(6))


@pytest.mark.parametrize(
    ("left", "right", "at"),
    [
        (1 / x, 0, {x: 0}),  # a pole is no value
        (x, 0, {x: 0.5}),  # a float is not exact
        (x, 0.5, {x: 1}),
        (sp.sqrt(s**2), sp.sqrt(x**2), {s: -1, x: -1}),  # s was declared positive
    ],
)
def test_refute_is_not_fooled(left, right, at):
    with pytest.raises(CheckFailed, match="not refuted"):
        refute("it", left, right, at)


def test_refute_shows_exact_values():
    detail = refute("it", sp.Rational(123456789123456789, 987654321987654323), 2).detail
    assert "123456789123456789" in detail
    tiny = sp.Rational(1, 10**60)
    assert refute("it", 1 + tiny, 1).kind == "refuted"


def test_one_differing_component_refutes_a_pair():
    refute("it", (1, 2), (1, 3))


def test_agree_is_relative_entry_by_entry():
    agree("it", [1e-8, 1.0], [1e-8, 1.0], within=0)
    with pytest.raises(CheckFailed, match="off by 1"):
        agree("it", [2e-8, 1.0], [1e-8, 1.0], within=1e-3)
    agree("it", torch.tensor([0.0]), [0.0], within=1e-12)
    with mpmath.workdps(50):
        third = mpmath.mpf(1) / 3
    agree("it", np.float32(1 / 3), third, within=4e-8)
    with pytest.raises(CheckFailed, match="off by"):
        agree("it", np.float32(1 / 3), third, within=1e-9)


@pytest.mark.parametrize(
    ("got", "truth"),
    [([float("nan")], [1.0]), ([1.0], [float("nan")]), ([1.0, 1.0], [1.0]), ([], [])],
)
def test_agree_is_not_fooled(got, truth):
    with pytest.raises(CheckFailed):
        agree("it", got, truth, within=0.9)


def test_agree_keeps_how_far_off_the_worst_number_was():
    check = agree("it", [1.0, 2.002, 3.0], [1.0, 2.0, 3.0], within=0.01)
    assert check.residual == (0.001, 0.01)
    assert check._repr_markdown_() == (
        "**agrees** · it (3 numbers within 0.01)",
        {"residuals": [(0.001, 0.01)]},
    )
    assert prove("it", 1, 1).residual is None
    assert check == agree("it", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], within=0.01)  # of the machine


def test_sampled_accepts_the_truth_and_refuses_a_shift():
    draws = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    sampled("it", draws, [0, 0])
    with pytest.raises(CheckFailed, match=r"\|z\| = "):
        sampled("it", draws, [0, 0.02])
    with pytest.raises(CheckFailed):
        sampled("it", draws * float("nan"), [0, 0])
    with pytest.raises(CheckFailed):
        sampled("it", torch.ones(1000), 1.1)  # no spread, and not the truth
    for few, truth in ((draws[:999], [0, 0]), (draws, 0), (draws, [0, 0, 0])):
        with pytest.raises(ValueError, match="at least 1000 draws of as many statistics"):
            sampled("it", few, truth)


# --- claims ---------------------------------------------------------------------------------------


def test_a_failing_check_names_its_claim():
    with (
        pytest.raises(CheckFailed, match=r"^P4 \(holds\): not proved: the variance"),
        claim("P4", "holds", binds=[cf.posterior_variance]),
    ):
        prove("the variance", cf.posterior_variance(s, t), cf.step_beta(s, t), LEVELS)


def test_a_settled_claim_carries_its_data(capsys):
    with claim(
        "P4", "holds", binds=[cf.posterior_variance], rests_on=["P2"], assumes=["it is so"]
    ) as card:
        prove("the variance", s, s)
    payload = json.loads(json.dumps(card.payload))
    assert payload["id"] == "P4"
    assert payload["verdict"] == "holds"
    assert payload["binds"] == ["diffusion_lib.closed_forms.posterior_variance"]
    assert payload["rests_on"] == ["P2"]
    assert payload["assumes"] == ["it is so"]
    assert payload["checks"] == [{"kind": "proved", "what": "the variance", "detail": "$s > 0$"}]
    assert "tilde" in payload["statement"]
    assert "P4 · holds" in capsys.readouterr().out  # outside a notebook the card is printed
    markdown = card._repr_markdown_()
    assert markdown.startswith('<div class="claim-card claim-holds">\n\n')
    assert (
        '- <span class="check-proved">**proved**</span> the variance <small>($s > 0$)</small>'
        in markdown
    )


@pytest.mark.parametrize(
    ("verdict", "extra", "check"),
    [
        ("holds", {}, lambda: None),
        ("holds", {}, lambda: refute("it", 1, 2)),
        ("holds if", {"condition": "c"}, lambda: prove("it", s, s)),
        ("holds if", {"condition": "c"}, lambda: refute("it", 1, 2)),
        ("typo", {"corrected": "c"}, lambda: refute("it", 1, 2)),
        ("typo", {"corrected": "c"}, lambda: prove("it", s, s)),
        ("false", {"counterexample": "c"}, lambda: prove("it", s, s)),
    ],
)
def test_a_verdict_without_the_checks_it_needs_is_refused(verdict, extra, check):
    with (
        pytest.raises(CheckFailed, match="needs a check"),
        claim("P4", verdict, binds=[cf.posterior], **extra),
    ):
        check()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("Z9", "holds"), {"binds": [cf.posterior]}, "id is 'Z9'"),
        (("P4", "maybe"), {"binds": [cf.posterior]}, "verdict is 'maybe'"),
        (("P4", "false"), {"binds": [cf.posterior]}, "counterexample is empty"),
        (("P4", "typo"), {"binds": [cf.posterior]}, "corrected is empty"),
        (("P4", "holds if"), {"binds": [cf.posterior]}, "condition is empty"),
        (("P4", "holds"), {"binds": []}, "binds is empty"),
    ],
)
def test_a_claim_without_its_explanation_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        claim(*arguments, **options)


def test_claims_do_not_nest_and_an_error_leaves_none_open():
    with (
        pytest.raises(ValueError, match="close that claim first"),
        claim("P4", "holds", binds=[cf.posterior]),
        claim("P5", "holds", binds=[cf.posterior]),
    ):
        pass
    with pytest.raises(ZeroDivisionError), claim("P4", "holds", binds=[cf.posterior]):
        1 / 0  # noqa: B018
    assert verify._OPEN == []
    assert prove("outside a claim", s, s).kind == "proved"


# --- Answers that are none ------------------------------------------------------------------------

ANSWER = cf.posterior_variance(s, t)
NO_FORMULAS = [
    None,
    "(1 - s) / (1 - t) * (1 - t / s)",
    "((",
    True,
    lambda s, t: 0,
    sp.Eq(ANSWER, 0),
    sp.Matrix([ANSWER]),
    {},
    np.ones(2),
    torch.ones(2),
]


@pytest.mark.parametrize("answer", NO_FORMULAS, ids=lambda answer: type(answer).__name__)
def test_what_is_no_formula_gets_a_sentence(answer):
    sentence = r"it must be a SymPy expression in the symbols\.$"
    for side, pair in (("left", (answer, ANSWER)), ("right", (ANSWER, answer))):
        with pytest.raises(CheckFailed, match=f"^not proved: it. The {side} side is .*{sentence}"):
            prove("it", *pair, LEVELS)
    with pytest.raises(CheckFailed, match=f"^not refuted: it. The left side is .*{sentence}"):
        refute("it", answer, ANSWER)
    with pytest.raises(CheckFailed, match=f"^not proved: it. The expression is .*{sentence}"):
        prove_positive("it", answer, LEVELS)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((ANSWER, ANSWER), (ANSWER,)),
        (ANSWER, cf.Gaussian(0, ANSWER)),
        (cf.Gaussian(ANSWER, ANSWER), ANSWER),  # a number is held against each entry, no formula is
    ],
)
def test_another_length_gets_a_sentence(left, right):
    for check in (lambda: prove("it", left, right, LEVELS), lambda: refute("it", left, right)):
        with pytest.raises(CheckFailed, match=r"The left side is .* and the right side .*\.$"):
            check()


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (0.5 * (2 * ANSWER), r"is inexact, and a proof needs exact ones: sp.Rational\("),
        (0.25 + ANSWER, r"The number 0.2500 is inexact.*sp.Rational\(1, 4\)"),
        (cf.posterior_variance(sp.Symbol("s"), t), "two different symbols called s"),
        (sp.Symbol("a") * ANSWER, "Only the left side has a$"),
        (1 - t, "^not proved: it. Left [^.]*[.][^S]*$"),  # nothing to hint at
    ],
)
def test_a_refusal_says_what_often_is_the_reason(answer, hint):
    with pytest.raises(CheckFailed, match=hint):
        prove("it", answer, ANSWER, LEVELS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prove("it", s, s, given=None), "it must be a domain"),
        (lambda: prove("it", s, s, given=s), "it must be a domain"),
        (lambda: noise_levels(), "at least one, each once"),
        (lambda: noise_levels(s, s), "at least one, each once"),
        (lambda: sampled("it", None, 0), "draws"),
        (lambda: sampled("it", np.zeros(1000), "x"), "both must be numbers"),
    ],
)
def test_what_is_no_domain_and_no_number_gets_a_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_points_and_numbers_that_are_none_get_a_sentence():
    with pytest.raises(CheckFailed, match=r"The value of s is None"):
        refute("it", s, 1, {s: None})
    with pytest.raises(CheckFailed, match=r"The point names 's'; it must be a symbol"):
        refute("it", s, 1, {"s": 2})
    for answer in (None, "x", [s]):
        with pytest.raises(CheckFailed, match=r"^it: "):
            agree("it", answer, [1.0], within=1e-3)


def test_the_root_of_a_square_is_what_it_is_the_root_of():
    """SymPy writes it with bars; where the sign is known they go, and where it is not they stay."""
    s, t = sp.symbols("s t", real=True)
    levels = noise_levels(s, t)
    prove("a ratio", sp.sqrt((1 - s) ** 2 / (1 - t) ** 2), (1 - s) / (1 - t), given=levels)
    prove("a difference", sp.sqrt((t - s) ** 2), s - t, given=levels)
    with pytest.raises(CheckFailed):
        prove("the other sign", sp.sqrt((t - s) ** 2), t - s, given=levels)
    with pytest.raises(CheckFailed):
        prove("either sign", sp.Abs(s - sp.Rational(1, 2)), s - sp.Rational(1, 2), given=levels)
