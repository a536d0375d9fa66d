"""Every way an item can end, told by its report."""

import os
from pathlib import Path

import pytest
from PIL import Image

from protocol.launch import ImageLimits
from tests.galleries import small_jpeg, write
from tests.mechanism.performing import THUMBS, Bench, outputs, recipe_of, step, values, warnings
from workers import specimens
from workers.operations import Work
from workers.operations import probe as probe_module
from workers.source import Source


def test_a_good_image_is_done_with_its_outputs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    path = write(tmp_path, "p1.jpg", small_jpeg(side=400))
    report = bench.run(path, THUMBS, step("probe"), step("phash"))
    assert (report.outcome, report.error, report.version) == ("done", None, "thumbnail:2,probe:2,phash:1")
    assert [(o["step"], os.path.basename(o["path"]), o["width"], o["height"]) for o in outputs(report)] == [
        ("thumbnail", "p1.jpg.1024.webp", 400, 300),
        ("thumbnail", "p1.jpg.256.webp", 256, 192),
    ]
    assert [os.path.getsize(name) for name in report.written] == [o["bytes"] for o in outputs(report)]
    assert set(values(report)) == {"probe", "phash"}
    assert bench.notes.steps == [0, 1, 2]
    assert bench.notes.stats == [(report.size_bytes, report.mtime_ns)]
    assert report.size_bytes == os.path.getsize(path) and report.peak_bytes > 1_000_000 and report.seconds > 0


def test_the_image_is_decoded_once_for_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decodes: list[tuple[int, int]] = []
    decode = Source._decode

    def counted(self: Source, target: tuple[int, int]) -> Image.Image:
        decodes.append(target)
        return decode(self, target)

    monkeypatch.setattr(Source, "_decode", counted)
    path = write(tmp_path, "p.jpg", specimens.jpeg(specimens.photo(1600, 1200)))
    more = step("thumbnail", sizes=["700", "x300", 64], format="jpeg")
    assert Bench(tmp_path).run(path, step("phash"), more, THUMBS).outcome == "done"
    assert decodes == [(1024, 768)]


def test_metadata_read_after_the_decode_leaves_the_picture_to_the_next_step(tmp_path: Path) -> None:
    # A photo smaller than every rung is handed on as Pillow opened it; reading metadata opens the file again.
    steps = [step("thumbnail", sizes=[256]), step("probe"), step("phash")]
    report = Bench(tmp_path).run(write(tmp_path, "small.jpg", small_jpeg(side=64)), *steps)
    assert report.outcome == "done" and {"probe", "phash"} <= set(values(report))


def test_a_probe_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "_decode", lambda self, target: pytest.fail("decoded"))
    assert Bench(tmp_path).run(write(tmp_path, "p.jpg", small_jpeg()), step("probe")).outcome == "done"


def test_noop_does_not_even_look(tmp_path: Path) -> None:
    assert Bench(tmp_path).run(b"/nowhere/at/all.jpg", step("noop")).outcome == "done"


FAULTS = {
    "empty.jpg": (b"", "corrupt", "empty (0 bytes)"),
    "text.jpg": (b"dear diary", "unsupported", "no image of a known format"),
    "film.fli": (b"\x00\x01\x00\x00\x11\xaf" + bytes(100), "corrupt", "a broken FLI"),
    "paper.pdf": (b"%PDF-1.7", "unsupported", "PDF"),
    "broken.png": (specimens.broken_png(), "corrupt", "broken PNG"),
    "stub.jpg": (small_jpeg()[:100], "corrupt", "broken JPEG"),
    "huge.png": (
        specimens.flat_png(3000, 2000),
        "too_many_pixels",
        "6,000,000 pixels; the limit pixels_streamed is",
    ),
    "laced.png": (specimens.flat_png(1500, 1000, interlaced=True), "too_many_pixels", "an interlaced PNG must be held"),
    "long.png": (specimens.flat_png(1, 3001), "too_many_pixels", "the limit of a side, side, is 3,000"),
    "fat.jpg": (small_jpeg() + bytes(200_000), "too_large", "the limit file_bytes is 100,000"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_bad_file_has_its_verdict(tmp_path: Path, name: str) -> None:
    content, kind, told = FAULTS[name]
    limits = ImageLimits(pixels_streamed=5_000_000, pixels_whole=1_000_000, file_bytes=100_000, side=3000)
    report = Bench(tmp_path, limits).run(write(tmp_path, name, content))
    assert report.outcome == "failed" and report.error is not None
    assert report.error.kind == kind
    assert told in report.error.message and str(tmp_path / name) in report.error.message
    assert not report.written and not (tmp_path / "out").exists()


def test_frames_have_a_limit(tmp_path: Path) -> None:
    frames = [specimens.photo(16, 16, seed) for seed in range(5)]
    for name, kind in (("f.gif", "GIF"), ("f.tiff", "TIFF"), ("f.webp", "WEBP")):
        content = specimens.encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        path = write(tmp_path, name, content)
        report = Bench(tmp_path, ImageLimits(frames=4)).run(path)
        assert report.error is not None and report.error.kind == "too_large" and "5 frames" in report.error.message
        assert values(Bench(tmp_path).run(path, step("probe")))["probe"]["frames"] == 5


def test_a_gif_bomb_is_told_by_its_first_frame(tmp_path: Path) -> None:
    bomb = b"GIF89a\x10\0\x10\0\0\0\0" + b",\0\0\0\0\xff\xff\xff\xff\0" + b"\x02\x02L\x01\0;"
    report = Bench(tmp_path).run(write(tmp_path, "b.gif", bomb))
    assert report.error is not None and report.error.kind == "too_many_pixels" and "65,535" in report.error.message


def test_gone_and_other_than_files(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    gone = bench.run(os.fsencode(tmp_path / "was.jpg"))
    assert gone.error is not None and gone.error.kind == "io"
    assert gone.error.message.endswith("does not exist (any more)")
    os.mkfifo(tmp_path / "pipe.jpg")
    pipe = bench.run(os.fsencode(tmp_path / "pipe.jpg"))
    assert pipe.error is not None and (pipe.error.kind, "a pipe" in pipe.error.message) == ("unsupported", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_input_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, "p.jpg", small_jpeg())
    os.chmod(path, 0)
    report = Bench(tmp_path).run(path)
    assert report.error is not None and report.error.kind == "io" and "cannot be read" in report.error.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(400, 300), (1600, 1200)])
def test_a_truncated_image_is_done_with_a_warning_unless_strict(
    tmp_path: Path, kind: str, size: tuple[int, int]
) -> None:
    whole = specimens.encoded(specimens.photo(*size), kind)
    path = write(tmp_path, f"t.{kind.lower()}", whole[: len(whole) * 2 // 3])
    bench = Bench(tmp_path)
    report = bench.run(path)
    assert report.outcome == "done" and len(report.written) == 2
    assert any("truncated" in warning for warning in warnings(report))
    strict = bench.run(path, strict=True, overwrite=True)
    assert strict.error is not None and (strict.outcome, strict.error.kind) == ("failed", "corrupt")
    assert "truncated" in strict.error.message


def test_warnings_are_not_carried_to_the_next_item(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    odd = bench.run(write(tmp_path, "named.png", small_jpeg()))
    assert warnings(odd) == ["named .png but is jpeg"]
    assert warnings(bench.run(write(tmp_path, "calm.jpg", small_jpeg()))) == []


def test_what_libraries_mutter_becomes_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging
    import warnings as python_warnings

    def mutter(self: Source, target: tuple[int, int]) -> object:
        python_warnings.warn("odd tag", stacklevel=1)
        logging.getLogger("pyvips").warning("VIPS: %s", "premature end")
        return specimens.photo(*target)

    monkeypatch.setattr(Source, "_decode", mutter)
    assert warnings(Bench(tmp_path).run(write(tmp_path, "p.jpg", small_jpeg()))) == ["premature end", "odd tag"]


def test_changed_since_submission_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "p.jpg", small_jpeg())
    bench = Bench(tmp_path)
    report = bench.run(path, submitted_at=os.stat(path).st_mtime - 10)
    assert report.outcome == "done" and "changed since it was submitted" in warnings(report)[0]


def test_shunned_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path, "p.jpg", small_jpeg())
    state = os.stat(path)
    shunned = (state.st_size, state.st_mtime_ns, "thumbnail:2")
    bench = Bench(tmp_path)
    report = bench.run(path, shunned=shunned)
    assert (report.outcome, report.mtime_ns, report.written) == ("shunned", state.st_mtime_ns, [])
    assert bench.run(path, shunned=(state.st_size, state.st_mtime_ns, "thumbnail:0")).outcome == "done"
    os.utime(path, ns=(1, 1))
    assert bench.run(path, shunned=shunned, overwrite=True).outcome == "done"


def test_deferred_before_decoding_with_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "p.jpg", specimens.jpeg(specimens.photo(1600, 1200)))
    monkeypatch.setattr(Source, "_decode", lambda self, target: pytest.fail("decoded"))
    report = Bench(tmp_path).run(path, memory_bytes=1_000_000)
    assert report.outcome == "deferred" and 10_000_000 < report.needs_bytes < 100_000_000 and report.error is None


def test_out_of_memory_is_deferred_with_twice_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Source, target: tuple[int, int]) -> object:
        raise MemoryError

    monkeypatch.setattr(Source, "_decode", fail)
    report = Bench(tmp_path).run(write(tmp_path, "p.jpg", small_jpeg()), memory_bytes=50_000_000)
    assert (report.outcome, report.needs_bytes) == ("deferred", 100_000_000)


def test_a_bug_in_an_operation_is_a_verdict(tmp_path: Path) -> None:
    report = Bench(tmp_path).run(write(tmp_path, "p.jpg", small_jpeg()), step("misbehave.error", message="oops"))
    assert report.error is not None and report.error.kind == "crash"
    assert "RuntimeError" in report.error.message and "oops" in report.error.message


def test_an_operation_may_misbehave_on_one_file_only(tmp_path: Path) -> None:
    wild = step("misbehave.error", only="wild-*.jpg")
    bench = Bench(tmp_path)
    assert bench.run(write(tmp_path, "tame.jpg", small_jpeg()), wild).outcome == "done"
    assert bench.run(write(tmp_path, "wild-1.jpg", small_jpeg()), wild).outcome == "failed"


def test_output_is_asked_for_only_where_it_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path, "p.jpg", small_jpeg())
    assert Bench(tmp_path).run(path, step("probe"), out=None).outcome == "done"
    report = Bench(tmp_path).run(path, out=None)
    assert report.error is not None and "--out" in report.error.message


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    report = Bench(tmp_path).run(write(tmp_path, b"caf\xe9\n.jpg", small_jpeg()))
    assert report.outcome == "done" and all("path_b64" in output for output in outputs(report))
    assert sorted(os.listdir(os.fsencode(tmp_path / "out")))[0].startswith(b"caf\xe9\n.jpg.")


def test_the_other_decoder_is_tried_and_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.errors import CannotDecode
    from workers.images import with_vips

    def refuse(*_: object, **__: object) -> object:
        raise CannotDecode("not today")

    monkeypatch.setattr(with_vips, "decode", refuse)
    path = write(tmp_path, "p.tiff", specimens.encoded(Image.new("RGB", (5000, 4000)), "TIFF", compression="tiff_lzw"))
    bench = Bench(tmp_path)
    report = bench.run(path)
    assert report.outcome == "done" and warnings(report) == ["libvips refused it (not today); decoded with Pillow"]
    predicted = bench.run(path, memory_bytes=1).needs_bytes
    held_whole = bench.run(path, memory_bytes=predicted, overwrite=True)
    assert held_whole.outcome == "deferred" and held_whole.needs_bytes > max(predicted, 5000 * 4000 * 4)


def test_operations_say_what_they_read(tmp_path: Path) -> None:
    assert [recipe_of(step(name)).reads for name in ("noop", "misbehave.leak", "probe", "phash")] == [
        "nothing",
        "name",
        "header",
        "pixels",
    ]
    with pytest.raises(AssertionError, match="does not say"):
        probe_module.OPERATIONS[0].run(Work(b"p.jpg", None, None, print), None)
