# SPDX-License-Identifier: MIT
"""A machine of the lab: QEMU with a kernel, the lab's devices, and an agent inside that runs programs.

It is started when somebody first needs it, serves one test after the other, and is stopped by the last (or, forgotten, by
itself). After a panic, an oops, a hang or a lockdep splat it is thrown away: the next test gets a fresh one.
"""
import contextlib
import fcntl
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import time

import kernels

HERE = pathlib.Path(__file__).resolve().parent
EMULATOR = "qemu-system-x86_64"
BOOT_SECONDS = 180
WATCHED_BOOT_SECONDS = 1200  # a kernel of one's own may watch itself, and then it is slow
# What a kernel says when something is wrong with it, on its console.
SPLAT = re.compile(
    r"Kernel panic|Oops[: ]|\bBUG[: ]|WARNING: |general protection fault|unable to handle|KASAN|KCSAN: data-race|UBSAN:|"
    r"possible (circular locking|recursive locking|irq lock inversion|deadlock)|inconsistent lock state|"
    r"suspicious RCU usage|INFO: task .* blocked|bad unlock balance|held lock freed|detected stalls? on|kmemleak: [1-9]|lab: failed")

INT3 = re.compile(r"\bint3: 0000 \[#1\].*?Code: ([^\n]*)", re.S)  # the first oops, and memory around what was run
NOT_INT3_THERE = re.compile(r"\b(?!cc)[0-9a-f]{2} <")  # the bytes before the next instruction, which is marked


class Failed(Exception):
    """The machine did not do what it must; the text is for people."""


class Machine:
    def __init__(self, name, kernel_name, bare=False, module="", counted=False, systemd=False):
        self.name, self.kernel_name, self.counted = name, kernel_name, counted
        self.words = {"devices": "no" if bare else "yes", "module": module, "systemd": "yes" if systemd else "no"}
        self.folder = kernels.ROOT / "build" / "lab" / f"{name}-{kernel_name.replace('/', '_')}"

    # -- its life

    @contextlib.contextmanager
    def alone(self):
        """One user at a time, whoever starts the tests."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "turn", "w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    def running(self):
        """Its process holds a lock on the file that names it, so that no reused pid is taken for it."""
        try:
            with open(self.folder / "pid") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return 0
        except FileNotFoundError:
            return 0
        except BlockingIOError:
            return int((self.folder / "pid").read_text())

    def started(self):
        """When it was, seconds since the epoch."""
        return (self.folder / "pid").stat().st_mtime

    def stop(self):
        pid = self.running()
        if pid:
            pidfd = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            select.select([pidfd], [], [], 10)
            os.close(pidfd)
        (self.folder / "pid").unlink(missing_ok=True)

    def boot(self):
        """Starts it and waits for its agent."""
        begun = time.monotonic()
        self._start(["-serial", f"file:{self.folder}/console", "-serial", "null"], {})
        with self._talk() as talk:
            seconds = WATCHED_BOOT_SECONDS if "/" in self.kernel_name else BOOT_SECONDS
            if talk.ask({"command": ["true"], "folder": "/", "seconds": seconds}, lambda text: None) != 0:
                raise Failed("the agent cannot run true(1)")
        (self.folder / "judged").write_text("0")
        self.judge()
        print(f"lab: {self.name} on {kernels.find(self.kernel_name).release} is up after {time.monotonic() - begun:.0f} s", flush=True)

    def shell(self, folder):
        """The machine in the foreground, with a shell on the terminal; ends with it."""
        size = shutil.get_terminal_size()
        words = {"shell": "yes", "rows": size.lines, "columns": size.columns, "folder": folder}
        self._start(["-serial", f"file:{self.folder}/console", "-chardev", "stdio,id=shell,signal=off", "-serial", "chardev:shell"],
                    words, foreground=True)

    def _start(self, serial, words, foreground=False):
        if not shutil.which(EMULATOR):
            raise kernels.Missing(f"no {EMULATOR}: install qemu-system-x86")
        if self.words["systemd"] == "yes" and not os.path.exists("/lib/systemd/systemd"):
            raise kernels.Missing("no systemd")
        kernel = kernels.find(self.kernel_name)
        self.stop()
        for name in ("console", "agent", "monitor"):
            (self.folder / name).unlink(missing_ok=True)
        kernels.write_initramfs(kernel, self.folder / "initramfs")
        make_images(self.folder)
        words = {"start": HERE / "guest" / "start", "modules": kernel.modules if kernel.modules.parts[1] not in ("lib", "usr") else "", **self.words, **words}
        processors = "2,sockets=2" if kernel.words() else "2"  # without ACPI it learns of one in each socket
        # Counted: one instruction is one nanosecond of the machine's clock, however busy the host is.
        pace = ["-accel", "tcg,thread=single", "-icount", "shift=0"] if self.counted else ["-accel", "tcg,thread=multi"]
        command = [
            EMULATOR, *pace, "-cpu", "max", "-smp", "1" if self.counted else processors, "-m", "2048", "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(kernel.image), "-initrd", str(self.folder / "initramfs"), "-append",
            # loglevel=5: warnings are on the console, where judge() looks. scan=sync: disks have the same letters at each boot.
            "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off no_timer_check random.trust_cpu=on scsi_mod.scan=sync "
            + " ".join([*kernel.words(), *(f"lab.{key}={value}" for key, value in words.items())]), *serial,
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap", "-device", "virtio-serial-pci", "-chardev",
            f"socket,id=agent,path={self.folder}/agent,server=on,wait=off", "-device", "virtserialport,chardev=agent,name=agent",
            # QEMU's monitor has a port inside, so that a test can pull a plug by itself.
            "-chardev", f"socket,id=inner,path={self.folder}/monitor,server=on,wait=off", "-device", "virtserialport,chardev=inner,name=monitor",
            "-chardev", f"socket,id=outer,path={self.folder}/monitor", "-mon", "chardev=outer,mode=control"]
        if self.words["devices"] == "yes":
            command += device_options(self.folder)
        if foreground:
            subprocess.run(command, cwd=self.folder)
            return
        with open(self.folder / "qemu.log", "w") as log, open(self.folder / "pid", "w") as life:
            fcntl.flock(life, fcntl.LOCK_EX)
            qemu = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[life.fileno()],
                                    start_new_session=True)
            life.write(str(qemu.pid))

    # -- its work

    def run(self, command, folder, environment, seconds, say):
        """Runs a program inside to its end, and gives its exit status; Failed when the kernel complained or nobody answers."""
        with self._talk() as talk:
            status = talk.ask({"command": command, "folder": folder, "environment": environment, "seconds": seconds}, say)
        self.judge()
        return status

    def judge(self):
        """Failed when the console has got a splat since the last look."""
        mark = self.folder / "judged"
        seen = int(mark.read_text())
        news = (self.folder / "console").read_bytes()[seen:]
        mark.write_text(str(seen + len(news)))
        text = news.decode(errors="replace")
        if SPLAT.search(text):
            raise Failed("the kernel complained:\n" + text)

    def emulator_erred(self):
        """Whether it died of an int3 where its memory has none: QEMU ran what another processor had patched meanwhile."""
        oops = INT3.search((self.folder / "console").read_text(errors="replace"))
        return oops is not None and NOT_INT3_THERE.search(oops.group(1)) is not None

    def last_words(self):
        console, log = self.folder / "console", self.folder / "qemu.log"
        text = console.read_text(errors="replace") if console.exists() else ""
        return (log.read_text() if log.exists() else "") + "\n".join(text.splitlines()[-60:])

    @contextlib.contextmanager
    def _talk(self):
        talk = Talk(self)
        try:
            yield talk
        finally:
            talk.close()


class Talk:
    """A connection to the agent."""

    def __init__(self, machine):
        self.machine = machine
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 20
        # The socket's path can be longer than a sockaddr_un: go there by a descriptor of the folder.
        with contextlib.ExitStack() as stack:
            place = os.open(machine.folder, os.O_PATH)
            stack.callback(os.close, place)
            while True:
                try:
                    self.socket.connect(f"/proc/self/fd/{place}/agent")
                    return
                except OSError:
                    if not machine.running() or time.monotonic() > end:
                        raise Failed("the machine did not start:\n" + machine.last_words()) from None
                    time.sleep(0.05)

    def close(self):
        self.socket.close()

    def ask(self, request, say):
        """Sends a request, hands its output on as it comes, and gives its exit status."""
        number = time.monotonic_ns()
        seconds = request.pop("seconds")
        end = time.monotonic() + seconds
        self.socket.sendall(json.dumps({"id": number, **request}).encode() + b"\n")
        pending = b""
        while True:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise Failed(f"no end after {seconds} s; the console says:\n" + self.machine.last_words()) from None
            except ConnectionError:
                data = b""
            if not data:
                raise Failed("the machine is dead; the console says:\n" + self.machine.last_words())
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if answer["id"] != number:
                    continue  # of somebody who went away before his answer came
                if "output" in answer:
                    say(answer["output"])
                else:
                    return answer["status"]


def device_options(folder):
    words = []
    for line in (HERE / "devices").read_text().splitlines():
        if line and not line.startswith("#"):
            words += [word.replace("{images}", str(folder)) for word in line.split()]
    return words


def make_images(folder):
    """The media of the lab's drives, new at each boot."""
    def blank(name, mebibytes):
        with open(folder / name, "wb") as image:
            image.truncate(mebibytes << 20)

    def must(*command, **options):
        done = subprocess.run(command, capture_output=True, text=True, **options)
        if done.returncode != 0:
            raise kernels.Missing(f"{command[0]}: {done.stderr.strip()}")

    blank("table.img", 64)
    blank("blank.img", 64)
    blank("stick.img", 16)
    if not shutil.which("xorriso") or not shutil.which("sfdisk"):
        raise kernels.Missing("xorriso and sfdisk must be installed")
    must("sfdisk", "--quiet", folder / "table.img", input="label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\n"
         "size=16MiB, name=first, uuid=22222222-3333-4444-5555-666666666666\n"
         "size=16MiB, name=second, uuid=33333333-4444-5555-6666-777777777777\n")
    (folder / "disc.iso").unlink(missing_ok=True)
    must("xorriso", "-as", "mkisofs", "-quiet", "-V", "LAB_DISC", "--modification-date=2026010203040500", "-o", folder / "disc.iso", HERE / "guest")
