"""What drawing an SVG takes, told by its elements without drawing or expanding any.

An element may be drawn a thousand million times by a few lines of `use`, and a picture as large as the page is made
anew for each group that is transparent as a whole, for each mask, each pattern, each step of a filter. So the document
is read as a graph: what has a name is a node, and what it holds or refers to are its edges; each node is summed up
once. Regions are taken for as large as the page, except of shapes that tell their own: the figures are upper bounds.
Nanoseconds are those of librsvg, measured at 1 to 4 megapixels.
"""

import re
from typing import Final
from xml.parsers import expat

import msgspec

from workers.errors import Verdict

ELEMENTS: Final = 250_000
"""Of a document. The largest maps of countries have some 50,000."""
DRAWN: Final = 200_000
"""Elements drawn, each as often as it is used: 8 to 80 microseconds for each."""
PATH_BYTES: Final = 4 * 1024 * 1024
TEXT_BYTES: Final = 500_000
DEPTH: Final = 255
"""As libxml2 has it."""
RULE_MATCHES: Final = 5_000_000
"""Rules of its style sheets, times its elements."""
DRAWING_NS: Final = 1_200_000_000
"""What filters, masks and the like of one picture may take, by the figures below."""
LAYERS_BYTES: Final = 100_000_000
_LEAST_SHARE: Final = 0.25
_TILE_PIXELS: Final = 2_000
"""libvips draws by squares of this side: a page that fits one is not drawn four times."""
_BYTES_A_LETTER: Final = 300
_ROOT: Final = ""
_MOST: Final = 1 << 50
_HIDDEN: Final = frozenset({
    "defs", "symbol", "clipPath", "mask", "pattern", "filter", "marker", "linearGradient", "radialGradient", "style",
    "metadata", "title", "desc",
})  # fmt: skip
_REFERS: Final = re.compile(r"(filter|mask|clip-path|fill|stroke|marker(?:-\w+)?)\s*:\s*([^;]*)")
_PLACE: Final = re.compile(r"url\(\s*[\"']?#([^)\"']+)")
_OPACITY: Final = re.compile(r"(?<![\w-])opacity\s*:\s*([\d.eE+-]+%?)")
_ISOLATED: Final = re.compile(r"mix-blend-mode\s*:\s*(?!normal)|isolation\s*:\s*isolate")
_RULE: Final = re.compile(r"([^{}]*)\{([^{}]*)\}")
_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_RIGID: Final = re.compile(r"\s*(?:(?:translate|rotate)\([^)]*\)[\s,]*)*$")
_PROPERTIES: Final = ("filter", "mask", "clip-path", "fill", "stroke", "marker-start", "marker-mid", "marker-end")
_SHARED: Final = 1.44
"""How much larger than its object a filter's region is unless it says so: a tenth to each side."""

_LAYER_NS, _MASK_NS, _PATTERN_NS, _FILTER_NS = 0.4, 5.5, 1.0, 2.0
"""A pixel of the page, for each group, mask, pattern and filter; its primitives below."""
_PRIMITIVES: Final = {
    "feFlood": 1.0, "feOffset": 5.0, "feTile": 5.0, "feImage": 30.0, "feBlend": 25.0, "feComposite": 25.0,
    "feMergeNode": 22.0, "feMerge": 1.0, "feComponentTransfer": 35.0, "feColorMatrix": 45.0,
    "feDiffuseLighting": 65.0, "feSpecularLighting": 80.0, "feGaussianBlur": 150.0, "feDropShadow": 200.0,
    "feTurbulence": 65.0, "feMorphology": 30.0, "feConvolveMatrix": 8.0, "feDisplacementMap": 750.0,
}  # fmt: skip
_OCTAVE_NS: Final = 17.0
_MOST_RADIUS: Final = 1_000.0


class Drawing(msgspec.Struct, frozen=True):
    """`ns_pixel`: nanoseconds for each pixel of the page, beside what every element takes; `layers`: pictures as large
    as the page that are held at once; `drawn`: elements, each as often as it is drawn."""

    ns_pixel: float
    layers: int
    drawn: int
    text_bytes: int

    def fitted(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Returns the size in pixels to draw at so that the page is `size` once it is enlarged: that size itself where
        time and memory allow; None where a quarter of its sides would still be too much."""
        share = min(1.0, DRAWING_NS / self._ns(size), LAYERS_BYTES / (self._held_bytes(size) or 1))
        if share == 1.0:
            return size
        for shrunk in (min(1.0, _TILE_PIXELS / max(size)), max(_LEAST_SHARE, share**0.5)):
            found = max(1, int(size[0] * shrunk)), max(1, int(size[1] * shrunk))
            if self._ns(found) <= DRAWING_NS and self._held_bytes(found) <= LAYERS_BYTES:
                return found
        return None

    def inside_bytes(self, size: tuple[int, int]) -> int:
        """Returns what is held beside the picture while it is drawn at `size`: its layers and the letters' shapes."""
        return self._held_bytes(size) + self.text_bytes * _BYTES_A_LETTER

    def told(self, size: tuple[int, int]) -> str:
        """Returns the figures for a message."""
        layers = f"{self.layers:,} pictures of the page held at once"
        return f"about {self._ns(size) / 1e9:,.0f} s of drawing, and {layers}"

    def _ns(self, size: tuple[int, int]) -> float:
        tiles = -(-size[0] // _TILE_PIXELS) * -(-size[1] // _TILE_PIXELS)
        return max(1.0, self.ns_pixel * size[0] * size[1] * tiles)

    def _held_bytes(self, size: tuple[int, int]) -> int:
        return self.layers * 4 * size[0] * size[1]


class _Node:
    """What one name stands for: of it alone, and what else it draws, with the layers that are open there."""

    __slots__ = ("drawn", "edges", "layers", "ns")

    def __init__(self) -> None:
        self.drawn, self.layers, self.ns = 0, 0, 0.0
        self.edges: dict[tuple[str, int], float] = {}


class _Open:
    """An element that was begun and not ended."""

    __slots__ = ("layers", "name", "node", "rigid", "tag")

    def __init__(self, tag: str, name: str, node: _Node, layers: int, rigid: bool) -> None:
        self.tag, self.name, self.node, self.layers, self.rigid = tag, name, node, layers, rigid


def read(shown: str, content: bytes) -> Drawing:
    """Returns what drawing the document takes. Raises Verdict: too_large above a bound, corrupt where it is no XML,
    unsupported where elements draw themselves."""
    reader = _Reader(shown)
    parser = expat.ParserCreate(namespace_separator=None)
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Verdict("corrupt", f"{shown} is a broken SVG: {error}") from error
    return reader.summed()


class _Reader:
    """Builds the graph while the document is read."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._nodes: dict[str, _Node] = {_ROOT: _Node()}
        self._open: list[_Open] = []
        self._elements = self._text_bytes = 0
        self._side = 0.0
        self._styles: list[str] = []
        self._rules: dict[str, str] = {}
        self._rule_count = 0

    def start(self, tag: str, told: dict[str, str]) -> None:
        """Takes the beginning of an element."""
        self._elements += 1
        tag = tag.rpartition(":")[2]
        if self._elements > ELEMENTS:
            raise self._too_large(f"more than {ELEMENTS:,} elements", "elements", ELEMENTS)
        if len(self._open) >= DEPTH:
            raise Verdict("corrupt", f"{self._shown} is a broken SVG: elements nested deeper than {DEPTH}")
        if len(path := told.get("d", told.get("points", ""))) > PATH_BYTES:
            raise self._too_large(f"a path of {len(path):,} bytes", "path", PATH_BYTES)
        if not self._open:
            self._side = _longest(told)
        self._enter(tag, told)

    def end(self, tag: str) -> None:
        """Takes the end of an element."""
        ended = self._open.pop()
        if ended.tag == "style":
            self._take_rules("".join(self._styles))
            self._styles.clear()

    def text(self, words: str) -> None:
        """Takes what stands between elements."""
        tag = self._open[-1].tag
        if tag == "style":
            self._styles.append(words)
        elif tag in ("text", "tspan", "textPath", "tref", "a"):
            self._text_bytes += len(words)
            if self._text_bytes > TEXT_BYTES:
                raise self._too_large(f"more than {TEXT_BYTES:,} characters of text", "text", TEXT_BYTES)

    def _enter(self, tag: str, told: dict[str, str]) -> None:
        above = self._open[-1] if self._open else None
        name = told.get("id", "")
        node = above.node if above else self._nodes[_ROOT]
        layers = above.layers if above else 0
        named = bool(name) and name not in self._nodes
        if named or tag in _HIDDEN:
            key = name if named else f"\0{self._elements}"
            inner = self._nodes[key] = _Node()
            if tag not in _HIDDEN:
                node.edges[key, layers] = node.edges.get((key, layers), 0) + 1
            node, layers = inner, 0
        rigid = (above.rigid if above else True) and _RIGID.match(told.get("transform", "")) is not None
        rigid = rigid and not (above and tag in ("svg", "symbol"))
        if tag == "pattern":
            node.ns, node.layers = _PATTERN_NS, 1
        node.drawn += 1
        layers += self._effects(node, layers, tag, told, rigid)
        node.layers = max(node.layers, layers)
        self._open.append(_Open(tag, name, node, layers, rigid))

    def _effects(self, node: _Node, layers: int, tag: str, told: dict[str, str], rigid: bool) -> int:
        """Adds what an element refers to; returns how many layers it opens for what it holds."""
        if tag in _PRIMITIVES:
            node.ns += self._primitive_ns(tag, told)
            node.layers += "result" in told  # a result that has a name is held to the filter's end
            return 0
        if tag in ("use", "feImage", "tref", "textPath", "pattern", "filter", "linearGradient", "radialGradient"):
            href = told.get("href") or next((told[key] for key in told if key.endswith(":href")), "")
            if href.startswith("#"):
                self._refer(node, href[1:], layers, 1.0)
        if tag == "filter":
            return 0
        opened = 0
        style = told.get("style", "") + self._by_rules(tag, told)
        if not _opaque(told.get("opacity", "1"), *_OPACITY.findall(style)) or _ISOLATED.search(style):
            node.ns += _LAYER_NS
            opened = 1
        pairs = [(key, told[key]) for key in _PROPERTIES if "url(" in told.get(key, "")]
        pairs += _REFERS.findall(style) if "url(" in style else []
        for key, value in pairs:
            for place in _PLACE.findall(value):
                opened += self._refer_by(node, key, place, layers + opened, tag, told, rigid)
        return opened

    def _refer_by(
        self, node: _Node, key: str, place: str, layers: int, tag: str, told: dict[str, str], rigid: bool
    ) -> int:
        if key == "filter":
            node.ns += _FILTER_NS
            self._refer(node, place, layers + 3, self._share(tag, told) if rigid else 1.0)
            return 3
        if key == "mask":
            node.ns += _MASK_NS
            self._refer(node, place, layers + 2, 1.0)
            return 2
        self._refer(node, place, layers, 1.0)
        return 0

    @staticmethod
    def _refer(node: _Node, place: str, layers: int, share: float) -> None:
        node.edges[place, layers] = node.edges.get((place, layers), 0) + share

    def _share(self, tag: str, told: dict[str, str]) -> float:
        """Which part of the page a shape takes that is filtered, 1 where it does not tell."""
        try:
            if tag in ("rect", "image"):
                wide, high = float(told["width"]), float(told["height"])
            elif tag == "circle":
                wide = high = 2 * float(told["r"])
            elif tag == "ellipse":
                wide, high = 2 * float(told["rx"]), 2 * float(told["ry"])
            else:
                return 1.0
        except (KeyError, ValueError):
            return 1.0
        return min(1.0, _SHARED * wide * high / self._side**2) if self._side else 1.0

    def _primitive_ns(self, tag: str, told: dict[str, str]) -> float:
        each = _PRIMITIVES[tag]
        if tag == "feTurbulence":
            return each + _OCTAVE_NS * _number(told.get("numOctaves", "1"))
        if tag == "feConvolveMatrix":
            order = [float(found) for found in _NUMBER.findall(told.get("order", "3"))][:2] or [3.0]
            return each * abs(order[0] * order[-1])
        if tag == "feMorphology":
            radius = _number(told.get("radius", "0")) * max(1.0, 2_048 / self._side if self._side else 1.0)
            return each * max(3.0, min(radius, _MOST_RADIUS))
        return each

    def _take_rules(self, sheet: str) -> None:
        for selectors, declared in _RULE.findall(sheet):
            self._rule_count += selectors.count(",") + 1
            if "url(" in declared or "opacity" in declared or "isolation" in declared or "blend" in declared:
                for selector in selectors.split(","):
                    last = re.split(r"[\s>+~]+", selector.strip())[-1]
                    key = re.split(r"[:\[]", last)[0].rpartition(".")
                    key = "." + key[2] if key[1] else key[2]
                    self._rules[key] = self._rules.get(key, "") + ";" + declared

    def _by_rules(self, tag: str, told: dict[str, str]) -> str:
        if not self._rules:
            return ""
        keys = [tag, "*", "#" + told.get("id", ""), *("." + each for each in told.get("class", "").split())]
        return "".join(";" + self._rules[key] for key in keys if key in self._rules)

    def summed(self) -> Drawing:
        """Returns the sums over the graph. Raises Verdict."""
        if (matches := self._rule_count * self._elements) > RULE_MATCHES:
            raise self._too_large(f"{matches:,} rules times elements", "rule_matches", RULE_MATCHES)
        done: dict[str, tuple[int, float, int]] = {}
        waiting, under = [_ROOT], set[str]()
        while waiting:
            key = waiting[-1]
            node = self._nodes[key]
            if key not in done and key not in under:
                under.add(key)
                for place, _ in node.edges:
                    if place in under:
                        raise Verdict("unsupported", f"{self._shown} is an SVG whose element #{place} draws itself")
                    if place in self._nodes and place not in done:
                        waiting.append(place)
                if waiting[-1] != key:
                    continue
            waiting.pop()
            if key not in done:
                under.discard(key)
                done[key] = self._sum(node, done)
        drawn, ns, layers = done[_ROOT]
        if drawn > DRAWN:
            shown = f"{drawn:,}" if drawn < _MOST else f"more than {_MOST:,}"
            raise self._too_large(f"{shown} elements to draw, each as often as it is used", "drawn", DRAWN)
        return Drawing(ns, layers, drawn, self._text_bytes)

    @staticmethod
    def _sum(node: _Node, done: dict[str, tuple[int, float, int]]) -> tuple[int, float, int]:
        drawn, ns, layers = node.drawn, node.ns, node.layers
        for (place, at), share in node.edges.items():
            if place in done:
                inner = done[place]
                drawn += inner[0] * max(1, round(share))
                ns += inner[1] * share
                layers = max(layers, at + inner[2])
        return min(drawn, _MOST), min(ns, float(_MOST)), min(layers, _MOST)

    def _too_large(self, what: str, name: str, limit: int) -> Verdict:
        return Verdict("too_large", f"{self._shown} is an SVG of {what}; the limit {name} is {limit:,}")


def _longest(told: dict[str, str]) -> float:
    """The longest side of the page in its own units, 0 where it is not told."""
    box = [float(found) for found in _NUMBER.findall(told.get("viewBox", ""))]
    if len(box) == 4:
        return max(box[2:])
    sides = [told.get(side, "") for side in ("width", "height")]
    return 0.0 if any("%" in side for side in sides) else max(map(_number, sides))


def _number(told: str) -> float:
    found = _NUMBER.search(told)
    return abs(float(found[0])) if found else 0.0


def _opaque(*told: str) -> bool:
    return all((_number(each) / (100 if each.endswith("%") else 1)) >= 1 for each in told)
