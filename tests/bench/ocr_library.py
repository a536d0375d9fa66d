"""The OCR library itself, as its manual shows it, with its own defaults: `python -m tests.bench.ocr_library FILE...`
writes a line of JSON a file, [file, text]. A process of its own: it keeps what it took."""

import json
import logging
import sys


def main(paths: list[str]) -> None:
    """Reads the files."""
    from rapidocr import RapidOCR

    logging.disable(logging.WARNING)
    engine = RapidOCR()
    for path in paths:
        print(json.dumps([path, "\n".join(engine(path).txts or [])]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
