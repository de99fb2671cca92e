"""Paths of the project; files written as a whole or not at all, and what to tell when they cannot be."""

import errno
import os
from pathlib import Path

from helpers.study import StudyError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file as a whole or not at all.

    Parameters
    ----------
    path : Path
        Its folder is made if need be.
    content : str or bytes

    Raises
    ------
    StudyError
        If it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as e:
        raise unwritable(e, path) from None


_FIXES = {
    errno.ENOSPC: "make room on the disk, or move the project to another",
    errno.EDQUOT: "make room: your share of the disk is used up",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "make the folder writable, or work in a copy of the project",
    errno.EPERM: "make the folder writable, or work in a copy of the project",
    errno.EROFS: "work in a copy of the project on a disk that can be written to",
}


def unwritable(error: OSError, path: Path) -> StudyError:
    """What to tell of a file that cannot be written."""
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            return StudyError("a file, where a folder must be", file=folder, fix="remove or rename it")
    return StudyError("cannot be written", file=path, found=error.strerror or error, fix=remedy(str(error)))


def remedy(error: str) -> str | None:
    """What to do about an error of the file system.

    Parameters
    ----------
    error : str
        Its text, which may stand in a longer one.
    """
    return next((fix for code, fix in _FIXES.items() if os.strerror(code) in error), None)
