"""What the gateway is started with, and the token it keeps."""

import os
import secrets

import msgspec

from protocol.errors import MachineError, UsageError
from protocol.sockets import is_listening
from supervisor.config import FRONTEND, Reading
from supervisor.gateway.access import Access, rules
from supervisor.gateway.address import is_loopback, read_roots
from supervisor.gateway.places import Places
from supervisor.mechanism.state import StateDirectory
from supervisor.values import SECRET_CHARACTERS

NAMES = frozenset({"state", "socket", "recipe", "http", "http-roots", "http-hosts", "http-token", "http-upload"})
"""The settings that a gateway reads."""
FOLDER = "http"
"""What the gateway keeps, in the state directory: the token, and what was uploaded."""
TOKEN, UPLOADS = "token", "uploads"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's settings. `folder` is the absolute path of what it keeps; `upload_bytes` None: no limit."""

    state_directory: str
    socket: str | None
    host: str
    port: int
    folder: str
    access: Access
    roots: list[bytes]
    upload_bytes: int | None
    recipe: str = "thumbs"

    @property
    def uploads(self) -> bytes:
        """Where uploaded images and their outputs are."""
        return os.fsencode(os.path.join(self.folder, UPLOADS))

    def places(self) -> Places:
        """Returns the files that may be named, read and written."""
        return Places([*self.roots, self.uploads], os.fsencode(self.state_directory))

    def endpoint(self) -> str | None:
        """Returns where the supervisor listens; None where none does."""
        found = self.socket
        if found is None:
            told = StateDirectory(self.state_directory).read_endpoint()
            found = told.frontend if told is not None else None
        return found if found is not None and is_listening(found) else None


def read_setup(reading: Reading) -> Setup:
    """Returns the setup, and makes the gateway's folder. Raises UsageError, MachineError."""
    reading.raise_faults()
    if reading.values["http"] is None:
        raise UsageError("the gateway needs an address: --http HOST:PORT (or SUPERVISOR_HTTP), e.g. 127.0.0.1:8080")
    host, port = reading.values["http"]
    state = os.path.abspath(reading.state_directory)
    folder = os.path.join(state, FOLDER)
    try:
        os.makedirs(os.path.join(folder, UPLOADS), mode=0o700, exist_ok=True)
    except OSError as error:
        raise MachineError(f"the folder of the gateway, {folder}, cannot be made: {error.strerror}") from error
    token: str | None = reading.values["http-token"]
    if token is None and not is_loopback(host):
        token = kept_token(folder)
    names = [name.strip() for name in (reading.values["http-hosts"] or "").split(",") if name.strip()]
    return Setup(
        state_directory=state,
        socket=_named_socket(reading.values["socket"]),
        host=host,
        port=port,
        folder=folder,
        access=rules(host, token, names),
        roots=read_roots(reading.values["http-roots"]),
        upload_bytes=reading.values["http-upload"],
        recipe=reading.values["recipe"],
    )


def kept_token(folder: str) -> str:
    """Returns the token of a gateway's folder, made at the first time (0600). Raises MachineError."""
    path = os.path.join(folder, TOKEN)
    try:
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return _read_token(path)
        with os.fdopen(file, "w", encoding="ascii") as opened:
            token = secrets.token_urlsafe(32)
            opened.write(token + "\n")
        return token
    except OSError as error:
        raise MachineError(f"the token {path} cannot be kept: {error.strerror}") from error


def _read_token(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise MachineError(f"the token {path} may be read by others: chmod 600 it, or delete it for a new one")
        token = file.read(4096).strip()
    if len(token) < SECRET_CHARACTERS:
        raise MachineError(f"the token {path} is too short to be one; delete it and start again for a new one")
    return token


def _named_socket(named: str | None) -> str | None:
    if named is None:
        return None
    return f"ipc://{os.path.join(named, FRONTEND) if os.path.isdir(named) else named}"
