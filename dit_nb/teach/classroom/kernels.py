"""Kernels that run one notebook each, with limits, perhaps in a sandbox; their outputs are cut at some length."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dit_nb.errors import UserError
from dit_nb.teach.classroom.sandbox import _max_processes, _needed_environment, _sandbox_command

__all__ = ["Limits"]

_MODULE = "dit_nb.teach.classroom.kernel"  # that prepares the kernel
_MAX_OUTPUT = 300_000  # characters of the outputs of one cell that are kept, without pictures
_MAX_PICTURE = 3_000_000  # characters of a picture


@dataclass(frozen=True)
class Limits:
    """Limits of a notebook that is graded."""

    seconds: float = 60.0  # time of a cell in seconds
    sandbox: bool = False  # run without network, home folder and course (Linux, bubblewrap)
    memory: float = 8.0  # memory in the sandbox in GiB


class _Dead(Exception):
    """The kernel has ended, or does not react."""


def _output(kind: str, data: dict) -> dict:
    return {"output_type": kind, "data": data, "metadata": {}}


def _error(text: str) -> dict:
    return {"output_type": "error", "ename": "Error", "evalue": text, "traceback": [text]}


@dataclass
class _Kernel:
    """A kernel that runs one notebook."""

    manager: object
    client: object
    seconds: float

    async def run(self, source: str) -> list[dict]:
        """Run a cell and return its outputs.

        Raises:
            _Dead: if the kernel has ended, or does not react
        """
        request = self.client.execute(source, allow_stdin=False, stop_on_error=False)
        collector = _Collector()
        reader = asyncio.ensure_future(self._collect(request, collector))
        try:
            reply = await self._reply(request, self.seconds + 30)
            await asyncio.wait([reader], timeout=3)
        finally:
            reader.cancel()
        if reply["status"] == "error" and not collector.failed:
            collector.add(_error(f"{reply.get('ename')}: {reply.get('evalue')}"[:500]))
        return collector.outputs

    async def value(self, expression: str) -> str:
        """Return the representation of an expression's value; empty if it cannot be found."""
        request = self.client.execute("", silent=True, user_expressions={"x": expression})
        found = (await self._reply(request, 30)).get("user_expressions", {}).get("x", {})
        return found.get("data", {}).get("text/plain", "")

    async def _reply(self, request: str, seconds: float) -> dict:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                message = await self.client.get_shell_msg(timeout=0.5)
            except Exception as error:
                if type(error).__name__ != "Empty":
                    raise
                if not await self.manager.is_alive():
                    raise _Dead("ended Python, or ran out of memory") from None
                continue
            if message["parent_header"].get("msg_id") == request:
                return message["content"]
        raise _Dead(f"did not end within {self.seconds:g} seconds, and could not be stopped")

    async def _collect(self, request: str, collector: "_Collector") -> None:
        while True:
            message = await self.client.get_iopub_msg()
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            collector.message(message["msg_type"], message["content"])


@dataclass
class _Collector:
    """Outputs of a cell, cut at some length."""

    outputs: list[dict] = field(default_factory=list)
    left: int = _MAX_OUTPUT
    failed: bool = False

    def message(self, kind: str, content: dict) -> None:
        """Add what a message of the kernel holds, if it is an output."""
        if kind == "stream":
            self._stream(content["name"], content["text"])
        elif kind == "error":
            self.failed = True
            traceback = "\n".join(content["traceback"])[-20_000:].split("\n")
            self.add({"output_type": "error", **content, "traceback": traceback})
        elif kind in ("display_data", "execute_result"):
            data = {
                mime: value
                for mime, value in content["data"].items()
                if len(str(value)) < (_MAX_PICTURE if mime.startswith("image/") else _MAX_OUTPUT)
            }
            more = {"execution_count": content["execution_count"]} if kind == "execute_result" else {}
            self.add({**_output(kind, data), "metadata": content["metadata"], **more})

    def _stream(self, name: str, text: str) -> None:
        text = text[: self.left]
        self.left -= len(text)
        last = self.outputs[-1] if self.outputs else {}
        if last.get("name") == name:
            last["text"] += text
        elif text:
            self.outputs.append({"output_type": "stream", "name": name, "text": text})

    def add(self, output: dict) -> None:
        """Add an output, if there are not too many already."""
        if len(self.outputs) < 300 or output["output_type"] == "error":
            self.outputs.append(output)


@asynccontextmanager
async def _kernel(folder: Path, limits: Limits):
    """Start a kernel of this Python in a folder; end it, and all that it started, afterwards."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    manager = AsyncKernelManager()
    manager._kernel_spec = KernelSpec(
        argv=_command(folder, limits), display_name="Python 3", language="python"
    )
    if os.name == "posix" and (limits.sandbox or len(str(folder)) < 80):  # names of sockets are limited
        manager.transport, manager.ip = "ipc", str(folder / ".kernel" / "k")
        manager.connection_file = str(folder / ".kernel" / "connection.json")
    shutil.rmtree(folder / ".kernel", ignore_errors=True)
    (folder / ".kernel").mkdir()
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    await manager.start_kernel(cwd=str(folder), env=_environment(folder), **nowhere)
    client = manager.client()
    client.start_channels()
    try:
        try:
            await client.wait_for_ready(timeout=300)
        except RuntimeError as error:
            raise UserError(
                f"Python could not start to run a notebook ({error}): is there enough memory?"
            ) from None
        yield _Kernel(manager, client, limits.seconds)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


# Files beside a notebook must not hide installed packages: their folder comes last on the path.
_START = "import sys; sys.path[:] = filter(None, sys.path); from ipykernel import kernelapp as k; k.launch_new_instance()"


def _command(folder: Path, limits: Limits) -> list[str]:
    bounds = (limits.seconds, *((limits.memory, _max_processes()) if limits.sandbox else ()))
    prepare = f"__import__('importlib').import_module({_MODULE!r})._prepare_kernel{bounds!r}"
    python = [
        *(sys.executable, "-c", _START, "-f", "{connection_file}", "--InteractiveShellApp.ignore_cwd=True"),
        *("--HistoryManager.hist_file=:memory:", f"--IPKernelApp.exec_lines={prepare}"),
    ]
    return [*_sandbox_command(folder), *python] if limits.sandbox else python


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a kernel: nothing secret, one thread, no settings of IPython, nothing installed."""
    return {
        **_needed_environment(),
        **{"NBGRADER_EXECUTION": "autograde", "OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1"},
        "IPYTHONDIR": str(folder / ".kernel"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
