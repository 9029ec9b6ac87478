"""Who may write to an output folder: a lock in storage that its holder keeps alive by heartbeat."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from batch_pipeline.errors import (
    ObjectNotFound,
    OutputRefused,
    OwnershipLost,
    PreconditionFailed,
    ServiceLocked,
    StorageFailed,
)
from batch_pipeline.layout import OutputLayout
from batch_pipeline.storage import Storage
from batch_pipeline.storage.guarded import GuardedStorage

LOCK_SECONDS = 30.0
"""A lock that has not been heard of for this long is a dead holder's."""
BEAT_SECONDS = 5.0
POLL_SECONDS = 0.5
LARGEST = 2**16
"""Bytes of a lock; of what is no lock no more is read."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one boot of one host: a process id alone may be taken again, or mean another in a container."""

    host: str
    boot: str
    pid: int
    started: str
    namespace: str = ""
    """In which the process id counts."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        return cls(socket.gethostname(), _boot(), pid, _start_time(pid) or "", _pid_namespace())

    @classmethod
    def current(cls) -> ProcessIdentity:
        return cls.of(os.getpid())

    def state(self) -> str:
        """`alive`, `gone`, or `unknown` where the process is not of this host, or not of this container."""
        if (self.host, self.boot, self.namespace) != (socket.gethostname(), _boot(), _pid_namespace()):
            return "unknown"
        started = _start_time(self.pid)
        return "alive" if started is not None and started == self.started else "gone"


@dataclass(frozen=True)
class Owner:
    """The run that works on a service. `process` is the one whose end means the run's end, where that is known."""

    run_id: str
    service: str
    process: ProcessIdentity | None = None


@dataclass(frozen=True)
class _Lock:
    owner: Owner
    beat: float
    """Unix time, by the holder's clock."""

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, data: bytes) -> _Lock:
        record = orjson.loads(data)
        owner = record["owner"]
        process = ProcessIdentity(**owner["process"]) if owner["process"] else None
        return cls(Owner(str(owner["run_id"]), str(owner["service"]), process), float(record["beat"]))


def claim(
    storage: Storage,
    layout: OutputLayout,
    owner: Owner,
    *,
    lock_seconds: float = LOCK_SECONDS,
    is_gone: Callable[[str], bool] = lambda _: False,
) -> None:
    """Takes the output folder for `owner`, waiting for a dead holder's lock to expire.

    `is_gone` says of a run id whether that run is known to have ended; a process of it may live on all the same. Raises
    ServiceLocked where the holder lives, and OutputRefused where it works for another service and may live.
    """
    while True:
        found = _read(storage, layout)
        if found is None:
            if _write(storage, layout, owner, if_match=None):
                return
            continue
        lock, etag = found
        if lock.owner == owner and _is_just_renewed(lock, lock_seconds):
            return  # as an earlier step of this run has left it
        if lock.owner.run_id != owner.run_id and not _may_take_over(
            storage, layout, owner, lock, etag, lock_seconds, is_gone
        ):
            continue
        if _write(storage, layout, owner, if_match=etag):
            return


def _may_take_over(
    storage: Storage,
    layout: OutputLayout,
    owner: Owner,
    lock: _Lock,
    etag: str,
    lock_seconds: float,
    is_gone: Callable[[str], bool],
) -> bool:
    """True once the holder is known to be dead; False when the lock has gone meanwhile. Raises where it lives."""
    state = lock.owner.process.state() if lock.owner.process else "unknown"
    if state == "gone":
        return True
    ended = is_gone(lock.owner.run_id)
    if not ended:
        if state == "alive" or _is_fresh(lock, lock_seconds):
            _refuse_if_foreign(layout, owner, lock)
        if state == "alive":
            raise ServiceLocked(_alive(layout, lock))
    watched = time.monotonic()
    while True:
        # A holder that lives trusts in the lock for a third of `lock_seconds`: who takes it then would not be alone.
        silent = ended or time.time() - lock.beat >= lock_seconds
        enough = max(min(2 * BEAT_SECONDS, lock_seconds), lock_seconds / 2) if silent else lock_seconds
        if time.monotonic() - watched >= enough:
            return True
        time.sleep(min(POLL_SECONDS, lock_seconds / 6))
        found = _read(storage, layout)
        if found is None or found[0].owner.run_id == owner.run_id:
            return False
        if found[1] != etag:
            ended = ended and found[0].owner.run_id == lock.owner.run_id
            if not ended:
                _refuse_if_foreign(layout, owner, found[0], at_work=True)
            raise ServiceLocked(_alive(layout, found[0], ended=ended))


def check_free(
    storage: Storage, layout: OutputLayout, owner_service: str, *, lock_seconds: float = LOCK_SECONDS
) -> None:
    """Raises OutputRefused where another service holds the lock, and may live, and ServiceLocked where a run does that
    is known to live."""
    found = _read(storage, layout)
    if found is None:
        return
    lock, _ = found
    state = lock.owner.process.state() if lock.owner.process else "unknown"
    if state == "alive" or (state == "unknown" and _is_fresh(lock, lock_seconds)):
        _refuse_if_foreign(layout, Owner("", owner_service), lock)
    if state == "alive":
        raise ServiceLocked(_alive(layout, lock))


def release(storage: Storage, layout: OutputLayout, run_id: str, *, lock_seconds: float = LOCK_SECONDS) -> None:
    """Gives the folder back; does nothing where another run holds it.

    Few stores delete on condition. So a process that was stopped since it looked asks again, as for any other change:
    it may be another's lock by now.
    """
    found = _read(storage, layout)
    if found is None or found[0].owner.run_id != run_id:
        return
    heartbeat = Heartbeat(storage, layout, found[0].owner, lock_seconds=lock_seconds)
    if not _is_just_renewed(found[0], lock_seconds):
        heartbeat.distrust()
    with suppress(OwnershipLost):
        GuardedStorage(storage, heartbeat.check).delete([layout.lock])


class Heartbeat:
    """Keeps a lock alive while its `with` block runs, and notices when it was lost.

    For the holder of a lock that was just claimed. A process that was stopped for long finds out before it goes on:
    the holder trusts in the lock for a third of the time after which others take it over, and then asks.
    """

    def __init__(
        self, storage: Storage, layout: OutputLayout, owner: Owner, *, lock_seconds: float = LOCK_SECONDS
    ) -> None:
        self._storage, self._layout, self._owner, self._lock_seconds = storage, layout, owner, lock_seconds
        self._beat_seconds = min(BEAT_SECONDS, lock_seconds / 6)
        self._trusted_seconds = lock_seconds / 3
        self._renewed = _seconds()
        self._asking = threading.Lock()
        self._ended = threading.Event()
        self.lost = False

    def __reduce__(self) -> tuple[Callable[..., Heartbeat], tuple[object, ...]]:
        return _not_trusting, (self._storage, self._layout, self._owner, self._lock_seconds)

    def distrust(self) -> None:
        """The next check asks, however long ago the lock was renewed."""
        self._renewed = -math.inf

    def check(self) -> None:
        """Raises OwnershipLost where another run has taken the folder over, StorageFailed where nobody can say."""
        if not self.lost and _seconds() - self._renewed >= self._trusted_seconds:
            with self._asking:
                if _seconds() - self._renewed >= self._trusted_seconds:
                    self._renew()
        if self.lost:
            raise OwnershipLost(
                f"{self._layout.output}: another run took this output folder over while run {self._owner.run_id} "
                "was not heard of; this run stops, and what it finished is kept"
            )

    def beat(self) -> None:
        """Renews the lock once. A store that does not answer is tried again at the next beat."""
        with suppress(StorageFailed):
            self._renew()

    def _renew(self) -> None:
        began = _seconds()
        found = self._own()
        if found is not None and not _write(self._storage, self._layout, found[0].owner, if_match=found[1]):
            # Another step of this run may have been quicker.
            found = self._own()
        if found is not None:
            self._renewed = began
        else:
            self.lost = True

    def _own(self) -> tuple[_Lock, str] | None:
        """The lock, where it is this run's."""
        try:
            found = _read(self._storage, self._layout)
        except OutputRefused:
            return None
        return found if found is not None and found[0].owner.run_id == self._owner.run_id else None

    def _keep(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            self.beat()

    @contextmanager
    def running(self) -> Iterator[Heartbeat]:
        thread = threading.Thread(target=self._keep, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()


def _not_trusting(storage: Storage, layout: OutputLayout, owner: Owner, lock_seconds: float) -> Heartbeat:
    """In another process of the same run: it asks before anything, and from then on whenever that was long ago."""
    heartbeat = Heartbeat(storage, layout, owner, lock_seconds=lock_seconds)
    heartbeat.distrust()
    return heartbeat


def _read(storage: Storage, layout: OutputLayout) -> tuple[_Lock, str] | None:
    """The lock and its ETag; None where there is none. Raises OutputRefused where it is none of ours."""
    try:
        with storage.open(layout.lock, end=LARGEST) as stream:
            data = stream.read()
    except ObjectNotFound:
        return None
    try:
        return _Lock.decode(data), stream.etag
    except (ValueError, LookupError, TypeError) as error:
        raise OutputRefused(f"{layout.lock} is no lock of a service: something else has written it") from error


def _write(storage: Storage, layout: OutputLayout, owner: Owner, *, if_match: str | None) -> bool:
    """Writes the lock if it still is what `if_match` names (None: if there is none). False where it is not."""
    try:
        storage.write(layout.lock, _Lock(owner, time.time()).encode(), if_absent=if_match is None, if_match=if_match)
    except (PreconditionFailed, ObjectNotFound):
        return False
    return True


def _seconds() -> float:
    """Of a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _is_just_renewed(lock: _Lock, lock_seconds: float) -> bool:
    """Whether so lately that nobody takes it over within the time for which its holder trusts in it."""
    return 0 <= time.time() - lock.beat < min(BEAT_SECONDS, lock_seconds / 6)


def _is_fresh(lock: _Lock, lock_seconds: float) -> bool:
    """Whether it was renewed lately. One from a time that is long to come tells of a clock that was set wrong."""
    return abs(time.time() - lock.beat) < lock_seconds


def _refuse_if_foreign(layout: OutputLayout, owner: Owner, lock: _Lock, *, at_work: bool = False) -> None:
    if lock.owner.service != owner.service:
        by = f"the service {lock.owner.service}{', which is at work there' if at_work else ''}"
        raise OutputRefused(f"output_path {layout.output} is in use by {by}; choose another folder")


def _alive(layout: OutputLayout, lock: _Lock, *, ended: bool = False) -> str:
    run = f"{layout.output}: run {lock.owner.run_id} of the service {lock.owner.service}"
    if ended:
        return f"{run} has ended, but a process of it is still at work on it; end that process, or wait for its end"
    return f"{run} is at work on it; stop that run, or wait for its end"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; None where there is no such process (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _signalled(pid)
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _signalled(pid: int) -> str | None:
    """Where there is no /proc (macOS): whether the process takes a signal."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""
