"""The flight recorder while it is written to: a reader never sees half of one image and half of the next."""

import struct
import subprocess
import sys
from pathlib import Path

from protocol.recorder import Recorder, RecorderReader, create

WRITER = """
import sys
from protocol.recorder import Recorder
recorder = Recorder(sys.argv[1], 0, 7)
print("begun", flush=True)
item = 0
while True:
    item += 1
    recorder.begin(item, "/photos/a.jpg", item + 0.5)
    recorder.end()
"""
READS = 200_000


def test_what_is_read_belongs_together_while_a_worker_writes(tmp_path: Path) -> None:
    path = str(tmp_path / "recorder.bin")
    create(path, 1)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    reader = RecorderReader(path, 1)
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"begun\n"
        seen = 0
        for _ in range(READS):
            incarnation, item, started, _, _ = reader.progress(0)
            assert incarnation == 7
            if item:
                seen += 1
                assert started == item + 0.5, "the start of another image, or of none"
        assert seen > READS / 100, "the worker was hardly ever seen at an image"
    finally:
        writer.kill()
        writer.communicate()
        reader.close()


def test_a_page_that_stays_in_change_tells_of_no_image_but_names_it_after_a_death(tmp_path: Path) -> None:
    path = str(tmp_path / "recorder.bin")
    create(path, 1)
    recorder, reader = Recorder(path, 0, 3), RecorderReader(path, 1)
    recorder.begin(5, "/photos/b.jpg", 9.0)
    assert reader.progress(0) == (3, 5, 9.0, 0, 0)
    with open(path, "r+b") as file:
        file.write(struct.pack("<Q", 3))  # odd: the worker died, or waits, inside a change
    assert reader.progress(0) == (3, 0, 0.0, -1, 0)
    assert (reader.read(0).item, reader.read(0).path) == (5, "/photos/b.jpg")
    recorder.end()
    assert reader.progress(0) == (3, 0, 0.0, -1, 1)
    recorder.close()
    reader.close()
