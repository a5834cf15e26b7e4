"""The figures as a table, as JSON and as a chart."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import docker
from rich.console import Console
from rich.table import Table

from benchmarks import growth
from benchmarks.programs import PROGRAMS
from benchmarks.turns import Cell, percentile
from spoold.engines.docker import checks

REFERENCE = "docker-run"
FIGURES = ("p50 ms", "p95 ms", "p99 ms", "samples", "jobs/s", "sustained", "turns")
FEW = 5  # a rate of fewer turns than this is marked
JOURNALS = Path("/proc/fs/jbd2")  # has a directory for each journal of ext4, whose name begins with the device


def results(cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Return the figures of all cells, by name."""
    return {
        cell.name: {
            **{f"p{part}_ms": percentile(cell.latencies, part) for part in (50, 95, 99)},
            **{f"common_p{part}_ms": percentile(cell.common, part) for part in (50, 95, 99)},
            "jobs_per_s": round(cell.jobs_per_second, 2),
            "sustained_per_s": round(cell.capacity, 2),
            "samples": len(cell.latencies),
            "common_samples": len(cell.common),
            "runs": cell.runs,
            "turns": cell.turns,
        }
        for cell in cells
    }


def machine(docker_host: str, work: Path) -> dict[str, Any]:
    """Return what the figures depend on: the machine, the engine, and the file system of ``work`` with the spools."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    client = docker.APIClient(base_url=docker_host, version="auto")
    engine, about = client.version(), client.info()
    client.close()
    nix = subprocess.run(["nix-store", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": model[0].partition(": ")[2] if model else platform.machine(),
        "memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "docker": engine["Version"],
        "runtime": about["DefaultRuntime"],
        "runtime_of_spools": checks.AUTOMATIC if checks.AUTOMATIC in about["Runtimes"] else about["DefaultRuntime"],
        "storage": about["Driver"],
        "file_system": file_system(work),
        "cgroup": about.get("CgroupVersion", "1"),
        "nix": nix.split()[-1],
        "load": round(os.getloadavg()[0], 1),
    }


def file_system(path: Path) -> str:
    """Return the type and options of the mount that a path is on, and for ext4 whether it has a journal.

    See proc_pid_mountinfo(5).
    """
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mount, _, rest = line.partition(" - ")
        kind, source, options = rest.split(" ", 2)
        if mount.split()[2] == number:
            journal = ""
            if kind == "ext4" and JOURNALS.is_dir():
                name = os.path.basename(os.path.realpath(f"/sys/dev/block/{number}")) or source
                there = any(each.name.startswith(f"{name}-") for each in JOURNALS.iterdir())
                journal = ", a journal" if there else ", no journal"
            return f"{kind}{journal} ({options})"
    return "unknown"


def show(report: dict[str, Any], console: Console) -> None:
    """Print a report: what was measured, what was not, and on which machine."""
    if "results" in report:
        _show_results(report, console)
    for title, values in (
        ("memory of the daemons, MB", report.get("memory_mb")),
        ("memory of the engine, MB", report.get("engine_mb")),
        ("memory of the peers, MB", report.get("peers_mb")),
        ("from kill -9 to the next response, s", report.get("recovery_s")),
        *((f"new environments, {name}", row) for name, row in report.get("environments", {}).items()),
        *((f"{waiting} waiting", row) for waiting, row in report.get("scaling", {}).items()),
        *((f"{count} executors of one slot", row) for count, row in report.get("executors", {}).items()),
        *((f"{name} runs differently", {"with": about}) for name, about in report.get("peers", {}).items()),
    ):
        if values:
            console.print(f"{title}: ", _pairs(values))
    if "growth" in report:
        growth.show(report["growth"], console)
    for name, why in report["left_out"].items():
        console.print(f"not measured: {name}: {why}")
    console.print("machine: ", _pairs(report["machine"]))
    if report["late"]:
        console.print(f"measuring took longer than promised: {report['late']}")


def _show_results(report: dict[str, Any], console: Console) -> None:
    common = [f"{part} at {report['rate']:g}/s" for part in ("p50", "p99")]
    for program in PROGRAMS:
        table = Table(box=None, pad_edge=False)
        table.add_column(f"{program.title} program", no_wrap=True)
        for column in (*FIGURES, *common, "p50 ratio", "jobs/s ratio"):
            table.add_column(column, justify="right", no_wrap=True)
        reference = report["results"].get(REFERENCE + program.suffix)
        for name, row in _of(program.suffix, report["results"]):
            ratios = [f"{row[key] / reference[key]:.3g}" for key in ("p50_ms", "jobs_per_s")] if reference else []
            rates = [f"{row[key]:.1f}" for key in ("jobs_per_s", "sustained_per_s")]
            figures = [f"{row[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
            shared = ["-" if row[key] is None else f"{row[key]:.1f}" for key in ("common_p50_ms", "common_p99_ms")]
            few = "*" if row["turns"] < FEW else ""
            turns = f"{row['turns']}{few}"
            table.add_row(name, *figures, str(row["samples"]), *rates, turns, *shared, *ratios)
        console.print(table)
        console.print()
    console.print(f"ratios: to {REFERENCE} with the same program")
    if any(row["turns"] < FEW for row in report["results"].values()):
        console.print(f"*: rates of fewer than {FEW} turns. Other work of the machine may have changed them")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _of(suffix: str, rows: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of one program, the quickest first."""
    others = tuple(program.suffix for program in PROGRAMS if program.suffix not in ("", suffix))
    found = [(name, row) for name, row in rows.items() if name.endswith(suffix) and not name.endswith(others)]
    return sorted(found, key=lambda each: each[1]["p50_ms"])


# --- the chart

LEFT, BAR, GAP, WIDTH = 210, 16, 34, 300  # pixels: the names' width, a bar's height, between groups, a column's width
COLUMNS = (
    ("p50 (bar) to p99 (line) in ms, logarithmic", "p50_ms", "p99_ms"),
    ("jobs per second, logarithmic", "jobs_per_s", ""),
)


def chart(rows: dict[str, dict[str, Any]], title: str) -> str:
    """Return an SVG with bars on logarithmic axes; a bar of latency has a line that ends at p99."""
    drawn, y = [_text(10, 22, title, "font-weight='bold'")], 44
    for number, (caption, *_) in enumerate(COLUMNS):
        drawn.append(_text(LEFT + number * (WIDTH + 70), y, caption))
    for program in PROGRAMS:
        y += GAP
        drawn.append(_text(10, y - 8, f"{program.title} program", "font-weight='bold'"))
        for name, row in _of(program.suffix, rows):
            drawn.append(_text(10, y + BAR - 4, name))
            color = "#2a7" if name.startswith("spool") else "#89a"
            for number, (_, key, line) in enumerate(COLUMNS):
                values = [each[k] for each in rows.values() for k in (key, line) if k]
                x = LEFT + number * (WIDTH + 70)
                end = x + _place(row[key], values)
                drawn.append(f"<rect x='{x}' y='{y}' width='{end - x:.0f}' height='{BAR - 3}' fill='{color}'/>")
                if line:
                    last, middle = x + _place(row[line], values), y + BAR / 2 - 1
                    drawn.append(f"<path d='M{end:.0f} {middle}H{last:.0f}' stroke='{color}' stroke-width='2'/>")
                    end = last
                drawn.append(_text(end + 4, y + BAR - 4, f"{row[key]:.3g}", "fill='#555'"))
            y += BAR
    size = f"width='{LEFT + 2 * WIDTH + 140}' height='{y + 20}'"
    style = "font-family='sans-serif' font-size='12'"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size} {style}>\n" + "\n".join(drawn) + "\n</svg>\n"


def _place(value: float, values: list[float]) -> float:
    """Return where ``value`` is on a logarithmic axis that begins at half of the smallest of ``values``, in pixels."""
    low, high = math.log(min(values) / 2), math.log(max(values))
    return WIDTH * (math.log(value) - low) / (high - low)


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f"<text x='{x:.0f}' y='{y}' {more}>{escape(text)}</text>"
