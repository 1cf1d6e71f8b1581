"""Locks that processes hold on parts of one file, so that several can share the scans of a batch.

They are POSIX record locks: the system gives them back when a process dies, however it dies, and network file systems
that support them (NFS with its lock manager, Lustre and GPFS by default) hold them across machines.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SETUP, RUN, TABLES = 0, 1, 2
"""Bytes that stand for more than a scan: setting up the folder, working in it, writing its tables."""
_FIRST_SCAN = 16
_LAST_SCAN = _FIRST_SCAN + 2**56 - 1
_UNSUPPORTED = (
    *(errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL),
    *(errno.EOVERFLOW, errno.EFBIG),  # locks, but not so far from the beginning
)


class Locks:
    """The locks of this process on one output folder.

    There must be only one object a file and process: closing any handle of a file gives back all locks on it, and
    threads of one process do not exclude each other (for scans this object sees to that).

    Parameters
    ----------
    path : path
        The file, made if necessary; its content does not matter.

    Attributes
    ----------
    supported : bool
        Whether the system and the file system have such locks. Where not, every claim is granted: then one process at
        a time may work in a folder.
    """

    def __init__(self, path: str | os.PathLike):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._held: set[str] = set()
        self._guard = threading.Lock()
        self.supported = fcntl is not None
        if self.supported:
            try:
                for byte in (SETUP, _LAST_SCAN):
                    self._lock(fcntl.LOCK_SH | fcntl.LOCK_NB, byte)
                    self._lock(fcntl.LOCK_UN, byte)
            except (BlockingIOError, PermissionError):  # somebody holds it, so there are locks
                pass
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self.supported = False

    def claim(self, key: str) -> bool:
        """Take a scan for this process and return True, or False if this or another process holds it."""
        with self._guard:
            if key in self._held:
                return False
            if self.supported:
                try:
                    self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _byte(key))
                except (BlockingIOError, PermissionError):
                    return False
            self._held.add(key)
            return True

    def release(self, key: str) -> None:
        """Give a scan back."""
        with self._guard:
            self._held.discard(key)
            if self.supported:
                self._lock(fcntl.LOCK_UN, _byte(key))

    @contextmanager
    def exclusive(self, byte: int) -> Iterator[None]:
        """Wait until no other process holds a byte, and hold it during the block."""
        if self.supported:
            self._lock(fcntl.LOCK_EX, byte)
        try:
            yield
        finally:
            if self.supported:
                self._lock(fcntl.LOCK_UN, byte)

    def share(self, byte: int) -> None:
        """Hold a byte together with others from now on."""
        if self.supported:
            self._lock(fcntl.LOCK_SH, byte)

    def alone(self, byte: int) -> bool:
        """Return whether no other process holds a byte now."""
        if not self.supported:
            return True
        try:
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, byte)
        except (BlockingIOError, PermissionError):
            return False
        self._lock(fcntl.LOCK_UN, byte)
        return True

    def are_on(self, path: str | os.PathLike) -> bool:
        """Return whether the file at a path is the one that these locks are on."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(path))
        except OSError:
            return False

    def close(self) -> None:
        """Give everything back."""
        os.close(self._file)

    def _lock(self, kind: int, byte: int) -> None:
        fcntl.lockf(self._file, kind, 1, byte)


def _byte(key: str) -> int:
    """Return the place in the file that stands for a scan; it may lie beyond the end, which is never written."""
    return _FIRST_SCAN + int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:7], "big")
