"""Finds and reads lines of text in a picture, with the three models that the OCR library brings: a detector, a
classifier of lines that stand on their heads, a recogniser.

The models are the library's, the way through them is ours, because memory is: the detector sees the picture at the size
that memory allows, and the lines are then cut out of the larger picture, so that small letters are read even where the
detector saw them small. Each line is read alone. The library's own way enlarges every picture until its shorter side
has 736 pixels, which makes a strip thousands of pixels wide.

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
_TURNED_THRESHOLD = 0.9
_GROWN = 1.6
_SAME_LINE_PIXELS = 10
_MOST_ENLARGED = 2.0
_WIDEST = 8
_LOWEST = 30


class Line(NamedTuple):
    """One line: its text, how sure of it the recogniser is (0 to 1), its corners from the top left clockwise."""

    text: str
    confidence: float
    box: list[tuple[float, float]]


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
    return Reader(onnx.session(detector), onnx.session(classifier), found, ["", *characters, " "])


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
    """Where the lines of a picture stand, in order from the top, and how wide the widest is for the recogniser."""

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
    boxes = _in_order(_boxes(reader, pixels, side))
    widest = max((_columns(*_level_size(box)) for box in boxes), default=LEAST_COLUMNS)
    return Found(pixels, above, boxes, min(_MOST_COLUMNS, max(LEAST_COLUMNS, widest)))


def read(reader: Reader, found: Found, columns: int) -> list[Line]:
    """Reads the lines that were found, which takes `reading_bytes(columns)`; a longer line is read narrower."""
    height = found.pixels.shape[0] - 2 * found.above
    lines = []
    for box in found.boxes:
        text, confidence = _recognise(reader, _cut_out(found.pixels, box), columns)
        if confidence >= _TEXT_THRESHOLD and text:
            corners = [(float(x), float(min(max(y - found.above, 0), height))) for x, y in box]
            lines.append(Line(text, confidence, corners))
    return lines


def _padded(width: int, height: int) -> tuple[int, int]:
    """The size of a picture with what is put above and below a strip, in which the detector finds nothing else."""
    if height > _LOWEST and width <= _WIDEST * height:
        return width, height
    wanted = 2 * max(width // _WIDEST, _LOWEST)
    return width, height + 2 * (abs(wanted - height) // 2)


def _boxes(reader: Reader, pixels: Any, side: int) -> list[Any]:
    """The corners of what may be lines, in the picture's pixels."""
    import cv2
    import numpy

    height, width = pixels.shape[:2]
    wide, high = seen_at(width, height, side)
    seen = _normal(cv2.resize(pixels, (wide, high)))[None]
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
        box = cv2.boxPoints((middle, (across + grown, along + grown), angle)) * [width / wide, height / high]
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


def _in_order(boxes: list[Any]) -> list[Any]:
    """From the top; what begins within ten pixels of the same height, from the left."""
    ordered = sorted(boxes, key=lambda box: (box[0][1], box[0][0]))
    for last in range(1, len(ordered)):
        for at in range(last, 0, -1):
            above, below = ordered[at - 1], ordered[at]
            if abs(below[0][1] - above[0][1]) >= _SAME_LINE_PIXELS or below[0][0] >= above[0][0]:
                break
            ordered[at - 1], ordered[at] = below, above
    return ordered


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


def _recognise(reader: Reader, line: Any, most_columns: int) -> tuple[str, float]:
    """Reads one line. One that the classifier takes to stand on its head is read both ways, and the surer one counts:
    it sees lines squeezed to 192 columns, and is often wrong about long ones."""
    import cv2

    turned = reader.classifier.run(None, {reader.classifier.get_inputs()[0].name: _row(line, 192)})[0][0]
    found = _read_line(reader, line, most_columns)
    if turned[1] <= _TURNED_THRESHOLD:
        return found
    return max(found, _read_line(reader, cv2.rotate(line, cv2.ROTATE_180), most_columns), key=lambda each: each[1])


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
