# Copyright (c) 2026, cloudrepo contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the lab's micro image from Debian's packages: build_image.py CACHE_DIR IMAGE...

Kernel, initramfs and syslinux on a FAT disk, without a mount and without installing the kernel. Every IMAGE is a name
of the same qcow2 in CACHE_DIR/images. The public key beside it, CACHE_DIR/id_ed25519.pub, lets root in. Prints "built"
or, if key and recipe are those of the images that are there, "unchanged".
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

KERNEL = "linux-image-cloud-amd64"
BUSYBOX = "busybox-static"
GUEST = Path(__file__).parent / "guest"
DISK_MB = 64
# In the order in which they are loaded.
MODULES = """
    drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev
    drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci
    net/core/failover drivers/net/net_failover drivers/net/virtio_net
    drivers/char/hw_random/virtio-rng drivers/block/virtio_blk
    drivers/acpi/button drivers/input/evdev
""".split()
FOLDERS = """
    bin sbin usr usr/bin usr/sbin lib lib/modules lib64 dev proc sys run root var var/run var/log
    etc etc/acpi etc/acpi/PWRF etc/dropbear
""".split()
SYSLINUX_CONFIG = """\
DEFAULT micro
PROMPT 0
LABEL micro
  LINUX vmlinuz
  INITRD initrd
  APPEND console=ttyS0 quiet net.ifnames=0 nokaslr mitigations=off tsc=unstable no_timer_check panic=1
"""


@dataclass(frozen=True)
class Entry:
    """One entry of the initramfs; a link has its target as content, a device its numbers."""

    path: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, stat.S_IFDIR | mode)


def file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, content)


def link(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def cpio(entries: list[Entry]) -> bytes:
    """An archive in the `newc` format, everything owned by root: no device or root of ours is needed to make it."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.path.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % value for value in fields) + name
        out += b"\0" * (-len(out) % 4) + entry.content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)} failed (rc={done.returncode}): {' '.join(done.stderr.split())}")
    return done.stdout


def kernel_package() -> str:
    """The package with the kernel itself, which the unversioned one depends on."""
    depends = re.compile(r"^\s*Depends: (linux-image-\S+)$", re.MULTILINE)
    found = depends.search(run("apt-cache", "depends", KERNEL))
    if not found:
        raise OSError(f"{KERNEL} depends on no kernel package")
    return found.group(1)


def fetch(work: Path) -> Path:
    """Download and unpack the kernel and busybox: the folder with boot/, lib/modules/ and busybox.

    Not installed: the machine has a kernel of its own, and its busybox may be another package that this one replaces.
    """
    try:
        package = kernel_package()
    except OSError:
        run("apt-get", "--quiet", "--option", "Acquire::Retries=3", "update")
        package = kernel_package()
    # As root throughout: apt's own user may not write into our folder.
    options = ["--quiet", "--option", "Acquire::Retries=3", "--option", "APT::Sandbox::User=root"]
    run("apt-get", *options, "download", package, BUSYBOX, cwd=work)
    unpacked = work / "unpacked"
    for archive in work.glob("*.deb"):
        run("dpkg-deb", "--extract", str(archive), str(unpacked))
    return unpacked


def libraries(program: str) -> list[str]:
    """Paths of the shared libraries of a program, its loader included."""
    listing = run("ldd", program)
    if "not found" in listing:
        raise OSError(f"{program} lacks a library: {' '.join(listing.split())}")
    return re.findall(r"(/\S+) \(0x", listing)


def guest_entries(unpacked: Path, public_key: bytes) -> list[Entry]:
    entries = [folder(path) for path in FOLDERS] + [
        folder("tmp", 0o1777),
        folder("root/.ssh", 0o700),
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        file("root/.ssh/authorized_keys", public_key, 0o600),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        file("etc/group", b"root:x:0:\n"),
        file("etc/shadow", b"root:*:19700:0:99999:7:::\n", 0o600),
        file("etc/shells", b"/bin/sh\n"),
        file("etc/hosts", b"127.0.0.1 localhost\n"),
        file("etc/resolv.conf", b""),
        file("etc/inittab", (GUEST / "inittab").read_bytes()),
        file("etc/profile", (GUEST / "profile").read_bytes()),
        file("etc/rc", (GUEST / "rc").read_bytes(), 0o755),
        file("etc/udhcpc.script", (GUEST / "udhcpc.script").read_bytes(), 0o755),
        file("etc/acpi/PWRF/00000080", (GUEST / "powerbtn").read_bytes(), 0o755),
        link("init", "sbin/init"),
    ]
    busybox = next(unpacked.glob("**/bin/busybox"))
    entries.append(file("bin/busybox", busybox.read_bytes(), 0o755))
    applets = run(str(busybox), "--list-full").split()
    entries += [link(path, "/bin/busybox") for path in applets if path != "bin/busybox"]
    entries.append(file("usr/sbin/dropbear", Path("/usr/sbin/dropbear").read_bytes(), 0o755))
    for path in libraries("/usr/sbin/dropbear"):
        # The loader is looked up by its full path, the rest by name in the default folders.
        place = path if "/ld-linux" in path else "/lib/" + os.path.basename(path)
        entries.append(file(place.lstrip("/"), Path(path).read_bytes(), 0o755))
    modules = next(unpacked.glob("**/lib/modules/*")) / "kernel"
    for module in MODULES:
        entries.append(file(f"lib/modules/{Path(module).name}.ko", (modules / f"{module}.ko").read_bytes()))
    entries.append(file("etc/modules", "".join(f"{Path(module).name}.ko\n" for module in MODULES).encode()))
    return entries


def build(work: Path, public_key: bytes) -> Path:
    unpacked = fetch(work)
    (work / "initrd").write_bytes(cpio(guest_entries(unpacked, public_key)))
    (work / "syslinux.cfg").write_text(SYSLINUX_CONFIG)
    vmlinuz = next(unpacked.glob("boot/vmlinuz-*")).rename(work / "vmlinuz")
    disk = work / "disk.raw"
    disk.touch()
    os.truncate(disk, DISK_MB * 1024 * 1024)
    run("mformat", "-i", str(disk), "-h", "64", "-s", "32", "-t", str(DISK_MB), "::")
    parts = [str(vmlinuz), str(work / "initrd"), str(work / "syslinux.cfg")]
    run("mcopy", "-i", str(disk), *parts, "::")
    run("syslinux", "--install", str(disk))
    image = work / "image.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(image))
    return image


def recipe(public_key: bytes) -> str:
    """A digest of all that decides what an image contains, apart from the versions of Debian's packages."""
    digest = hashlib.sha256(public_key)
    for path in [Path(__file__), *sorted(GUEST.iterdir())]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest() + "\n"


def main(cache: Path, names: list[str]) -> None:
    public_key = (cache / "id_ed25519.pub").read_bytes()
    images = cache / "images"
    stamp = cache / "images.recipe"
    wanted = recipe(public_key)
    if stamp.exists() and stamp.read_text() == wanted and all((images / name).exists() for name in names):
        print("unchanged")
        return
    stamp.unlink(missing_ok=True)
    images.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as work:
        image = build(Path(work), public_key)
        for name in names:
            part = Path(work) / name
            os.link(image, part)
            part.replace(images / name)
    stamp.write_text(wanted)
    print("built")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except OSError as error:
        sys.exit(f"building the micro image failed: {error}")
