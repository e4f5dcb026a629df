"""What a site costs while nothing happens, and how long its start takes, beside another commit.

`make bench BENCH=footprint` (BASE=commit, TURNS=5, WINDOW=seconds) builds the images of both trees
and starts a site of each in turns. It needs root, because it reads every process's memory, and a
machine that does nothing else: `host CPU` counts all of it, also what the engine spends on health
checks. `stack CPU` leaves out the engine's daemons and what others do.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import REPOSITORY, Stack, copy_tree, new_name, run

BASE = os.environ.get("BASE", "9d34741")
TURNS = int(os.environ.get("TURNS", "5"))
WINDOW = float(os.environ.get("WINDOW", "60"))
SETTLE = float(os.environ.get("SETTLE", "60"))
"""Seconds from healthy until the site counts as idle."""

MIB = 2**20
TICKS = os.sysconf("SC_CLK_TCK")
BUSY = (0, 1, 2, 5, 6, 7)
"""The fields of /proc/stat that are not idle: user, nice, system, irq, softirq, steal (proc(5))."""

UNITS = {
    "memory, PSS of processes": "MiB",
    "memory, cgroups less file cache": "MiB",
    "CPU of the host, idle": "% of a core",
    "CPU of the stack, idle": "% of a core",
    "up, new site": "s",
    "up again, same volumes": "s",
    "CPU of up, new site": "s",
    "CPU of up again": "s",
    "app image": "MB",
}
Figures = dict[str, float]


@dataclass(frozen=True)
class Group:
    """The control group of a container, of either version of cgroups(7)."""

    name: str
    pid: int

    def file(self, controller: str, name: str) -> str:
        """Read a controller's file."""
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "" or controller in controllers.split(","):
                folder = Path("/sys/fs/cgroup") / controllers / path.lstrip("/")
                if (folder / name).exists():
                    return (folder / name).read_text()
        raise FileNotFoundError(f"{self.name}: its cgroup has no {name}")

    @property
    def cpu(self) -> float:
        """CPU time in seconds, the shim's with it: it starts and reaps what health checks run."""
        try:
            used = float(self.file("cpuacct", "cpuacct.usage")) / 1e9
        except FileNotFoundError:
            used = int(self.file("cpu", "cpu.stat").split()[1]) / 1e6
        shim = int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1])
        fields = Path(f"/proc/{shim}/stat").read_text().rpartition(")")[2].split()
        return used + sum(map(int, fields[11:15])) / TICKS

    @property
    def memory(self) -> float:
        """Charged memory less file cache, in bytes."""
        try:
            current, cache = self.file("memory", "memory.usage_in_bytes"), "total_cache"
        except FileNotFoundError:
            current, cache = self.file("memory", "memory.current"), "file"
        found = re.search(rf"(?m)^{cache} (\d+)$", self.file("memory", "memory.stat"))
        return int(current) - int(found[1]) if found else int(current)

    @property
    def pss(self) -> float:
        """Proportional set size of the processes, in bytes (proc(5), smaps_rollup)."""
        total = 0
        for pid in self.file("pids", "cgroup.procs").split():
            found = re.search(r"(?m)^Pss: +(\d+) kB", _read(f"/proc/{pid}/smaps_rollup"))
            total += int(found[1]) * 1024 if found else 0
        return total


def _read(path: str) -> str:
    """Read a process's file; one that has ended has none."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def host_cpu() -> float:
    """Return the seconds that the host's processors were busy since it started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(int(fields[place]) for place in BUSY) / TICKS


def groups(site: Stack) -> list[Group]:
    """Return the groups of the site's containers that run."""
    keys = site.compose("ps", "--quiet").split()
    shown = run("docker", "inspect", "--format={{.Name}} {{.State.Pid}}", *keys)
    found = [line.lstrip("/").split() for line in shown.splitlines()]
    return [Group(name.removeprefix(f"{site.project}-"), int(pid)) for name, pid in found]


@dataclass
class Side:
    """A tree whose sites are measured."""

    name: str
    folder: Path

    @contextmanager
    def site(self) -> Iterator[Stack]:
        """Make a site that exists nowhere yet, and remove it."""
        site = Stack(self.folder, new_name())
        try:
            site.create()
            yield site
        finally:
            site.remove()

    def turn(self) -> Figures:
        """Start a site, let it idle, stop it and start it again."""
        with self.site() as site:
            seconds, spent = timed_up(site)
            time.sleep(SETTLE)
            figures = {"up, new site": seconds, "CPU of up, new site": spent} | idle(site)
            site.make("down")
            seconds, spent = timed_up(site)
        return figures | {"up again, same volumes": seconds, "CPU of up again": spent}


def timed_up(site: Stack) -> tuple[float, float]:
    """Return the seconds of `make up`, and those of the host's processors meanwhile."""
    began, busy = time.monotonic(), host_cpu()
    site.make("up")
    return time.monotonic() - began, host_cpu() - busy


def idle(site: Stack) -> Figures:
    """Measure a site for a while."""
    watched = groups(site)
    before, began = {group: group.cpu for group in watched}, time.monotonic()
    busy = host_cpu()
    time.sleep(WINDOW)
    busy, seconds = host_cpu() - busy, time.monotonic() - began
    spent = {group: group.cpu - before[group] for group in watched}
    rows = sorted((group.name, spent[group], group.pss, group.memory) for group in watched)
    for name, used, pss, memory in rows:
        print(
            f"  {name:28} {used / seconds:6.2%} of a core  PSS {pss / MIB:6.1f} MiB  "
            f"cgroup {memory / MIB:6.1f} MiB",
            flush=True,
        )
    return {
        "memory, PSS of processes": sum(row[2] for row in rows) / MIB,
        "memory, cgroups less file cache": sum(row[3] for row in rows) / MIB,
        "CPU of the host, idle": 100 * busy / seconds,
        "CPU of the stack, idle": 100 * sum(spent.values()) / seconds,
    }


def side(name: str, folder: Path) -> Side:
    """Give a tree's image a tag of its own, and build it."""
    example = folder / "env" / "example.env"
    tag = f"soc-app:footprint-{name}"
    example.write_text(re.sub(r"(?m)^APP_IMAGE=.*$", f"APP_IMAGE={tag}", example.read_text()))
    made = Side(name, folder)
    with made.site():
        return made


def image_size(made: Side) -> float:
    """Return the megabytes of a side's app image."""
    shown = run(
        "docker", "image", "inspect", "--format={{.Size}}", f"soc-app:footprint-{made.name}"
    )
    return int(shown) / 1e6


def unpack(commit: str, folder: Path) -> Path:
    """Write the tree of a commit."""
    archive = subprocess.run(
        ["git", "archive", commit], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def medians(turns: Iterable[Figures]) -> Figures:
    """Return the median of each figure."""
    turns = list(turns)
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def main() -> None:
    """Measure both trees in turns and print what they cost."""
    if os.geteuid() != 0:
        sys.exit("run as root: the memory of other users' processes is read")
    with tempfile.TemporaryDirectory() as base, tempfile.TemporaryDirectory() as new:
        sides = (side("base", unpack(BASE, Path(base))), side("new", copy_tree(Path(new))))
        turns: dict[str, list[Figures]] = {made.name: [] for made in sides}
        for number in range(TURNS):
            for made in sides if number % 2 == 0 else reversed(sides):
                print(f"turn {number + 1} of {TURNS}: {made.name}", flush=True)
                turns[made.name].append(made.turn() | {"app image": image_size(made)})
    before, after = medians(turns["base"]), medians(turns["new"])
    print(f"\n{'':34}{BASE:>12}{'this tree':>12}  ratio")
    for name, unit in UNITS.items():
        ratio = after[name] / before[name]
        print(f"{name:34}{before[name]:12.1f}{after[name]:12.1f}  {ratio:.2f}  {unit}")
    for name in UNITS:
        print(f"figure {_key(name)}-ratio {after[name] / before[name]:.3f} x")
    for name, unit in UNITS.items():
        print(f"figure {_key(name)} {after[name]:.1f} {unit.replace(' ', '-')}")


def _key(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
