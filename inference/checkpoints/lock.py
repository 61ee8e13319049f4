"""One at a time in a folder that is written to."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from weakref import WeakKeyDictionary, WeakValueDictionary, finalize

from dlvm.inference.console import first_line, tell

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # no such locks on this platform
LOCK = ".lock"
_handles: set[int] = set()


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Inside, nobody else who asks as well is let into the folder.

    The lock is the operating system's, on the file ``.lock``: it ends with the process, however that ends, so that
    what was killed can go on at once. Where platform or file system have no such locks, everybody is let in.

    Args:
        folder: that exists.
        what: is done in it, in the words of the error: "a run", "a sweep".

    Raises:
        BlockingIOError: somebody is in there, and the message says which process.
        OSError: nothing can be written there.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, locked(Path(folder), "a run"), locked(Path(folder), "a run"):
        ...     pass
        Traceback (most recent call last):
        BlockingIOError: ... is in use by a run of this process; ...
    """
    if fcntl is None:
        yield
        return
    path, owner = Path(folder) / LOCK, os.getpid()
    handle = _taken(path, what)
    _handles.add(handle)
    try:
        yield
    finally:
        if os.getpid() == owner:
            _handles.discard(handle)
            with suppress(OSError):  # the folder may be gone
                path.unlink()
            os.close(handle)


def _taken(path: Path, what: str) -> int:
    """A handle of the file, locked, and in the file who has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 400, 0).decode(errors="replace")
            os.close(handle)
            raise BlockingIOError(
                f"{path.parent} is in use by {_holder(holder)}; let that end first, or choose another folder"
            ) from error
        except OSError as error:
            tell(f"{path.parent} cannot be locked ({first_line(error)}); see to it that nobody else writes there")
            return handle
        if _is_at(handle, path):
            with suppress(OSError):  # a full disk: then the file does not say
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()} {socket.gethostname()} {what}".encode(), 0)
            return handle
        os.close(handle)  # its last holder has just removed it


def _is_at(handle: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _holder(text: str) -> str:
    """Who wrote this into the file."""
    number, _, rest = text.partition(" ")
    host, _, what = rest.partition(" ")
    if not what:
        return "another process"
    if host != socket.gethostname():
        return f"{what} of process {number} on {host}"
    return f"{what} of " + ("this process" if number == str(os.getpid()) else f"process {number}")


def _leave_to_parent() -> None:
    """A child has the parent's locks as long as it has their handles."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


class _Lock:
    """Let go of with the last object that holds it."""

    def __init__(self, folder: Path):
        held = ExitStack()
        held.enter_context(locked(folder, "a run"))
        finalize(self, held.close)


_of_folder: WeakValueDictionary[Path, _Lock] = WeakValueDictionary()
_of_owner: WeakKeyDictionary[object, _Lock] = WeakKeyDictionary()


def claim(owner: object, folder: Path) -> None:
    """Keeps other processes out of a folder until the owner is gone, so that a script may sweep more than once.

    Args:
        owner: whose end lets go of it; several of one process share the folder.
        folder: that exists.

    Raises:
        BlockingIOError: another process has it, and the message says which.
    """
    place = Path(folder).resolve()
    lock = _of_folder.get(place)
    if lock is None:
        lock = _of_folder[place] = _Lock(place)
    _of_owner[owner] = lock
