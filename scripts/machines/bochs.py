"""Bochs 2.7: emulates VT-x in full, on any processor."""

import os
import pty
import re
import threading
import tty

from .machine import Machine, free_port

CONFIGURATION = """\
cpu: model={model}, count={cpus}, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs={lenient_msrs}
memory: guest={memory}, host={host_memory}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={image}, status=inserted
boot: cdrom
clock: sync=none, time0=utc
com1: enabled=1, mode=socket-server, dev=127.0.0.1:{port}
display_library: term
log: {log}
logprefix: %t%e%d
debug: action=ignore
info: action=ignore
error: action=report
panic: action=fatal
"""


class Bochs(Machine):
    name = "bochs"
    default_model = "corei7_skylake_x"

    def __init__(self, image, memory=1024, cpus=1, model=None, lenient_msrs=False, com2=False, ips=100_000_000):
        """lenient_msrs: unknown MSRs read as zero instead of #GP, which a Linux without a hypervisor wants here.
        com2: a second serial port, whose output goes to the file path("com2").
        ips: how many instructions the machine executes in a second of its own time, whatever that takes."""
        super().__init__(image, memory, cpus, model)
        self.com2 = com2
        self.lenient_msrs = lenient_msrs
        self.ips = ips

    def launch(self):
        port = free_port()
        with open(self.path("bochsrc"), "w") as file:
            file.write(CONFIGURATION.format(
                model=self.model or self.default_model, cpus=self.cpus, ips=self.ips, memory=self.memory,
                host_memory=min(self.memory, 2048), image=self.image, port=port,
                lenient_msrs=int(self.lenient_msrs), log=self.path("log")))
            if self.com2:
                file.write(f"com2: enabled=1, mode=file, dev={self.path('com2')}\n")
        with open(self.path("debugger"), "w") as file:
            file.write("c\n")  # the built-in debugger stops at its prompt: continue
        # The text display wants a terminal. It then opens another, for the screen, and says which. Nobody looks at
        # either; both must be drained all the same, or Bochs stands still when some 4 KiB have been drawn.
        controller, terminal = pty.openpty()
        self.spawn(
            ["bochs-bin", "-q", "-f", self.path("bochsrc"), "-rc", self.path("debugger")],
            stdin=terminal, stdout=terminal, stderr=terminal, cwd=self.directory.name,
            env={**os.environ, "TERM": "vt100"}, start_new_session=True)
        os.close(terminal)

        def drain(terminal, said=None):
            try:
                while data := os.read(terminal, 65536):
                    if said is None:
                        continue
                    said += data
                    if match := re.search(rb'connected to screen "(/dev/pts/\d+)"', said):
                        said = None
                        screen = os.open(match[1], os.O_RDWR | os.O_NOCTTY)
                        tty.setraw(screen)  # an echo would be typing
                        threading.Thread(target=drain, args=(screen,), daemon=True).start()
            except OSError:  # Bochs has ended
                pass
            os.close(terminal)

        threading.Thread(target=drain, args=(controller, b""), daemon=True).start()
        return self.connect(("127.0.0.1", port))

    def diagnostics(self):
        try:
            with open(self.path("log"), errors="replace") as file:
                return "".join(file.readlines()[-25:])
        except OSError:
            return ""
