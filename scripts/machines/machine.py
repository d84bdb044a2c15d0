"""A running emulator and its serial line."""

import ctypes
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PR_SET_PDEATHSIG = 1  # prctl(2)
# On a host with much else to do: all bounds on waiting times so much.
PATIENCE = float(os.environ.get("BULKHEAD_PATIENCE", "1"))
LONGEST_MATCH = 4096  # bytes of output that a pattern given to expect() spans at most


class MachineError(Exception):
    """The machine did not do what was waited for; the message holds the end of the transcript."""


def leave(number, _):
    """On a signal that would end Python at once: unwind instead, so that every `with` and `finally` is honoured."""
    sys.exit(128 + number)


class Machine:
    """Base of Bochs and Qemu: start() boots, expect()/send() talk to COM1, stop() always ends the process."""

    name = "machine"

    def __init__(self, image, memory=1024, cpus=1, model=None):
        self.image = image
        self.memory = memory
        self.cpus = cpus
        self.model = model
        self.transcript = bytearray()
        self.position = 0  # what expect() has consumed of the transcript
        self.process = None
        self.serial = None
        self.fatal = None  # a regular expression (bytes): output after which waiting is of no use
        self.echo = None  # a binary stream that gets all output as it comes
        self.directory = tempfile.TemporaryDirectory(prefix="bulkhead-")

    # What a subclass supplies.
    def launch(self):
        """Starts the emulator and returns a connected socket for COM1."""
        raise NotImplementedError

    def start(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, leave)
        try:
            self.serial = self.launch()
            self.serial.setblocking(False)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        if self.serial:
            self.serial.close()
            self.serial = None
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.directory.cleanup()

    def spawn(self, command, **options):
        """Starts the emulator, in a way that it cannot outlive this thread, however that ends."""
        libc = ctypes.CDLL(None, use_errno=True)
        parent = os.getpid()

        def bind_to_parent():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it has ended already
                os._exit(1)

        self.process = subprocess.Popen(command, preexec_fn=bind_to_parent, **options)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def connect(self, address, seconds=30):
        """Connects to a socket that the emulator opens some time after its start."""
        end = time.monotonic() + seconds
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        while True:
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.connect(address)
                return connection
            except OSError:
                connection.close()
                if self.process.poll() is not None or time.monotonic() > end:
                    raise MachineError(f"{self.name} did not open its serial port:\n{self.diagnostics()}") from None
                time.sleep(0.05)

    def diagnostics(self):
        """The emulator's own log, for error messages."""
        return ""

    def pump(self, seconds):
        """Reads what the machine sent, waiting at most `seconds`; False when it has ended."""
        if not self.serial:
            return False
        ready, _, _ = select.select([self.serial], [], [], seconds)
        if not ready:
            return self.process.poll() is None
        try:
            data = self.serial.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            return False
        self.transcript += data
        if self.echo:
            self.echo.write(data)
            self.echo.flush()
        return True

    def expect(self, pattern, timeout=120):
        """Waits for a regular expression after what was matched before; returns the match. `timeout`: seconds, a
        bound against hanging only: no test's outcome depends on it being short."""
        expression = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.MULTILINE)
        timeout *= PATIENCE
        end = time.monotonic() + timeout
        start = self.position

        def matched():
            nonlocal start
            match = expression.search(self.transcript, start)
            if match:
                self.position = match.end()
            elif self.fatal and re.search(self.fatal, self.transcript[start:]):
                raise MachineError(f"while waiting for {pattern!r}:\n{self.tail()}")
            # Next time only what is new, and as much before it as a match may have in the old: a machine that talks
            # without end is not searched again from where it began.
            start = max(start, len(self.transcript) - LONGEST_MATCH)
            return match

        while True:
            if match := matched():
                return match
            left = end - time.monotonic()
            if left <= 0:
                raise MachineError(f"timed out after {timeout} s waiting for {pattern!r}\n{self.tail()}")
            if not self.pump(min(left, 1.0)):
                while self.pump(0.1):
                    pass
                if match := matched():
                    return match
                raise MachineError(f"the machine ended while waiting for {pattern!r}\n{self.tail()}")

    def send(self, text):
        data = text.encode() if isinstance(text, str) else text
        self.serial.setblocking(True)
        self.serial.sendall(data)
        self.serial.setblocking(False)

    def send_line(self, text):
        self.send(text + "\r")

    def wait_end(self, timeout=60):
        """Waits until the emulator exits by itself."""
        timeout *= PATIENCE
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise MachineError(f"the machine did not power off within {timeout} s\n{self.tail()}")
            if not self.pump(0.2):
                time.sleep(0.05)
        return self.process.returncode

    def text(self):
        return self.transcript.decode(errors="replace")

    def tail(self, lines=60):
        end = "\n".join(self.text().replace("\r", "").split("\n")[-lines:])
        return f"---- end of the transcript ----\n{end}\n---- {self.name} ----\n{self.diagnostics()}"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
