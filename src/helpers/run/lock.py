"""One make at a time.

``python alone.py reports/<study> command ...`` waits for the study's lock, clears up and runs the command;
``python alone.py <&9`` waits for the lock of what the shell has open as 9. Run by its path, and without imports of the
report's packages: it goes before every `make report`, and before they are installed.
"""

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

#: What a run that was killed leaves in its folder: unfinished files, whose names have the number of their process.
LEFTOVERS = (
    ".site-*",
    ".inputs.new",
    ".*.[0-9]*",
    ".runs/.*.[0-9]*",
    "notebooks/.*.unfinished.ipynb",
    "notebooks/.*.[0-9]*",
    "results/*.h5ad.tmp",
    "results/.*.[0-9]*",
    "results/*/.*.[0-9]*",
)


def wait_for_lock(file: IO[str], other: str) -> None:
    """Lock an open file, when no other process has it locked. The system unlocks it when its last holder ends.

    Parameters
    ----------
    file : file
        Open for as long as the lock is needed; processes that inherit it hold the lock too.
    other : str
        Told of while waiting.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{other} is running; waiting", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as e:  # some network file systems
        print(f"{file.name}: no locks here ({e.strerror}); run one at a time", file=sys.stderr, flush=True)


def clear(folder: Path) -> None:
    """Remove what a run that was killed left.

    Parameters
    ----------
    folder : Path
        Of the report.
    """
    for pattern in LEFTOVERS:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def main(folder: Path, command: Sequence[str]) -> None:
    """Replace this process by the command, which holds the folder's lock, as do the processes that it starts.

    Parameters
    ----------
    folder : Path
        Of the report.
    command : sequence of str
    """
    file = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = file.open("a")
        wait_for_lock(lock, f"another make report of {folder.name}")
        clear(folder)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    except OSError as e:
        from helpers.files import unwritable

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
