// SPDX-License-Identifier: MIT
// drive_programs.cpp - the versions are Debian 12's; their words of refusal are theirs.
#include "vm/support/drive_programs.hpp"

#include <ostream>

namespace holdfast::vm {
namespace {

using interop::BlockProgram;
using interop::Hold;
using interop::Scratch;
using interop::Words;

DriveProgram on_both(const BlockProgram& program) { return {program, program}; }

std::vector<DriveProgram> make_table() {
  std::vector<DriveProgram> rows;
  rows.push_back(on_both(
      {.row = "cdrskin",
       .binary = "cdrskin",
       .refusal = "Cannot open busy device",
       .hold = Hold::passing,
       .holder = "cdrskin",
       .means = "O_EXCL, record lock",
       .command = [](const std::string& device, const Scratch&) { return Words{"cdrskin", "dev=" + device, "-toc"}; },
       .refused_status = 3}));
  rows.back().by_sg->means = {};  // given an sg node it works through the sr node
  rows.push_back(on_both(
      {.row = "xorriso",
       .binary = "xorriso",
       .refusal = "Cannot open busy device",
       .hold = Hold::passing,
       .holder = "xorriso",
       .means = "O_EXCL",
       .command = [](const std::string& device, const Scratch&) { return Words{"xorriso", "-indev", device, "-toc"}; },
       .refused_status = 5}));
  rows.back().by_sg->refusal = "rejected because: not MMC";
  rows.back().by_sg->means = {};
  rows.push_back(on_both(
      {.row = "wodim",
       .binary = "wodim",
       .refusal = "exclusively (Device or resource busy)... giving up",
       .hold = Hold::stopped,
       .holder = "wodim",
       .means = "O_EXCL",
       .command = [](const std::string& device, const Scratch&) { return Words{"wodim", "dev=" + device, "-toc"}; },
       .refused_status = 255}));
  rows.back().by_sg->means = "opened for itself alone";
  rows.push_back({{.row = "growisofs",
                   .binary = "growisofs",
                   .refusal = {},
                   .hold = Hold::opens,
                   .command = [](const std::string& device,
                                 const Scratch&) { return Words{"growisofs", "-Z", device + "=/etc/hostname"}; },
                   .note = "on a disc with data: growisofs looks at it and declines",
                   .status = 144},
                  {}});
  rows.push_back({{.row = "eject",
                   .binary = "eject",
                   .refusal = "Device or resource busy",
                   .hold = Hold::stopped,
                   .holder = "eject",
                   .means = "O_EXCL",
                   .command = [](const std::string& device, const Scratch&) { return Words{"eject", device}; },
                   .refused_status = 1},
                  {}});
  rows.push_back({{.row = "eject_t",
                   .binary = "eject",
                   .refusal = {},
                   .command = [](const std::string& device, const Scratch&) { return Words{"eject", "-t", device}; },
                   .note = "eject -t closes the tray"},
                  {}});
  rows.push_back({{.row = "mount",
                   .binary = "mount",
                   .refusal = "already mounted or mount point busy",
                   .hold = Hold::kernel,
                   .holder = "the kernel",
                   .means = "mounted on",
                   .command =
                       [](const std::string& device, const Scratch& scratch) {
                         return Words{"mount", "-t", "iso9660", "-o", "ro", device, scratch / "mnt"};
                       },
                   .note = "mount(2) meets our O_EXCL and is not handed over: use run --without o_excl",
                   .run_options = {"--without", "o_excl"},
                   .refused_status = 32},
                  {}});
  rows.push_back(
      {{.row = "udevadm_lock",
        .binary = "udevadm",
        .refusal = "is currently locked",
        .hold = Hold::stays,
        .holder = "udevadm",
        .means = "flock",
        .command = [](const std::string& device,
                      const Scratch&) { return Words{"udevadm", "lock", "-t", "0", "-d", device, "true"}; },
        .staying = [](const std::string& device) { return Words{"udevadm", "lock", "-t", "0", "-d", device, "cat"}; },
        .refused_status = 1},
       {}});
  rows.push_back({{.row = "blkid",
                   .binary = "blkid",
                   .refusal = {},
                   .command = [](const std::string& device, const Scratch&) { return Words{"blkid", "-p", device}; }},
                  {}});
  rows.push_back(
      {{.row = "isoinfo",
        .binary = "isoinfo",
        .refusal = {},
        .command = [](const std::string& device, const Scratch&) { return Words{"isoinfo", "-d", "-i", device}; }},
       {}});
  rows.push_back(
      on_both({.row = "smartctl",
               .binary = "smartctl",
               .refusal = {},
               .command = [](const std::string& device, const Scratch&) { return Words{"smartctl", "-i", device}; }}));
  // Whoever has an sg node open keeps out everybody who wants it for himself alone.
  rows.back().by_sg->refusal = "failed: Device or resource busy";
  rows.back().by_sg->refused_status = 2;
  rows.back().by_sg->hold = Hold::stopped;
  rows.back().by_sg->taking = interop::Taking::open;
  rows.back().by_sg->holder = "smartctl";
  rows.back().by_sg->means = "opened for itself alone";
  rows.push_back({{.row = "dd",
                   .binary = "dd",
                   .refusal = {},
                   .command =
                       [](const std::string& device, const Scratch&) {
                         return Words{"dd", "if=" + device, "of=/dev/null", "bs=2048", "count=1", "iflag=direct"};
                       }},
                  {}});
  return rows;
}

}  // namespace

const std::vector<DriveProgram>& drive_programs() {
  static const std::vector<DriveProgram> table = make_table();
  return table;
}

void PrintTo(const DriveProgram& program, std::ostream* out) { *out << program.by_sr.row; }

}  // namespace holdfast::vm
