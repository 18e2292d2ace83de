"""Whatever is asked of a public function: a right answer, or a sentence that says what is wrong.

Hypothesis looks for the input that breaks one of these promises; it looks for the same ones in
every run, so that a failure here is never chance.
"""

import copy
import math
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusion_lib import evaluation, exact, objectives, process, samplers
from diffusion_lib.networks import MLP, DiT, UNet, time_embedding
from diffusion_lib.prediction import PREDICTIONS, get_prediction
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture, gaussian

settings.register_profile(
    "steady",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=list(HealthCheck),
)
steady = settings(settings.get_profile("steady"))
some = settings(steady, max_examples=15)

SPACINGS = ["trailing", "linspace", "leading", "quadratic"]
NOISELESS = {"ddim": samplers.ddim, "heun": samplers.heun, "dpm_solver": samplers.dpm_solver}
SAMPLERS = {"ddpm": samplers.ddpm, **NOISELESS, "encode": samplers.encode}
SHORT = NoiseSchedule.linear(20, 0.01, 0.3).strided(3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bounded(x, t):
    """A network whose answers are between -1 and 1, different at every time."""
    return torch.sin(x + 0.1 * t.reshape(-1, *(1,) * (x.ndim - 1)).to(x.dtype))


# --- What may be asked ----------------------------------------------------------------------------


@st.composite
def made(draw):
    """A schedule of the constructors with anything that they take, T = 1 and T = 2 included."""
    T = draw(st.integers(1, 40))
    name = draw(st.sampled_from(["linear", "scaled_linear", "cosine", "sigmoid", "betas"]))
    beta = st.floats(1e-6, 0.9999)
    if name == "betas":
        return NoiseSchedule.from_betas(draw(st.lists(beta, min_size=1, max_size=12)))
    if name in ("cosine", "sigmoid"):
        return getattr(NoiseSchedule, name)(T, max_beta=draw(beta))
    ends = sorted([draw(beta), draw(beta)])
    return getattr(NoiseSchedule, name)(max(T, 2), *ends[:: draw(st.sampled_from([1, -1]))])


@st.composite
def schedules(draw):
    """The same, perhaps strided, thinned by a list of steps, or rescaled to end in pure noise."""
    schedule = draw(made())
    what = draw(st.sampled_from(["as it is", "strided", "list", "zero"]))
    if what == "strided":
        S = draw(st.integers(1, schedule.T))
        return schedule.strided(S, draw(st.sampled_from(SPACINGS)))
    if what == "list":
        steps = draw(st.sets(st.integers(1, schedule.T), min_size=1))
        return schedule.subsequence(sorted(steps, reverse=True))
    return schedule.zero_terminal() if what == "zero" and schedule.T > 1 else schedule


@st.composite
def tables(draw):
    """Levels with gaps as small as float64 has them, near 1 and near 0."""
    table = [1.0]
    for _ in range(draw(st.integers(1, 8))):
        how = draw(st.sampled_from(["next", "share", "tiny"]))
        if how == "next":
            table.append(math.nextafter(table[-1], 0))
        elif how == "share":
            table.append(table[-1] * draw(st.floats(0.01, 0.99)))
        else:
            table.append(table[-1] * draw(st.sampled_from([1e-3, 1e-8, 1e-40])))
    return table


shapes = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)
full_shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple)
dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def answer_or_sentence(function, *words):
    """The answer, or None where there was a sentence with one of the words in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy's divisions by zero, torch's lost imaginary parts
        try:
            return function()
        except ValueError as error:
            if not re.search("|".join(words), str(error)):
                raise
            return None


def snapshot(*things):
    """What must not change: tensors and schedules, bit by bit, and torch's random numbers."""
    tensors = [thing.detach().clone() if torch.is_tensor(thing) else thing for thing in things]
    return [torch.get_rng_state(), *copy.deepcopy(tensors)]


def unchanged(before, *things):
    now = [torch.get_rng_state(), *things]
    return all(
        torch.equal(torch.nan_to_num(a.detach()), torch.nan_to_num(b)) if torch.is_tensor(a) else
        a == b
        for a, b in zip(now, before, strict=True)
    )  # fmt: skip


# --- Schedules ------------------------------------------------------------------------------------


@steady
@given(schedules())
def test_a_schedule_falls_from_one_and_its_tables_are_what_tables_are(schedule):
    assert schedule.alpha_bar[0] == 1
    assert schedule.alpha_bar[-1] >= 0
    assert (np.diff(schedule.alpha_bar) < 0).all()
    assert (np.diff(schedule.times) > 0).all()
    assert schedule.times[0] == schedule.beta[0] == schedule.posterior_variance[1] == 0
    assert ((schedule.beta[1:] > 0) & (schedule.beta[1:] <= 1)).all()
    assert (schedule.posterior_variance[1:] <= schedule.beta[1:]).all()
    assert (np.diff(schedule.snr[1:]) < 0).all()
    assert len(schedule.alpha_bar) == len(schedule.times) == schedule.T + 1
    assert copy.deepcopy(schedule) == schedule == NoiseSchedule(schedule.alpha_bar, schedule.times)


@steady
@given(made(), st.data())
def test_any_number_of_steps_in_any_spacing(schedule, data):
    S, spacing = data.draw(st.integers(1, schedule.T)), data.draw(st.sampled_from(SPACINGS))
    strided = schedule.strided(np.int64(S), spacing)
    assert strided.T == S
    assert np.array_equal(strided.alpha_bar, schedule.alpha_bar[strided.times])
    if spacing != "leading":
        assert strided.times[-1] == schedule.T
    if spacing == "trailing":  # from T down, by the exact rational stride
        assert strided.times.tolist() == [schedule.T * i // S if (schedule.T * i) % S == 0 else
                                          schedule.T - schedule.T * (S - i) // S
                                          for i in range(S + 1)]  # fmt: skip


@steady
@given(made(), st.data())
def test_a_list_of_steps_is_taken_as_it_is_in_any_type(schedule, data):
    steps = sorted(data.draw(st.sets(st.integers(1, schedule.T), min_size=1)))
    want = schedule.subsequence(steps)
    assert want.times.tolist() == [0, *steps]
    types = [tuple, np.array, torch.tensor, lambda s: np.array(s, np.uint8), lambda s: s[::-1]]
    for make in types:
        assert schedule.subsequence(make(steps)) == want


@steady
@given(made(), st.lists(st.integers(-2, 45), max_size=5))
def test_any_other_list_gets_a_sentence_and_changes_nothing(schedule, steps):
    before, rising = copy.deepcopy(schedule), steps == sorted(set(steps))
    good = steps and (rising or steps[::-1] == sorted(set(steps)))
    good = good and set(steps) <= set(range(1, schedule.T + 1))
    if good:
        assert len(schedule.subsequence(steps).times) == len(steps) + 1
    else:
        with pytest.raises(ValueError, match=r"steps(\[\d\])? is .* must"):
            schedule.subsequence(steps)
    assert schedule == before


@steady
@given(st.lists(st.floats() | st.sampled_from([1.0, 0.5, 0.0, 1 - 2**-53]), max_size=5))
def test_any_list_of_numbers_is_a_table_or_gets_a_sentence(numbers):
    table = [1.0, *numbers]
    schedule = answer_or_sentence(lambda: NoiseSchedule(table), r"^alpha_bar.* must")
    falls = len(table) > 1 and all(a > b for a, b in zip(table, table[1:], strict=False))
    assert (schedule is not None) == (falls and table[-1] >= 0)
    assert schedule is None or schedule.alpha_bar.tolist() == table


@steady
@given(st.lists(st.floats() | st.sampled_from([1e-17, 1 - 1e-16, 1.0, 0.0]), max_size=5))
def test_any_list_of_betas_is_a_schedule_or_gets_a_sentence(betas):
    schedule = answer_or_sentence(
        lambda: NoiseSchedule.from_betas(betas), "(betas|alpha_bar).*must"
    )
    if schedule is None:  # impossible, or too small to be seen in float64
        assert not betas or not all(1e-16 < beta < 1 for beta in betas)
    else:
        assert np.allclose(schedule.beta[1:], betas, rtol=1e-9, atol=2e-16)


# --- Numbers of every type, and what is no number -------------------------------------------------

X = torch.linspace(-1, 1, 8).reshape(4, 2)
POINTS = torch.randn(12, 2, generator=seeded())
MIXTURE = gaussian([0.0, 0.0], [[1.0, 0.3], [0.3, 1.0]])
LABELS = torch.tensor([0, 1, 2, 0])


def labelled(x, t, labels):
    return 0.5 * x * labels[:, None]


def doubled(x, t):
    return torch.cat([0.5 * x, 0 * x], dim=1)


NUMBERS = {  # name of the argument -> a call, a good value, and some that are out of range
    "beta_start": (lambda v: NoiseSchedule.linear(5, v, 0.5), 0.25, [0, 1, -1.0]),
    "beta_end": (lambda v: NoiseSchedule.scaled_linear(5, 0.25, v), 0.5, [0, 1.5]),
    "s": (lambda v: NoiseSchedule.cosine(5, v), 0.5, [-1]),
    "max_beta": (lambda v: NoiseSchedule.sigmoid(5, max_beta=v), 0.5, [0, 1]),
    "start": (lambda v: NoiseSchedule.sigmoid(5, v, 3), -2.0, [3, 4.0]),
    "end": (lambda v: NoiseSchedule.sigmoid(5, -3, v), 2.0, [-3]),
    "tau": (lambda v: NoiseSchedule.sigmoid(5, -3, 3, v), 2.0, [0, -1.0]),
    "eta": (
        lambda v: samplers.ddim(bounded, SHORT, X, eta=v, generator=seeded()),
        0.5,
        [-0.1, 1.1, 5],
    ),
    "share": (lambda v: samplers.interpolate(X, X.flip(0) + 1, v), 0.5, [-0.1, 2]),
    "share ": (lambda v: samplers.dynamic_threshold(v)(3 * X), 0.5, [0, 1.5]),
    "limit": (lambda v: samplers.dynamic_threshold(0.5, v)(3 * X), 0.5, [0, -1]),
    "scale": (
        lambda v: samplers.ddim(samplers.guided(labelled, LABELS, v, no_label=3), SHORT, X),
        0.5,
        [-1],
    ),
    r"clip\[0\]": (lambda v: samplers.ddim(bounded, SHORT, X, clip=(v, 1.0)), 0.5, []),
    "gamma": (
        lambda v: objectives.min_snr_loss(bounded, SHORT, X, gamma=v, generator=seeded()),
        0.5,
        [0, -1],
    ),
    "bound_weight": (
        lambda v: objectives.hybrid_loss(doubled, SHORT, X, bound_weight=v, generator=seeded()),
        0.5,
        [-1],
    ),
    "decoder_variance": (
        lambda v: objectives.bound(bounded, SHORT, X, decoder_variance=v, generator=seeded()).terms,
        0.5,
        [0, -1],
    ),
    "alpha_bar_t": (lambda v: MIXTURE.eps(X, v), 0.5, [-1, 1.5]),
}
INTEGERS = {
    "T": (lambda v: NoiseSchedule.linear(v), 4, [1, 0, -1]),
    "T ": (lambda v: NoiseSchedule.cosine(v), 4, [0, -1]),
    "S": (lambda v: SHORT.strided(v), 2, [0, -1, 4]),
    "levels": (
        lambda v: objectives.bound(bounded, SHORT, X.sign(), levels=v, generator=seeded()).terms,
        4,
        [-1, 0, 1],
    ),
    "no_label": (
        lambda v: samplers.ddim(samplers.guided(labelled, LABELS, 2.0, no_label=v), SHORT, X),
        3,
        [-1],
    ),
    "count": (lambda v: MIXTURE.sample(v, seeded()), 3, [0, -1]),
}
CHOICES = {
    "spacing": lambda v: SHORT.strided(2, v),
    "prediction": lambda v: get_prediction(v),
    "prediction ": lambda v: samplers.heun(bounded, SHORT, X, prediction=v),
    "prediction  ": lambda v: objectives.simple_loss(bounded, SHORT, X, prediction=v),
    "variance": lambda v: samplers.ddpm(bounded, SHORT, X, variance=v),
    "variance ": lambda v: objectives.bound(bounded, SHORT, X, variance=v),
}
NOTHING = [None, "a", [], {}, object(), 1j, True, np.bool_(True), math.nan, np.array([0.5, 0.5])]


def same(a, b):
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_one_in_every_type(name):
    call, good, _ = NUMBERS[name]
    want = call(good)
    kinds = [np.float64, np.float32, np.float16, torch.tensor, np.array]
    for number in (kind(good) for kind in kinds):
        assert same(call(number), want)
    if good == 2.0:  # int where a float is asked
        assert same(call(2), want)
    if name in ("eta", "share", "share ", "scale", "gamma", "limit", "alpha_bar_t"):
        assert same(call(1), call(1.0))
        assert same(call(np.int64(1)), call(1.0))


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_in_range_gets_a_sentence(name):
    call, _, outside = NUMBERS[name]
    for value in [*NOTHING, *outside]:
        if name == "decoder_variance" and value is None:  # which means beta_1
            continue
        with pytest.raises(ValueError, match=rf"^(start is .* and )?{name.strip()} .*must"):
            call(value)


@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_is_one_in_every_type(name):
    call, good, _ = INTEGERS[name]
    want = call(good)
    for number in (np.int64(good), np.uint8(good), torch.tensor(good)):
        assert same(call(number), want)


@pytest.mark.parametrize("name", INTEGERS)
def test_what_is_no_integer_in_range_gets_a_sentence(name):
    call, good, outside = INTEGERS[name]
    for value in [*NOTHING, float(good), *outside]:
        if name in ("levels", "no_label") and value is None:  # which is their default
            continue
        with pytest.raises(ValueError, match=rf"^{name.strip()} is\b.*must"):
            call(value)


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_no_choice_gets_a_sentence_with_the_choices(name):
    for value in [*NOTHING, "Trailing", ["eps"], 0]:
        if name == "prediction " and value is None:  # which leaves it to the model
            continue
        with pytest.raises(ValueError, match=rf"^{name.strip()} is .*; it must be one of \w+,"):
            CHOICES[name](value)


# --- Samplers -------------------------------------------------------------------------------------


def run(name, model, schedule, x, **options):
    """Any of the samplers, with v, which all of them can read at every level."""
    if name in ("heun", "encode") and schedule.alpha_bar[-1] == 0:
        options["prediction"] = "v"
    return SAMPLERS[name](model, schedule, x, **{"prediction": "v", **options})


@steady
@given(schedules(), shapes, dtypes, st.sampled_from(list(SAMPLERS)), st.sampled_from(["v", "x_0"]))
def test_every_sampler_answers_with_finite_samples_and_changes_nothing(
    schedule, shape, dtype, name, prediction
):
    x = torch.randn(shape, generator=seeded()).to(dtype)
    generator = {"generator": seeded(1)} if name == "ddpm" else {}
    before = snapshot(x, schedule)
    result = answer_or_sentence(
        lambda: SAMPLERS[name](bounded, schedule, x, prediction=prediction, **generator),
        "alpha_bar_T = 0",  # Heun's method cannot start there
        "too close",
    )
    assert unchanged(before, x, schedule)
    if result is None:
        assert name == "heun" or schedule.alpha_bar[-1] < 1e-30
        return
    assert (result.shape, result.dtype) == (x.shape, x.dtype)
    assert result.isfinite().all()
    assert not result.requires_grad
    assert not result.is_inference()
    assert result is not x


@steady
@given(tables(), st.sampled_from(list(SAMPLERS)), st.sampled_from(list(PREDICTIONS)), st.booleans())
def test_levels_that_float64_can_hardly_tell_apart_give_no_nan(table, name, prediction, double):
    x = torch.randn(3, 2, generator=seeded(), dtype=torch.float64 if double else torch.float32)
    result = answer_or_sentence(
        lambda: SAMPLERS[name](bounded, NoiseSchedule(table), x, prediction=prediction),
        "too close",
        "alpha_bar_T = 0",
    )
    assert result is None or result.isfinite().all()
    if table[-1] > 1e-20 and table[1] < 1 - 1e-3 and name != "dpm_solver":
        assert result is not None


@some
@given(schedules(), st.sampled_from(list(SAMPLERS)))
def test_a_strided_schedule_is_the_schedule_of_its_table(schedule, name):
    """The sampler knows nothing of strides: the same levels under other times are the same run."""
    x = torch.randn(2, 2, generator=seeded())
    twin = NoiseSchedule(schedule.alpha_bar)
    kind = {"prediction": "v", **({"generator": seeded(1)} if name == "ddpm" else {})}
    twin_kind = {"prediction": "v", **({"generator": seeded(1)} if name == "ddpm" else {})}
    a, b = (
        answer_or_sentence(
            lambda s=s, k=k: SAMPLERS[name](lambda x, t: x.sin(), s, x, **k), "alpha_bar"
        )
        for s, k in ((schedule, kind), (twin, twin_kind))
    )
    assert (a is None and b is None) or torch.equal(a, b)


@some
@given(made(), full_shapes, st.sampled_from(["ddpm", "eta", "learned"]), st.integers(0, 10**6))
def test_a_sample_with_its_own_generator_does_not_know_its_batch(schedule, shape, how, seed):
    x = torch.randn(4, *shape, generator=seeded(), dtype=torch.float64)
    channels = (1, 2, *(1,) * (len(shape) - 1))
    model = {"learned": lambda x, t: bounded(x, t).repeat(channels)}.get(how, bounded)
    options = {"ddpm": {}, "eta": {"eta": 0.7}, "learned": {"variance": "learned"}}[how]
    sampler = samplers.ddim if how == "eta" else samplers.ddpm
    options |= {"prediction": "v"}
    together = sampler(
        model, schedule, x, generator=[seeded(seed + i) for i in range(4)], **options
    )
    for i in (0, 3):
        alone = sampler(model, schedule, x[i : i + 1], generator=[seeded(seed + i)], **options)
        assert torch.allclose(alone[0], together[i], rtol=1e-12, atol=1e-12)
    once, again = (sampler(model, schedule, x, generator=seeded(seed), **options) for _ in range(2))
    assert torch.equal(once, again)


@some
@given(made(), st.sampled_from(list(SAMPLERS)), dtypes)
def test_memory_and_gradients_of_the_start_are_nobodys_business(schedule, name, dtype):
    x = torch.randn(3, 4, generator=seeded()).to(dtype)
    starts = {
        "transposed": x.T.contiguous().T,
        "every other": torch.stack([x, 0 * x], dim=2).flatten(1)[:, ::2],
        "leaf": x.clone().requires_grad_(),
        "inside a graph": x.clone().requires_grad_() * 1,
    }
    rows = {"expanded": x[:1].expand(3, 4), "repeated": x[:1].repeat(3, 1)}

    def sampled(start):
        generator = {"generator": seeded(1)} if name == "ddpm" else {}
        result = run(name, bounded, schedule, start, **generator)
        assert not result.requires_grad
        return result

    want = sampled(x)
    for start in starts.values():
        assert torch.allclose(sampled(start), want, rtol=1e-5, atol=1e-6)
    assert torch.equal(sampled(rows["expanded"]), sampled(rows["repeated"]))


@some
@given(made(), st.floats(-2, 0), st.floats(0.01, 2), st.sampled_from(["ddpm", *NOISELESS]))
def test_clipping_is_sampling_with_a_network_that_says_clipped_data(schedule, low, width, name):
    x, high = torch.randn(5, 2, generator=seeded(), dtype=torch.float64), low + width

    def says_data(x, t):
        level = torch.tensor(schedule.alpha_bar)[t][:, None]
        return (level.sqrt() * x - (1 - level).sqrt() * bounded(x, t)).clamp(low, high)

    def options(prediction):
        generator = {"generator": seeded(1)} if name == "ddpm" else {}
        return {"prediction": prediction, **generator}

    sampler = SAMPLERS[name]
    want = sampler(says_data, schedule, x, **options("x_0"))
    for clip in (
        (low, high),
        [low, high],
        tuple(np.array([low, high])),
        (torch.tensor(low).double(), high),
    ):
        assert torch.allclose(sampler(bounded, schedule, x, clip=clip, **options("v")), want)
    assert low - 1e-9 <= want.min()
    assert want.max() <= high + 1e-9


@pytest.mark.parametrize("name", SAMPLERS)
def test_empty_and_huge_batches(name):
    for shape in [(0,), (0, 2), (4, 0), (0, 1, 8, 8), (1, 10**6)]:
        x = torch.zeros(shape)
        result = SAMPLERS[name](bounded, SHORT, x)
        assert result.shape == shape
        assert result.isfinite().all()


BAD_SAMPLES = {
    "none": None,
    "a list": [[0.0, 1.0]],
    "an array": np.zeros((2, 2)),
    "a number": torch.tensor(1.0),
    **{str(d): torch.zeros(2, 2).to(d) for d in (torch.int64, torch.bool, torch.complex64,
                                                 torch.float8_e4m3fn)},
    "sparse": torch.eye(2).to_sparse(),
}  # fmt: skip
TAKE_SAMPLES = {
    **{name: (lambda x, f=f: f(bounded, SHORT, x)) for name, f in SAMPLERS.items()},
    "simple_loss": lambda x: objectives.simple_loss(bounded, SHORT, x),
    "weighted_loss": lambda x: objectives.weighted_loss(bounded, SHORT, x, lambda snr: snr),
    "min_snr_loss": lambda x: objectives.min_snr_loss(bounded, SHORT, x),
    "hybrid_loss": lambda x: objectives.hybrid_loss(doubled, SHORT, x),
    "bound": lambda x: objectives.bound(bounded, SHORT, x),
    "draw_noise": lambda x: objectives.draw_noise(SHORT, x),
    "interpolate": lambda x: samplers.interpolate(x, torch.zeros(2, 2), 0.5),
    "interpolate ": lambda x: samplers.interpolate(torch.zeros(2, 2), x, 0.5),
    "dynamic_threshold": lambda x: samplers.dynamic_threshold()(x),
    "add_noise": lambda x: process.add_noise(SHORT, x, torch.tensor([1, 2]), torch.zeros(2, 2)),
    "add_noise ": lambda x: process.add_noise(SHORT, torch.zeros(2, 2), torch.tensor([1, 2]), x),
    "posterior": lambda x: process.posterior(SHORT, x, torch.zeros(2, 2), torch.tensor([1, 2])),
    "score": lambda x: MIXTURE.score(x),
    "log_prob": lambda x: MIXTURE.log_prob(x),
    "eps": lambda x: MIXTURE.eps(x, 0.5),
    "model": lambda x: MIXTURE.model(SHORT)(x, torch.tensor([7, 7])),
    **{name: (lambda x, f=f: f(x, POINTS)) for name, f in evaluation.METRICS.items()},
}


@pytest.mark.parametrize("what", BAD_SAMPLES)
@pytest.mark.parametrize("name", TAKE_SAMPLES)
def test_what_is_no_batch_of_samples_gets_a_sentence(name, what):
    kept = snapshot(SHORT)
    with pytest.raises(ValueError, match=r"(?s)^\w+ is .*; it must be a floating-point tensor"):
        TAKE_SAMPLES[name](BAD_SAMPLES[what])
    assert unchanged(kept, SHORT)


BAD_OUTPUTS = {
    "(4, 1)": lambda x, t: x[:, :1],
    "(1, 2)": lambda x, t: x[:1],
    "one number": lambda x, t: x.sum(),
    "one more": lambda x, t: x[None],
    "a tuple": lambda x, t: (x,),
    "None": lambda x, t: None,
    "an array": lambda x, t: x.numpy(),
    "integers": lambda x, t: x.long(),
    "complex": lambda x, t: x + 0j,
    "bools": lambda x, t: x > 0,
    "complex and twice": lambda x, t: torch.cat([x, x], dim=1) + 0j,
}
RUN_MODELS = [*SAMPLERS, "simple_loss", "weighted_loss", "min_snr_loss", "hybrid_loss", "bound"]


def run_model(name, model):
    if name in SAMPLERS:
        return SAMPLERS[name](model, SHORT, X)
    more = (lambda snr: snr,) if name == "weighted_loss" else ()
    return getattr(objectives, name)(model, SHORT, X, *more)


@pytest.mark.parametrize("what", BAD_OUTPUTS)
@pytest.mark.parametrize("name", RUN_MODELS)
def test_an_output_that_does_not_fit_is_never_broadcast_or_cast(name, what):
    with pytest.raises(ValueError, match="The network's output has (shape|type) .*must"):
        run_model(name, BAD_OUTPUTS[what])


@pytest.mark.parametrize("name", RUN_MODELS)
def test_what_is_no_network_or_no_schedule_gets_a_sentence(name):
    for model in (None, "mlp", 3):
        with pytest.raises(ValueError, match=r"^model is .* must be callable"):
            run_model(name, model)
    more = (lambda snr: snr,) if name == "weighted_loss" else ()
    function = SAMPLERS.get(name) or getattr(objectives, name)
    for schedule in (None, "linear", [1.0, 0.5], 1000):
        with pytest.raises(ValueError, match=r"^schedule is .* must be a NoiseSchedule"):
            function(bounded, schedule, X, *more)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "heun", "dpm_solver"])
def test_what_is_no_range_gets_a_sentence(name):
    clips = [1, True, "ab", (1,), (0, 1, 2), (1, 0), (0, 0), (math.nan, 1), (None, 1), ("a", "b"),
             (0, 1j), (False, 2), np.array([0, 1]), {0: 1, 2: 3}]  # fmt: skip
    for clip in clips:
        with pytest.raises(ValueError, match=r"^clip(\[\d\])? is .* must"):
            SAMPLERS[name](bounded, SHORT, X, clip=clip)
    for clip in (lambda x: x[:, :1], lambda x: x[:1], lambda x: None, lambda x: x.long()):
        with pytest.raises(ValueError, match=r"^What clip returns has .* must"):
            SAMPLERS[name](bounded, SHORT, X, clip=clip)
    with pytest.raises(ValueError, match="callback is 3"):
        SAMPLERS[name](bounded, SHORT, X, callback=3)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_what_is_no_generator_gets_a_sentence(name):
    bad = [0, "cpu", [], [seeded()] * 3, [0, 1, 2, 3], np.random.default_rng(0), {1: 2}]
    for generator in bad:
        with pytest.raises(ValueError, match="generator (is|has) .* must"):
            SAMPLERS[name](bounded, SHORT, X, generator=generator)
    for generator in (0, [seeded()] * 4):
        with pytest.raises(ValueError, match="generator is .* must"):
            objectives.simple_loss(bounded, SHORT, X, generator=generator)
    meta = torch.device("meta")
    with pytest.raises(ValueError, match="generator is on cpu; it must be on the device meta"):
        SAMPLERS[name](bounded, SHORT, X.to(meta), generator=seeded())


@some
@given(st.lists(st.floats() | st.sampled_from([0.0, 0.3, None, "a"]), max_size=5))
def test_any_list_of_sigmas_runs_or_gets_a_sentence(sigma):
    result = answer_or_sentence(
        lambda: samplers.ddim(bounded, SHORT, X, sigma=sigma, generator=seeded()), r"^sigma.*must"
    )
    assert result is None or (len(sigma) == 4 and result.isfinite().all())


# --- The forward process and the objectives -------------------------------------------------------


@steady
@given(schedules(), full_shapes, dtypes, st.integers(0, 10**6))
def test_noise_is_added_row_by_row(schedule, shape, dtype, seed):
    x_0, eps = (torch.randn(shape, generator=seeded(seed + i)).to(dtype) for i in range(2))
    t = torch.randint(0, schedule.T + 1, shape[:1], generator=seeded(seed))
    before = snapshot(x_0, eps, t, schedule)
    got = process.add_noise(schedule, x_0, t, eps)
    assert unchanged(before, x_0, eps, t, schedule)
    assert (got.shape, got.dtype) == (x_0.shape, dtype)
    rounding = {torch.float64: 1e-14, torch.float32: 1e-6}.get(dtype, 2e-2)
    for row, a, e, i in zip(got.double(), x_0.double(), eps.double(), t.tolist(), strict=True):
        level = schedule.alpha_bar[i]
        want = math.sqrt(level) * a + math.sqrt(1 - level) * e
        assert torch.allclose(row, want, rtol=rounding, atol=rounding)
    if (t > 0).all():
        law = process.posterior(schedule, got, x_0, t)
        assert law.mean.isfinite().all()
        assert (law.variance >= 0).all()
    turned = process.add_noise(schedule, x_0.mT.contiguous().mT if x_0.ndim > 1 else x_0, t, eps)
    assert torch.equal(turned, got)


@pytest.mark.parametrize(
    "call", [process.add_noise, lambda s, x, t, e: process.posterior(s, x, e, t)]
)
def test_steps_that_do_not_fit_get_a_sentence(call):
    x = torch.zeros(2, 3)
    bad = [None, 1, [1, 2], np.array([1, 2]), torch.tensor(1), torch.tensor([1]),
           torch.tensor([[1, 2]]), torch.tensor([1.0, 2.0]), torch.tensor([True, True]),
           torch.tensor([1, 4]), torch.tensor([-1, 1])]  # fmt: skip
    for t in bad:
        with pytest.raises(ValueError, match=r"^t (is|has|runs) .* must"):
            call(SHORT, x, t, x)
    for other in ((2, 1), (1, 3), (3,), (2, 3, 1)):
        with pytest.raises(ValueError, match=r"must have the shape \(2, 3\)"):
            call(SHORT, x, torch.tensor([1, 2]), torch.zeros(other))


@steady
@given(
    schedules(), full_shapes, st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(["simple", "min_snr", "hybrid"]), st.sampled_from(["v", "x_0"]),
)  # fmt: skip
def test_every_objective_is_a_finite_number_and_changes_nothing(
    schedule, shape, dtype, name, prediction
):
    x_0 = torch.randn(shape, generator=seeded()).to(dtype)
    weight = torch.full((1,), 0.3, dtype=dtype, requires_grad=True)

    def model(x, t):
        answer = weight * bounded(x, t)
        return torch.cat([answer, answer], dim=1) if name == "hybrid" and x.ndim > 1 else answer

    before = snapshot(x_0, schedule)
    loss = answer_or_sentence(
        lambda: objectives.OBJECTIVES[name](
            model, schedule, x_0, prediction=prediction, generator=seeded(1)
        ),
        "twice as many channels",  # rows of one number have no second channel
        "T = 1",
    )
    assert unchanged(before, x_0, schedule)
    if loss is None:
        assert name == "hybrid"
        assert len(shape) == 1 or schedule.T == 1
        return
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    assert weight.grad.isfinite().all()


@some
@given(schedules(), full_shapes, st.sampled_from(["posterior", "beta", "learned"]), st.booleans())
def test_every_bound_is_finite_and_its_divergences_are_not_negative(
    schedule, shape, variance, discrete
):
    x_0 = torch.randn(shape, generator=seeded()).sign().double()
    learned = variance == "learned" and len(shape) > 1

    def model(x, t):
        answer = bounded(x, t)
        return torch.cat([answer, answer], dim=1) if learned else answer

    result = answer_or_sentence(
        lambda: objectives.bound(
            model, schedule, x_0, prediction="v", variance=variance,
            levels=2 if discrete else None, generator=seeded(1),
        ),
        "answers no variance",
        "too close to each other",
    )  # fmt: skip
    if result is None:
        return
    assert result.terms.shape == (len(x_0), schedule.T + 1)
    assert result.terms.isfinite().all()
    assert (result.terms[:, 1:] >= -1e-12).all()
    assert not discrete or (result.reconstruction >= 0).all()


def test_empty_data_have_no_loss_and_huge_ones_do():
    for name in ("simple_loss", "min_snr_loss", "bound"):
        for shape in ((0,), (0, 2), (4, 0), (2, 0, 3)):
            with pytest.raises(ValueError, match="x_0 has no (rows|numbers)"):
                getattr(objectives, name)(bounded, SHORT, torch.zeros(shape))
    loss = objectives.simple_loss(
        lambda x, t: 0 * x, SHORT, torch.zeros(1, 10**6), generator=seeded()
    )
    assert abs(float(loss) - 1) < 4.5 * math.sqrt(2 / 10**6)


def test_steps_noise_weights_and_labels_that_do_not_fit_get_a_sentence():
    good = {"t": torch.tensor([1, 2, 3, 1]), "eps": torch.zeros(4, 2)}
    bad_t = [[1, 2, 3, 1], 1, np.array([1, 2, 3, 1]), torch.tensor([1]), torch.tensor([0, 1, 2, 3]),
             torch.tensor([1, 2, 3, 4]), good["t"].float(), good["t"] > 1]  # fmt: skip
    bad_eps = [
        torch.zeros(4, 1),
        torch.zeros(1, 2),
        torch.zeros(4, 2).long(),
        "a",
        np.zeros((4, 2)),
    ]
    for name in ("simple_loss", "min_snr_loss"):
        function = getattr(objectives, name)
        for option, values in (("t", bad_t), ("eps", bad_eps)):
            for value in values:
                with pytest.raises(ValueError, match=rf"(?s)^{option} (is|has|runs) .*must"):
                    function(bounded, SHORT, X, **{**good, option: value})
    weights = [None, 1, lambda r: -r, lambda r: r * math.nan, lambda r: r[:2], lambda r: None,
               lambda r: "a", lambda r: r + 1j, lambda r: r[None]]  # fmt: skip
    for weight in weights:
        with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"^weight .*must"):
            objectives.weighted_loss(bounded, SHORT, X, weight)
    for labels in ([0, 1], torch.tensor([0.0]), torch.tensor([[1]]), torch.tensor([True]), None):
        with pytest.raises(ValueError, match=r"^labels is .* must be an int64 tensor"):
            samplers.guided(labelled, labels, 2.0, no_label=3)
    with pytest.raises(ValueError, match="labels has 3 entries"):
        samplers.guided(labelled, LABELS[:3], 2.0, no_label=3)(X, torch.ones(4).long())


# --- Targets, networks, distances -----------------------------------------------------------------


@some
@given(
    st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(0, 3), max_size=2), dtypes,
    st.floats(1e-6, 1.0) | st.sampled_from([1.0, 1e-40, 1 - 2**-53]),
)  # fmt: skip
def test_a_mixture_answers_for_any_shape_and_level(K, d, shape, dtype, level):
    factors = torch.randn(K, d, d, generator=seeded(1), dtype=torch.float64)
    mixture = GaussianMixture(
        torch.full((K,), 1 / K, dtype=torch.float64),
        torch.randn(K, d, generator=seeded(2), dtype=torch.float64),
        factors @ factors.mT,
    )
    x = torch.randn(*shape, d, generator=seeded(3)).to(dtype)
    before = snapshot(x)
    for answer in (mixture.at(level).score(x), mixture.eps(x, level)):
        assert (answer.shape, answer.dtype) == (x.shape, dtype)
        assert level > 0.999 or answer.isfinite().all()
    assert mixture.log_prob(x).shape == x.shape[:-1]
    assert unchanged(before, x)


def test_parameters_levels_and_times_that_do_not_fit_get_a_sentence():
    one, eye = [1.0], [[[1.0, 0.0], [0.0, 1.0]]]
    bad = [("a", [[0.0]], eye), (None, [[0.0]], eye), ([1j], [[0.0]], eye), (one, [[]], [[[]]]),
           ([], [], []), (1, 2, 3), (one, [[0.0, math.nan]], eye), (one, [[0.0]], eye),
           (torch.tensor([1j]), [[0.0, 0.0]], eye), ([math.nan], [[0.0, 0.0]], eye)]  # fmt: skip
    for parts in bad:
        with pytest.raises(ValueError, match="weights|means|covariances"):
            GaussianMixture(*parts)
    half = GaussianMixture(torch.ones(1).half(), torch.zeros(1, 2).half(), torch.tensor(eye).half())
    assert half.mean.dtype == torch.float32
    for level in (torch.full((3,), 0.5), torch.full((4, 1), 0.5), torch.tensor([True] * 4),
                  torch.tensor([0.5, 0.5, 0.5, -0.1]), [0.5] * 4, 1 + 1e-9):  # fmt: skip
        with pytest.raises(ValueError, match="alpha_bar_t (is|has|holds) .* must"):
            MIXTURE.eps(X, level)
    model = MIXTURE.model(SHORT)
    for times in (None, 7, [7] * 4, torch.tensor(7), torch.tensor([7, 7]), torch.tensor([8] * 4),
                  torch.tensor([-7] * 4), torch.tensor([10**12] * 4)):  # fmt: skip
        with pytest.raises(ValueError, match="times is .* must"):
            model(X, times)
    for schedule in (None, "linear"):
        with pytest.raises(ValueError, match="schedule is"):
            MIXTURE.model(schedule)
    far = NoiseSchedule([1.0, 0.5], [0, 2**60])
    assert MIXTURE.model(far)(X, torch.tensor([2**60] * 4)).shape == X.shape


@some
@given(st.integers(0, 3), st.booleans(), st.sampled_from(["mlp", "unet", "dit"]), st.booleans())
def test_networks_answer_any_batch_row_by_row(batch, labels, name, learned):
    torch.manual_seed(0)
    options = {"classes": 3 if labels else None, "learned_variance": learned}
    network, shape = {
        "mlp": lambda: (MLP(3, 8, 2, **options), (3,)),
        "unet": lambda: (UNet(1, 8, **options), (1, 4, 6)),
        "dit": lambda: (DiT(1, 2, width=8, depth=1, heads=2, **options), (1, 4, 4)),
    }[name]()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(batch, *shape), torch.randint(1, 9, (batch,))
    told = (torch.randint(0, 4, (batch,)),) if labels else ()
    with torch.no_grad():
        together = network(x, t, *told)
        assert together.shape == (batch, shape[0] * (1 + learned), *shape[1:])
        assert together.isfinite().all()
        for i in range(batch):
            alone = network(x[i : i + 1], t[i : i + 1], *(some[i : i + 1] for some in told))
            assert torch.allclose(alone[0], together[i], atol=1e-5)


@some
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple))
def test_a_network_of_points_takes_one_shape_alone(shape):
    network, x = MLP(2, 4, 1), torch.zeros(shape)
    t = torch.ones(shape[0], dtype=torch.int64)
    if len(shape) == 2 and shape[1] == 2:
        assert network(x, t).shape == shape
    else:
        with pytest.raises(ValueError, match=r"x_t has shape .*; this MLP takes \(B, 2\)"):
            network(x, t)


@some
@given(st.integers(1, 9), st.lists(st.integers(0, 10**6), max_size=4))
def test_the_time_embedding_is_bounded_and_of_any_width(dim, times):
    rows = time_embedding(torch.tensor(times, dtype=torch.int64), dim)
    assert rows.shape == (len(times), dim)
    assert (rows.abs() <= 1).all()


@some
@given(
    st.sampled_from(list(evaluation.METRICS)), st.integers(5, 9), st.integers(5, 9),
    st.integers(1, 3), st.sampled_from([torch.float16, torch.float32, torch.float64]),
)  # fmt: skip
def test_a_distance_is_a_finite_number_whatever_the_order_of_rows(name, m, n, d, dtype):
    metric = evaluation.METRICS[name]
    x = torch.randn(m, d, generator=seeded(1)).to(dtype)
    y = torch.randn(n, d, generator=seeded(2)).to(dtype)
    before = snapshot(x, y)
    value = metric(x, y)
    assert unchanged(before, x, y)
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert metric(x.flip(0), y.flip(0)) == pytest.approx(value, rel=1e-6, abs=1e-9)
    if name not in ("precision", "recall"):
        assert metric(y, x) == pytest.approx(value, rel=1e-6, abs=1e-9) or name == "mmd"
    for bad in (x * math.nan, x / 0, x[:1], x[:0], torch.cat([x, x], dim=1)):
        with pytest.raises(ValueError, match="^(samples|truth|k) "):
            metric(bad, y)


@some
@given(st.floats(-1, 2) | st.sampled_from([0.0, 1.0]), st.sampled_from(["1 of 3", "2 of 3"]))
def test_an_exact_law_is_one_or_there_is_a_sentence(eta, which):
    schedule = NoiseSchedule.cosine(6).strided(int(which[0]))
    law = answer_or_sentence(
        lambda: exact.ddim(gaussian([0.2], [[0.3]]), schedule, eta=eta), "eta is .* must"
    )
    assert (law is not None) == (0 <= eta <= 1)
    assert law is None or abs(float(law.mass.sum()) - 1) < 1e-8
