"""The three sockets of the supervisor: clients in front, workers behind, events for whoever listens.

Bytes become events here (by the codec), or, when they are no message, an error to their sender: a client that
sends nonsense is told so, a worker that does is reported to the policy. Neither stops the loop. Reading is
bounded a turn, so that a flood from one side never keeps the memory watch waiting.
"""

import os

from protocol import codec, sockets
from protocol.errors import BadMessage
from protocol.messages import AnyAnswer, AnyToWorker, Decision, Problem, Report
from supervisor.policy.events import AnyEvent, RequestReceived, WorkerBabbled, WorkerSaid

MESSAGES_A_TURN = 100
"""At some 20 µs each, 2 ms: well below the 5 ms a turn may take."""
ITEMS_A_TURN = 256
"""Items in the reports of one turn, beyond which no further report is read: at some 4 µs each, 1 ms, and as much
again for the lease that follows."""
REQUESTS_A_TURN = 20
"""A chunk of 10,000 names takes up to 2 ms to decode; ordinary requests take microseconds."""

_PLAIN, _DELIMITED = b"\0", b"\1"
"""How a peer frames its messages: a DEALER sends one frame, a REQ an empty one before it."""


class Router:
    """Owns the sockets. One thread, the loop's."""

    def __init__(self, *, frontend: str, backend: str, events: str) -> None:
        """Binds the three ipc endpoints. Raises SocketFailed naming the endpoint."""
        self._context = sockets.new_context()
        self.frontend = sockets.router_socket(self._context, frontend)
        self.backend = sockets.router_socket(self._context, backend)
        self.publisher = sockets.publisher(self._context, events)
        self._paths = [sockets.ipc_path(endpoint) for endpoint in (frontend, backend, events)]
        self.more_reports = False
        """Whether the last turn left reports unread."""

    def requests(self) -> list[AnyEvent]:
        """Returns what clients asked, at most REQUESTS_A_TURN; answers nonsense itself."""
        events: list[AnyEvent] = []
        for _ in range(REQUESTS_A_TURN):
            frames = sockets.receive(self.frontend)
            if frames is None:
                break
            peer, frame = _unwrap(frames)
            try:
                if frame is None:
                    raise BadMessage(f"a message is one frame of JSON, not {len(frames) - 1}")
                events.append(RequestReceived(peer=peer, request=codec.decode_request(frame)))
            except BadMessage as error:
                self._refuse(peer, frame, error)
        return events

    def reports(self) -> list[AnyEvent]:
        """Returns what workers said, at most MESSAGES_A_TURN, or ITEMS_A_TURN and what the last one has beyond."""
        events: list[AnyEvent] = []
        items = 0
        self.more_reports = False
        for _ in range(MESSAGES_A_TURN):
            if items >= ITEMS_A_TURN:
                self.more_reports = True
                break
            frames = sockets.receive(self.backend)
            if frames is None:
                break
            who = _worker_of(frames[0])
            if who is None:
                continue
            slot, incarnation = who
            try:
                message = codec.decode_from_worker(frames[-1])
                if isinstance(message, Report):
                    items += len(message.items)
                events.append(WorkerSaid(slot=slot, incarnation=incarnation, message=message))
            except BadMessage as error:
                events.append(WorkerBabbled(slot=slot, incarnation=incarnation, fault=str(error)))
        return events

    def answer(self, peer: bytes, answer: AnyAnswer) -> None:
        """Sends an answer; a client that is gone or does not read loses it."""
        frames = [peer[1:], codec.encode(answer)]
        if peer[:1] == _DELIMITED:
            frames.insert(1, b"")
        sockets.send(self.frontend, frames)

    def tell(self, slot: int, incarnation: int, message: AnyToWorker) -> bool:
        """Sends a worker a message; False when it is not there to take it (its exit is then on its way)."""
        identity = f"{slot}.{incarnation}".encode()
        return sockets.send(self.backend, [identity, codec.encode(message)]) is sockets.Sent.SENT

    def publish(self, topic: str, decision: Decision) -> None:
        """Tells whoever listens."""
        sockets.send(self.publisher, [topic.encode(), codec.encode_part(decision)])

    def subscriptions(self) -> None:
        """Reads what subscribers ask for: XPUB hands it on, and an unread queue would fill."""
        while sockets.receive(self.publisher) is not None:
            pass

    def close(self) -> None:
        """Sends what is queued (bounded by the sockets' linger) and removes the socket files."""
        for socket in (self.frontend, self.backend, self.publisher):
            socket.close()
        self._context.term()
        for path in self._paths:
            if path is not None and os.path.exists(path):
                os.unlink(path)

    def _refuse(self, peer: bytes, frame: bytes | None, error: BadMessage) -> None:
        number = codec.request_id(frame) if frame is not None else 0
        problem = Problem(id=number, code=error.code, fault=error.fault, message=str(error), exit_code=error.exit_code)
        self.answer(peer, problem)


def _unwrap(frames: list[bytes]) -> tuple[bytes, bytes | None]:
    """Returns the peer and its frame; None where there is not exactly one."""
    if len(frames) == 2:
        return _PLAIN + frames[0], frames[1]
    if len(frames) == 3 and not frames[1]:
        return _DELIMITED + frames[0], frames[2]
    return _PLAIN + frames[0], None


def _worker_of(identity: bytes) -> tuple[int, int] | None:
    """Returns (slot, incarnation) of a worker's identity; None for a stranger."""
    slot, dot, incarnation = identity.partition(b".")
    if dot and slot.isdigit() and incarnation.isdigit():
        return int(slot), int(incarnation)
    return None
