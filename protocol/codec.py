"""Bytes <-> messages: the only place that reads bytes off the wire, and where they are validated."""

from typing import Any, get_args

import msgspec

from protocol.errors import BadMessage, FrameTooLarge, WrongVersion
from protocol.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    AnyAnswer,
    AnyFromWorker,
    AnyRequest,
    AnyToWorker,
    Message,
    Part,
)

_encoder = msgspec.json.Encoder()
_request = msgspec.json.Decoder(AnyRequest)
_answer = msgspec.json.Decoder(AnyAnswer)
_to_worker = msgspec.json.Decoder(AnyToWorker)
_from_worker = msgspec.json.Decoder(AnyFromWorker)


def encode(message: Message) -> bytes:
    """Returns the frame of a message."""
    return _encoder.encode(message)


def encode_part(part: Part) -> bytes:
    """Returns a part of a message alone, as the event socket carries decisions."""
    return _encoder.encode(part)


def decode_request(frame: bytes) -> AnyRequest:
    """Returns a client's request. Raises BadMessage (FrameTooLarge, WrongVersion) that names the fault."""
    request: AnyRequest = _decode(_request, frame)
    if request.v != PROTOCOL_VERSION:
        raise WrongVersion(request.v, PROTOCOL_VERSION)
    return request


def decode_answer(frame: bytes) -> AnyAnswer:
    """Returns a supervisor's answer. Raises BadMessage."""
    answer: AnyAnswer = _decode(_answer, frame)
    return answer


def decode_to_worker(frame: bytes) -> AnyToWorker:
    """Returns what a worker is told. Raises BadMessage."""
    message: AnyToWorker = _decode(_to_worker, frame)
    return message


def decode_from_worker(frame: bytes) -> AnyFromWorker:
    """Returns what a worker says. Raises BadMessage."""
    message: AnyFromWorker = _decode(_from_worker, frame)
    return message


def request_id(frame: bytes) -> int | str:
    """Returns the `id` of a frame that could not be decoded, so that the error finds its sender; else 0."""
    if len(frame) > MAX_FRAME_BYTES:
        return 0
    envelope = _envelope(frame)
    found = envelope.get("id", 0) if envelope is not None else 0
    return found if isinstance(found, int | str) and not isinstance(found, bool) else 0


def _decode(decoder: msgspec.json.Decoder[Any], frame: bytes) -> Any:
    if len(frame) > MAX_FRAME_BYTES:
        raise FrameTooLarge(len(frame), MAX_FRAME_BYTES)
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as error:
        envelope = _envelope(frame)
        if envelope is not None and envelope.get("v", PROTOCOL_VERSION) != PROTOCOL_VERSION:
            raise WrongVersion(envelope.get("v"), PROTOCOL_VERSION) from error
        name = envelope.get("type") if envelope is not None else None
        types = [message.__struct_config__.tag for message in get_args(decoder.type)]
        if envelope is not None and name not in types:
            asked = "the message names no type" if name is None else f"there is no message of type {name!r}"
            raise BadMessage(f"{asked}; there are {', '.join(types)}") from error
        raise BadMessage(f"bad message{f' {name!r}' if name is not None else ''}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"not JSON: {error}") from error


def _envelope(frame: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
