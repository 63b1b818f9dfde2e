"""The process that holds a student's code: it runs the cells and calls the functions that the grader names.

It is started by `course.sandbox` and knows no test, no seed and no right answer. Requests and replies are torch files
of plain values, read with `weights_only`, in two pipes of their own: what a student prints or patches stays in here.
"""

import io
import linecache
import os
import struct
import sys
import traceback
from collections.abc import Callable
from copy import deepcopy
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

LARGEST = 2**27  # bytes of a message
FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.fork", "os.exec", "os.spawn", "os.posix_spawn", "os.kill",
    "ctypes.dlopen", "pty.", "os.startfile",
)  # fmt: skip
CHANGES = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "os.chown",
    "shutil.rmtree", "shutil.move", "os.listdir", "os.scandir", "os.chdir",
}  # fmt: skip


def send(pipe: BinaryIO, message: Any) -> None:
    """Writes a message of plain values: its length, then a torch file."""
    buffer = io.BytesIO()
    torch.save(message, buffer)
    pipe.write(struct.pack("<q", buffer.tell()) + buffer.getvalue())
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Reads the next message.

    Raises:
        EOFError: if the other process has ended.
        ValueError: if the message is longer than `LARGEST`.
    """
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    (size,) = struct.unpack("<q", head)
    if not 0 <= size <= LARGEST:
        raise ValueError(f"a message of {size} bytes")
    return torch.load(io.BytesIO(pipe.read(size)), weights_only=True)


def plain(x: Any) -> Any:
    """x if it is made of tensors, numbers, text, lists, tuples and dicts; else a mark that names its type."""
    if isinstance(x, dict):
        return {str(key): plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return tuple(map(plain, x)) if isinstance(x, tuple) else list(map(plain, x))
    if isinstance(x, Tensor):
        return x.detach().as_subclass(Tensor).cpu().to_dense().clone()
    x = x.item() if isinstance(x, np.generic) else x
    return x if type(x) in (str, int, float, bool, type(None)) else {"not plain": type(x).__qualname__}


def call(function: Callable[..., Any], args: list[Any], grad: bool) -> dict[str, Any]:
    """Calls a function on copies of the arguments.

    Returns:
        Its value; which arguments it changed; with `grad` the gradients of the sum of squares of its first result with
        respect to the floating arguments, None if no gradient reaches them.
    """
    given = [_own(a, grad) for a in args]
    leaves = [a for a in given if isinstance(a, Tensor) and a.requires_grad]
    y = function(*given)
    changed = [i for i, (a, b) in enumerate(zip(given, args, strict=True)) if not _same(a, b)]
    reply = {"value": plain(y), "changed": changed}
    if grad:
        first = y[0] if isinstance(y, (tuple, list)) and y else y
        reply["grads"] = None
        if isinstance(first, Tensor) and first.requires_grad:
            grads = torch.autograd.grad(first.square().sum(), leaves, allow_unused=True)
            reply["grads"] = [torch.zeros_like(a) if g is None else g for a, g in zip(leaves, grads, strict=True)]
    return reply


def _own(a: Any, grad: bool) -> Any:
    if isinstance(a, Tensor):
        return a.clone().requires_grad_(grad and a.is_floating_point())
    return deepcopy(a) if isinstance(a, (list, dict)) else a


def _same(a: Any, b: Any) -> bool:
    if isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
    return not isinstance(b, (list, dict)) or str(a) == str(b)


def short(error: BaseException) -> str:
    """An error in one line, with the student's own line where it came up."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<cell")]
    where = (
        f" ({frames[-1].filename[1:-1]}, line {frames[-1].lineno}: `{(frames[-1].line or '')[:80]}`)" if frames else ""
    )
    return f"{type(error).__name__}: {str(error)[:300]}{where}"


def guard(folder: str, readable: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that refuses what no answer needs: processes, sockets, files outside of the folder.

    It says so in words to those who try by accident; what holds is the sandbox around the process.
    """

    def inside(path: Any, roots: tuple[str, ...]) -> bool:
        real = os.path.realpath(os.fsdecode(path if path is not None else "."))
        return any(real == root or real.startswith(root + os.sep) for root in roots)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"not allowed while grading: {event}")
        if event == "open" and isinstance(args[0], (str, bytes)):
            writes = bool(set(str(args[1] or "r")) & set("wax+")) or bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
            if not inside(args[0], (folder,) if writes else (folder, *readable)):
                raise PermissionError(f"not allowed while grading: the file {os.fsdecode(args[0])}")
        if event in CHANGES and not isinstance(args[0], int):
            looks = event in ("os.listdir", "os.scandir", "os.chdir")
            if not inside(args[0], (folder, *readable) if looks else (folder,)):
                raise PermissionError(f"not allowed while grading: {event} of {args[0]!r}")

    return hook


class Shell:
    """What `%magic` and `!command` lines find in place of IPython: they do nothing here."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class Lent:
    """A function of the grader's, lent to the student's code: every call goes back through the pipes.

    What it computes stays with the grader, gradients too.
    """

    def __init__(self, ask: Callable[[dict[str, Any]], Any]) -> None:
        self._ask = ask

    def __call__(self, *args: Any) -> Any:
        tensors = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        return _Remote.apply(self._ask, args, *tensors)


class _Remote(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ask: Callable[[Any], Any], args: tuple[Any, ...], *tensors: Tensor) -> Any:
        ctx.ask, ctx.args = ask, plain(args)
        reply = ask({"args": ctx.args})
        if "error" in reply:
            raise RuntimeError(reply["error"])
        if not reply["differentiable"]:
            ctx.mark_non_differentiable(*([reply["value"]] if isinstance(reply["value"], Tensor) else reply["value"]))
        return reply["value"]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return (None, None, *ctx.ask({"args": ctx.args, "grads": [plain(g) for g in grads]})["grads"])


def answer(request: dict[str, Any], space: dict[str, Any], lend: Callable[[int], Lent]) -> dict[str, Any]:
    """What a request asks for: {"cell": …} is run, {"function": …} is called."""
    if "cell" in request:
        name = f"<cell {request['number']}>"
        source = request["cell"]
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(compile(source, name, "exec"), space)
        return {}
    if request["function"] not in space:
        return {"missing": True}
    function = space[request["function"]]
    if request["driver"]:
        around = dict(space)
        exec(compile(request["driver"], "<driver>", "exec"), around)
        function = around["drive"]
    torch.default_generator.manual_seed(request["seed"])
    args = [lend(a["lent"]) if isinstance(a, dict) and "lent" in a else a for a in request["args"]]
    return call(function, args, request["grad"])


def main() -> None:
    requests, results = os.fdopen(int(sys.argv[1]), "rb"), os.fdopen(int(sys.argv[2]), "wb")
    torch.set_num_threads(1)
    import samil_lite.checks  # noqa: F401 the package is loaded before the guard is up

    space: dict[str, Any] = {"__name__": "__main__", "get_ipython": Shell}
    folder = os.path.realpath(os.getcwd())
    libraries = {sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", *sys.argv[3:]}

    def lend(number: int) -> Lent:
        def ask(message: dict[str, Any]) -> Any:
            send(results, {"lent": number, **message})
            return receive(requests)

        return Lent(ask)

    send(results, {"ready": True})
    sys.addaudithook(guard(folder, tuple(map(os.path.realpath, libraries))))
    while True:
        try:
            request = receive(requests)
        except EOFError:
            os._exit(0)
        try:
            reply = answer(request, space, lend)
        except BaseException as error:
            reply = {"error": short(error)}
        try:
            send(results, reply)
        except Exception as error:
            send(results, {"error": short(error)})


if __name__ == "__main__":
    main()
