"""Finds and reads lines of text in a picture, with the three models that the OCR library brings: a detector, a
classifier of lines that stand on their heads, a recogniser.

The models are the library's, the way through them is ours, because memory is: the detector sees the picture at the size
that memory allows, and the lines are then cut out of the larger picture, so that small letters are read even where the
detector saw them small. Each line is read alone. The library's own way enlarges every picture until its shorter side
has 736 pixels, which makes a strip thousands of pixels wide.

Which way up the lines stand is asked of pieces of each, and of all lines of a page together. The classifier takes
192 columns; the library squeezes the whole line into them, and long lines are then told the wrong way round: of a
page of 32 lines up to 20, by pieces none to two, and those stand against all others of their page.

The thresholds are the library's own.
"""

import math
from typing import Any, NamedTuple

from workers import onnx

FIXED_BYTES = 6_000_000
BYTES_A_PIXEL = 120
"""The detector's peak, as measured: 16 MB at 320 x 320 pixels, 48 MB at 640, 105 MB at 960, 182 MB at 1280."""
BYTES_A_COLUMN = 19_500
"""The recogniser's peak by the width of a line at 48 pixels' height: 27 MB at 1,280 columns, 92 MB at 4,800."""
STEP = 32
"""Sides of what the detector sees are multiples of this."""
MOST_LINES = 1_000
_LINE_HEIGHT = 48
LEAST_COLUMNS, _MOST_COLUMNS = 320, 4_800
_MAP_THRESHOLD, _BOX_THRESHOLD, _TEXT_THRESHOLD = 0.3, 0.5, 0.5
_PIECE_COLUMNS = 192
_PIECES_OF_A_LINE = (0.0, 0.5, 1.0)
"""Pieces at the beginning, the middle and the end of a line."""
_CLEAR, _SURE = 0.9, 0.8
"""How clearly the classifier must speak, and how sure the recogniser must be, for a line to be read one way alone."""
_GROWN = 1.6
_SAME_LINE_PIXELS = 10
_MOST_ENLARGED = 2.0
_ALL_BUT = 0.8
_WIDEST = 8
_LOWEST = 30


class Line(NamedTuple):
    """One line: its text, how sure of it the recogniser is (0 to 1), its corners from the top left clockwise, and by
    how many degrees it is turned clockwise (0, 90, 180, 270)."""

    text: str
    confidence: float
    box: list[tuple[float, float]]
    turned: int = 0


class Reader(NamedTuple):
    """The loaded models."""

    detector: Any
    classifier: Any
    recogniser: Any
    characters: list[str]


def load(detector: str, classifier: str, recogniser: str) -> Reader:
    """Loads the models by their paths. Raises the runtime's own exceptions."""
    onnx.runtime()
    import cv2

    cv2.setNumThreads(1)
    found = onnx.session(recogniser)
    characters = found.get_modelmeta().custom_metadata_map["character"].splitlines()
    reader = Reader(onnx.session(detector), onnx.session(classifier), found, ["", *characters, " "])
    _warm_up(reader)
    return reader


def _warm_up(reader: Reader) -> None:
    """A first picture of nothing: what the libraries keep from their first run on belongs to the models, and would
    otherwise come on top of the first document's share."""
    import numpy

    blank = numpy.full((2 * STEP, LEAST_COLUMNS, 3), 255, "uint8")
    _boxes(reader, blank, LEAST_COLUMNS)
    _recognise(reader, blank, LEAST_COLUMNS, _chance_of_turned(reader, blank), 0.0)


def seen_at(width: int, height: int, side: int) -> tuple[int, int]:
    """Returns the size at which the detector sees a picture where its longest side may have `side` pixels."""
    scale = min(_MOST_ENLARGED, side / max(width, height))
    wide, high = (max(STEP, round(length * scale / STEP) * STEP) for length in (width, height))
    return wide, high


def finding_bytes(width: int, height: int, side: int) -> int:
    """Returns what looking for lines takes at its peak, beside the picture and the models."""
    wide, high = seen_at(*_padded(width, height), side)
    return FIXED_BYTES + BYTES_A_PIXEL * wide * high


def reading_bytes(columns: int) -> int:
    """Returns what reading a line takes at its peak that is `columns` wide at the height the models take."""
    return FIXED_BYTES + BYTES_A_COLUMN * columns


def columns_within(most_bytes: int) -> int:
    """Returns how wide a line may be given to the recogniser with so much memory; never below LEAST_COLUMNS."""
    return max(LEAST_COLUMNS, (most_bytes - FIXED_BYTES) // BYTES_A_COLUMN)


class Found(NamedTuple):
    """Where the lines of a picture stand, and how wide the widest is for the recogniser."""

    pixels: Any
    above: int
    boxes: list[Any]
    columns: int


def find(reader: Reader, pixels: Any, side: int) -> Found:
    """Looks for the lines of a picture (rows, columns, blue-green-red), which takes `finding_bytes`."""
    import cv2

    height, width = pixels.shape[:2]
    above = (_padded(width, height)[1] - height) // 2
    if above:
        pixels = cv2.copyMakeBorder(pixels, above, above, 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    boxes = _boxes(reader, pixels, side)
    if _along(boxes, True) > _along(boxes, False):
        # The page is turned. Upright lines are found too, but with half of their neighbours: the detector learned from
        # level ones.
        level = _boxes(reader, pixels, side, quarter=True)
        boxes = level if _along(level, True) > _ALL_BUT * _along(boxes, True) else boxes
    widest = max((_columns(*_level_size(box)) for box in boxes), default=LEAST_COLUMNS)
    return Found(pixels, above, boxes, min(_MOST_COLUMNS, max(LEAST_COLUMNS, widest)))


def read(reader: Reader, found: Found, columns: int) -> list[Line]:
    """Reads the lines that were found, in order from the top of the page as it is to be held; takes
    `reading_bytes(columns)`; a longer line is read narrower."""
    height = found.pixels.shape[0] - 2 * found.above
    chances = [_chance_of_turned(reader, _cut_out(found.pixels, box)) for box in found.boxes]
    upright = [_upright(*_level_size(box)) for box in found.boxes]
    of_all = {way: _mean([chance for chance, is_so in zip(chances, upright, strict=True) if is_so == way]) for way in (
        False, True,
    )}  # fmt: skip
    lines = []
    for box, chance, stands in zip(found.boxes, chances, upright, strict=True):
        text, confidence, on_its_head = _recognise(reader, _cut_out(found.pixels, box), columns, chance, of_all[stands])
        if confidence >= _TEXT_THRESHOLD and text:
            corners = [(float(x), float(min(max(y - found.above, 0), height))) for x, y in box]
            lines.append(Line(text, confidence, corners, 90 * stands + 180 * on_its_head))
    return in_order(lines)


def turned(lines: list[Line]) -> int:
    """Returns by how many degrees most of the text is turned clockwise: 0, 90, 180 or 270."""
    weights = dict.fromkeys((0, 90, 180, 270), 0.0)
    for line in lines:
        weights[line.turned] += line.confidence * len(line.text)
    return max(weights, key=lambda degrees: weights[degrees])


def _padded(width: int, height: int) -> tuple[int, int]:
    """The size of a picture with what is put above and below a strip, in which the detector finds nothing else."""
    if height > _LOWEST and width <= _WIDEST * height:
        return width, height
    wanted = 2 * max(width // _WIDEST, _LOWEST)
    return width, height + 2 * (abs(wanted - height) // 2)


def _along(boxes: list[Any], upright: bool) -> int:
    """How long all lines that stand upright are together, or all others."""
    sizes = [_level_size(box) for box in boxes]
    return sum(max(size) for size in sizes if _upright(*size) == upright)


def _boxes(reader: Reader, pixels: Any, side: int, *, quarter: bool = False) -> list[Any]:
    """The corners of what may be lines, in the picture's pixels; `quarter`: the detector sees it turned by 90 degrees,
    against the clock."""
    import cv2
    import numpy

    height, width = pixels.shape[:2]
    wide, high = seen_at(width, height, side)
    small = cv2.resize(pixels, (wide, high))
    seen = _normal(cv2.rotate(small, cv2.ROTATE_90_COUNTERCLOCKWISE) if quarter else small)[None]
    del small
    chances = reader.detector.run(None, {reader.detector.get_inputs()[0].name: seen})[0][0, 0]
    del seen
    mask = cv2.dilate((chances > _MAP_THRESHOLD).astype("uint8"), numpy.ones((2, 2), "uint8"))
    contours = cv2.findContours(mask * 255, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]
    found = []
    for contour in contours[:MOST_LINES]:
        middle, (across, along), angle = cv2.minAreaRect(contour)
        if min(across, along) < 3 or _mean_within(chances, cv2.boxPoints((middle, (across, along), angle))) < (
            _BOX_THRESHOLD
        ):
            continue
        # The map shows the core of a line: grown by the share of its area to its outline that the model learned.
        grown = across * along * _GROWN / (across + along)
        box = cv2.boxPoints((middle, (across + grown, along + grown), angle))
        if quarter:
            box = numpy.stack([wide - 1 - box[:, 1], box[:, 0]], 1)
        box = box * [width / wide, height / high]
        box = _clockwise(numpy.round(box).clip(0, [width - 1, height - 1]).astype("float32"))
        if min(numpy.linalg.norm(box[0] - box[1]), numpy.linalg.norm(box[0] - box[3])) > 3:
            found.append(box)
    return found


def _mean_within(chances: Any, box: Any) -> float:
    import cv2
    import numpy

    last = [chances.shape[1] - 1, chances.shape[0] - 1]
    left, top = numpy.floor(box.min(0)).astype(int).clip(0, last)
    right, bottom = numpy.ceil(box.max(0)).astype(int).clip(0, last)
    mask = numpy.zeros((bottom - top + 1, right - left + 1), "uint8")
    cv2.fillPoly(mask, [(box - [left, top]).astype("int32")], 1)
    return float(cv2.mean(chances[top : bottom + 1, left : right + 1], mask)[0])


def _clockwise(box: Any) -> Any:
    import numpy

    by_x = box[numpy.argsort(box[:, 0])]
    left, right = (side[numpy.argsort(side[:, 1])] for side in (by_x[:2], by_x[2:]))
    return numpy.array([left[0], right[0], right[1], left[1]], "float32")


def in_order(lines: list[Line]) -> list[Line]:
    """From the top of the page as it is to be held; what begins within ten pixels of the same height, from the left."""
    degrees = turned(lines)
    places = [(_top_left(line.box, degrees), line) for line in lines]
    ordered = sorted(places, key=lambda place: (place[0][1], place[0][0]))
    for last in range(1, len(ordered)):
        for at in range(last, 0, -1):
            above, below = ordered[at - 1][0], ordered[at][0]
            if abs(below[1] - above[1]) >= _SAME_LINE_PIXELS or below[0] >= above[0]:
                break
            ordered[at - 1], ordered[at] = ordered[at], ordered[at - 1]
    return [line for _, line in ordered]


def _top_left(box: list[tuple[float, float]], degrees: int) -> tuple[float, float]:
    """The top left corner of a box once the page is turned back by so many degrees."""
    import numpy

    across, down = numpy.array(box, "float32").T
    back = {0: (across, down), 90: (down, -across), 180: (-across, -down), 270: (-down, across)}[degrees]
    left, top = _clockwise(numpy.stack(back, 1))[0]
    return float(left), float(top)


def _level_size(box: Any) -> tuple[int, int]:
    import numpy

    width = max(1, int(max(numpy.linalg.norm(box[0] - box[1]), numpy.linalg.norm(box[2] - box[3]))))
    height = max(1, int(max(numpy.linalg.norm(box[0] - box[3]), numpy.linalg.norm(box[1] - box[2]))))
    return width, height


def _upright(width: int, height: int) -> bool:
    return height >= 1.5 * width


def _columns(width: int, height: int) -> int:
    """How wide a line of that size is at the height that the models take."""
    if _upright(width, height):
        width, height = height, width
    return math.ceil(_LINE_HEIGHT * width / height)


def _cut_out(pixels: Any, box: Any) -> Any:
    """The line of a box, made level; one that stands upright is laid down."""
    import cv2
    import numpy

    width, height = _level_size(box)
    corners = numpy.array([[0, 0], [width, 0], [width, height], [0, height]], "float32")
    way = cv2.getPerspectiveTransform(box, corners)
    line = cv2.warpPerspective(pixels, way, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return numpy.ascontiguousarray(numpy.rot90(line)) if _upright(width, height) else line


def _chance_of_turned(reader: Reader, line: Any) -> float:
    """How likely a line stands on its head: the mean of what the classifier says of its pieces, or of a short line."""
    import numpy

    high, wide = line.shape[:2]
    piece = math.ceil(high * _PIECE_COLUMNS / _LINE_HEIGHT)
    starts = [round((wide - piece) * share) for share in _PIECES_OF_A_LINE] if wide > piece else [0]
    rows = numpy.concatenate([_row(line[:, at : at + piece], _PIECE_COLUMNS) for at in starts])
    return float(reader.classifier.run(None, {reader.classifier.get_inputs()[0].name: rows})[0][:, 1].mean())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _recognise(
    reader: Reader, line: Any, most_columns: int, chance: float, chance_of_all: float
) -> tuple[str, float, bool]:
    """Reads one line the way that all lines of the page stand; the other way too where its own pieces say otherwise, or
    what is read is not sure. The surer reading counts; the last value tells whether it is the one turned by 180."""
    import cv2

    def read_line(on_its_head: bool) -> tuple[float, bool, str]:
        given = cv2.rotate(line, cv2.ROTATE_180) if on_its_head else line
        text, confidence = _read_line(reader, given, most_columns)
        return confidence, on_its_head, text

    likely = chance_of_all > 0.5
    found = read_line(likely)
    agrees = chance >= _CLEAR if likely else chance <= 1 - _CLEAR
    if not agrees or found[0] < _SURE:
        found = max(found, read_line(not likely), key=lambda each: each[0])
    confidence, on_its_head, text = found
    return text, confidence, on_its_head


def _read_line(reader: Reader, line: Any, most_columns: int) -> tuple[str, float]:
    import numpy

    columns = math.ceil(_LINE_HEIGHT * line.shape[1] / line.shape[0])
    given = _row(line, min(most_columns, max(LEAST_COLUMNS, columns)))
    chances = reader.recogniser.run(None, {reader.recogniser.get_inputs()[0].name: given})[0][0]
    best = chances.argmax(1)
    # The model says a character for every few columns; one said again is meant once, 0 is none.
    kept = (best != 0) & numpy.concatenate([[True], best[1:] != best[:-1]])
    if not kept.any():
        return "", 0.0
    sure = chances[numpy.arange(len(best)), best][kept]
    return "".join(reader.characters[index] for index in best[kept]), float(sure.mean())


def _row(line: Any, columns: int) -> Any:
    """A line at the height that the models take, filled up to so many columns."""
    import cv2
    import numpy

    wide = max(1, min(columns, math.ceil(_LINE_HEIGHT * line.shape[1] / line.shape[0])))
    row = numpy.zeros((1, 3, _LINE_HEIGHT, columns), "float32")
    row[0, :, :, :wide] = _normal(cv2.resize(line, (wide, _LINE_HEIGHT)))
    return row


def _normal(pixels: Any) -> Any:
    import numpy

    return numpy.ascontiguousarray(pixels.transpose(2, 0, 1)).astype("float32") / 127.5 - 1.0
