"""CPU time and memory of the cluster's processes, from /proc. The kernel counts in ticks of 10 ms."""

import os
import pathlib

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> tuple[int, int]:
    """Ticks of a process with all its threads, and of its children that ended; 0 for one that is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    utime, stime, cutime, cstime = map(int, fields[11:15])
    return utime + stime, cutime + cstime


def postmaster() -> int:
    return int((pathlib.Path(os.environ["PGDATA"]) / "postmaster.pid").read_text().split()[0])


def children(pid: int) -> list[int]:
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_us(pid: int) -> float:
    """CPU time of one process and its threads, in µs."""
    return _ticks(pid)[0] * TICK_US


def cluster_cpu_us() -> float:
    """CPU time of the whole cluster so far, ended sessions included, in µs."""
    own, ended = _ticks(postmaster())
    return (own + ended + sum(_ticks(child)[0] for child in children(postmaster()))) * TICK_US


def private_mb(pid: int) -> float:
    """Memory of the process itself: the server's shared memory, of which a process maps what it touched, is not in it."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) / 1024
