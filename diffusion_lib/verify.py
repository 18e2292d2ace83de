r"""Checks that raise when they fail, and claims that cannot be settled without them.

``prove`` subtracts two symbolic expressions and demands zero, for every value the stated domain
allows. ``refute`` shows an exact point where two expressions differ. ``agree`` holds numbers
against a truth, ``sampled`` holds draws against a mean with a z-bound. Inside a ``with claim(...)``
block each check is recorded; leaving the block shows a card and stores its data beside it, from
which the book's ledger is assembled. A claim whose verdict lacks its checks raises.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from types import TracebackType
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from sympy.polys.polyerrors import BasePolynomialError

VERDICTS = ("holds", "holds if", "typo", "false")
PAYLOAD = "application/vnd.diffusion-lib.claim+json"
_DIGITS = 50
_LARGEST_Z = 4.5
_FEWEST_DRAWS = 1000


class CheckFailed(AssertionError):
    """A check that did not pass. Inside a claim the message begins with the claim's id."""

    def _repr_markdown_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Check:
    """A check that passed: its kind, what it says, and the evidence in words.

    ``residual`` is how far off the worst number was, and how far it might have been. It is kept
    beside what is shown, not in it: its digits belong to the machine, not to the statement.
    """

    kind: str
    what: str
    detail: str
    residual: tuple[float, float] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.kind:8} {self.what}" + (f" ({self.detail})" if self.detail else "")

    __repr__ = __str__

    def _repr_markdown_(self) -> tuple[str, dict[str, Any]]:
        detail = f" ({self.detail})" if self.detail else ""
        return f"**{self.kind}** · {self.what}{detail}", {"residuals": _residuals(self)}


# --- Domains: for which values a proof speaks -----------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """A set of values, given by a parametrisation that covers it.

    Each restricted symbol is replaced by an expression in free positive symbols, so "for all values
    of the domain" becomes "for all positive numbers", which SymPy can decide without hidden
    assumptions about roots. ``&`` joins two domains.
    """

    text: str
    substitution: dict[sp.Symbol, sp.Expr] = field(default_factory=dict)

    def __and__(self, other: Domain) -> Domain:
        text = ", ".join(filter(None, (self.text, other.text)))
        return Domain(text, {**self.substitution, **other.substitution})

    def parametrise(self, expression: sp.Expr) -> sp.Expr:
        """The expression in terms of the free positive symbols."""
        # A later symbol's range may depend on an earlier one, so the last is replaced first.
        for symbol in reversed(list(self.substitution)):
            expression = expression.subs(symbol, self.substitution[symbol])
        return expression


EVERYWHERE = Domain("")


def noise_levels(*alpha_bars: sp.Symbol) -> Domain:
    r"""All :math:`1>\bar\alpha_s>\bar\alpha_t>\dots>0`, the cleanest level first.

    Each level is :math:`1/(1+u_1+\dots+u_i)` with free positive u: the sum is the noise-to-signal
    ratio, which grows from step to step.
    """
    for x in alpha_bars:
        _demand_real(x)
    if not alpha_bars or len(set(alpha_bars)) < len(alpha_bars):
        raise ValueError(f"the levels are {alpha_bars}; there must be at least one, each once.")
    ratios = [sp.Dummy(f"u_{i}", positive=True) for i in range(1, len(alpha_bars) + 1)]
    levels = {x: 1 / (1 + sp.Add(*ratios[: i + 1])) for i, x in enumerate(alpha_bars)}
    names = " < ".join(sp.latex(x) for x in reversed(alpha_bars))
    return Domain(f"$0 < {names} < 1$", levels)


def interval(symbol: sp.Symbol, low: sp.Expr, high: sp.Expr) -> Domain:
    """All values strictly between low and high, which may depend on symbols named before.

    Raises:
        ValueError: if an end is infinite, or the symbol's own assumptions exclude values between
            the ends (SymPy uses them before the domain is looked at).
    """
    low, high = sp.sympify(low), sp.sympify(high)
    _demand_real(symbol)
    if symbol.is_positive and not low.is_nonnegative:
        raise ValueError(f"low is {low}, but {symbol} was declared positive; it must be 0 or more.")
    if low.is_finite is False or high.is_finite is False:
        raise ValueError(f"the ends are {low} and {high}; both must be finite.")
    k = sp.Dummy("k", positive=True)
    text = f"${sp.latex(low)} < {sp.latex(symbol)} < {sp.latex(high)}$"
    return Domain(text, {symbol: low + (high - low) * k / (1 + k)})


def _demand_real(symbol: sp.Symbol) -> None:
    if not isinstance(symbol, sp.Symbol) or symbol.is_integer or symbol.is_negative:
        raise ValueError(f"symbol is {symbol}; it must be a real or positive SymPy symbol.")


# --- Checks ---------------------------------------------------------------------------------------


def prove(what: str, left: Any, right: Any = 0, given: Domain = EVERYWHERE) -> Check:
    """``left - right`` is identically zero on the domain, wherever both sides are defined.

    Args:
        what: the statement, for the card.
        left, right: SymPy expressions, or sequences of them (a `Gaussian` is one).
        given: the domain; symbols it does not restrict range over what SymPy assumes of them, and
            the card says what that is.

    Raises:
        CheckFailed: if the difference is not zero; the message shows both sides at a point. Also if
            a side is no formula (text, nothing, an equation, an array), or has another length.
        ValueError: if there is nothing to compare, or the domain is none.
    """
    if not isinstance(given, Domain):
        raise ValueError(f"given is {given!r:.60}; it must be a domain, as from noise_levels(...).")
    left, right = _formulas(f"not proved: {what}", left, right)
    for a, b in zip(_row(left), _row(right), strict=True):
        zero = _is_zero(given.parametrise(sp.sympify(a) - sp.sympify(b)))
        difference, sides = _at_a_point(given, a, b)
        # The value at a point is a second, independent opinion on what algebra found.
        if not zero or not difference.is_finite or abs(difference) > sp.Float("1e-25"):
            hints = "".join(_hints(given, a, b))
            raise CheckFailed(f"not proved: {what}. {sides}{hints}")
    return _record(Check("proved", what, _scope(given, left, right)))


def prove_positive(what: str, expression: Any, given: Domain = EVERYWHERE) -> Check:
    """The expression is strictly positive on the domain.

    After the domain's parametrisation, numerator and denominator must be sums of positive terms.

    Raises:
        CheckFailed: if they are not.
    """
    expression = _formula(f"not proved: {what}", "The expression", expression)
    value = sp.factor(sp.together(given.parametrise(expression)))
    numerator, denominator = (sp.expand(part) for part in sp.fraction(value))
    if not (numerator.is_positive and denominator.is_positive):
        _, sides = _at_a_point(given, expression, 0)
        raise CheckFailed(f"not proved: {what}. The sign is not clear. {sides}")
    return _record(Check("proved", what, _scope(given, expression)))


def _scope(given: Domain, *sides: Any) -> str:
    """For which values a proof speaks: the domain, and what SymPy assumes of the other symbols."""
    parts = [part for side in sides for part in _row(side)]
    free = set().union(*(part.free_symbols for part in parts)) - set(given.substitution)
    positive = sorted((x for x in free if x.is_positive), key=str)
    signs = f"${', '.join(sp.latex(x) for x in positive)} > 0$" if positive else ""
    return ", ".join(filter(None, (given.text, signs))) or "all values"


def refute(what: str, left: Any, right: Any, at: dict[sp.Symbol, Any] | None = None) -> Check:
    """``left`` and ``right`` differ at a point, exactly.

    Args:
        what: what the point shows, for the card.
        left, right: SymPy expressions, or sequences of them.
        at: the point, in exact numbers that fit the assumptions of their symbols.

    Raises:
        CheckFailed: if they are equal there, a side is not finite or not exact there, the point
            contradicts an assumption, or a symbol is left without a value.
    """
    refused = f"not refuted: {what}"
    left, right = _formulas(refused, left, right)
    point = {x: _formula(refused, f"The value of {x}", value) for x, value in (at or {}).items()}
    for x, value in point.items():
        if not isinstance(x, sp.Symbol):
            raise CheckFailed(f"{refused}. The point names {x!r:.60}; it must be a symbol.")
        if value.has(sp.Float) or (x.is_positive and value.is_nonnegative is not True):
            raise CheckFailed(f"not refuted: {what}. {x} = {value} is inexact or not allowed")
    values = ", ".join(f"{sp.latex(x)}={sp.latex(value)}" for x, value in point.items())
    where = f" at ${values}$" if values else ""
    for a, b in zip(_row(left), _row(right), strict=True):
        a, b = (sp.simplify(x.subs(point)) for x in (a, b))
        difference = sp.simplify(a - b)
        if difference.free_symbols:
            raise CheckFailed(f"not refuted: {what}. {difference} still depends on symbols")
        if difference.has(sp.Float) or not (a.is_finite and b.is_finite):
            raise CheckFailed(f"not refuted: {what}. {a} or {b} is inexact or not finite")
        if difference.is_zero is False or abs(sp.N(difference, _DIGITS)) > sp.Float("1e-40"):
            detail = f"${_short(a)}\\ne{_short(b)}${where}"
            return _record(Check("refuted", what, detail))
    raise CheckFailed(f"not refuted: {what}. Both sides are equal{where}")


def agree(what: str, got: Any, truth: Any, within: float) -> Check:
    """Numbers agree with a truth, entry by entry, to a relative tolerance (absolute where it is 0).

    Args:
        what: what is compared, for the card.
        got: numbers, an array or a tensor.
        truth: numbers of the same shape; mpmath numbers are compared in their own precision.
        within: the tolerance.

    Raises:
        CheckFailed: if an entry is further off or is no number, or the shapes differ.
        ValueError: if the tolerance is not in 0..1.
    """
    if not 0 <= within < 1:
        raise ValueError(f"within is {within}; it must be at least 0 and below 1.")
    have, want = _numbers(got), _numbers(truth)
    if have.shape != want.shape:
        raise CheckFailed(f"{what}: shape {have.shape} against {want.shape}")
    with mpmath.workdps(_DIGITS):
        try:
            errors = [
                abs(mpmath.mpf(a) - mpmath.mpf(b)) / (abs(mpmath.mpf(b)) or 1)
                for a, b in zip(have.ravel().tolist(), want.ravel().tolist(), strict=True)
            ]
        except (TypeError, ValueError):
            raise CheckFailed(f"{what}: {got!r:.60} holds something that is no number") from None
    if not errors:
        raise CheckFailed(f"{what}: nothing to compare")
    worst = max(errors, key=lambda e: mpmath.inf if mpmath.isnan(e) else e)
    if not worst <= within:
        raise CheckFailed(f"{what}: off by {mpmath.nstr(worst, 3)}, allowed {within:g}")
    count = f"{len(errors)} numbers" if len(errors) > 1 else "one number"
    residual = float(mpmath.nstr(worst, 2)), within
    return _record(Check("agrees", what, f"{count} within {within:g}", residual))


def _short(value: sp.Expr) -> str:
    """An exact value as TeX, or its first digits where the whole would fill a line."""
    whole: str = sp.latex(value)
    return whole if len(whole) <= 60 else rf"{sp.N(value, 8)}\ldots"


def sampled(what: str, draws: Any, truth: Any) -> Check:
    """The mean of independent draws equals a truth, up to Monte Carlo error.

    z is the error in units of its own standard error. Within ±4.5 it passes as chance: a true mean
    fails that about 7 times in a million.

    Args:
        what: what is estimated, for the card.
        draws: shape (n,) or (n, k): n ≥ 1000 independent draws of k statistics.
        truth: the k means.

    Raises:
        CheckFailed: if a z is beyond that or is no number.
        ValueError: if there are fewer draws, or not one truth for each statistic.
    """
    try:
        values = np.atleast_1d(np.asarray(_numbers(draws), dtype=np.float64))
        means = np.asarray(_numbers(truth), dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise ValueError(
            f"draws is {draws!r:.60} and truth {truth!r:.60}; both must be numbers."
        ) from None
    values = values.reshape(len(values), -1)
    if len(values) < _FEWEST_DRAWS or len(means) != values.shape[1]:
        raise ValueError(
            f"draws has shape {values.shape} and truth {len(means)} entries; it must hold at least "
            f"{_FEWEST_DRAWS} draws of as many statistics as there are truths."
        )
    error = values.mean(0) - means
    with np.errstate(divide="ignore", invalid="ignore"):  # draws without spread: inf or nan fails
        z = np.abs(error) / (values.std(0, ddof=1) / np.sqrt(len(values)))
    worst = float(np.max(z))
    if not worst <= _LARGEST_Z:
        raise CheckFailed(f"{what}: |z| = {worst:.1f}, allowed {_LARGEST_Z} (off by {error})")
    over = f" over {len(z)} means" if len(z) > 1 else ""
    return _record(Check("sampled", what, f"{len(values)} draws, largest |z| {worst:.1f}{over}"))


# --- Claims ---------------------------------------------------------------------------------------


@dataclass
class Claim:
    """One claim of the source notes on its way to a verdict. Made by `claim`."""

    id: str
    verdict: str
    statement: str
    condition: str
    corrected: str
    counterexample: str
    assumes: list[str]
    rests_on: list[str]
    binds: list[str]
    checks: list[Check] = field(default_factory=list)

    def __enter__(self) -> Claim:
        if _OPEN:
            raise ValueError(f"{self.id} is opened inside {_OPEN[-1].id}; close that claim first.")
        _OPEN.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _OPEN.remove(self)
        if isinstance(error, CheckFailed):
            raise CheckFailed(f"{self.id} ({self.verdict}): {error}") from error
        if error is None:
            self._settle()
            _display(self)

    def _settle(self) -> None:
        """The verdict must be backed by the checks it needs."""
        kinds = {check.kind for check in self.checks}
        needed = {
            "holds": {"proved"},
            "holds if": {"proved", "refuted"},  # true under the condition, false without it
            "typo": {"proved", "refuted"},  # the correction is right, the print is wrong
            "false": {"refuted"},
        }[self.verdict]
        if missing := needed - kinds:
            raise CheckFailed(
                f"{self.id} ({self.verdict}): this verdict needs a check that is "
                f"{' and one that is '.join(sorted(missing))}"
            )

    @property
    def payload(self) -> dict[str, Any]:
        """The card's data, as plain JSON; the same on every machine."""
        card = asdict(self)
        for check in card["checks"]:
            del check["residual"]
        return card

    def __str__(self) -> str:
        facts = [f"  {key}: {text}" for key, text in self._facts()]
        checks = [f"  {check}" for check in self.checks]
        return "\n".join([f"{self.id} · {self.verdict}", *facts, *checks])

    __repr__ = __str__

    def _facts(self) -> Iterable[tuple[str, str]]:
        named = {
            "condition": self.condition,
            "corrected": self.corrected,
            "counterexample": self.counterexample,
            "assumes": "; ".join(self.assumes),
            "rests on": ", ".join(self.rests_on),
            "runs as": ", ".join(f"`{name.removeprefix('diffusion_lib.')}`" for name in self.binds),
        }
        return ((key, text) for key, text in named.items() if text)

    def _repr_markdown_(self) -> str:
        """The card. Jupyter and Colab typeset $maths$ in Markdown, Colab does not in HTML.

        The HTML tags only carry the names by which the book's style sheet finds the parts.
        """
        facts = [f'<span class="claim-key">{key}</span> {text}' for key, text in self._facts()]
        checks = [
            f'- <span class="check-{check.kind}">**{check.kind}**</span> {check.what}'
            + (f" <small>({check.detail})</small>" if check.detail else "")
            for check in self.checks
        ]
        kind = self.verdict.split()[-1]  # holds, if, typo, false
        head = (
            f'<span class="claim-id">**{self.id}**</span> '
            f'<span class="claim-verdict">{self.verdict}</span>'
        )
        parts = [head, self.statement, *facts, "\n".join(checks)]
        return "\n\n".join([f'<div class="claim-card claim-{kind}">', *parts, "</div>"])


def claim(
    id: str,
    verdict: str,
    *,
    binds: Sequence[Callable[..., Any]],
    condition: str = "",
    corrected: str = "",
    counterexample: str = "",
    assumes: Sequence[str] = (),
    rests_on: Sequence[str] = (),
) -> Claim:
    """Open a claim: ``with claim("P4", "holds", binds=[posterior_variance]): prove(...)``.

    Args:
        id: an id of claims.toml, where the statement is.
        verdict: "holds", "holds if", "typo" or "false". They need, in turn, a proof; a proof and a
            refutation; a proof of the corrected form and a refutation of the printed one; a
            refutation.
        binds: the library functions that the checks speak about.
        condition: for "holds if", the condition; Markdown with ``$..$``.
        corrected: for "typo", the corrected form.
        counterexample: for "false", the counterexample in words.
        assumes: what the checks take for granted.
        rests_on: the claims whose results are used.

    Raises:
        ValueError: for an unknown id or verdict, or a verdict without its explanation.
        CheckFailed: on leaving the block, if the verdict's checks are not all there.
    """
    statements = _statements()
    if id not in statements:
        raise ValueError(f"id is {id!r}; it must be one of the claims in claims.toml.")
    if verdict not in VERDICTS:
        raise ValueError(f"verdict is {verdict!r}; it must be one of {', '.join(VERDICTS)}.")
    explanation = {"holds if": condition, "typo": corrected, "false": counterexample}
    if not explanation.get(verdict, "nothing more to say"):
        key = {"holds if": "condition", "typo": "corrected", "false": "counterexample"}[verdict]
        raise ValueError(f"{key} is empty; the verdict {verdict!r} of {id} needs it.")
    if not binds:
        raise ValueError(f"binds is empty; {id} must name the library functions it is about.")
    return Claim(
        id=id,
        verdict=verdict,
        statement=statements[id],
        condition=condition,
        corrected=corrected,
        counterexample=counterexample,
        assumes=list(assumes),
        rests_on=list(rests_on),
        binds=[f"{function.__module__}.{function.__qualname__}" for function in binds],
    )


_OPEN: list[Claim] = []


@cache
def _statements() -> dict[str, str]:
    text = (resources.files("diffusion_lib") / "claims.toml").read_text(encoding="utf-8")
    return {row["id"]: row["statement"] for row in tomllib.loads(text)["claim"]}


def _record(check: Check) -> Check:
    if _OPEN:
        _OPEN[-1].checks.append(check)
    return check


def _residuals(*checks: Check) -> list[tuple[float, float]]:
    return [check.residual for check in checks if check.residual is not None]


def _display(card: Claim) -> None:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ModuleNotFoundError:
        print(card)
        return
    if get_ipython() is None:
        print(card)
        return
    data = {"text/plain": str(card), "text/markdown": card._repr_markdown_(), PAYLOAD: card.payload}
    display(data, raw=True, metadata={PAYLOAD: {"residuals": _residuals(*card.checks)}})


# --- Deciding whether an expression is zero -------------------------------------------------------


def _row(side: Any) -> list[Any]:
    return list(side) if isinstance(side, tuple | list) else [side]


def _formulas(refused: str, left: Any, right: Any) -> tuple[Any, Any]:
    """Both sides as SymPy expressions, or as rows of them of one length.

    A plain number is held against each entry of a row: ``prove("...", (a, b), 0)``.
    """
    if isinstance(left, tuple | list) and not left:
        raise ValueError("left is empty; there is nothing to compare.")
    if isinstance(left, tuple | list) and isinstance(right, int):
        right = [right] * len(left)
    lengths = [len(side) if isinstance(side, tuple | list) else None for side in (left, right)]
    if lengths[0] != lengths[1]:
        sizes = ["one expression" if n is None else f"a row of {n}" for n in lengths]
        raise CheckFailed(f"{refused}. The left side is {sizes[0]} and the right side {sizes[1]}.")
    sides = []
    for name, side in (("left", left), ("right", right)):
        entries = [_formula(refused, f"The {name} side", entry) for entry in _row(side)]
        sides.append(entries if isinstance(side, tuple | list) else entries[0])
    return sides[0], sides[1]


def _formula(refused: str, name: str, value: Any) -> sp.Expr:
    """The value as a SymPy expression; what is none gets a sentence."""
    try:
        expression = sp.sympify(value, strict=True)
    except (sp.SympifyError, TypeError, ValueError):
        expression = None
    if not isinstance(expression, sp.Expr) or expression.is_Matrix:
        kind = "text" if isinstance(value, str) else type(value).__name__
        shown = " ".join(f"{value!r:.60}".split())
        raise CheckFailed(
            f"{refused}. {name} is {shown} ({kind}); it must be a SymPy expression in the symbols."
        )
    return expression


def _hints(given: Domain, left: sp.Expr, right: sp.Expr) -> Iterable[str]:
    """What often makes a right answer look wrong: inexact numbers, other symbols."""
    for number in sorted((left.atoms(sp.Float) | right.atoms(sp.Float)), key=str)[:1]:
        exact = sp.nsimplify(number, rational=True)
        yield (
            f". The number {sp.N(number, 4)} is inexact, and a proof needs exact ones: "
            f"sp.Rational({exact.p}, {exact.q})"
        )
    symbols = left.free_symbols | right.free_symbols | set(given.substitution)
    names = [x.name for x in symbols]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f". There are two different symbols called {name}; take the one defined before"
    known = {x.name for x in given.substitution}
    for side, own, other in (("left", left, right), ("right", right, left)):
        alone = {x.name for x in own.free_symbols} - {x.name for x in other.free_symbols} - known
        if alone:
            yield f". Only the {side} side has {', '.join(sorted(alone))}"


def _is_zero(expression: sp.Expr) -> bool:
    """Whether an expression in free positive and real symbols vanishes identically.

    What cannot be written in irreducible roots and logarithms (the root of a negative number, say)
    is not decided, and what is not decided is not proved.
    """
    try:
        plain, meanings = _name_roots_and_logs(expression.replace(sp.Abs, _absolute))
        numerator, _ = _lowest_terms(plain, meanings)
    except (ValueError, TypeError, ZeroDivisionError, BasePolynomialError):
        return False
    return numerator == 0


def _absolute(value: sp.Expr) -> sp.Expr:
    """|value|, without the bars where its sign is known; SymPy writes √(x²) so."""
    factored = sp.factor(sp.together(value))
    if factored.is_nonnegative or factored.is_nonpositive:
        return factored if factored.is_nonnegative else -factored
    return sp.Abs(value)


def _name_roots_and_logs(expression: sp.Expr) -> tuple[sp.Expr, dict[sp.Dummy, sp.Expr]]:
    """Write every root and logarithm in terms of those of irreducible factors, each one a symbol.

    The factors are positive on the domain, so √(pq) = √p √q and log(pq) = log p + log q. What
    vanishes as a polynomial in the symbols, with every (√p)² read as p, then vanishes. Returns the
    expression and the meaning of each symbol.
    """
    meanings: dict[sp.Dummy, sp.Expr] = {}
    symbols: dict[sp.Expr, sp.Dummy] = {}

    def name(irreducible: sp.Expr) -> sp.Dummy:
        if irreducible not in symbols:
            symbols[irreducible] = sp.Dummy(positive=True)
            meanings[symbols[irreducible]] = irreducible
        return symbols[irreducible]

    def root(power: sp.Expr) -> sp.Expr:
        halves = power.exp.p
        return sp.Mul(*(name(sp.sqrt(p)) ** (halves * k) for p, k in _factors(power.base)))

    def logarithm(log: sp.Expr) -> sp.Expr:
        return sp.Add(*(k * log_of(p) for p, k in _factors(without_roots(log.args[0]))))

    def log_of(p: sp.Expr) -> sp.Expr:
        # A factor that is itself a named root √q contributes log(q) / 2.
        return name(sp.log(meanings[p].base)) / 2 if p in meanings else name(sp.log(p))

    def without_roots(argument: sp.Expr) -> sp.Expr:
        numerator, denominator = _lowest_terms(argument, meanings)
        return numerator / denominator

    def is_root(e: sp.Expr) -> bool:
        return e.is_Pow and e.exp.is_Rational and e.exp.q == 2 and bool(_factors(e.base))

    def is_log(e: sp.Expr) -> bool:
        return isinstance(e, sp.log) and bool(_factors(without_roots(e.args[0])))

    return expression.replace(is_root, root).replace(is_log, logarithm), meanings


@cache
def _factors(ratio: sp.Expr) -> tuple[tuple[sp.Expr, int], ...]:
    """The irreducible factors of a positive rational function with their exponents, else ()."""
    constant, powers = sp.Integer(1), []
    for part, sign in zip(sp.fraction(sp.together(ratio)), (1, -1), strict=True):
        content, irreducible = sp.factor_list(part)
        constant *= content**sign
        for p, k in irreducible:
            flipped = (-p).is_positive
            constant *= (-1) ** k if flipped else 1
            powers.append((-p if flipped else p, sign * k))
    if constant.is_Rational and constant > 0:
        powers += [(sp.Integer(p), k) for p, k in sp.factorrat(constant).items()]
    elif constant != 1:
        powers.append((constant, 1))
    return tuple(powers) if all(p.is_positive for p, _ in powers) else ()


def _lowest_terms(
    expression: sp.Expr, meanings: dict[sp.Dummy, sp.Expr]
) -> tuple[sp.Expr, sp.Expr]:
    """Numerator and denominator, with the square of a named root read as what it is the root of."""
    used = expression.free_symbols
    radicands = [meaning for symbol, meaning in meanings.items() if symbol in used]
    gens = sorted(used.union(*(meaning.free_symbols for meaning in radicands)), key=str)
    # Whatever is no rational function of these stands for itself: π, a root of unknown sign.
    parts = [expression, *(meaning.base for meaning in radicands if meaning.is_Pow)]
    others = {
        atom
        for atom in set().union(*(e.atoms(sp.Function, sp.NumberSymbol, sp.Pow) for e in parts))
        if not (atom.is_Pow and atom.exp.is_Integer)
    }
    gens = [*gens, *sorted(others, key=str)] or [sp.Dummy()]
    fraction = sp.QQ.frac_field(*gens).from_sympy(expression)
    numerator, ring = fraction.numer, fraction.numer.ring
    for index, symbol in enumerate(gens):
        if symbol in meanings and meanings[symbol].is_Pow:
            radicand = ring.from_expr(sp.expand(meanings[symbol].base))
            reduced = ring.zero
            for monomial, coefficient in numerator.terms():
                exponents = list(monomial)
                squares, exponents[index] = divmod(monomial[index], 2)
                reduced += ring.from_dict({tuple(exponents): coefficient}) * radicand**squares
            numerator = reduced
    return numerator.as_expr(), fraction.denom.as_expr()


def _at_a_point(given: Domain, left: Any, right: Any) -> tuple[sp.Expr, str]:
    """The difference of both sides at one point of the domain, and a sentence that shows it."""
    left, right = sp.sympify(left), sp.sympify(right)
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    point = {x: given.parametrise(x) for x in symbols}
    free = sorted(set().union(*(value.free_symbols for value in point.values())), key=str)
    numbers = {x: _admissible_number(x, i) for i, x in enumerate(free)}
    point = {x: value.subs(numbers) for x, value in point.items()}
    a, b = (sp.N(side.subs(point), 30) for side in (left, right))
    where = ", ".join(f"${sp.latex(x)} = {sp.N(value, 4)}$" for x, value in point.items())
    return a - b, f"Left {sp.N(a, 8)}, right {sp.N(b, 8)} at {where or 'no symbols'}"


def _admissible_number(symbol: sp.Symbol, i: int) -> sp.Rational:
    size = sp.Integer(2 + i) if symbol.is_integer else sp.Rational(3 + i, 7)
    return -size if symbol.is_negative else size


def _numbers(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)
