"""The description of the interface, OpenAPI 3.1: a row an operation, so that it is read and kept in one sitting.

The tests check it with a validator, and that it lists exactly what the application serves.
"""

import re
from typing import Any, NamedTuple

from supervisor import __version__


class Row(NamedTuple):
    """One operation: its answer by status, what else may be answered, the query's parameters, the body's schema."""

    method: str
    path: str
    text: str
    kind: str
    schema: str | None = None
    status: int = 200
    others: tuple[int, ...] = ()
    query: tuple[tuple[str, str, str], ...] = ()
    body: str | None = None


JSON, LINES, TEXT, HTML, ANY = "application/json", "application/x-ndjson", "text/plain", "text/html", "*/*"
_LIMIT = ("limit", "integer", "at most so many")

ROWS = (
    Row("get", "/", "The dashboard.", HTML),
    Row("get", "/health", "Liveness: the supervisor answers.", JSON, "Health", others=(503,)),
    Row("get", "/ready", "Readiness, with the memory state: 503 while it drains, is paused, thrashes or is in "
        "emergency.", JSON, "Ready", others=(503,)),
    Row("get", "/status", "The whole pool at this moment, as `supervisor status --json`.", JSON, "Object"),
    Row("get", "/memory", "Everything known about memory, as `supervisor memory --json`.", JSON, "Object"),
    Row("get", "/metrics", "Figures for Prometheus.", TEXT),
    Row("get", "/decisions", "The last decisions with their figures, oldest first.", JSON, "Objects", query=(_LIMIT,)),
    Row("get", "/events", "Server-sent events: status, batches, recent, quarantine, memory, temp, cache, decisions.",
        "text/event-stream"),
    Row("get", "/history", "How memory went, in columns, with marks.", JSON, "Object",
        query=(("seconds", "integer", "so far back"), _LIMIT)),
    Row("get", "/temp", "What the workers' temp files take.", JSON, "Object"),
    Row("get", "/cache", "How the cache stands.", JSON, "Object"),
    Row("get", "/picture", "A small picture of an image below an allowed root.", "image/*", others=(204, 403),
        query=(("path", "string", "the image"), ("path_b64", "string", "its name in Base64 where it is not UTF-8"))),
    Row("post", "/pause", "Pauses the pool; what runs is finished.", JSON, "Message", body="Pause"),
    Row("post", "/resume", "Ends the pause.", JSON, "Message"),
    Row("get", "/batches", "The batches, newest first.", JSON, "Objects", query=(_LIMIT,)),
    Row("post", "/batches", "Submits files and directories below the allowed roots, or the images in the request. "
        "202: it is accepted and still being filled.", JSON, "Submitted", status=201,
        others=(202, 400, 403, 409, 413, 415), body="Submission"),
    Row("get", "/batches/{batch}", "How far a batch is.", JSON, "Object", others=(404,)),
    Row("delete", "/batches/{batch}", "Cancels what has not been started.", JSON, "Object", others=(404,)),
    Row("post", "/batches/{batch}/retry", "Puts failed images back to work.", JSON, "Object", others=(404,),
        body="Retry"),
    Row("post", "/batches/{batch}/pause", "Pauses a batch.", JSON, "Message", others=(404,), body="Pause"),
    Row("post", "/batches/{batch}/resume", "Ends its pause.", JSON, "Message", others=(404,)),
    Row("get", "/batches/{batch}/results", "What became of each image, a JSON object a line, as it settled.", LINES,
        others=(404,), query=(("state", "string", "only this state; may be repeated"),
                              ("after", "integer", "go on after this number"),
                              ("newest", "integer", "only so many, the newest first"))),
    Row("get", "/batches/{batch}/outputs/{name}", "One output, by its name below the batch's output directory.", ANY,
        others=(403, 404)),
    Row("get", "/quarantine", "Images kept away from workers, with the evidence.", JSON, "Objects"),
    Row("post", "/quarantine/retry", "Puts a quarantined image back to work.", JSON, "Message", others=(404,),
        body="Image"),
    Row("post", "/quarantine/drop", "Forgets a quarantined image.", JSON, "Message", others=(404,), body="Image"),
    Row("get", "/openapi.json", "This description.", JSON, "Object"),
    Row("get", "/login", "The way in for browsers.", HTML),
    Row("post", "/login", "A session for the token.", HTML, status=303, others=(401,)),
    Row("get", "/static/{name}", "An asset of the dashboard.", ANY, others=(404,)),
)  # fmt: skip


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


_TEXT, _FLAG, _COUNT = {"type": "string"}, {"type": "boolean"}, {"type": ["integer", "null"]}
_OPTIONS: dict[str, Any] = {
    "recipe": {**_TEXT, "description": "by name; the supervisor's recipes"},
    "out": {**_TEXT, "description": "an absolute directory below an allowed root"},
    "overwrite": _FLAG,
    "strict": _FLAG,
    "priority": {"type": "integer"},
    "kind": _TEXT,
}
SCHEMAS: dict[str, Any] = {
    "Object": {"type": "object"},
    "Objects": {"type": "array", "items": {"type": "object"}},
    "Error": _object(["error"], error=_object(["code", "message"], code=_TEXT, message=_TEXT)),
    "Health": _object(["alive"], alive=_FLAG, reason=_TEXT),
    "Ready": _object(["ready", "reasons"], ready=_FLAG, reasons={"type": "array", "items": _TEXT},
                     memory={"type": "object"}),
    "Message": _object(["message"], message=_TEXT),
    "Submitted": _object(["batch"], batch=_TEXT, items=_COUNT, ignored=_COUNT),
    "Submission": _object(["paths"], paths={"type": "array", "items": _TEXT, "minItems": 1}, base=_TEXT, batch=_TEXT,
                          **_OPTIONS),
    "Upload": _object(["image"], image={"type": "array", "items": {"type": "string", "format": "binary"}}, **_OPTIONS),
    "Retry": _object([], quarantined=_FLAG),
    "Pause": _object([], reason=_TEXT, seconds={"type": "number", "exclusiveMinimum": 0}),
    "Image": _object([], path=_TEXT, path_b64=_TEXT),
}  # fmt: skip


def document() -> dict[str, Any]:
    """Returns the OpenAPI document as JSON data."""
    paths: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        paths.setdefault(row.path, {})[row.method] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gallery-supervisor",
            "version": __version__,
            "description": "Image batches over HTTP. Sizes are bytes, times seconds, dates seconds since the epoch.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{}, {"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "gallery_session"},
            },
        },
    }


def _operation(row: Row) -> dict[str, Any]:
    words = re.findall(r"\w+", row.path.replace("openapi.json", "openapi"))
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{row.schema}"} if row.schema is not None else {}
    responses: dict[str, Any] = {str(row.status): {"description": row.text, "content": {row.kind: {"schema": schema}}}}
    for status in (*row.others, 401, 421):
        same = status in (202, 503) and row.schema is not None
        told = schema if same else {"$ref": "#/components/schemas/Error"}
        responses.setdefault(str(status), {"description": _MEANS[status], "content": {JSON: {"schema": told}}})
    made: dict[str, Any] = {
        "operationId": "_".join([row.method, *words]),
        "summary": row.text,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": _TEXT}
                for name in re.findall(r"{(\w+)}", row.path)
            ),
            *({"name": n, "in": "query", "description": text, "schema": {"type": t}} for n, t, text in row.query),
        ],
        "responses": responses,
    }
    if row.body is not None:
        content = {JSON: {"schema": {"$ref": f"#/components/schemas/{row.body}"}}}
        if row.body == "Submission":
            content["multipart/form-data"] = {"schema": {"$ref": "#/components/schemas/Upload"}}
        made["requestBody"] = {"content": content, "required": row.body in ("Submission", "Image")}
    return made


_MEANS = {
    204: "There is none without decoding the image.",
    202: "Accepted, and not complete yet.",
    400: "The request is wrong.",
    401: "A token is needed.",
    403: "Outside the allowed roots, or from another site.",
    404: "There is no such thing.",
    409: "Two inputs would write the same output.",
    413: "Too large.",
    415: "Another content type is needed.",
    421: "The gateway is not called so.",
    503: "Not now.",
}
