#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One process reads /dev/async_n0, told by SIGIO when there is something; another writes two messages and ends. As a user
of the device would write it; the pipe between them is the test's, so that it does not hang on how fast the machine is."""
import fcntl
import os
import signal
import sys
import time
from multiprocessing import Pipe, Process

DEVICE = "/dev/async_n0"
MESSAGES = ("hey, how are you?", "stop reading")


def read(report):
    told = False

    def on_sigio(number, frame):
        nonlocal told
        told = True

    signal.signal(signal.SIGIO, on_sigio)
    device = os.open(DEVICE, os.O_RDONLY)
    fcntl.fcntl(device, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(device, fcntl.F_SETFL, fcntl.fcntl(device, fcntl.F_GETFL) | fcntl.FASYNC)
    text, idle = "", False
    while "stop reading" not in text:
        if not told:
            if not idle:
                report.send("nothing to read yet")
            idle = True
            time.sleep(0.1)
            continue
        told = idle = False
        text = os.read(device, 256).decode("utf-8")
        report.send(text)
    os.close(device)


def write(orders):
    device = os.open(DEVICE, os.O_WRONLY)
    for text in MESSAGES:
        orders.recv()
        os.write(device, text.encode("utf-8"))
    os.close(device)


def main():
    report, reports = Pipe()
    order, orders = Pipe()
    reader, writer = Process(target=read, args=(reports,)), Process(target=write, args=(orders,))
    reader.start()
    writer.start()
    seen = []
    for text in MESSAGES:
        while not seen or seen[-1] != "nothing to read yet":
            if not report.poll(30):
                sys.exit(f"the reader is silent after {seen}")
            seen.append(report.recv())
        order.send("write")
        if not report.poll(30):
            sys.exit(f"no signal for {text!r}")
        seen.append(report.recv())
        if seen[-1] != text:
            sys.exit(f"read {seen[-1]!r} where {text!r} was written")
    reader.join(30)
    writer.join(30)
    if reader.exitcode != 0 or writer.exitcode != 0:
        sys.exit("they did not end")
    print("\n".join(seen))


main()
