"""CPU time and memory of the cluster's processes, from /proc. The kernel counts in ticks of 10 ms."""

import bisect
import os
import pathlib
import threading
import time

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> tuple[int, int]:
    """Ticks of a process with all its threads, and of its children that ended; 0 for one that is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    utime, stime, cutime, cstime = map(int, fields[11:15])
    return utime + stime, cutime + cstime


class Steal:
    """How much of the machine's CPU time the host took away since this was made: a virtual machine's figures are worth
    little when it is more than a few per cent."""

    def __init__(self):
        self._before = self._read()

    @staticmethod
    def _read() -> tuple[int, int]:
        ticks = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return ticks[7], sum(ticks)

    def __str__(self) -> str:
        steal, total = (after - before for before, after in zip(self._before, self._read()))
        return f"Taken away by the host meanwhile: {100 * steal / max(1, total):.0f} % of CPU time."


class QuietTimes(threading.Thread):
    """When the host took nothing away. The kernel counts that in ticks of 10 ms, so what is quiet has no tick within
    `MARGIN_US` on either side."""

    MARGIN_US = 250_000

    def __init__(self):
        super().__init__(daemon=True)
        self._times, self._ticks = [], []
        self.start()

    def run(self) -> None:
        while True:
            ticks, _ = Steal._read()
            if not self._ticks or ticks != self._ticks[-1]:
                self._times.append(time.time_ns() // 1000)
                self._ticks.append(ticks)
            time.sleep(0.01)

    def has(self, since_us: float, until_us: float) -> bool:
        first = bisect.bisect_left(self._times, since_us - self.MARGIN_US)
        return first == bisect.bisect_right(self._times, until_us + self.MARGIN_US)


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


def sessions_cpu_us() -> float:
    """CPU time of the cluster's ended processes so far, in µs: of sessions, as long as nothing else ends."""
    return _ticks(postmaster())[1] * TICK_US


def private_mb(pid: int) -> float:
    """Memory of the process itself: the server's shared memory, of which a process maps what it touched, is not in it."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) / 1024
