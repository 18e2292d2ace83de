"""The interactive figures: they stand where their picture was, they move, and their numbers are
those of the library.

A new figure needs no test of its own for the first two. For the third it has a function in NUMBERS.
"""

import base64
import re
from functools import cache

import explorers
import numpy as np
import pytest
import torch
from test_browser import listen

from diffusion_lib import closed_forms as cf
from diffusion_lib import data, exact, objectives, samplers
from diffusion_lib.checkpoint import load_pretrained
from diffusion_lib.schedule import NoiseSchedule
from diffusion_lib.targets import GaussianMixture
from notebooks import code_cells, notebook_paths, read

FIGURES = {
    tag.removeprefix("explorer-"): path.stem
    for path in notebook_paths()
    for cell in code_cells(read(path))
    for tag in cell.metadata.get("tags", [])
    if tag.startswith("explorer-")
}
LARGEST = 80_000  # bytes of numbers in a page
LINEAR = NoiseSchedule.linear()
HEAPS = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.01]], [[0.01]]])

# Move a slider to where it says so.
SLIDE = """
(input, wanted) => {
  const said = input.parentElement.querySelector("output");
  for (let place = 0; place <= Number(input.max); place++) {
    input.value = place;
    input.dispatchEvent(new Event("input"));
    if (said.textContent === wanted) return;
  }
  throw new Error(`the slider has no place ${wanted}`);
}
"""


@pytest.fixture(scope="module")
def chapters(strict_build):
    """Where the built page of a figure is."""
    source, _ = strict_build
    built = source / "_build" / "html" / "notebooks"
    return {name: built / f"{chapter}.html" for name, chapter in FIGURES.items()}


@pytest.fixture(scope="module")
def open_page(browser):
    """A chapter, opened once for all tests of its figures, and what has gone wrong on it."""

    @cache
    def open_(path):
        wrong = []
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        listen(page, wrong)
        page.goto(path.as_uri())
        return page, wrong

    return open_


@pytest.fixture
def figure(open_page, chapters, name):
    """The figure of a test, on its page; in the end nothing may have gone wrong there."""
    page, wrong = open_page(chapters[name])
    yield page.locator(f"#explorer-{name}")
    assert wrong == []


every_figure = pytest.mark.parametrize("name", FIGURES)


# --- What a reader does with a figure -------------------------------------------------------------


def slide(figure, which, wanted):
    """Move a slider, counted from the top, to where it shows the text that is wanted."""
    figure.locator("input[type=range]").nth(which).evaluate(SLIDE, wanted)


def choose(figure, value):
    figure.locator(f'input[type=radio][value="{value}"]').evaluate("input => input.click()")


def said(figure):
    """The numbers of the readout that is in sight, in order."""
    entries = figure.locator(".explorer-readout").locator("dd:visible, td:visible")
    texts = [text.replace("\N{MINUS SIGN}", "-") for text in entries.all_inner_texts()]
    found = [re.search(r"-?[\d.]+(?:e[-+]?\d+)?", text) for text in texts]
    return [float(match[0]) if match else None for match in found]


def readout(figure):
    return figure.locator(".explorer-readout").all_inner_texts()


def curve(figure, kind):
    """The heights of the first line of a kind, as shares of its peak."""
    path = figure.locator(f"path.line.{kind}").first.get_attribute("d")
    depth = np.array([float(point.split()[1]) for point in path[1:].split("L")])
    return (depth.max() - depth) / (depth.max() - depth.min())


def close(numbers):
    """A number of three digits may be off by half a unit of the last one."""
    return pytest.approx(numbers, rel=6e-3, abs=1e-9)


# --- Every figure ---------------------------------------------------------------------------------


def still(page, name):
    return page.locator(f".tag_explorer-{name} .cell_output img").first


@every_figure
def test_a_figure_stands_where_its_picture_was(figure, name):
    assert figure.is_visible()
    assert not still(figure.page, name).is_visible()
    figure.page.emulate_media(media="print")
    assert not figure.is_visible()
    assert still(figure.page, name).is_visible()
    figure.page.emulate_media(media="screen")


@every_figure
def test_without_javascript_the_picture_is_there(browser, chapters, name):
    page = browser.new_page(java_script_enabled=False)
    page.goto(chapters[name].as_uri())
    assert still(page, name).is_visible()
    assert page.locator(f"#explorer-{name}").count() == 0
    page.close()


@every_figure
def test_the_keyboard_moves_every_slider(figure):
    sliders = figure.locator("input[type=range]:visible").all()
    assert sliders
    for slider in sliders:
        assert slider.evaluate("input => input.labels[0].innerText.trim() !== ''")
        shown = []
        for key in ("Home", "End"):
            slider.press(key)
            shown.append((slider.get_attribute("aria-valuetext"), readout(figure)))
        assert shown[0][0] != shown[1][0]
        assert shown[0][1] != shown[1][1]


@every_figure
def test_every_choice_and_button_can_be_taken(figure):
    for option in figure.locator("input[type=radio]").all():
        option.focus()
        option.press("Space")
        assert option.is_checked()
    for button in figure.locator("button").all():
        slider = figure.locator("input[type=range]").first
        slider.press("Home")
        button.press("Enter")
        moved = "input => input.valueAsNumber > 1"
        figure.page.wait_for_function(moved, arg=slider.element_handle())
        button.press("Enter")
        assert button.inner_text() == "Play"


@every_figure
def test_a_picture_is_named_for_those_who_do_not_see_it(figure):
    pictures = figure.locator("[role=img]").all()
    assert pictures
    assert all(len(picture.get_attribute("aria-label") or "") > 30 for picture in pictures)


@every_figure
def test_the_numbers_in_a_page_are_few(chapters, name):
    start = f'<script type="application/json" id="explorer-data-{name}">'
    _, _, after = chapters[name].read_text(encoding="utf-8").partition(start)
    assert 100 < len(after.partition("</script>")[0]) < LARGEST


@pytest.mark.parametrize("name", ["posterior"])
def test_of_two_dots_the_one_that_was_taken_moves(figure):
    choose(figure, "known")
    page, sliders = figure.page, figure.locator("input[type=range]")
    slide(figure, 1, "1")
    slide(figure, 2, "1")
    for kind, other in (("noisy", 2), ("data", 1)):
        unmoved = sliders.nth(other).get_attribute("aria-valuetext")
        dot = figure.locator(f"circle.{kind}")
        dot.scroll_into_view_if_needed()
        before = dot.bounding_box()
        x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 60, y)
        page.mouse.move(x - 120, y - 40)
        page.mouse.up()
        assert dot.bounding_box()["x"] == pytest.approx(before["x"] - 120, abs=6)
        assert sliders.nth(other).get_attribute("aria-valuetext") == unmoved


# --- The numbers are the library's ----------------------------------------------------------------


def circle_numbers(figure):
    """σ, a, b, a² + b² and η of a step, at a share of the largest σ."""
    for schedule, t, share in (("linear", 2, np.sin(np.pi / 10)), ("cosine", 20, 0.5)):
        before, here = explorers.SCHEDULES[schedule].alpha_bar[t - 1 : t + 1]
        sigma = share * np.sqrt(1 - before)
        choose(figure, schedule)
        slide(figure, 0, str(t))
        slide(figure, 1, f"{100 * share:.3g} %")
        eta = sigma / cf.ddim_sigma(1.0, before, here)
        assert said(figure) == close([sigma, *cf.noise_mixture(before, sigma), 1, eta])


def noise_numbers(figure):
    noise = GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    x = torch.linspace(-3, 3, 121, dtype=torch.float64)[:, None]
    for t in (10, 200, 430):
        level = LINEAR.alpha_bar[t]
        law = HEAPS.at(level)
        slide(figure, 0, str(t))
        lost = exact.kl(exact.of_target(law), noise)
        assert said(figure) == close([level, cf.snr(level), lost])
        density = law.log_prob(x).exp().numpy()
        lowest, highest = density.min(), density.max()
        drawn = curve(figure, "noisy")
        assert drawn == pytest.approx((density - lowest) / (highest - lowest), abs=5e-3)
    # The dots are draws: each keeps its data and its noise.
    ends = figure.locator("path.line.noisy").evaluate(
        "path => [path.getBBox().x, path.getBBox().width]"
    )

    def dots(t):
        slide(figure, 0, str(t))
        places = figure.locator("circle.dot").evaluate_all(
            "dots => dots.map((dot) => dot.cx.baseVal.value)"
        )
        return 6 * (np.array(places) - ends[0]) / ends[1] - 3

    x_0, last = dots(0), dots(1000)
    eps = cf.eps_from_x_0(last, x_0, LINEAR.alpha_bar[1000])
    assert abs(np.abs(x_0) - 1).max() < 0.5
    assert 0.8 < eps.std() < 1.2
    for t in (100, 430):
        assert dots(t) == pytest.approx(cf.noised(x_0, eps, LINEAR.alpha_bar[t]), abs=5e-3)


def posterior_numbers(figure):
    for t, stride, x_t, x_0 in ((250, 100, 0.2, 1.0), (110, 1, -1.3, 2.0), (990, 20, 3.0, -0.4)):
        before, here = LINEAR.alpha_bar[t - stride], LINEAR.alpha_bar[t]
        choose(figure, stride)
        slide(figure, 0, str(t))
        slide(figure, 1, f"{x_t:g}".replace("-", "\N{MINUS SIGN}"))
        choose(figure, "known")
        slide(figure, 2, f"{x_0:g}".replace("-", "\N{MINUS SIGN}"))
        law = cf.posterior(x_t, x_0, before, here)
        weights = (cf.posterior_mean(*unit, before, here) for unit in ((1, 0), (0, 1)))
        assert said(figure) == close([t - stride, law.mean, *weights, law.variance])

        choose(figure, "unknown")
        observed = torch.tensor([x_t], dtype=torch.float64)
        kernel = HEAPS.reverse_kernel(observed, before, here)
        heaps = exact.of_target(HEAPS.reverse_kernel(observed, 1.0, here))
        chance = float(heaps.mass[heaps.x > 0].sum())
        s, mean, shown = said(figure)
        assert (s, mean) == close((t - stride, float(kernel.mean)))
        assert shown == pytest.approx(chance, rel=6e-3, abs=1e-4)
        x = torch.linspace(-3, 3, 481, dtype=torch.float64)[:, None]
        density = kernel.log_prob(x).exp().numpy()
        assert curve(figure, "step") == pytest.approx(density / density.max(), abs=8e-3)


def schedules_numbers(figure):
    names = {
        "linear": LINEAR,
        "scaled linear": NoiseSchedule.scaled_linear(),
        "cosine": NoiseSchedule.cosine(),
        "sigmoid": NoiseSchedule.sigmoid(),
        "linear, zero terminal": LINEAR.zero_terminal(),
    }
    assert [name.strip() for name in figure.locator("tbody th").all_inner_texts()] == list(names)
    for S, shown, t in ((1000, "270", 270), (1000, "1000", 1000), (20, "490", 500)):
        choose(figure, S)
        slide(figure, 0, shown)
        kept = [schedule.strided(S) for schedule in names.values()]
        entry = kept[0].times.tolist().index(t)
        tables = [[k.snr, k.alpha_bar, k.beta, k.posterior_variance] for k in kept]
        expected = [float(table[entry]) for four in tables for table in four]
        assert said(figure) == pytest.approx(expected, rel=6e-3, abs=1e-30)


def film_numbers(figure):
    model, schedule, _ = load_pretrained("digits", device="cpu")
    x_T = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    steps = []
    samplers.ddim(model, schedule.strided(50), x_T, callback=steps.append)
    pixels = """reel => [...reel.querySelectorAll("canvas")].flatMap((screen) =>
        [...screen.getContext("2d").getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 === 0))"""
    for number, t in ((20, 600), (44, 120)):
        slide(figure, 0, str(t))
        assert said(figure) == close([number, schedule.alpha_bar[t]])
        expected = steps[number - 1].x_s, steps[number].x_0
        for reel, images in zip(figure.locator(".explorer-reel").all(), expected, strict=True):
            assert f"t = {t}" in reel.get_attribute("aria-label")
            seen = torch.tensor(reel.evaluate(pixels)) / 127.5 - 1
            assert (seen - images.clamp(-1, 1).flatten()).abs().max() < 0.02


def eta_numbers(figure):
    truth = exact.of_target(HEAPS, reach=7.0)
    x = explorers.numbers("eta")["x"]
    for noise, S in (("0.3", 20), ("1", 5), ("\u03c3\u0302", 50)):
        kept = LINEAR.strided(S, "linspace")
        if noise == "\u03c3\u0302":
            law = exact.ddpm(HEAPS, kept, variance="beta", reach=7.0)
        else:
            law = exact.ddim(HEAPS, kept, eta=float(noise), reach=7.0)
        best = exact.wasserstein(exact.ddim(HEAPS, kept, reach=7.0), truth)
        slide(figure, 0, noise)
        slide(figure, 1, str(S))
        distance, smallest = figure.locator(".explorer-readout dd").all_inner_texts()
        assert float(distance) == close(exact.wasserstein(law, truth))
        assert smallest.startswith("\u03b7 = 0: ")
        assert float(smallest.split(": ")[1]) == close(best)
        density = np.interp(x, law.x, law.density, left=0, right=0)
        assert curve(figure, "step") == pytest.approx(density / density.max(), abs=8e-3)


def bound_numbers(figure):
    generator = torch.Generator().manual_seed(0)
    x_0 = HEAPS.sample(20_000, generator)
    truth = exact.of_target(HEAPS)
    for variance, S, t in (("posterior", 10, 300), ("beta", 20, 100), ("beta", 20, 50)):
        kept = LINEAR.strided(S)
        choose(figure, variance)
        choose(figure, S)
        slide(figure, 0, str(t))
        term, down, total, likelihood, gap = said(figure)
        drawn = objectives.bound(
            HEAPS.model(kept), kept, x_0, variance=variance, generator=generator
        )
        entry = kept.times.tolist().index(t) - 1
        parts = drawn.terms[:, entry], drawn.terms[:, entry:].sum(1), drawn.total
        for shown, sample in zip((term, down, total), parts, strict=True):
            mean, error = drawn.mean_and_error(sample)
            assert shown == pytest.approx(float(mean), abs=5 * float(error) + 5e-3 * abs(shown))
        law = exact.ddpm(HEAPS, kept, variance=variance)
        noised = cf.normal_log_density(truth.x[:, None], law.x, float(kept.beta[1]))
        log_density = (noised + law.mass.log()).logsumexp(1)
        assert likelihood == pytest.approx(-float(truth.mass @ log_density), abs=2e-4)
        assert gap == pytest.approx(total - likelihood, abs=1e-3)


def path_numbers(figure):
    heaps = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.04]], [[0.01]]])
    for S, code in ((5, 1.2), (20, -0.6), (100, 0.3)):
        kept = LINEAR.strided(S)
        network = heaps.model(kept)
        choose(figure, S)
        slide(figure, 0, f"{code:g}".replace("-", "\N{MINUS SIGN}"))
        x_T, steps = torch.tensor([[code]], dtype=torch.float64), []
        x_0 = samplers.ddim(network, kept, x_T, callback=steps.append)
        again = samplers.encode(network, kept, x_0)
        back = samplers.ddim(network, kept, again)
        *shown, miss = said(figure)
        values = [float(x) for x in (x_T, x_0, again, back)]
        assert shown == pytest.approx(values, rel=6e-3, abs=6e-4)
        assert miss == pytest.approx(abs(values[3] - values[1]), rel=0.06)
        height = torch.cat([x_T, *(step.x_s for step in steps)])[:: max(1, S // 20), 0].numpy()
        share = (height - height.min()) / (height.max() - height.min())
        assert curve(figure, "noisy") == pytest.approx(share, abs=2e-2)


def codes_numbers(figure):
    network, schedule, _ = load_pretrained("digits", device="cpu")
    kept, digits = schedule.strided(15), data.digits()
    corners = samplers.encode(network, kept, digits[[0, 12, 3, 18]])
    stored = explorers.numbers("codes")
    for across, down in ((4, 3), (0, 5)):
        above, below = (
            samplers.interpolate(*edge.split(1), across / 6) for edge in corners.split(2)
        )
        code = samplers.interpolate(above, below, down / 6)
        picture = samplers.ddim(network, kept, code)
        place = 7 * down + across
        pixels = base64.b64decode(stored["codes"]["pixels"])[64 * place : 64 * (place + 1)]
        seen = torch.tensor(list(pixels)) / 127.5 - 1
        assert (seen - picture.clamp(-1, 1).flatten()).abs().max() < 0.02
        distances = torch.cdist(picture.flatten(1), digits.flatten(1))[0]
        choose(figure, "codes")
        slide(figure, 0, f"{across} of 6")
        slide(figure, 1, f"{down} of 6")
        label = int(data.digit_labels()[distances.argmin()])
        assert said(figure) == [label, pytest.approx(float(distances.min()), abs=0.02)]
        choose(figure, "pixels")
        edges = [digits[i].lerp(digits[j], across / 6) for i, j in ((0, 12), (3, 18))]
        blend = edges[0].lerp(edges[1], down / 6)
        nearest = torch.cdist(blend.flatten(1), digits.flatten(1)).min()
        assert said(figure)[1] == pytest.approx(float(nearest), abs=0.02)


NUMBERS = {
    "circle": circle_numbers,
    "eta": eta_numbers,
    "bound": bound_numbers,
    "path": path_numbers,
    "codes": codes_numbers,
    "noise": noise_numbers,
    "posterior": posterior_numbers,
    "schedules": schedules_numbers,
    "film": film_numbers,
}


@every_figure
def test_the_numbers_shown_are_the_library_s(figure, name):
    NUMBERS[name](figure)
