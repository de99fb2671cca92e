"""One make at a time.

``python lock.py reports/<study> command ...`` waits for the study's lock, clears up and runs the command;
``python lock.py <&9`` waits for the lock of what the shell has open as 9. Run by its path, and without imports of the
report's packages: it goes before every `make report`, and before they are installed.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from helpers.files import UNFINISHED, remove, unwritable


def wait_for_lock(file: IO[str] | int, other: str) -> None:
    """Lock an open file, or its descriptor, when no other process has it locked; tell of the `other` while waiting.

    It is open for as long as the lock is needed; who inherits it holds the lock too. The system unlocks it when its
    last holder ends.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{other} is running; waiting", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as e:  # some network file systems
        print(f"no locks here ({e.strerror}): do not run {other} now", file=sys.stderr, flush=True)


@contextmanager
def locked(path: Path, other: str) -> Iterator[None]:
    """Hold the lock of a file or a folder, which must be there; `other` as of `wait_for_lock`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        wait_for_lock(descriptor, other)
        yield
    finally:
        os.close(descriptor)


def clear(folder: Path, *, inside: bool = True) -> None:
    """Remove what processes that were killed left unfinished: in the folder and, if `inside`, in its folders.

    Who calls it holds a lock: nobody else writes there.
    """
    for path in list(folder.rglob(UNFINISHED) if inside else folder.glob(UNFINISHED)):
        remove(path)


def distrust(folder: Path) -> None:
    """Make what is dated ahead of the clock as old as can be: make would take it for newer than whatever changes."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mtime > time.time() + 2:  # clocks of file servers differ a little
            os.utime(path, (0, 0))


def main(folder: Path, command: Sequence[str]) -> None:
    """Replace this process by the command, which holds the report folder's lock, as do the processes that it starts."""
    file = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = file.open("a")
        wait_for_lock(lock, f"another make report of {folder.name}")
        clear(folder)
        distrust(folder)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    except OSError as e:
        sys.exit(str(unwritable(e, file)))
    os.set_inheritable(lock.fileno(), True)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and by what it starts
        signal.signal(ignored, signal.SIG_DFL)
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    try:
        if sys.argv[1:]:
            main(Path(sys.argv[1]), sys.argv[2:])
        else:
            wait_for_lock(sys.stdin, "another make that installs .venv")
    except KeyboardInterrupt:
        sys.exit(130)
