// SPDX-License-Identifier: MIT
// block_programs.cpp - the versions are Debian 12's.
#include "interop/block_programs.hpp"

#include <ostream>

namespace holdfast::interop {
namespace {

Words make_ext4(const std::string& device) { return {"mkfs.ext4", "-q", "-F", device}; }

std::vector<BlockProgram> make_table() {
  std::vector<BlockProgram> rows;
  rows.push_back(
      {.row = "flock",
       .binary = "flock",
       .refusal = " ",
       .hold = Hold::stays,
       .holder = "flock",
       .means = "flock",
       .command = [](const std::string& device, const Scratch&) { return Words{"flock", "-n", device, "true"}; },
       .staying = [](const std::string& device) { return Words{"flock", "-n", device, "cat"}; }});
  rows.push_back(
      {.row = "udevadm_lock",
       .binary = "udevadm",
       .refusal = "is currently locked",
       .hold = Hold::stays,
       .holder = "udevadm",
       .means = "flock",
       .command = [](const std::string& device,
                     const Scratch&) { return Words{"udevadm", "lock", "-t", "0", "-d", device, "true"}; },
       .staying = [](const std::string& device) { return Words{"udevadm", "lock", "-t", "0", "-d", device, "cat"}; }});
  rows.push_back({.row = "sfdisk_lock",
                  .binary = "sfdisk",
                  .refusal = "device already locked",
                  .hold = Hold::stopped,
                  .holder = "sfdisk",
                  .means = "flock",
                  .command =
                      [](const std::string& device, const Scratch&) {
                        return Words{"sfdisk", "-q", "--no-reread", "--no-tell-kernel", "--lock=nonblock", device};
                      },
                  .input = ",,\n",
                  .taking = Taking::flock});
  rows.push_back({.row = "sfdisk",
                  .binary = "sfdisk",
                  .refusal = "currently in use",
                  .hold = Hold::stopped,
                  .holder = "sfdisk",
                  .means = "O_EXCL",
                  .command = [](const std::string& device, const Scratch&) { return Words{"sfdisk", device}; },
                  .input = ",,\n"});
  rows.push_back({.row = "mkfs_ext4",
                  .binary = "mkfs.ext4",
                  .refusal = "apparently in use",
                  .hold = Hold::stopped,
                  .holder = "mkfs.ext4",
                  .means = "O_EXCL",
                  .command = [](const std::string& device, const Scratch&) { return make_ext4(device); }});
  rows.push_back(
      {.row = "mkfs_vfat",
       .binary = "mkfs.vfat",
       .refusal = "Device or resource busy",
       .hold = Hold::stopped,
       .holder = "mkfs.vfat",
       .means = "O_EXCL",
       .command = [](const std::string& device, const Scratch&) { return Words{"mkfs.vfat", "-I", device}; }});
  rows.push_back({.row = "mkswap",
                  .binary = "mkswap",
                  .refusal = "Device or resource busy",
                  .hold = Hold::stopped,
                  .holder = "mkswap",
                  .means = "O_EXCL",
                  .command = [](const std::string& device, const Scratch&) { return Words{"mkswap", device}; }});
  rows.push_back({.row = "wipefs",
                  .binary = "wipefs",
                  .refusal = "Device or resource busy",
                  .hold = Hold::stopped,
                  .holder = "wipefs",
                  .means = "O_EXCL",
                  .command = [](const std::string& device, const Scratch&) { return Words{"wipefs", "-a", device}; },
                  .before = make_ext4});
  rows.push_back(
      {.row = "mount",
       .binary = "mount",
       .refusal = "already mounted or mount point busy",
       .hold = Hold::kernel,
       .holder = "the kernel",
       .means = "mounted on",
       .command = [](const std::string& device,
                     const Scratch& scratch) { return Words{"mount", "-t", "ext4", device, scratch / "mnt"}; },
       .before = make_ext4,
       .note = "mount(2) meets our O_EXCL and is not handed over: use run --without o_excl",
       .run_options = {"--without", "o_excl"}});
  rows.push_back({.row = "dd",
                  .binary = "dd",
                  .refusal = {},
                  .hold = Hold::opens,
                  .holder = "dd",
                  .means = {},
                  .command =
                      [](const std::string& device, const Scratch&) {
                        return Words{"dd", "if=/dev/zero", "of=" + device, "bs=512", "count=1", "conv=notrunc"};
                      },
                  .staying = [](const std::string& device) { return Words{"dd", "of=" + device, "conv=notrunc"}; }});
  return rows;
}

std::vector<BlockProgram> make_disk_table() {
  std::vector<BlockProgram> rows;
  rows.push_back({.row = "pvcreate",
                  .binary = "pvcreate",
                  .refusal = "Can't open",
                  .hold = Hold::stopped,
                  .holder = "pvcreate",
                  .means = "O_EXCL",
                  .command = [](const std::string& device,
                                const Scratch&) { return Words{"pvcreate", "-q", "-ff", "-y", device}; },
                  .refused_status = 5});
  rows.push_back({.row = "parted",
                  .binary = "parted",
                  .refusal = {},
                  .command = [](const std::string& device,
                                const Scratch&) { return Words{"parted", "-s", device, "mklabel", "gpt"}; },
                  .note = "waits for udevd (udevadm settle), which waits for the claim if an event of the disk is "
                          "pending: settle before run"});
  rows.push_back(
      {.row = "smartctl",
       .binary = "smartctl",
       .refusal = {},
       .command = [](const std::string& device, const Scratch&) { return Words{"smartctl", "-i", device}; }});
  rows.push_back({.row = "blkid",
                  .binary = "blkid",
                  .refusal = {},
                  .command = [](const std::string& device, const Scratch&) { return Words{"blkid", "-p", device}; },
                  .before = make_ext4});
  return rows;
}

}  // namespace

const std::vector<BlockProgram>& disk_programs() {
  static const std::vector<BlockProgram> table = make_disk_table();
  return table;
}

const std::vector<BlockProgram>& block_programs() {
  static const std::vector<BlockProgram> table = make_table();
  return table;
}

void PrintTo(const BlockProgram& program, std::ostream* out) { *out << program.row; }

}  // namespace holdfast::interop
