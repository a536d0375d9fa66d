"""SVGs whose drawing would take too much are refused or drawn coarsely; ordinary ones are drawn as they are."""

from pathlib import Path

import pytest
from PIL import Image

from tests.galleries import write
from tests.mechanism.performing import Bench, outputs, step, warnings
from workers.images import drawing

PAGE = '<rect width="3000" height="3000" fill="#36c"{}/>'


def page(body: str) -> bytes:
    """Returns a drawing of 3,000 x 3,000."""
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="3000" height="3000">{body}</svg>'.encode()


def _doubled(times: int) -> str:
    groups = (f'<g id="a{at + 1}">' + f'<use href="#a{at}"/>' * 10 + "</g>" for at in range(times))
    return f'<defs><g id="a0"><path d="M0 0h9v9"/></g>{"".join(groups)}</defs><use href="#a{times}"/>'


def _filtered(primitives: str, attributes: str = "") -> str:
    return f'<filter id="f" {attributes}>{primitives}</filter>' + PAGE.format(' filter="url(#f)"')


def _masks(count: int) -> str:
    white = '<rect width="3000" height="3000" fill="#fff"/>'
    return "".join(f'<mask id="m{at}" mask="url(#m{at + 1})">{white}</mask>' for at in range(count))


BOMBS = {
    "use": (_doubled(9), "too_large", "drawn is 200,000"),
    "use-of-500,000": (_doubled(6), "too_large", "drawn is 200,000"),
    "masks": (_masks(60) + PAGE.format(' mask="url(#m0)"'), "too_large", "122 pictures"),
    "groups": ('<g opacity=".9">' * 200 + PAGE.format("") + "</g>" * 200, "too_large", "200 pictures"),
    "classes": (
        "<style>.a, p > .b {mask:url(#m0)}</style>" + _masks(1) + '<g class="b">' * 99 + PAGE.format("") + "</g>" * 99,
        "too_large", "pictures",
    ),
    "blurs": (_filtered('<feGaussianBlur stdDeviation="9"/>' * 200), "too_large", "s of drawing"),
    "octaves": (_filtered('<feTurbulence baseFrequency=".1" numOctaves="900"/>'), "too_large", "s of drawing"),
    "kernel": (_filtered('<feConvolveMatrix order="60"/>'), "too_large", "s of drawing"),
    "radius": (_filtered('<feMorphology radius="400"/>'), "too_large", "s of drawing"),
    "cycle": ('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>', "unsupported", "#b draws itself"),
    "elements": ("<g/>" * (drawing.ELEMENTS + 1), "too_large", "elements is 250,000"),
    "path": (f'<path d="{"M0 0L9 9" * 600_000}"/>', "too_large", "path is 4,194,304"),
    "text": (f"<text>{'word ' * 120_000}</text>", "too_large", "text is 500,000"),
    "rules": ("<style>" + "a b{fill:red}" * 5_000 + "</style>" + "<g/>" * 2_000, "too_large", "rule_matches"),
    "deep": ("<g>" * 300 + "</g>" * 300, "corrupt", "deeper than 255"),
    "unended": ("<g>", "corrupt", "broken SVG"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_takes_too_much_is_refused_with_its_figures(tmp_path: Path, name: str) -> None:
    body, kind, says = BOMBS[name]
    report = Bench(tmp_path).run(write(tmp_path, "bomb.svg", page(body)), step("thumbnail", sizes=[1024, 2048]))
    assert report.error is not None and (report.error.kind, says in report.error.message) == (kind, True), report.error


SHADOW = '<filter id="s"><feDropShadow dx="20" dy="20" stdDeviation="12"/></filter>'
GRADIENT = '<linearGradient id="g"><stop stop-color="#f00"/><stop offset="1" stop-color="#00f"/></linearGradient>'
MASK = '<mask id="m"><circle cx="2200" cy="800" r="500" fill="#fff"/></mask>'
DOTS = '<pattern id="p" width=".1" height=".1"><circle cx="60" cy="60" r="40"/></pattern>'
ORDINARY = (
    f'<defs>{SHADOW}{GRADIENT}{MASK}{DOTS}<g id="u"><circle r="200" fill="#090"/></g></defs>'
    '<rect width="3000" height="3000" fill="#fff"/>'
    '<rect x="200" y="300" width="1000" height="1000" fill="url(#g)" filter="url(#s)"/>'
    '<rect x="1600" y="200" width="1200" height="1200" fill="#c00" mask="url(#m)"/>'
    '<g opacity=".5" transform="translate(600 2200)"><use href="#u"/><use href="#u" x="150"/></g>'
    '<rect x="1700" y="1700" width="1200" height="1200" fill="url(#p)"/>'
)


def test_an_ordinary_drawing_is_drawn_at_its_size(tmp_path: Path) -> None:
    report = Bench(tmp_path).run(
        write(tmp_path, "p.svg", page(ORDINARY)), step("thumbnail", sizes=[1_500], format="png")
    )
    assert report.error is None and not warnings(report), (report.error, warnings(report))
    with Image.open(outputs(report)[0]["path"]) as made:
        seen = made.convert("RGB")
    assert seen.size == (1_500, 1_500)
    red, blue = seen.getpixel((120, 400)), seen.getpixel((580, 400))
    assert isinstance(red, tuple) and isinstance(blue, tuple) and red[0] > 200 > 60 > red[2] and blue[2] > 200
    assert seen.getpixel((1_100, 400)) == (204, 0, 0) and seen.getpixel((820, 120)) == (255, 255, 255)  # the mask
    shadow, half = seen.getpixel((606, 400)), seen.getpixel((300, 1_100))
    assert isinstance(shadow, tuple) and max(shadow) < 250 and half in ((127, 204, 127), (128, 204, 128))
    assert seen.getpixel((880, 880)) == (0, 0, 0)  # the pattern


def test_a_drawing_somewhat_too_costly_is_drawn_coarsely_and_says_so(tmp_path: Path) -> None:
    body = PAGE.format("") + ('<filter id="f"><feGaussianBlur stdDeviation="9"/></filter>'
                              + '<g filter="url(#f)"><path fill="#fff" d="M0 0h1500v3000H0"/></g>' * 8)  # fmt: skip
    report = Bench(tmp_path).run(write(tmp_path, "p.svg", page(body)), step("thumbnail", sizes=[2_048], format="png"))
    assert report.error is None and any("drawn at" in told for told in warnings(report)), report.error
    with Image.open(outputs(report)[0]["path"]) as made:
        assert made.size == (2_048, 2_048)
        left, right = (made.convert("RGB").getpixel((x, 1_000)) for x in (400, 1_600))
    assert left == (255, 255, 255) and right == (51, 102, 204)


def test_a_small_filtered_shape_costs_its_own_region(tmp_path: Path) -> None:
    blur = '<filter id="f"><feGaussianBlur stdDeviation="3"/></filter>'
    small = drawing.read("p", page(blur + '<circle r="60" filter="url(#f)"/>' * 50))
    grown = drawing.read(
        "p", page(blur + '<g transform="scale(50)">' + '<circle r="60" filter="url(#f)"/>' * 50 + "</g>")
    )
    assert small.ns_pixel * 10 < grown.ns_pixel and small.fitted((1_500, 1_500)) == (1_500, 1_500)
