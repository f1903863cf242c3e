// SPDX-License-Identifier: MIT
// serial_programs.cpp - the versions are Debian 12's; their words of refusal are theirs.
#include "interop/serial_programs.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>

#include <ostream>

namespace holdfast::interop {
namespace {

constexpr const char* kPython = "/usr/bin/python3";  // Debian's, which has python3-serial

// A dumb terminal on pyserial: a line of input goes out, what comes in is shown.
constexpr const char* kPyserial = R"(
import os, select, serial, sys
port = serial.Serial(sys.argv[1], 9600, exclusive=sys.argv[2] == "exclusive")
while True:
    for ready in select.select([port, sys.stdin], [], [])[0]:
        if ready is port:
            os.write(1, port.read(port.in_waiting or 1))
        else:
            port.write(os.read(0, 100))
)";

// pppd looks for /dev/ppp before it locks the line. Where the kernel has no PPP a stand-in in a private /dev takes it
// as far as the connect script, which runs after the lock and the open.
constexpr const char* kPppd = R"(
if [ ! -e /dev/ppp ]; then
  mount -t tmpfs none "$2" && mkdir "$2/pts" && mount --bind /dev/pts "$2/pts" || exit 1
  for node in null tty urandom; do : > "$2/$node" && mount --bind /dev/$node "$2/$node"; done
  mknod "$2/ppp" c 1 3 && mount --move "$2" /dev
fi
exec pppd "$1" 9600 lock nodetach noauth local nocrtscts connect \
  'echo hello; read -r word; echo "the line says $word" >&2; exec sleep 1000'
)";

// A port of 127.0.0.1 that nobody listens on.
std::string free_port() {
  const base::UniqueFd probe{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(probe.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(probe.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    std::abort();
  return std::to_string(::ntohs(address.sin_port));
}

const Talk kTerminalTalk{.typed = "hello\r", .heard = "hello", .said = "world\r\n", .shown = "world"};

std::vector<SerialProgram> make_table() {
  std::vector<SerialProgram> rows;
  rows.push_back({.row = "picocom",
                  .binary = "picocom",
                  .comm = "picocom",
                  .mark = Mark::flock,
                  .refusal = "cannot lock",
                  .means = "flock",
                  .talk = kTerminalTalk,
                  .quit = "\x01\x18",
                  .start = [](const std::string& device, const Scratch&) {
                    return Started{{"picocom", "-b", "9600", device}, {}};
                  }});
  rows.push_back({.row = "minicom",
                  .binary = "minicom",
                  .comm = "minicom",
                  .mark = Mark::uucp,
                  .refusal = "is locked",
                  .means = "UUCP lock file",
                  .talk = kTerminalTalk,
                  .quit = "\x01x\r",
                  .start = [](const std::string& device, const Scratch& scratch) {
                    scratch.file(".minirc.dfl", "pu minit\npu mreset\npu rtscts No\n");
                    return Started{{"minicom", "-D", device, "-b", "9600"}, {"HOME=" + scratch.path()}};
                  }});
  rows.push_back({.row = "tio",
                  .binary = "tio",
                  .comm = "tio",
                  .mark = Mark::flock,
                  .refusal = "locked by another process",
                  .means = "flock",
                  .talk = kTerminalTalk,
                  .quit = "\x14q",
                  .start = [](const std::string& device, const Scratch& scratch) {
                    return Started{{"tio", "-n", "-b", "9600", device}, {"HOME=" + scratch.path()}};
                  }});
  rows.push_back({.row = "cu",
                  .binary = "cu",
                  .comm = "cu",
                  .mark = Mark::uucp,
                  .refusal = "Line in use",
                  .means = "UUCP lock file",
                  .talk = kTerminalTalk,
                  .quit = "\r~.\r",
                  .start = [](const std::string& device, const Scratch&) {
                    return Started{{"cu", "-l", device, "-s", "9600"}, {}};
                  }});
  rows.push_back({.row = "ckermit",
                  .binary = "kermit",
                  .comm = "kermit",
                  .mark = Mark::uucp,
                  .refusal = "Locked by process",
                  .means = "UUCP lock file",
                  .talk = kTerminalTalk,
                  .quit = "\x1cq",
                  .start = [](const std::string& device, const Scratch& scratch) {
                    return Started{{"kermit", "-l", device, "-b", "9600", "-C", "SET CARRIER OFF,CONNECT"},
                                   {"HOME=" + scratch.path()}};
                  }});
  rows.push_back({.row = "microcom",
                  .binary = "microcom",
                  .comm = "microcom",
                  .mark = Mark::uucp,
                  .refusal = "lockfile for port exists",
                  .means = "UUCP lock file",
                  .talk = kTerminalTalk,
                  .start = [](const std::string& device, const Scratch&) {
                    return Started{{"microcom", "-p", device, "-s", "9600"}, {}};
                  }});
  rows.push_back({.row = "pyserial_exclusive",
                  .binary = "python3",
                  .comm = "python3",
                  .mark = Mark::flock,
                  .refusal = "Could not exclusively lock port",
                  .means = "flock",
                  .talk = kTerminalTalk,
                  .start = [](const std::string& device, const Scratch&) {
                    return Started{{kPython, "-c", kPyserial, device, "exclusive"}, {}};
                  }});
  rows.push_back({.row = "pyserial_miniterm",
                  .binary = "python3",
                  .comm = "python3",
                  .mark = Mark::flock,
                  .refusal = "Could not exclusively lock port",
                  .means = "flock",
                  .talk = kTerminalTalk,
                  .quit = "\x1d",
                  .start = [](const std::string& device, const Scratch&) {
                    return Started{{kPython, "-m", "serial.tools.miniterm", device, "9600"}, {}};
                  }});
  rows.push_back({.row = "ser2net",
                  .binary = "ser2net",
                  .comm = "ser2net",
                  .mark = Mark::uucp,
                  .refusal = "in use",
                  .means = "UUCP lock file",
                  .talk = kTerminalTalk,
                  .start =
                      [](const std::string& device, const Scratch& scratch) {
                        const std::string file = scratch.file("ser2net.yaml",
                                                              "connection: &line\n  accepter: stdio\n  connector: "
                                                              "serialdev," +
                                                                  device + ",9600n81,local\n");
                        return Started{{"sh", "-c", "stty raw -echo; exec ser2net -n -c \"$1\"", "sh", file}, {}};
                      },
                  .note = "locks nothing when the name begins with /dev/pts; tested under another name",
                  .device_name = "ttyHoldfast"});
  rows.push_back({.row = "pppd",
                  .binary = "pppd",
                  .comm = "pppd",
                  .mark = Mark::uucp,
                  .refusal = "is locked by pid",
                  .means = "UUCP lock file",
                  .talk = {.typed = {}, .heard = "hello", .said = "world\n", .shown = "the line says world"},
                  .start =
                      [](const std::string& device, const Scratch& scratch) {
                        return Started{{"unshare", "-m", "sh", "-c", kPppd, "sh", device, scratch / "dev"}, {}};
                      },
                  .note = "up to its connect script, where the kernel has no PPP"});
  rows.push_back({.row = "gammu",
                  .binary = "gammu",
                  .comm = "gammu",
                  .mark = Mark::flock,
                  .refusal = "it is locked",
                  .means = "UUCP lock file",
                  .talk = {.typed = {}, .heard = "AT\r", .said = {}, .shown = {}},
                  .start =
                      [](const std::string& device, const Scratch& scratch) {
                        const std::string file = scratch.file(
                            "gammurc", "[gammu]\ndevice=" + device + "\nconnection=at115200\nuse_locking=yes\n");
                        return Started{{"gammu", "-c", file, "identify"}, {}};
                      },
                  .note = "with use_locking=yes: UUCP lock file and flock"});
  rows.push_back(
      {.row = "stm32flash",
       .binary = "stm32flash",
       .comm = "stm32flash",
       .mark = Mark::posix,
       .refusal = "is already open",
       .means = "record lock",
       .talk = {.typed = {}, .heard = "\x7f", .said = {}, .shown = {}},
       .start = [](const std::string& device,
                   const Scratch&) { return Started{{"stm32flash", "-m", "8n1", "-b", "9600", device}, {}}; },
       .passing = true});
  rows.push_back({.row = "screen",
                  .binary = "screen",
                  .comm = "screen",
                  .mark = Mark::tiocexcl,
                  .refusal = {},
                  .means = "TIOCEXCL",
                  .talk = kTerminalTalk,
                  .quit = "\x01ky",
                  .start =
                      [](const std::string& device, const Scratch& scratch) {
                        return Started{{"screen", "-c", "/dev/null", device, "9600"},
                                       {"SCREENDIR=" + scratch / "sockets"}};
                      },
                  .note = "honours TIOCEXCL alone, as everybody does without CAP_SYS_ADMIN; a claim does not set it on "
                          "a pseudo-terminal, but does on real ports"});
  rows.push_back({.row = "gpsd",
                  .binary = "gpsd",
                  .comm = "gpsd",
                  .mark = Mark::none,
                  .refusal = {},
                  .means = {},
                  .talk = {.typed = {}, .heard = "$P", .said = {}, .shown = {}},
                  .start =
                      [](const std::string& device, const Scratch& scratch) {
                        return Started{{"gpsd", "-N", "-n", "-F", scratch / "gpsd.sock", "-S", free_port(), device},
                                       {}};
                      },
                  .note = "marks a real port by TIOCEXCL, and a pseudo-terminal not at all"});
  rows.push_back({.row = "pyserial_default",
                  .binary = "python3",
                  .comm = "python3",
                  .mark = Mark::none,
                  .refusal = {},
                  .means = {},
                  .talk = kTerminalTalk,
                  .start = [](const std::string& device, const Scratch&) {
                    return Started{{kPython, "-c", kPyserial, device, "default"}, {}};
                  }});
  rows.push_back({.row = "socat",
                  .binary = "socat",
                  .comm = "socat",
                  .mark = Mark::none,
                  .refusal = {},
                  .means = {},
                  .talk = kTerminalTalk,
                  .start = [](const std::string& device, const Scratch&) {
                    return Started{{"socat", "-,raw,echo=0", device + ",raw,echo=0"}, {}};
                  }});
  rows.push_back({.row = "cat",
                  .binary = "cat",
                  .comm = "cat",
                  .mark = Mark::none,
                  .refusal = {},
                  .means = {},
                  .talk = {.typed = {}, .heard = {}, .said = "world\r\n", .shown = "world"},
                  .start = [](const std::string& device, const Scratch&) { return Started{{"cat", device}, {}}; }});
  return rows;
}

}  // namespace

const std::vector<SerialProgram>& serial_programs() {
  static const std::vector<SerialProgram> table = make_table();
  return table;
}

void PrintTo(const SerialProgram& program, std::ostream* out) { *out << program.row; }

}  // namespace holdfast::interop
