// SPDX-License-Identifier: MIT
// table.hpp - every word of the command line, once. Parsing, --help, holdfast(1) and the bash completion are made from
// this table, so that none of them can say something that the others do not.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace holdfast::cli {

enum class Verb : std::uint8_t { run, claim, release, status, watch, top, history, kick, explain, doctor, guard };

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
  kLines = 'l',
  kSince = 'S',
  kHelp = 'h',
  kVersion = 'V',
  kWithout = 256,
  kUnit,
  kNoOpen,
  kNoHandOver,
  kGrace,
  kSvg,
  kPriority,
  kFor,
  kPid,
  kGuard,
  kForce,
};

struct Option {
  Key key;
  const char* name;
  const char* argument;  ///< its placeholder, in brackets when it may be left out; nullptr when the option takes none
  std::string_view text;

  [[nodiscard]] constexpr char letter() const { return key < 256 ? static_cast<char>(key) : '\0'; }
  [[nodiscard]] constexpr bool may_lack_argument() const { return argument != nullptr && *argument == '['; }
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
inline constexpr Option kClaimPriority{kPriority, "priority", "CLASS",
                                       "who comes first at the broker: idle, low, normal, high or urgent"};
inline constexpr Option kClaimFor{kFor, "for", "TIME",
                                  "give it back after 90 (seconds), 15m, 2h or 3d at the latest; needs the broker"};
inline constexpr Option kClaimPid{kPid, "pid", "PID",
                                  "for this process, as $$, and exit: it holds until it ends or releases; needs the "
                                  "broker"};
inline constexpr Option kClaimGuard{kGuard, "guard", "[WHEN]",
                                    "the kernel refuses everybody else, root included: require (the default of the "
                                    "bare option), auto (where it can; the default without it) or off; needs the "
                                    "broker"};
inline constexpr Option kReleasePid{kPid, "pid", "PID", "what this process has by claim --pid"};
inline constexpr Option kRunNoHandOver{kNoHandOver, "no-hand-over", nullptr,
                                       "do not meet the command's own locking; needed by set-uid commands"};

inline constexpr Option kKickPurpose{kPurpose, "purpose", "TEXT", "tell the holder why"};
inline constexpr Option kKickGrace{kGrace, "grace", "SECS", "time to leave by itself, fractions allowed (10)"};
inline constexpr Option kGuardForce{kForce, "force", nullptr, "off: though devices are guarded at the moment"};
inline constexpr Option kHistoryLines{kLines, "lines", "N", "the newest N events (100)"};
inline constexpr Option kHistorySince{kSince, "since", "WHEN",
                                      "since then: \"2026-11-22 12:04\", 12:04, today, yesterday, or 90s, 15min, 2h, "
                                      "3d ago"};
inline constexpr Option kHistorySvg{kSvg, "svg", nullptr, "draw a timeline, a row per device"};

inline constexpr std::array kRun{kClaimConvention, kClaimConflict, kClaimPurpose,  kClaimNonblock,
                                 kClaimShared,     kClaimVerbose,  kClaimWait,     kClaimExclusive,
                                 kClaimFor,        kClaimGuard,    kRunNoHandOver, kClaimNoOpen,
                                 kClaimPriority,   kUnitOption,    kClaimWithout,  kHelpOption};
inline constexpr std::array kClaim{kClaimConvention, kClaimConflict, kClaimPurpose, kClaimNonblock,
                                   kClaimShared,     kClaimVerbose,  kClaimWait,    kClaimExclusive,
                                   kClaimFor,        kClaimGuard,    kClaimNoOpen,  kClaimPid,
                                   kClaimPriority,   kUnitOption,    kClaimWithout, kHelpOption};
inline constexpr std::array kRelease{kReleasePid, kHelpOption};
inline constexpr std::array kStatus{kJsonOption, kHelpOption};
inline constexpr std::array kWatch{kJsonOption, kHelpOption};
inline constexpr std::array kTop{kHelpOption};
inline constexpr std::array kHistory{kJsonOption, kHistoryLines, kHistorySince, kHistorySvg, kHelpOption};
inline constexpr std::array kKick{kKickPurpose, kKickGrace, kHelpOption};
inline constexpr std::array kExplain{kJsonOption, kUnitOption, kHelpOption};
inline constexpr std::array kDoctor{kJsonOption, kHelpOption};
inline constexpr std::array kGuardSwitch{kJsonOption, kGuardForce, kHelpOption};

}  // namespace options

/// The options of `holdfast` itself.
inline constexpr std::array kGlobalOptions{
    Option{kHelp, "help", nullptr, "display this help"},
    Option{kVersion, "version", nullptr, "display the version"},
};

namespace details {

inline constexpr std::array<std::string_view, 6> kRun{
    "Takes the devices with every convention that applies, all or nothing, starts the command, and gives them back "
    "when it ends. The command may lock the same devices itself, by any convention: that convention is handed over to "
    "it at the moment it asks. Signals, job control, standard input and output pass as if the command ran alone.",
    "The -- is required, because several devices may be named. Of -n and -w, and of -x and -s, the last one counts.",
    "Hand-over uses seccomp user notification. For callers without CAP_SYS_ADMIN that needs no_new_privs, under which "
    "a set-uid or set-gid command does not gain privilege. With --no-hand-over the command keeps it, and meets our "
    "locks as a stranger would.",
    "When the supervisor is killed, the command goes on and keeps the claim. When the command is killed, the devices "
    "are free at once.",
    "With --guard the command, and what it starts, is all that the kernel lets use the devices; without a guard, or "
    "for "
    "a device that is never guarded, it does not run. Who is refused meanwhile is named on standard error, in a line "
    "that begins with \"holdfast:\".",
    "Of an optical drive or SCSI disk --guard leaves o_excl out, and takes nobody's device away: who has it open "
    "already, or mounted, is looked for before and counts as its holder. Who is not root cannot see all others; it is "
    "said then."};
inline constexpr std::array<std::string_view, 5> kClaim{
    "Takes the devices and prints a line that begins with \"claimed\" to standard output as soon as it holds them. It "
    "holds until SIGINT, SIGTERM or SIGHUP, or until the end of standard input, and then exits with 0. A standard "
    "input that is closed or /dev/null from the start does not count: shells give it to background jobs.",
    "When a device is pulled out, it says so, gives everything back and exits with 66; who waits for a device that is "
    "pulled out ends likewise.",
    "With --pid another process of the same user owns the claim, as a rule the shell that runs the script: the command "
    "prints its line and exits, and the process holds until it ends, or until holdfast release. Only the broker, "
    "holdfastd(8), can hold for it: should the broker be killed without a descriptor store, the lock files alone hold "
    "on until it is back.",
    "With --for the claim lapses when its time is over; it says so on standard error a while before, and exits with "
    "75. "
    "Asking again with the same --pid and --for renews it.",
    "Of -n and -w, and of -x and -s, the last one counts."};
inline constexpr std::array<std::string_view, 1> kRelease{
    "Gives back what another process of the same user has by holdfast claim --pid. Name all devices of that claim. "
    "Exits "
    "with 75 when the process has no such claim."};
inline constexpr std::array<std::string_view, 1> kStatus{
    "Shows the named devices, or all that anybody holds: holders and waiters, our own and those by lock files, flock, "
    "record locks and plain open descriptors. Takes nothing and opens no device. Says what it cannot see without "
    "privilege."};
inline constexpr std::array<std::string_view, 3> kWatch{
    "Prints a line for each event of the named devices, or of all, as the broker tells them: claimed, waiting, "
    "released, "
    "lapsed, revoked, denied, refused, upgraded, downgraded, and added and removed, which are the kernel's. Each line "
    "is "
    "written at once. With --json each is a JSON object.",
    "Goes on until SIGINT, SIGTERM or SIGHUP, or until nobody reads its output any more, and then exits with 0. When "
    "the "
    "broker is started anew it says that some events may be missing, and goes on.",
    "Needs the broker, holdfastd(8), as history and kick do."};
inline constexpr std::array<std::string_view, 2> kTop{
    "Shows devices with their holders and queues, full screen, as they change. Without a broker it shows what status "
    "shows, looked at anew every two seconds.",
    "Keys: q quits, the arrow keys and Page Up and Page Down scroll."};
inline constexpr std::array<std::string_view, 2> kHistory{
    "Shows what happened to the named devices, or to all, oldest first: who had them, how long, and how long he waited "
    "for them. A device that went is known by its number or its former path. The broker keeps 90 days, and at most a "
    "million events.",
    "With --json each event is a JSON object in a line. With --svg they are drawn; claims without an end go on until "
    "now."};
inline constexpr std::array<std::string_view, 1> kKick{
    "Takes a device from its holder through the broker: asks the holder to leave, and revokes its claim when the time "
    "is "
    "over. Returns when the device is free. Allowed to root, to the broker's group, and to the holder's own user. What "
    "the holder has open stays open: a descriptor of the device can still be used by a program that does not listen."};
inline constexpr std::array<std::string_view, 1> kExplain{
    "Shows who the device is, which other nodes reach it, and what a claim would take, in order, with what is not "
    "available and why. Takes nothing and opens no device."};
inline constexpr std::array<std::string_view, 1> kDoctor{
    "Looks at lock directories, limits, kernel features, the guard and groups, and names the remedy for each finding. "
    "Exits with 1 when something keeps a claim from working."};
inline constexpr std::array<std::string_view, 4> kGuard{
    "The guard is a set of BPF programs in the kernel: while a device is claimed, whoever is not its owner gets EBUSY "
    "from open, read, write, ioctl and mmap, root included, by descriptors from before the claim too. Claims through "
    "the broker are guarded when it is on; see --guard of run and claim. Who was refused is an event of kind denied.",
    "on loads the programs, or replaces those of another version without a moment between; they stay until the next "
    "boot. What the machine lacks for it is said with its remedy, and exits with 71. The unit holdfast-guard.service "
    "does it at each boot.",
    "off lets everybody in at once. While devices are guarded it refuses, naming them, and exits with 75; --force "
    "switches off all the same. The claims themselves stay, with the level that they then have.",
    "status shows the devices that are guarded at the moment, how many own each, and how often somebody was refused. "
    "Exits with 1 when the guard is off. All three need root. Some devices are never guarded: see holdfast(7)."};

}  // namespace details

namespace examples {

inline constexpr std::array<Entry, 4> kRun{
    Entry{"holdfast run /dev/ttyUSB0 -- picocom -b 115200 /dev/ttyUSB0", "a terminal program alone on its port"},
    Entry{"holdfast run -w 10 -m flash /dev/ttyUSB0 /dev/sdb -- ./flash.sh", "two devices or none, within 10 s"},
    Entry{"holdfast run -n /dev/sdb -- mkfs.ext4 /dev/sdb1", "a disk with its partitions"},
    Entry{"holdfast run --guard /dev/ttyUSB0 -- ./calibrate", "no other program, root's included, reaches the port"}};
inline constexpr std::array<Entry, 2> kClaim{
    Entry{"holdfast claim -m \"do not touch: long test\" /dev/ttyUSB0", "hold a port until Ctrl-C"},
    Entry{"holdfast claim --pid $$ --for 2h /dev/ttyUSB0 || exit", "the rest of a shell script has the port"}};
inline constexpr std::array<Entry, 1> kRelease{
    Entry{"holdfast release --pid $$ /dev/ttyUSB0", "the script goes on without the port"}};
inline constexpr std::array<Entry, 1> kStatus{Entry{"holdfast status /dev/ttyUSB0", "who has it"}};
inline constexpr std::array<Entry, 1> kWatch{
    Entry{"holdfast watch /dev/ttyUSB0", "who takes the port and who waits for it"}};
inline constexpr std::array<Entry, 2> kHistory{
    Entry{"holdfast history --since yesterday /dev/ttyUSB0", "who had the port since yesterday"},
    Entry{"holdfast history --since 2h --svg >day.svg", "the last two hours, drawn"}};
inline constexpr std::array<Entry, 1> kKick{
    Entry{"holdfast kick --grace 60 -m \"the board is needed\" /dev/ttyUSB0", "a minute to leave the port"}};
inline constexpr std::array<Entry, 1> kExplain{Entry{"holdfast explain /dev/sr0", "what a claim would take"}};
inline constexpr std::array<Entry, 2> kGuard{
    Entry{"holdfast guard on", "from now on the kernel enforces the claims"},
    Entry{"holdfast guard status", "what is guarded, and how often somebody was refused"}};

}  // namespace examples

inline constexpr std::array kCommands{
    Command{Verb::run, "run", "run a command that has the devices for itself", "DEVICE... -- COMMAND [ARG...]",
            details::kRun, options::kRun, examples::kRun},
    Command{Verb::claim, "claim", "hold devices until a signal or the end of input", "DEVICE...", details::kClaim,
            options::kClaim, examples::kClaim},
    Command{Verb::release, "release", "give back what a process has by claim --pid", "DEVICE...", details::kRelease,
            options::kRelease, examples::kRelease},
    Command{Verb::status, "status", "who holds what, and by which means", "[DEVICE...]", details::kStatus,
            options::kStatus, examples::kStatus},
    Command{Verb::watch, "watch", "what happens to devices, as it happens", "[DEVICE...]", details::kWatch,
            options::kWatch, examples::kWatch},
    Command{
        Verb::top, "top", "holders and queues, live and full screen", "[DEVICE...]", details::kTop, options::kTop, {}},
    Command{Verb::history, "history", "who had what, how long, and waited how long", "[DEVICE...]", details::kHistory,
            options::kHistory, examples::kHistory},
    Command{Verb::kick, "kick", "take a device from its holder", "DEVICE", details::kKick, options::kKick,
            examples::kKick},
    Command{Verb::explain, "explain", "what a device is and what a claim would take", "DEVICE...", details::kExplain,
            options::kExplain, examples::kExplain},
    Command{Verb::doctor, "doctor", "check this machine, with remedies", "", details::kDoctor, options::kDoctor, {}},
    Command{Verb::guard, "guard", "let the kernel enforce claims, or not", "status|on|off", details::kGuard,
            options::kGuardSwitch, examples::kGuard},
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
