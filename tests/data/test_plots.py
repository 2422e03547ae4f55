"""What a panel is, wherever it is shown."""

import re
from xml.etree import ElementTree

from glm_jax.data.plots import COLOURS, Series, curves, histograms, intervals

HOSTILE = '<b style="color: red; x: y">&"'


def panels():
    band = {"low": [1, 1, None], "high": [3, 4, None]}
    series = Series(label=HOSTILE, colour="ppo", x=[0, 1, 2], y=[2, 3, None], **band)
    counts = Series(label="", colour="dpo", x=[0, 1, 2], y=[5, 0])
    yield curves(HOSTILE, [series], x=HOSTILE, at=1, named=[(0.5, HOSTILE)])
    yield intervals(HOSTILE, ["a", HOSTILE, "c"], [series], x="%", zero=50)
    yield histograms("Time", [counts], x="s")


def test_panels_are_inline_svg_without_styles_or_colours_of_their_own():
    for panel in panels():
        root = ElementTree.fromstring(panel.svg)
        assert root.tag == "svg" and root[0].tag == "title" and root[0].text.startswith(panel.title)
        elements = list(root.iter())
        assert not {"b", "style", "script"} & {element.tag for element in elements}
        assert not [element for element in elements if element.get("style")]
        assert [e for e in elements if e.get("stroke", "").startswith("var(--")]
        assert not re.search("|".join(COLOURS.values()), panel.svg)


def test_the_same_numbers_give_the_same_bytes():
    assert [panel.svg for panel in panels()] == [panel.svg for panel in panels()]


def test_nothing_to_draw_is_no_panel():
    empty = Series(label="", colour="ppo", x=[None], y=[0])
    assert curves("", [empty], x="") is None
    assert intervals("", ["a"], [empty], x="") is None
    assert histograms("", [Series(label="", colour="ppo", x=[0, 1], y=[0])], x="") is None
