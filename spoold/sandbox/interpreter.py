"""The Python that starts in containers as their root: the host's own, put into the image with all that it needs.

Theory of operation. Whatever root runs in a container must come from where only root can write. The Nix store is no
such place: whoever is the builder writes it. So the interpreter is the one that runs this process, without the virtual
environment around it. It is started once on the host, in a process of its own, and imports what supervisor and porter
import (``LOOK``). What that process has loaded then is what is taken: the program, its shared libraries, the modules of
the standard library, and our own package ``inside``. Modules are taken as byte code, compiled in that process.

Each file that is taken is refused where anybody but root, or the user that runs spoold, can change it or put another in
its place (``host.ownership``). A group may have the right to write where it has no other members. Our own package may
belong to whoever owns all of spoold: their code runs in this process as it is.

In the image all of it lies below ``ROOT``, which is closed to jobs: a job has another uid and can neither run nor read
it. The loader is started by its own path and told where the libraries are, so nothing is looked for anywhere else,
least of all in the store. Python finds its modules by where its program lies, without any help of the environment.
"""

from __future__ import annotations

import base64
import os
import struct
import subprocess
import sys
from typing import NamedTuple

import msgspec

from spoold.host import ownership
from spoold.model.errors import OperatorError

ROOT = "/spoold/python"  # in the image
LOADER, LIBRARIES, PROGRAM = f"{ROOT}/ld.so", f"{ROOT}/lib", f"{ROOT}/bin/python3"
# Isolated, without site, and writing no byte code: no file or variable but those of the image counts.
COMMAND = (LOADER, "--library-path", LIBRARIES, PROGRAM, "-I", "-S", "-E", "-B", "-c")
PROBE_TIMEOUT = 60.0  # seconds for the interpreter to tell what it loads
STORE = "/nix/store/"
REMEDY = (
    "What starts as root in containers must be changeable by root alone: start spoold with such a Python, "
    "as /usr/bin/python3 of a distribution is, or mend owner and mode"
)
PT_INTERP = 3

# What runs on the host, and prints what it has loaded. All imports of its own come after the look.
LOOK = """
import sys
sys.path.append(sys.argv[1])
import encodings.ascii, encodings.utf_8
import inside.porter, inside.supervisor
inside.supervisor.ready()
import ctypes, os

class Loaded(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]

objects = []

@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Loaded), ctypes.c_size_t, ctypes.c_void_p)
def see(loaded, size, nothing):
    objects.append(os.fsdecode(loaded.contents.name or b""))
    return 0

ctypes.CDLL(None).dl_iterate_phdr(see, None)
files = {"os": os.__file__}  # frozen; but its file tells where the others are
for name, module in list(sys.modules.items()):
    spec = getattr(module, "__spec__", None)
    if spec and spec.has_location:
        files[name] = spec.origin

import base64, importlib.util, json, marshal

def byte_code(name, path, inner):
    source = open(path, "rb").read()
    # No assertions and docstrings. The format without references: else it would depend on what else is in memory.
    code = marshal.dumps(compile(source, inner, "exec", dont_inherit=True, optimize=2), 2)
    unchecked = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(source) + code

library = os.path.basename(os.path.dirname(os.__file__))
modules = []
for name, path in sorted(files.items()):
    inner = name.replace(".", "/") + ("/__init__" if os.path.basename(path) == "__init__.py" else "")
    code = b""
    if path.endswith(".py"):
        code = byte_code(name, path, f"{sys.argv[2]}/{sys.platlibdir}/{library}/{inner}.py")
    modules.append([inner, path, base64.b64encode(code).decode()])
print(json.dumps({
    "program": os.path.realpath("/proc/self/exe"), "libraries": f"{sys.platlibdir}/{library}",
    "modules": modules, "objects": objects,
}))
"""


class _Seen(msgspec.Struct, frozen=True):
    """What an interpreter tells: the file of its program, the directory of its modules (below its prefix), a name, a
    file and the byte code of each module, and the files of the shared objects that it has loaded.
    """

    program: str
    libraries: str
    modules: list[tuple[str, str, str]]
    objects: list[str]


class File(NamedTuple):
    """A file of the image: its path below the image's root, its bytes, and whether it is a program."""

    path: str
    content: bytes
    program: bool = False


def files() -> list[File]:
    """Return all files that belong below ``ROOT``, sorted by their paths: the same for the same interpreter.

    Raises :class:`OperatorError` where a file may be changed by others than root and the user of this process.
    """
    seen = _seen()
    program = _taken(seen.program)
    loader = _loader_of(program, seen.program)
    made = [File(PROGRAM, program, program=True), File(LOADER, _taken(loader), program=True)]
    made += [File(f"{LIBRARIES}/{os.path.basename(path)}", _taken(path)) for path in _libraries(seen, loader)]
    where = f"{ROOT}/{seen.libraries}"
    made.append(File(f"{where}/lib-dynload/none", b""))  # Python looks for the directory, also where it needs nothing
    for name, path, code in seen.modules:
        if code:
            _settle(path)
            made.append(File(f"{where}/{name}.pyc", base64.b64decode(code)))
        else:
            parent, _, _ = name.rpartition("/")
            made.append(File(f"{where}/{parent or 'lib-dynload'}/{os.path.basename(path)}", _taken(path)))
    return sorted(made)


def _libraries(seen: _Seen, loader: str) -> list[str]:
    """Return the shared libraries that were loaded: neither modules, nor the loader, nor what the kernel provides."""
    modules = {path for _, path, _ in seen.modules}
    objects = {path for path in seen.objects if os.path.isabs(path)} - modules
    return [path for path in objects if os.path.basename(path) != os.path.basename(loader)]


def _seen() -> _Seen:
    program: str = (
        getattr(sys, "_base_executable", "") or sys.executable
    )  # a virtual environment's is a link, or a copy
    if not program or not os.path.exists(program):
        remedy = "Start spoold again: its Python may have been upgraded"
        raise OperatorError(f"the Python that runs spoold is not at {program!a} any more. {remedy}")
    here = os.path.dirname(os.path.abspath(__file__))
    command = [os.path.realpath(program), "-I", "-S", "-E", "-B", "-c", LOOK, here, ROOT]
    # A Python that has its library nowhere else is told by this.
    env = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}
    # Without the small programs of host/proc, which the executor's unit does not let change what they may do.
    try:
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, timeout=PROBE_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise OperatorError(f"{program} does not tell within {PROBE_TIMEOUT:g} s what it needs") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise OperatorError(f"{program} cannot tell what it needs: {said or done.returncode}")
    return msgspec.json.decode(done.stdout, type=_Seen)


def _taken(path: str) -> bytes:
    with open(_settle(path), "rb") as file:
        return file.read()


def _settle(path: str) -> str:
    here = os.path.dirname(os.path.abspath(__file__))
    ours = os.path.realpath(path).startswith(os.path.realpath(here) + "/")
    real = ownership.settled(path, REMEDY, also={os.stat(__file__).st_uid} if ours else ())
    if real.startswith(STORE):
        raise OperatorError(f"{real} is in a Nix store, which is mounted where jobs run. {REMEDY}")
    return real


def _loader_of(program: bytes, path: str) -> str:
    """Return the path of the loader that an ELF program names."""
    if program[:5] == b"\x7fELF\x02" and sys.byteorder == "little":
        (headers,) = struct.unpack_from("<Q", program, 32)
        size, count = struct.unpack_from("<HH", program, 54)
        for at in range(headers, headers + size * count, size):
            kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", program, at)
            if kind == PT_INTERP:
                return os.fsdecode(program[offset : offset + length].rstrip(b"\0"))
    raise OperatorError(f"{path} is no program that loads shared libraries. {REMEDY}")
