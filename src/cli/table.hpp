// SPDX-License-Identifier: MIT
// table.hpp - every word of the command line, once. Parsing, --help, holdfast(1) and the bash completion are made from
// this table, so that none of them can say something that the others do not.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace holdfast::cli {

enum class Verb : std::uint8_t { run, claim, status, explain, doctor };

/// What getopt_long(3) returns for an option: its short letter, or a number above all letters.
enum Key : int {
  kExclusive = 'x',
  kShared = 's',
  kNonblock = 'n',
  kWait = 'w',
  kConflictExitCode = 'E',
  kPurpose = 'm',
  kVerbose = 'v',
  kConvention = 'C',
  kJson = 'J',
  kHelp = 'h',
  kVersion = 'V',
  kWithout = 256,
  kUnit,
  kNoOpen,
  kNoHandOver,
};

struct Option {
  Key key;
  const char* name;
  const char* argument;  ///< its placeholder; nullptr when the option takes none
  std::string_view text;

  [[nodiscard]] constexpr char letter() const { return key < 256 ? static_cast<char>(key) : '\0'; }
};

/// A term of a list (an example's line, an exit status, a file) and what it means.
struct Entry {
  std::string_view term;
  std::string_view text;
};

struct Command {
  Verb verb;
  std::string_view name;
  std::string_view summary;                   ///< a line in the list of commands
  std::string_view operands;                  ///< what follows the options
  std::span<const std::string_view> details;  ///< paragraphs, for the man page alone
  std::span<const Option> options;
  std::span<const Entry> examples;
};

inline constexpr std::string_view kSummary = "exclusive and shared access to Linux devices that holds";
inline constexpr std::string_view kDate = "November 22, 2026";  // of the last change of meaning in this file

inline constexpr std::array<std::string_view, 3> kDescription{
    "Gives a program a device for itself. A claim takes every convention by which other programs mark a device as "
    "taken, on every node that reaches the same function of the device, all or nothing. It ends with its owner, "
    "however that ends.",
    "A device is named by any path, by a symbolic link, or by its number, as c4:64 or b8:0. Several names of one "
    "device count once.",
    "What a claim promises, and where it ends, is in holdfast(7)."};

inline constexpr std::array kFiles{
    Entry{"/run/lock/holdfast-c4:64", "the claim of the device with this number; its existence alone means nothing"},
    Entry{"/run/lock/LCK..ttyUSB0", "a UUCP lock file, ours or another program's"},
};

/// In the order of holdfast::Convention, as in convention::table(); a test compares the two.
inline constexpr std::array<std::string_view, 9> kConventionNames{"proxy", "ddlp",   "uucp",   "whole_disk", "flock",
                                                                  "posix", "o_excl", "driver", "tiocexcl"};

namespace options {

inline constexpr Option kHelpOption{kHelp, "help", nullptr, "display this help"};
inline constexpr Option kJsonOption{kJson, "json", nullptr, "print JSON"};
inline constexpr Option kUnitOption{kUnit, "unit", nullptr,
                                    "the whole physical unit: all ports of an adapter, its usbfs node"};

// In the order of the letters, then of the long names.
inline constexpr Option kClaimConvention{kConvention, "convention", "LIST",
                                         "take only these conventions, separated by commas"};
inline constexpr Option kClaimConflict{kConflictExitCode, "conflict-exit-code", "CODE",
                                       "exit status when refused or timed out, 0 to 255 (75)"};
inline constexpr Option kClaimPurpose{kPurpose, "purpose", "TEXT", "tell others what the device is held for"};
inline constexpr Option kClaimNonblock{kNonblock, "nonblock", nullptr, "do not wait: be refused at once"};
inline constexpr Option kClaimShared{kShared, "shared", nullptr, "share with other shared claims"};
inline constexpr Option kClaimVerbose{kVerbose, "verbose", nullptr, "say on standard error what is taken"};
inline constexpr Option kClaimWait{kWait, "wait", "SECS",
                                   "wait at most so long, fractions allowed; without -n and -w the wait has no end"};
inline constexpr Option kClaimExclusive{kExclusive, "exclusive", nullptr, "have it alone; the default"};
inline constexpr Option kClaimNoOpen{kNoOpen, "no-open", nullptr,
                                     "take only what needs no open of the device: no modem line moves, no tray shuts"};
inline constexpr Option kClaimWithout{kWithout, "without", "LIST", "take all conventions but these"};
inline constexpr Option kRunNoHandOver{kNoHandOver, "no-hand-over", nullptr,
                                       "do not meet the command's own locking; needed by set-uid commands"};

inline constexpr std::array kRun{kClaimConvention, kClaimConflict, kClaimPurpose,   kClaimNonblock, kClaimShared,
                                 kClaimVerbose,    kClaimWait,     kClaimExclusive, kRunNoHandOver, kClaimNoOpen,
                                 kUnitOption,      kClaimWithout,  kHelpOption};
inline constexpr std::array kClaim{kClaimConvention, kClaimConflict, kClaimPurpose, kClaimNonblock,
                                   kClaimShared,     kClaimVerbose,  kClaimWait,    kClaimExclusive,
                                   kClaimNoOpen,     kUnitOption,    kClaimWithout, kHelpOption};
inline constexpr std::array kStatus{kJsonOption, kHelpOption};
inline constexpr std::array kExplain{kJsonOption, kUnitOption, kHelpOption};
inline constexpr std::array kDoctor{kJsonOption, kHelpOption};

}  // namespace options

/// The options of `holdfast` itself.
inline constexpr std::array kGlobalOptions{
    Option{kHelp, "help", nullptr, "display this help"},
    Option{kVersion, "version", nullptr, "display the version"},
};

namespace details {

inline constexpr std::array<std::string_view, 4> kRun{
    "Takes the devices with every convention that applies, all or nothing, starts the command, and gives them back "
    "when it ends. The command may lock the same devices itself, by any convention: that convention is handed over to "
    "it at the moment it asks. Signals, job control, standard input and output pass as if the command ran alone.",
    "The -- is required, because several devices may be named. Of -n and -w, and of -x and -s, the last one counts.",
    "Hand-over uses seccomp user notification. For callers without CAP_SYS_ADMIN that needs no_new_privs, under which "
    "a set-uid or set-gid command does not gain privilege. With --no-hand-over the command keeps it, and meets our "
    "locks as a stranger would.",
    "When the supervisor is killed, the command goes on and keeps the claim. When the command is killed, the devices "
    "are free at once."};
inline constexpr std::array<std::string_view, 3> kClaim{
    "Takes the devices and prints a line that begins with \"claimed\" to standard output as soon as it holds them. It "
    "holds until SIGINT, SIGTERM or SIGHUP, or until the end of standard input, and then exits with 0. A standard "
    "input that is closed or /dev/null from the start does not count: shells give it to background jobs.",
    "When a device is pulled out, it says so, gives everything back and exits with 66; who waits for a device that is "
    "pulled out ends likewise.",
    "Of -n and -w, and of -x and -s, the last one counts."};
inline constexpr std::array<std::string_view, 1> kStatus{
    "Shows the named devices, or all that anybody holds: holders and waiters, our own and those by lock files, flock, "
    "record locks and plain open descriptors. Takes nothing and opens no device. Says what it cannot see without "
    "privilege."};
inline constexpr std::array<std::string_view, 1> kExplain{
    "Shows who the device is, which other nodes reach it, and what a claim would take, in order, with what is not "
    "available and why. Takes nothing and opens no device."};
inline constexpr std::array<std::string_view, 1> kDoctor{
    "Looks at lock directories, limits, kernel features and groups, and names the remedy for each finding. Exits with "
    "1 when something keeps a claim from working."};

}  // namespace details

namespace examples {

inline constexpr std::array<Entry, 3> kRun{
    Entry{"holdfast run /dev/ttyUSB0 -- picocom -b 115200 /dev/ttyUSB0", "a terminal program alone on its port"},
    Entry{"holdfast run -w 10 -m flash /dev/ttyUSB0 /dev/sdb -- ./flash.sh", "two devices or none, within 10 s"},
    Entry{"holdfast run -n /dev/sdb -- mkfs.ext4 /dev/sdb1", "a disk with its partitions"}};
inline constexpr std::array<Entry, 1> kClaim{
    Entry{"holdfast claim -m \"do not touch: long test\" /dev/ttyUSB0", "hold a port until Ctrl-C"}};
inline constexpr std::array<Entry, 1> kStatus{Entry{"holdfast status /dev/ttyUSB0", "who has it"}};
inline constexpr std::array<Entry, 1> kExplain{Entry{"holdfast explain /dev/sr0", "what a claim would take"}};

}  // namespace examples

inline constexpr std::array kCommands{
    Command{Verb::run, "run", "run a command that has the devices for itself", "DEVICE... -- COMMAND [ARG...]",
            details::kRun, options::kRun, examples::kRun},
    Command{Verb::claim, "claim", "hold devices until a signal or the end of input", "DEVICE...", details::kClaim,
            options::kClaim, examples::kClaim},
    Command{Verb::status, "status", "who holds what, and by which means", "[DEVICE...]", details::kStatus,
            options::kStatus, examples::kStatus},
    Command{Verb::explain, "explain", "what a device is and what a claim would take", "DEVICE...", details::kExplain,
            options::kExplain, examples::kExplain},
    Command{Verb::doctor, "doctor", "check this machine, with remedies", "", details::kDoctor, options::kDoctor, {}},
};

inline constexpr std::array kStatuses{
    Entry{"0", "done; of run, the command's own status"},
    Entry{"64", "usage: an argument that can never work"},
    Entry{"66", "no such device, not a device, or gone"},
    Entry{"71", "a system call failed, or output could not be written"},
    Entry{"75", "refused or timed out; -E changes it"},
    Entry{"77", "not permitted"},
    Entry{"126", "the command was found but could not be run"},
    Entry{"127", "the command was not found"},
    Entry{"128+N", "the command was killed by signal N"},
};

/// nullptr when there is no such command.
[[nodiscard]] constexpr const Command* command_named(std::string_view name) {
  for (const Command& command : kCommands)
    if (command.name == name) return &command;
  return nullptr;
}

}  // namespace holdfast::cli
