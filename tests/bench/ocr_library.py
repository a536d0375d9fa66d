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
        try:
            text = "\n".join(engine(path).txts or [])
        except Exception as error:  # it has no common base of its own
            print(f"{path}: {error}", file=sys.stderr)
            continue
        print(json.dumps([path, text]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
