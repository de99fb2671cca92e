"""Many computations at once: on the cores of this machine, or on a Dask cluster; results are the same either way."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from tqdm import tqdm

import helpers

T = TypeVar("T")


@contextmanager
def workers() -> Iterator[Executor]:
    """Every core of this machine; or the Dask cluster of ``DASK_SCHEDULER_ADDRESS``, if that is set."""
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address:
        helpers.unhide("dask")
        from distributed import Client

        with Client(address) as client, client.get_executor() as pool:
            yield pool
    else:
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            yield pool


def each(work: Callable[..., T], jobs: Sequence[tuple[Any, ...]], pool: Executor, told: str) -> list[T]:
    """What the work makes of each job, in the order of the jobs whatever the order in which they were done.

    A bar on the terminal says how far it is, also from within a notebook.
    """
    futures = [pool.submit(work, *job) for job in jobs]
    # A kernel has laid another file over the terminal's, and keeps a copy of that.
    with os.fdopen(getattr(sys.stderr, "_original_stdstream_copy", None) or 2, "w", closefd=False) as terminal:
        for _ in tqdm(as_completed(futures), total=len(futures), desc=told, mininterval=5, file=terminal):
            pass
    return [future.result() for future in futures]


def on_threads(work: Callable[[T], None], parts: Sequence[T]) -> None:
    """Do the work on each part: on every core, if it is of large arrays, for which NumPy lets other threads go on."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(parts))) as threads:
        list(threads.map(work, parts))
