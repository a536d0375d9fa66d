"""`/batches`: submit, look, follow, fetch, cancel."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from typing import Any, get_args
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from protocol.errors import UsageError
from protocol.messages import (
    Batches,
    BatchProgress,
    CancelBatch,
    ItemState,
    ListBatches,
    PauseWork,
    Progress,
    Results,
    ResultsPage,
    ResumeWork,
    RetryBatch,
)
from protocol.messages import Done as DoneAnswer
from protocol.paths import from_token
from supervisor.gateway.access import Refusal
from supervisor.gateway.outputs import below, send_file
from supervisor.gateway.rows import row
from supervisor.gateway.state import Shared, answer, fields_of, number_of, shared
from supervisor.gateway.submitting import Submission, Wanted, plan, read_wanted, submit
from supervisor.gateway.uploads import Upload, room_bytes
from supervisor.naming import Files

BATCHES_MOST = 1_000
PAGE_ITEMS = 500
UPLOAD_FIELDS = frozenset({"recipe", "out", "batch", "overwrite", "strict", "priority", "kind"})


async def create(request: Request) -> Response:
    """Opens a batch of named paths (JSON) or of the images in the request (multipart)."""
    here = shared(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _create_from_upload(here, request)
    if kind != "application/json":
        raise Refusal(415, "type", "send application/json with 'paths', or images as multipart/form-data")
    wanted = read_wanted(await request.body())
    submission = await asyncio.to_thread(plan, wanted, here.places, here.setup.recipe)
    return await _submit(here, submission)


async def _create_from_upload(here: Shared, request: Request) -> Response:
    batch = f"u{secrets.token_hex(5)}"
    room = await asyncio.to_thread(room_bytes, here.setup.uploads, here.setup.upload_bytes)
    upload = Upload(os.path.join(here.setup.uploads, batch.encode()), request.headers["content-type"], room)
    try:
        async for piece in request.stream():
            if piece:
                await asyncio.to_thread(upload.write, piece)
        upload.end()
        return await _submit(here, _planned(here, upload, batch))
    except BaseException:
        await asyncio.shield(asyncio.to_thread(upload.discard))
        raise


def _planned(here: Shared, upload: Upload, batch: str) -> Submission:
    unknown = sorted(upload.fields.keys() - UPLOAD_FIELDS)
    if unknown:
        raise UsageError(f"fields that are not known here: {', '.join(unknown)}")
    fields: dict[str, Any] = {"paths": ["/"], "batch": batch, **upload.fields}
    try:
        wanted = msgspec.convert(fields, Wanted, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"the fields of the upload are not what is wanted here: {error}") from error
    if wanted.batch != batch:
        raise UsageError("an upload gets its name here: leave 'batch' away")
    out = os.path.join(upload.folder, b"out")
    if wanted.out is not None:
        out = here.places.resolve(from_token(wanted.out))
    source = Files(os.path.join(upload.folder, b"in"), tuple(upload.names))
    return Submission(sources=[source], recipe=wanted.recipe or here.setup.recipe, out=out, wanted=wanted)


async def _submit(here: Shared, submission: Submission) -> Response:
    complete, told = await submit(here.clients, submission)
    return answer(told, 201 if complete else 202, {"Location": f"/batches/{told['batch']}"})


async def listing(request: Request) -> Response:
    """Lists batches, newest first."""
    limit = number_of(request, "limit", 100, BATCHES_MOST)
    found = await shared(request).clients.ask(ListBatches(limit=limit), Batches)
    return answer([row(batch) for batch in found.batches])


async def show(request: Request) -> Response:
    """Tells how far a batch is."""
    return answer(row(await _progress(shared(request), request)))


async def cancel(request: Request) -> Response:
    """Cancels what has not been started."""
    name = request.path_params["batch"]
    return answer(row(await shared(request).clients.ask(CancelBatch(batch=name), BatchProgress)))


async def retry(request: Request) -> Response:
    """Puts failed images back to work, with `quarantined` those too."""
    quarantined = (await fields_of(request)).get("quarantined", False)
    asked = RetryBatch(batch=request.path_params["batch"], quarantined=quarantined is True)
    return answer(row(await shared(request).clients.ask(asked, BatchProgress)))


async def pause(request: Request) -> Response:
    """Pauses a batch, or at `/pause` the pool."""
    fields = await fields_of(request)
    asked = {"reason": fields.get("reason", "asked over HTTP"), "seconds": fields.get("seconds")}
    try:
        message = msgspec.convert({"batch": request.path_params.get("batch"), **asked, "type": "pause_work"}, PauseWork)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error
    if len(message.reason) > 500 or (message.seconds is not None and not 0 < message.seconds < 1e9):
        raise UsageError("a reason has at most 500 characters, seconds are more than 0")
    return answer({"message": (await shared(request).clients.ask(message, DoneAnswer)).message})


async def resume(request: Request) -> Response:
    """Ends the pause of a batch, or at `/resume` of the pool."""
    asked = ResumeWork(batch=request.path_params.get("batch"))
    return answer({"message": (await shared(request).clients.ask(asked, DoneAnswer)).message})


async def results(request: Request) -> Response:
    """Streams settled items as JSON lines, in the order they settled; `state` (may be repeated) chooses."""
    here, name = shared(request), request.path_params["batch"]
    try:
        states = msgspec.convert(request.query_params.getlist("state"), list[ItemState])
    except msgspec.ValidationError as error:
        raise UsageError(f"a state is one of {', '.join(get_args(ItemState))}") from error
    newest = request.query_params.get("newest")
    if newest is not None:
        asked = Results(batch=name, limit=number_of(request, "newest", 10, PAGE_ITEMS), states=states, newest=True)
    else:
        asked = Results(batch=name, limit=PAGE_ITEMS, states=states, after=number_of(request, "after", 0, 2**53 - 1))
    first = await here.clients.ask(asked, ResultsPage)  # an unknown batch is told before the answer begins
    return StreamingResponse(_lines(here, first, asked), 200, media_type="application/x-ndjson")


async def _lines(here: Shared, page: ResultsPage, asked: Results) -> AsyncIterator[bytes]:
    while True:
        if page.results:
            yield b"".join(bytes(result) + b"\n" for result in page.results)
        if page.next is None:
            return
        page = await here.clients.ask(msgspec.structs.replace(asked, after=page.next), ResultsPage)


async def output(request: Request) -> Response:
    """Sends one output of a batch."""
    here = shared(request)
    progress = await _progress(here, request)
    # The decoded path has lost what is not UTF-8: the name is taken from what came.
    raw: bytes = request.scope["raw_path"]
    name = unquote_to_bytes(raw.split(b"/outputs/", 1)[1])
    if progress.out is None:
        raise Refusal(404, "output", f"batch {progress.batch} writes no files")
    directory = from_token(progress.out)
    try:
        return await send_file(here.places, below(directory, name), directory)
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal(404, "output", "there is no such output") from None
    except OSError as error:
        raise Refusal(404, "output", f"the output cannot be read: {error.strerror}") from None


async def _progress(here: Shared, request: Request) -> BatchProgress:
    return await here.clients.ask(Progress(batch=request.path_params["batch"]), BatchProgress)


ROUTES = [
    Route("/batches", create, methods=["POST"]),
    Route("/batches", listing),
    Route("/batches/{batch}", show),
    Route("/batches/{batch}", cancel, methods=["DELETE"]),
    Route("/batches/{batch}/retry", retry, methods=["POST"]),
    Route("/batches/{batch}/pause", pause, methods=["POST"]),
    Route("/batches/{batch}/resume", resume, methods=["POST"]),
    Route("/batches/{batch}/results", results),
    Route("/batches/{batch}/outputs/{name:path}", output),
    Route("/pause", pause, methods=["POST"]),
    Route("/resume", resume, methods=["POST"]),
]
