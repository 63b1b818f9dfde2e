"""Starts the process with a student's code, asks it things, and ends it when it takes too long.

On Linux the process sees no network, no other process, and no file but Python, the package and an empty folder: it
lives in namespaces of its own (`unshare`) whose root folder holds nothing else, read-only. Elsewhere only the limits
and the worker's own guard are left, and `sandboxed` says so.
"""

import contextlib
import functools
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import samil_lite
from course.worker import receive, send

PACKAGE = Path(samil_lite.__file__).parent
WORKER = Path(__file__).with_name("worker.py")
MEMORY = 4 * 2**30  # bytes that the student's process may ask for
LARGEST_FILE = 2**26  # bytes
UNSHARE = [
    "unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--mount-proc", "--fork",
    "--kill-child",
]  # fmt: skip
KEPT = {os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec"} if hasattr(os, "ST_NODEV") else {}


class Worker:
    """The process with the code of one submission; it starts at the first question and again after it was ended.

    Args:
        cells: source of the code cells, run in order at every start. One that ends the process is left out next time.
        limit: seconds for a cell or a call.
        budget: seconds for all of the submission; after that nothing runs any more.
    """

    def __init__(self, cells: Sequence[str], limit: float = 10, budget: float = 240) -> None:
        self.cells, self.limit, self.deadline = dict(enumerate(cells, 1)), limit, time.monotonic() + budget
        self.notes: dict[int, str] = {}  # number of a cell: why it did not run to its end
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any], lent: Sequence[Callable[[Any], Any]] = ()) -> dict[str, Any]:
        """The reply of the process; {"error": …, "dead": True} if it gave none.

        Args:
            request: see `course.worker.answer`.
            lent: functions of ours that the student's code may call while it answers.
        """
        if time.monotonic() > self.deadline:
            self.stop()
            return {"error": "the time for this submission is used up", "dead": True}
        if self.process is None:
            self._start()
        return self._exchange(request, self.limit, lent)

    def stop(self) -> None:
        """Ends the process and everything that it has started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.requests, self.results):
            with contextlib.suppress(OSError):
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.process = None

    def _start(self) -> None:
        """A new process in which the cells have run."""
        self._launch()
        for number, cell in list(self.cells.items()):
            if time.monotonic() > self.deadline:
                return
            reply = self._exchange({"cell": cell, "number": number}, self.limit)
            if "error" in reply:
                self.notes[number] = f"cell {number}: {reply['error']}"
            if reply.get("dead"):
                del self.cells[number]
                self._start()
                return

    def _launch(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="grade-"))
        (theirs, out), (back, theirs_back) = os.pipe(), os.pipe()
        self.requests, self.results = os.fdopen(out, "wb"), os.fdopen(back, "rb")
        inside = sandboxed()
        home = self.folder / "home"
        home.mkdir()
        command = [sys.executable, "-s", str(WORKER), str(theirs), str(theirs_back), str(PACKAGE)]
        self.process = subprocess.Popen(
            rooted(self.folder, command) if inside else command,
            cwd=home, env=environment("/home" if inside else str(home)), pass_fds=(theirs, theirs_back),
            preexec_fn=set_limits, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(theirs_back)
        if "ready" not in (reply := self._receive(60)):
            raise RuntimeError(f"the process for the student's code does not start: {reply.get('error')}")

    def _exchange(
        self, request: dict[str, Any], limit: float, lent: Sequence[Callable[[Any], Any]] = ()
    ) -> dict[str, Any]:
        end = time.monotonic() + limit
        with contextlib.suppress(OSError, ValueError):  # it has ended; the reply says so
            send(self.requests, request)
        reply = self._receive(limit)
        while isinstance(reply.get("lent"), int) and lent and not reply.get("dead"):
            send(self.requests, lent[reply["lent"] % len(lent)](reply))
            reply = self._receive(end - time.monotonic())
        return reply

    def _receive(self, limit: float) -> dict[str, Any]:
        try:
            if select.select([self.results], [], [], max(limit, 0))[0]:
                reply = receive(self.results)
                if isinstance(reply, dict):
                    return reply
                error = f"an unreadable reply: a {type(reply).__name__}"
            else:
                error = f"no result after {self.limit:g} s: an endless loop?"
        except (EOFError, OSError):
            error = "the code ended its Python process (too much memory, or exit?)"
        except Exception as problem:  # whatever bytes were forged
            error = f"an unreadable reply: {type(problem).__name__}"
        self.stop()
        return {"error": error, "dead": True}


def environment(home: str) -> dict[str, str]:
    """All that the student's process gets of ours."""
    return {
        "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": home, "TMPDIR": home, "MPLCONFIGDIR": home, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1", "LOGNAME": "student",  # PyTorch's compiler asks for a user's name
    }  # fmt: skip


def set_limits() -> None:
    """Memory, size of files and time of the processor for the student's process."""
    import resource

    for what, limit in (
        (resource.RLIMIT_DATA, MEMORY),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CPU, 900),
    ):
        resource.setrlimit(what, (limit, limit))


def needed() -> set[str]:
    """Files and folders that Python needs, and the package."""
    interpreter = str(Path(sys.executable).resolve().parents[1])
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, interpreter, "/usr", "/etc/ld.so.cache"}
    return {path for path in (*python, str(PACKAGE), str(WORKER)) if os.path.exists(path)}


def rooted(folder: Path, command: Sequence[str]) -> list[str]:
    """The command inside namespaces of its own, with a root folder that shows only what Python needs, read-only."""
    root, shown = folder / "root", needed()
    steps = [f"mount -t tmpfs -o size=64m none {shlex.quote(str(make(root)))}", f"cd {shlex.quote(str(root))}"]
    for name in ("bin", "lib", "lib64", "sbin"):
        if os.path.islink(f"/{name}"):
            steps.append(f"ln -s {shlex.quote(os.readlink(f'/{name}'))} {name}")
        elif os.path.isdir(f"/{name}"):
            shown.add(f"/{name}")
    for path in sorted(shown):  # a folder before what is in it
        steps += bind(path)
    for device in ("null", "zero", "urandom", "random"):
        steps += [f"mkdir -p dev && touch dev/{device} && mount --bind /dev/{device} dev/{device}"]
    steps += ["mkdir -p proc home dev/shm && mount --rbind /proc proc"]
    steps += [f"mount -t tmpfs -o size=64m none {place}" for place in ("home", "dev/shm")]
    steps += [f"mount -o remount,bind,ro {shlex.quote(str(root))}"]
    return [*UNSHARE, "sh", "-ec", "; ".join([*steps, 'cd home; exec chroot .. "$0" "$@"']), *into_home(command)]


def into_home(command: Sequence[str]) -> list[str]:
    return ["/bin/sh", "-c", 'cd /home && exec "$0" "$@"', *command]


def bind(path: str) -> list[str]:
    """Shows a file or folder at the same place below the present folder, read-only."""
    there = shlex.quote("." + path)
    made = f"mkdir -p {there}" if os.path.isdir(path) else f"mkdir -p $(dirname {there}); touch {there}"
    flags = os.statvfs(path).f_flag  # those of its file system are locked: a read-only view must keep them
    options = ",".join(["remount", "bind", "ro", *(name for flag, name in KEPT.items() if flags & flag)])
    return [
        f"if ! test -e {there}; then {made}; mount --bind {shlex.quote(path)} {there}; mount -o {options} {there}; fi"
    ]


def make(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@functools.cache
def sandboxed() -> bool:
    """Whether this machine can shut the student's process in; found out by trying."""
    if not shutil.which("unshare") or not shutil.which("chroot"):
        return False
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        make(Path(folder) / "home")
        command = rooted(Path(folder), [sys.executable, "-c", "import torch"])
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0
