"""The file of settings: where it is, how it is read, and what in it is refused.

A file may call a setting by a former name. Some values are right each by itself but contradict each other. These are
refused as well.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from spoold.config import Settings
from spoold.model.errors import OperatorError
from spoold.model.limits import WORDS, Limits, PhaseRange, time_for

DEFAULT_PATH = "/etc/spoold/spoold.toml"

# Settings that had other names. The former names are still understood, and `spoolctl config --migrate` rewrites a file.
MOVED = {
    f"docker.{name}": f"sandbox.{name}"
    for name in ("mode", "replace_after", "replace_on_owner_change", "waiting", "view")
}


def file_in_use(path: str | None) -> str | None:
    """Return the path of the file that settings are read from, None where there is none; see :func:`load`."""
    chosen = path or os.environ.get("SPOOLD_CONFIG")
    return DEFAULT_PATH if chosen is None and os.path.exists(DEFAULT_PATH) else chosen


def load(path: str | None) -> Settings:
    """Read settings from ``path``, else from $SPOOLD_CONFIG or /etc/spoold/spoold.toml, else return the defaults.

    Raises :class:`OperatorError`, which names the file and the key.
    """
    name = file_in_use(path)
    if name is None:
        return Settings()
    try:
        return decode(Path(name).read_bytes())
    except OSError as error:
        raise OperatorError(f"{name}: {error.strerror}; name a readable file with --config") from error
    except OperatorError as error:
        raise OperatorError(f"{name}: {error}") from error
    except UnicodeDecodeError as error:
        raise OperatorError(f"{name}: byte {error.start} is no UTF-8: save it as UTF-8") from error
    except msgspec.ValidationError as error:
        raise OperatorError(f"{name}: {error}; `spoolctl config --defaults` shows every setting") from error
    except msgspec.DecodeError as error:
        hint = "; it is there already: put the settings under the first" if "Cannot declare" in str(error) else ""
        raise OperatorError(f"{name}: {error}{hint}") from error


def decode(text: bytes) -> Settings:
    """Decode TOML. A phase's limits need to name only what differs from the built-in values.

    Raises :class:`msgspec.DecodeError`, :class:`UnicodeDecodeError`, and :class:`OperatorError` where settings
    contradict each other.
    """
    raw = msgspec.toml.decode(text.decode())  # as text: msgspec 0.23 has an error of its own for what is no UTF-8
    _take_former_names(raw)
    for phase, kinds in raw.get("limits", {}).items() if isinstance(raw.get("limits"), dict) else ():
        base = getattr(Limits(), phase, None)
        if isinstance(base, PhaseRange) and isinstance(kinds, dict):
            raw["limits"][phase] = msgspec.to_builtins(base) | {
                kind: msgspec.to_builtins(getattr(base, kind, {})) | values if isinstance(values, dict) else values
                for kind, values in kinds.items()
            }
            _pair_times(raw["limits"][phase]["default"], kinds.get("default"), raw["limits"][phase]["maximum"])
    settings = msgspec.convert(raw, Settings)
    _refuse_contradictions(settings)
    return settings


def _pair_times(default: Any, given: Any, maximum: Any) -> None:
    """Make a phase's defaults for wall-clock and CPU time fit each other where the file names one of them, or neither.

    The rules are those of a request. A CPU time alone brings twice as much wall-clock time, and no CPU time is longer
    than its wall-clock time. Values that are no numbers stay as they are, since the types refuse them later.
    """
    times = [default, maximum] if isinstance(default, dict) and isinstance(maximum, dict) else []
    if not times or not all(isinstance(each.get(name), int | float) for each in times for name in ("time", "cpu_time")):
        return
    named = given if isinstance(given, dict) else {}
    if "time" not in named:
        wanted = time_for(default["cpu_time"], maximum["time"]) if "cpu_time" in named else default["time"]
        default["time"] = min(wanted, maximum["time"])
    if "cpu_time" not in named:
        default["cpu_time"] = min(default["cpu_time"], default["time"], maximum["cpu_time"])


def former_names(text: bytes) -> list[str]:
    """Return the former names of settings that a file uses; see ``MOVED``."""
    return _take_former_names(msgspec.toml.decode(text))


def _take_former_names(raw: dict[str, Any]) -> list[str]:
    """Rename settings to the names of today, and return the former names that were found."""
    found = []
    for old, new in MOVED.items():
        (table, name), (to, key) = old.split("."), new.split(".")
        if isinstance(raw.get(table), dict) and name in raw[table]:
            target = raw.setdefault(to, {})
            if not isinstance(target, dict):
                continue  # no table: an error when all is read
            if key in target:
                raise OperatorError(f"{old} is called {new} today, and both are set: remove the former")
            target[key] = raw[table].pop(name)
            found.append(old)
    return found


def _refuse_contradictions(settings: Settings) -> None:
    """Raise :class:`OperatorError` where settings contradict each other."""
    lease = settings.lease
    if settings.spool.readers and settings.spool.answers != "acl":
        raise OperatorError(
            'spool.readers needs access control lists, and spool.answers is "owner": only the owner can be let in. '
            "Remove one of the two"
        )
    if settings.metrics.status_page and not settings.metrics.directory:
        raise OperatorError(
            "metrics.status_page is a page of what is measured, and metrics.directory names no place for that: set it"
        )
    if lease.limit < 2 * lease.renewal:  # else a worker that lives and is a little late would lose its entry
        raise OperatorError(
            f"lease.limit, {lease.limit:g} s, has to be at least twice lease.renewal, {lease.renewal:g} s"
        )
    for phase in ("compile", "run"):
        allowed: PhaseRange = getattr(settings.limits, phase)
        for kind in allowed.default.__struct_fields__:
            default, maximum = getattr(allowed.default, kind), getattr(allowed.maximum, kind)
            if kind not in WORDS and default > maximum:
                raise OperatorError(
                    f"limits.{phase}.default.{kind}, {default}, is above limits.{phase}.maximum.{kind}, {maximum}: "
                    "lower the former as well"
                )
