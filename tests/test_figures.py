"""A figure is stored with its alternative text, in the same bytes each time."""

import matplotlib
import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from diffusion_lib import figures


@pytest.fixture
def published(monkeypatch):
    """What a notebook would store."""
    shell = InteractiveShell.instance()
    publisher = CapturingDisplayPublisher()
    monkeypatch.setattr(shell, "display_pub", publisher)
    yield publisher.outputs
    InteractiveShell.clear_instance()


def curve():
    figure, axes = figures.subplots(figsize=(3, 2))
    axes.plot([0, 1], [1, 0], color=figures.DATA)
    return figure


def test_figure_and_caption_are_stored_with_the_alternative_text(published):
    figures.show(curve(), alt="A falling line.", caption="**Why?** It falls.")
    picture, caption = published
    assert picture["data"]["text/plain"] == "A falling line."
    assert picture["metadata"]["image/png"] == {"alt": "A falling line.", "width": 300}
    assert caption["data"]["text/markdown"] == "**Why?** It falls."


def test_the_same_figure_is_the_same_bytes():
    assert figures.png(curve()) == figures.png(curve())


def settings():
    return {name: matplotlib.rcParams[name] for name in figures.style()}


def test_the_callers_settings_come_back_when_a_figure_is_drawn():
    before = settings()
    first, second = curve(), curve()
    assert settings() == figures.style() != before
    pictures = figures.png(first), figures.png(second)
    assert settings() == before
    assert pictures[0] == pictures[1], "the second is drawn in the book's style too"


def test_a_figure_without_words_is_refused():
    with pytest.raises(ValueError, match="alt = ' '"):
        figures.show(Figure(), alt=" ")


def test_a_fading_colour_begins_transparent_and_ends_as_itself():
    fading = figures.fade(figures.NOISE)
    assert fading(0.0)[3] == 0
    assert to_hex(fading(1.0)) == figures.NOISE
    assert to_hex(fading(0.5)) == figures.NOISE, "only the opacity changes"
