# SPDX-License-Identifier: MIT
"""The kernels that the lab boots: where they are, and the initramfs that each needs.

Debian 12's own is the package linux-image-amd64; a newer one comes out of its backports, unpacked below build/lab and never
installed, so that the machine's own boot is none of the lab's business.
"""
import dataclasses
import gzip
import lzma
import pathlib
import stat
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNPACKED = ROOT / "build" / "lab" / "kernels"
# What it takes to see the host's root file system.
FIRST_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")


class Missing(Exception):
    """What the machine lacks: tests are skipped with this reason."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    name: str  # as asked for: "6.1"
    release: str  # uname -r
    image: pathlib.Path
    modules: pathlib.Path  # the folder that holds `release`

    def words(self):
        """What it wants on its command line: the file `words` beside its image."""
        file = self.image.parent / "words"
        return file.read_text().split() if file.exists() else []


def find(name):
    """The newest kernel of the series `name` ("6.1"), or the image at a path (then its modules stand beside it)."""
    places = [pathlib.Path("/"), UNPACKED / name]
    if "/" in name:
        places = [pathlib.Path(name).resolve().parents[1]]
    for place in places:
        for image in sorted((place / "boot").glob("vmlinuz-*"), key=lambda file: file.stat().st_mtime, reverse=True):
            release = image.name.removeprefix("vmlinuz-")
            for modules in (place / "lib/modules", place / "usr/lib/modules"):
                if ("/" in name or release.startswith(name + ".")) and (modules / release / "modules.dep").exists():
                    return Kernel(name, release, image, modules)
    raise Missing(f"no kernel {name}: install linux-image-amd64, or run ./setup")


def _first_modules(kernel):
    """In the order of loading, each once."""
    files = []
    for module in FIRST_MODULES:
        told = subprocess.run(["modprobe", "--show-depends", "--ignore-install", "-d", kernel.modules.parents[0] / "..", "-S",
                               kernel.release, module], capture_output=True, text=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
        if told.returncode != 0:
            raise Missing(f"kernel {kernel.release} has no module {module}: {told.stderr.strip()}")
        for line in told.stdout.splitlines():
            kind, _, path = line.partition(" ")
            if kind == "insmod" and path.split()[0] not in files:
                files.append(path.split()[0])
    return [pathlib.Path(file) for file in files]


def _member(number, name, mode, data=b""):
    """One file of a cpio archive, "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def write_initramfs(kernel, file):
    busybox = pathlib.Path("/bin/busybox")
    if not busybox.exists():
        raise Missing("no /bin/busybox: install busybox-static")
    init = pathlib.Path(__file__).parent / "guest" / "init"
    members = [(name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "proc", "sys", "modules")]
    members += [("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()), ("init", stat.S_IFREG | 0o755, init.read_bytes())]
    for order, module in enumerate(_first_modules(kernel)):
        data = module.read_bytes()
        if module.suffix == ".xz":
            data = lzma.decompress(data)
        members.append((f"modules/{order:02}-{module.name.split('.')[0]}", stat.S_IFREG | 0o644, data))
    archive = b"".join(_member(number, *member) for number, member in enumerate(members, 1)) + _member(0, "TRAILER!!!", 0)
    file.write_bytes(gzip.compress(archive, 1))
