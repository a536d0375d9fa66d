"""One image for all steps of its recipe: opened once, its header read once, decoded once.

The decoder is chosen by the header (`images.cost`); when one refuses the image the other is tried, if it
reads that format and its memory fits. A file that ends too early or is damaged is taken as far as it goes, with a
warning that says who read it, unless the item is strict. Where nothing of it can be seen it is corrupt all the same; a
TIFF alone may lack every strip (sparse ones are filled with one colour) and is warned of.
"""

import errno
import hashlib
import io
import math
import os
from collections.abc import Callable
from typing import BinaryIO

import msgspec
from PIL import Image

from protocol.launch import ImageLimits
from workers.errors import CannotDecode, Deferred, MachineTrouble, Verdict
from workers.images import cost, exif, formats, heif, heif_thumb, raw, svg, with_pillow, with_vips
from workers.images import header as headers
from workers.images.header import Header
from workers.images.metadata import Metadata

_HASH_PIECE_BYTES = 256 * 1024
"""Fits the processor's second cache: measured as fast as any larger piece."""


_TRIMMED_BYTES = 64_000_000
"""Larger files are decoded from the file: they would be held beside the picture."""
_READ_WHOLE_BYTES = 32_000_000
"""Pillow reads a WebP twice over before it tells its size: larger ones are read by libvips alone."""
_JPEG_BITS = 8
_SAME_SHAPE = 0.02
"""By how much the proportions of an embedded thumbnail may differ: 160 x 107 pixels are rounded from 3:2."""
_TURNED_BY: dict[cost.Engine, tuple[formats.Format, ...]] = {
    "pillow": (formats.HEIF, formats.TIFF),
    "vips": (formats.HEIF, formats.AVIF, formats.SVG),
}
"""What comes upright from each decoder."""
_NAMES = {"pillow": "Pillow", "vips": "libvips"}


Factors = dict[tuple[str, str, str], float]
"""By (format, kind, decoder): what the supervisor learned that predictions are to be multiplied with."""


class Source:
    """The image of one item. Use as a context manager; `header` first, then pictures."""

    decodes: int = 0
    """How often pixels were decoded; for the tests of "once"."""

    def __init__(
        self, path: bytes, shown: str, limits: ImageLimits, warn: Callable[[str], None], *, strict: bool
    ) -> None:
        """`shown` is the path as messages name it; `warn` takes sentences for the item's warnings."""
        self.path, self.shown, self._limits, self.warn, self._strict = path, shown, limits, warn, strict
        self._file = self._open()
        self._content: bytes | None = None  # what is read in place of the file: a raw file's preview, an unpacked SVG
        self._previews: list[raw.Preview] | None = None
        self._image: Image.Image | None = None
        self._pictures: list[Image.Image] = []
        self._metadata: Metadata | None = None
        self._embedded = False
        self._memory_bytes = 1 << 62
        self._factors: Factors = {}
        self.needs_bytes = self.prior_bytes = 0
        self.decoder = ""
        try:
            self.header = self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives back the file and every pixel."""
        self._pictures.clear()
        if self._image is not None:
            self._image.close()
            self._image = None
        self._file.close()

    def opened(self) -> Image.Image:
        """Returns Pillow's image, just opened, of a format that Pillow reads. Raises Verdict when it refuses."""
        try:
            self._reopen()
        except CannotDecode as error:
            raise Verdict("corrupt", f"{self.shown} cannot be read: {error}") from error
        assert self._image is not None
        return self._image

    def whole(self) -> bytes:
        """Returns the file's bytes. Raises Verdict io."""
        try:
            return os.pread(self._file.fileno(), self.header.file_bytes, 0)
        except OSError as error:
            raise Verdict("io", f"{self.shown} cannot be read: {error.strerror}") from error

    def metadata(self) -> Metadata:
        """Returns the image's blocks of metadata."""
        if self._metadata is None:
            self._metadata = self._read_metadata()
        return self._metadata

    def allow_embedded(self, allowed: bool) -> None:
        """Lets a picture be made from the thumbnail that EXIF or HEIF carries where that is large enough, or not."""
        self._embedded = allowed

    def admit(self, side: int, beside_bytes: int, memory_bytes: int, factors: Factors | None = None) -> int:
        """Predicts what decoding to `side` takes, with `beside_bytes` for the steps, and returns it: by the header
        alone (`prior_bytes`), times the factor that was learned for its class.

        Raises Deferred when that is above `memory_bytes`.
        """
        self._factors = factors or {}
        self._memory_bytes = memory_bytes
        target = cost.target_of(self.header, side)
        result = target[0] * target[1] * 4 if side else 0
        decoding = warming = 0
        if side:
            engine = self.decoder = cost.choose(self.header, target)
            svg.size_drawn(self.shown, self.header.drawing, target)
            decoding = cost.decode_bytes(self.header, target, engine)
            warming = cost.WARM_UP_BYTES if engine == "vips" and not with_vips.warm() else 0
        self.prior_bytes = max(decoding, result + beside_bytes, cost.RESOLUTION_BYTES)
        self.needs_bytes = self._learned(self.prior_bytes, self.decoder) + warming
        self.prior_bytes += warming
        if self.needs_bytes > memory_bytes:
            raise Deferred(self.needs_bytes)
        return self.needs_bytes

    def _learned(self, prior_bytes: int, decoder: str) -> int:
        factor = self._factors.get((self.header.format.name, self.header.kind, decoder), 1.0)
        return max(cost.RESOLUTION_BYTES, int(prior_bytes * factor))

    def fileno(self) -> int:
        """Returns the descriptor that the image is read by."""
        return self._file.fileno()

    def content_hash(self) -> str:
        """Returns the SHA-256 of the whole file in hexadecimal, by reads that leave the file's position alone.

        Asked before the first decode it brings the file into the page cache, where the decoder finds it: on files that
        were cached already it takes 0.5 ms a megabyte with the processor's SHA instructions. Raises Verdict io.
        """
        digest, at, piece = hashlib.sha256(), 0, memoryview(bytearray(_HASH_PIECE_BYTES))
        try:
            while count := os.preadv(self._file.fileno(), [piece], at):
                digest.update(piece[:count])
                at += count
        except OSError as error:
            raise Verdict("io", f"{self.shown} cannot be read: {error.strerror}") from error
        return digest.hexdigest()

    def picture(self, width: int, height: int) -> Image.Image:
        """Returns the image upright at `width` x `height`, made from the smallest picture that is large enough.

        A picture twice as large is as good an origin as the whole. Not to be changed in place.
        """
        for made in self._pictures:
            if made.size == (width, height):
                return made
        wide, high = self.header.upright
        scale = min(1.0, max((width - 1) / wide, (height - 1) / high))  # a pixel less: rounding is no reason to redo
        origin = self.decoded(math.ceil(max(wide, high) * scale))
        for made in self._pictures:
            if made.width >= 2 * width and made.height >= 2 * height and made.width < origin.width:
                origin = made
        shrunk = with_pillow.shrink(origin, (width, height))
        self._pictures.append(shrunk)
        return shrunk

    def decoded(self, side: int) -> Image.Image:
        """Returns the image upright, its longest side at least `side` pixels (or its own); decoded at the first call.

        Later calls for at most that side get the same picture.
        """
        side = min(side, max(self.header.width, self.header.height))
        if not self._pictures or max(self._pictures[0].size) < side:
            found = self._decode_embedded(side) if self._embedded else None
            self._pictures[:] = [found or self._decode(cost.target_of(self.header, side))]
        return self._pictures[0]

    def _open(self) -> io.BufferedReader:
        try:
            return open(self.path, "rb")
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise MachineTrouble(f"{self.shown} cannot be opened now: {error.strerror}") from error
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise gone(self.shown) from error
            raise Verdict("io", f"{self.shown} cannot be read: {error.strerror}") from error

    def _read_header(self) -> Header:
        try:
            file_bytes = os.fstat(self._file.fileno()).st_size
            head = self._file.read(formats.HEAD_BYTES)
        except OSError as error:
            raise Verdict("io", f"{self.shown} cannot be read: {error.strerror}") from error
        name = os.path.basename(self.path)
        headers.check_size(self.shown, file_bytes, self._limits)
        kind = headers.identify(self._file, head, self.shown, name, file_bytes)
        found = self._raw_header(file_bytes) if kind is formats.RAW else self._header_of(kind, file_bytes)
        if (warning := headers.misnamed(name, kind)) is not None:
            self.warn(warning)
        headers.check(self.shown, found, self._limits)
        return found

    def _raw_header(self, file_bytes: int) -> Header:
        """The header of a raw file's largest preview, of those not tried yet; of the file as a TIFF after the last."""
        if self._previews is None:
            self._previews = raw.previews(self._file.fileno(), file_bytes)
        missing: Verdict | None = None
        while self._previews:
            preview = self._previews.pop(0)
            if max(preview.width, preview.height) > self._limits.side:
                raise Verdict("too_many_pixels", f"{self.shown} holds a preview of {preview.width} x {preview.height}")
            self._content = os.pread(self._file.fileno(), preview.length, preview.at)
            try:
                return raw.turned(self._header_of(formats.JPEG, len(self._content)), preview, file_bytes)
            except Verdict as verdict:
                missing = verdict
        self._content = None
        if os.pread(self._file.fileno(), 4, 0) not in raw.TIFF_BEGINS:
            raise missing or Verdict("unsupported", f"{self.shown} is a camera's raw file without an embedded preview")
        unread = " that can be read" if missing else ""
        self.warn(f"a raw file without an embedded preview{unread}: read as the TIFF that it also is")
        return self._header_of(formats.TIFF, file_bytes)

    def _decode_next_preview(self, side: int, verdict: Verdict) -> Image.Image:
        """The picture of the next preview of a raw file, or of its TIFF, where one was not to be decoded."""
        size = f"{self.header.width:,} x {self.header.height:,}"
        if self.header.container != "raw":
            raise verdict
        try:
            self.header = self._raw_header(self.header.file_bytes)
            headers.check(self.shown, self.header, self._limits)
        except Verdict:
            raise verdict from None
        target = cost.target_of(self.header, side)
        self._fits(cost.choose(self.header, target), target)
        self.warn(
            f"its preview of {size} cannot be decoded: the next is {self.header.width:,} x {self.header.height:,}"
        )
        return self._decode(target)

    def _header_of(self, kind: formats.Format, file_bytes: int) -> Header:
        refusal = ""
        drawing = None
        if kind is formats.SVG:
            self._content, drawing = svg.checked(self.shown, self._file, file_bytes, self.warn)
        if kind is formats.GIF:
            headers.check_gif(self.shown, self._file, self._limits)
        if kind.pillow and not (kind is formats.WEBP and file_bytes > _READ_WHOLE_BYTES):
            try:
                found, self._image = headers.read_with_pillow(self._stream(), kind, file_bytes)
                return found
            except CannotDecode as error:
                self._readable(error)
                refusal = str(error)
        if kind.vips:
            try:
                found = with_vips.read_header(self._where(), kind, file_bytes)
                if drawing is not None and self._content is not None:
                    inside_bytes = svg.inside_bytes(self._content)
                    found = msgspec.structs.replace(found, inside_bytes=inside_bytes, drawing=drawing)
                if refusal:
                    self.warn(f"Pillow refused it ({refusal}); read with libvips")
                return found
            except CannotDecode as error:
                refusal = refusal or str(error)
        raise self._broken(kind, refusal)

    def _broken(self, kind: formats.Format, refusal: str) -> Verdict:
        """The verdict on an image that no decoder takes."""
        if kind is formats.JPEG:
            start = self._content or os.pread(self._file.fileno(), headers.JPEG_HEAD_BYTES, 0)
            if (bits := headers.jpeg_bits(start)) > _JPEG_BITS:
                reads = f"neither decoder here reads more than {_JPEG_BITS}"
                return Verdict("unsupported", f"{self.shown} is a JPEG of {bits} bits a sample; {reads}")
        return Verdict("corrupt", f"{self.shown} is a broken {kind.name.upper()}: {refusal}")

    def _read_metadata(self) -> Metadata:
        if self.header.reader == "vips":
            return Metadata(**with_vips.metadata(self._where()))
        if self._image is None or self.decodes:
            self.opened()
        assert self._image is not None
        return with_pillow.metadata(self._image)

    def _decode_embedded(self, side: int) -> Image.Image | None:
        """The picture made of the EXIF's thumbnail, None where that is too small or shows another part of the image."""
        if self._image is None:
            return None
        if self.header.format in (formats.HEIF, formats.AVIF):
            found = self._decode_thumbnail_item(side)
        elif self.header.format is formats.JPEG:
            content = exif.thumbnail(self.metadata().exif)
            found = with_pillow.decode_small(content) if content else None
        else:
            found = None
        if found is None or max(found.size) < side:
            return None
        wide, high = self.header.width, self.header.height
        if abs(found.width * high - found.height * wide) > _SAME_SHAPE * found.width * high:
            return None  # black bars above and below: the camera's screen had other proportions
        return found if self.header.format is formats.HEIF else with_pillow.upright(found, self.header.orientation)

    def _decode_thumbnail_item(self, side: int) -> Image.Image | None:
        """The thumbnail that a HEIF or AVIF file carries beside its picture, None of one without, or with a smaller."""
        if self.header.file_bytes > _TRIMMED_BYTES:
            return None
        content = heif_thumb.by_thumbnail(self.whole())
        return with_pillow.decode_item(content, self.header, side) if content is not None else None

    def _decode(self, target: tuple[int, int]) -> Image.Image:
        self.decodes += 1
        first = cost.choose(self.header, target)
        try:
            decoded = self._decode_with(first, target, lenient=False)
        except CannotDecode as error:
            self._readable(error)
            try:
                decoded = self._decode_again(first, target, str(error))
            except Verdict as verdict:
                decoded = self._decode_next_preview(max(target), verdict)
        return decoded

    def _decode_again(self, first: cost.Engine, target: tuple[int, int], refusal: str) -> Image.Image:
        """The ways left when the chosen decoder refused: what there is of a cut file, then the other decoder."""
        other: cost.Engine = "pillow" if first == "vips" else "vips"
        if not (cut := self._is_cut()) and (decoded := self._try(other, target, lenient=False)) is not None:
            self.warn(f"{_NAMES[first]} refused it ({refusal}); decoded with {_NAMES[other]}")
            return decoded
        ends = f"the file ends too early, at {self.header.file_bytes:,} bytes"
        told = f"truncated: {ends}" if cut else f"damaged: {refusal}"
        if cut and self._strict:
            raise Verdict("corrupt", f"{self.shown} is truncated: {ends} ({refusal})")
        blank = None
        for engine in () if self._strict else (first, other):
            decoded = self._try(engine, target, lenient=True)
            if decoded is not None and not with_pillow.is_blank(decoded):
                self.warn(f"{told}; what there is of it was decoded with {_NAMES[engine]}")
                return decoded
            blank = decoded if engine == "vips" else blank
        if blank is not None and self.header.format is formats.TIFF:
            self.warn(f"{told}; {_NAMES['vips']} decoded nothing of it but one colour")
            return blank
        if self.header.format is formats.HEIF and not heif.register():
            raise Verdict("unsupported", f"{self.shown} cannot be decoded: {heif.MISSING} ({refusal})")
        raise self._broken(self.header.format, refusal)

    def _try(self, engine: cost.Engine, target: tuple[int, int], *, lenient: bool) -> Image.Image | None:
        kind = self.header.format
        if not (kind.pillow if engine == "pillow" else kind.vips) or not self._fits(engine, target):
            return None
        try:
            return self._decode_with(engine, target, lenient=lenient)
        except CannotDecode:
            return None

    def _is_cut(self) -> bool:
        if self._content is not None:
            return headers.looks_cut(io.BytesIO(self._content), self.header.format, len(self._content))
        with open(self.path, "rb") as file:
            return headers.looks_cut(file, self.header.format, self.header.file_bytes)

    def _fits(self, engine: cost.Engine, target: tuple[int, int]) -> bool:
        """Whether the other decoder may be tried. Raises Deferred when it only needs more memory than was granted."""
        if engine == "pillow" and self.header.pixels > self._limits.pixels_whole:
            return False
        needs = self._learned(cost.decode_bytes(self.header, target, engine), engine)
        if needs > self._memory_bytes:
            raise Deferred(needs)
        return True

    def _decode_with(self, engine: cost.Engine, target: tuple[int, int], *, lenient: bool) -> Image.Image:
        """The picture upright, whoever turns it: some decoders do so by themselves."""
        header, turned = self.header, self.header.format in _TURNED_BY[engine]
        if turned and header.orientation >= 5:
            header = msgspec.structs.replace(header, width=header.height, height=header.width)
            target = target[1], target[0]
        decoded = self._decode_as_told(engine, header, target, lenient=lenient)
        return decoded if turned else with_pillow.upright(decoded, header.orientation)

    def _decode_as_told(
        self, engine: cost.Engine, header: Header, target: tuple[int, int], *, lenient: bool
    ) -> Image.Image:
        if engine == "vips":
            drawn = svg.size_drawn(self.shown, header.drawing, target, self.warn)
            return with_pillow.shrink(with_vips.decode(self._where(), header, drawn, lenient=lenient), target)
        if self._image is None or self._file.closed or self.decodes > 1 or lenient:
            self._reopen()
        assert self._image is not None
        if not lenient and (decoded := self._decode_eighth(target)) is not None:
            return decoded
        return with_pillow.decode(self._image, header, target, lenient=lenient)

    def _decode_eighth(self, target: tuple[int, int]) -> Image.Image | None:
        """The picture of a progressive JPEG that may be shrunk by eight, from the scans that matter; None of others."""
        header = self.header
        progressive = header.progressive and header.format is formats.JPEG and header.file_bytes <= _TRIMMED_BYTES
        if not progressive or cost.draft_scale(header, target) < 8:
            return None
        return with_pillow.decode_eighth(self._content or self.whole(), header, target)

    def _reopen(self) -> None:
        """A decoder that failed, or shares the descriptor, leaves the file's position anywhere: begin afresh."""
        if self._image is not None and not any(picture is self._image for picture in self._pictures):
            self._image.close()
        self._file.close()
        self._file = self._open()
        try:
            _, self._image = headers.read_with_pillow(self._stream(), self.header.format, self.header.file_bytes)
        except CannotDecode as error:
            raise CannotDecode(f"changed while it was read: {error}") from error

    def _stream(self) -> BinaryIO:
        """What Pillow reads, at its beginning."""
        if self._content is not None:
            return io.BytesIO(self._content)
        self._file.seek(0)
        return self._file

    def _where(self) -> int | bytes:
        """What libvips reads."""
        return self._file.fileno() if self._content is None else self._content

    def _readable(self, error: CannotDecode) -> None:
        """Raises what is not the image's fault, or is no fault of its contents."""
        cause = error.__cause__
        number = cause.errno if isinstance(cause, OSError) else None
        if number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
            raise MachineTrouble(f"{self.shown} cannot be decoded now: {os.strerror(number)}") from error
        if number in (errno.EIO, errno.EACCES, errno.ESTALE, errno.ENXIO):
            raise Verdict("io", f"{self.shown} cannot be read: {os.strerror(number)}") from error


def gone(shown: str) -> Verdict:
    """Returns the verdict on a file that is not there any more."""
    return Verdict("io", f"{shown} does not exist (any more)")
