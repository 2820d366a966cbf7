"""A server as a child process: started, waited for, watched, and ended with all that it started."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from randlora.errors import ConfigError, DeviceError

PATIENCE = 10.0
"""Seconds that a server has to finish its answers after it is told to end."""

_NOISE = ("Traceback (most recent call last)", "INFO:")
_BAR = "%|"
"""What every progress bar of tqdm's has in it; none is a server's last word."""


def check_address(host: str, port: int) -> None:
    """Check that nobody listens at an address yet.

    Raises:
        ConfigError: It is in use, or none of this machine's.
    """
    if not 1 <= port <= 65535:
        raise ConfigError("--port", expected="from 1 to 65535", got=str(port))
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port just left is free
            probe.bind(address)
    except socket.gaierror as error:
        raise ConfigError("--host", expected="an address of this machine", got=f"{host}: {error.strerror}") from error
    except OSError as error:
        got = f"{host}:{port}: {error.strerror}"
        raise ConfigError("--port", expected="a free port", got=got, hint="choose another with --port") from error


class Server:
    """A child process that listens at an address. As a context manager it is running inside, and ended after.

    It has a session of its own, so that Ctrl-C at the terminal reaches it once, from here.

    Args:
        words: Its command line.
        folder: Its working folder.
        environment: Variables that it has beside this process's.
        show: Takes the lines that it writes once it listens.
    """

    def __init__(
        self, words: Sequence[str], folder: Path, environment: Mapping[str, str], show: Callable[[str], object]
    ) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            words,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,  # never written to: it closes when this process is no more
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        self._last: deque[str] = deque(maxlen=50)
        self._show: Callable[[str], object] | None = None
        self._wanted = show
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def wait_until_healthy(self, url: str, waiting: Callable[[float], object] = lambda _: None) -> None:
        """Wait for the answer 200 at `url`.

        Args:
            url: The server's health check.
            waiting: Called a few times in a second with the seconds passed.

        Raises:
            DeviceError: The server ended instead; the message has the last line that it wrote.
        """
        began = time.monotonic()
        # A proxy of the user's is for other machines.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            self._require_running()
            with suppress(OSError, urllib.error.URLError), opener.open(url, timeout=2) as answer:
                if answer.status == 200:
                    self._show = self._wanted
                    return
            waiting(time.monotonic() - began)
            time.sleep(0.2)

    def watch(self) -> None:
        """Wait for the server to end, which it should not.

        Raises:
            DeviceError: It ended.
        """
        while True:
            self._require_running()
            time.sleep(0.5)

    def end(self) -> None:
        """End the server: politely, and after some seconds, or a second Ctrl-C, at once."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            with suppress(ProcessLookupError, PermissionError):  # workers that it left, as vLLM's may be
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join(1)
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()

    def _require_running(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        self._reader.join(1)
        lines = [line for line in self._last if line.strip() and not line.startswith(_NOISE) and _BAR not in line]
        got = f"one that ended with code {code}" + (f": {lines[-1].strip()}" if lines else "")
        raise DeviceError("the server", expected="one that goes on running", got=got)

    def _read(self) -> None:
        stream = self._process.stdout
        for line in stream if stream is not None else ():
            self._last.append(line)
            if self._show is not None:
                self._show(line)


@contextmanager
def progress_line(text: str) -> Iterator[Callable[[float], None]]:
    """A line on standard error that counts seconds while the block lasts; where that is no terminal it only begins."""
    counts = sys.stderr.isatty()

    def show(seconds: float) -> None:
        if counts:
            sys.stderr.write(f"\r{text}: {seconds:.0f} s")
            sys.stderr.flush()

    sys.stderr.write(text if counts else f"{text}\n")
    sys.stderr.flush()
    try:
        yield show
    finally:
        if counts:
            sys.stderr.write("\n")
