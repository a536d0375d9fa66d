"""The messages, both directions: frozen, typed, validated while they are decoded.

Every message is one JSON object in one ZeroMQ frame. `type` names it, `v` is PROTOCOL_VERSION, and a
client's `id` comes back in the answer. Four families:

* `Request`  client -> supervisor   (frontend socket, ROUTER; DEALER or REQ on the client's side)
* `Answer`   supervisor -> client   (one for each request, never unasked)
* `ToWorker` supervisor -> worker   (backend socket)
* `FromWorker` worker -> supervisor

Names of files are path tokens (`protocol.paths`). Sizes are bytes, durations seconds, dates seconds
since the epoch (UTC).
"""

from protocol.messages.answers import *
from protocol.messages.base import *
from protocol.messages.changes import *
from protocol.messages.emergency import *
from protocol.messages.from_worker import *
from protocol.messages.history import *
from protocol.messages.leases import *
from protocol.messages.memory import *
from protocol.messages.profile import *
from protocol.messages.recipes import *
from protocol.messages.requests import *
from protocol.messages.to_worker import *

AnyRequest = (
    Hello | OpenBatch | AddItems | CloseBatch | Progress | ListBatches | Results | ImageHashes
    | CancelBatch | RetryBatch
    | PauseWork | ResumeWork | StatusRequest | Why | Events | QuarantineList | QuarantineDrop | TempStats | TempReap
    | EmergencyCleanup | EmergencyCollect | EmergencyStatusRequest | EmergencyReset | EmergencyProtection
    | AskCache | RecycleWorker | Stop | MemoryRequest
    | LeaseMemory | RenewMemoryLease | EndMemoryLease
    | History | LeaksRequest
    | ChangeSettings
    | MemoryProfile
)  # fmt: skip
AnyAnswer = (
    Problem | Welcome | BatchOpened | ItemsAdded | BatchClosed | BatchProgress | Batches | ResultsPage | ImageHashesPage
    | Done
    | Status | Decisions | QuarantineEntries | TempUsage | TempReport | CacheReport
    | MemoryReport
    | MemoryLeased
    | HistoryPage | LeaksReport
    | SettingsReport
    | ProfileReport
    | CleanupReport | EmergencyStatus
)  # fmt: skip
AnyToWorker = Grant | Shrink | Trim | Quit | MemoryGranted | MemoryRefused | Profile
AnyFromWorker = (
    Ready | Heartbeat | Report | Trimmed
    | RequestMemory | ReleaseMemory | RenewMemory | ModelLoaded | ModelUnloaded | Profiled
)  # fmt: skip
