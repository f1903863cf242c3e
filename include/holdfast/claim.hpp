// SPDX-License-Identifier: MIT
// claim.hpp - taking a device for yourself, and giving it back.
//
// A Claim is the right to use devices until it is released, the object dies, or the process dies. It binds every
// program that honours one of the conventions in options.hpp; enforcement() says whether anybody stops the others.
#pragma once

#include <holdfast/export.h>
#include <holdfast/error.hpp>
#include <holdfast/options.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast {

/// What became of one convention on one node of a claim.
struct MarkReport {
  enum class State : std::uint8_t {
    taken,
    not_available,  ///< it applies here but could not be taken, for the reason given; the claim went on without it
  };
  std::string node;  ///< "/dev/sr0"
  Convention convention = Convention::proxy;
  State state = State::taken;
  std::string detail;  ///< the lock file's path, or the reason
};

/// "/dev/ttyS0: flock: taken", "/dev/sg2: flock: not available: not permitted to open it"
[[nodiscard]] HF_API std::string to_string(const MarkReport& report);

/// Something that the broker said about a claim. Without a broker there are none.
struct Notice {
  enum class Kind : std::uint8_t {
    asked_to_leave,  ///< somebody with the right to do so wants the device: it is taken back when `grace` is over
    lapses_soon,     ///< the claim's time is over in `grace`: renew() in time
    lapsed,          ///< the claim is over: its time was
    revoked,         ///< the claim is over: it was taken back
    device_gone,     ///< the claim is over, or soon is: a device was pulled out
    denied,          ///< the guard has kept somebody out, as `reason` says in full; told at most once a second
  };
  Kind kind = Kind::revoked;
  std::chrono::nanoseconds grace{};  ///< 0 when the claim is over; counted from the moment of sending
  std::string by;                    ///< who asked: "root[812]"; empty when nobody did
  std::string reason;                ///< what they said
};

/// The right to use one or more devices.
///
/// States: held -> released (by release(), the destructor, or a move away). In a forked child of the owner every
/// claim is inert from the start: its descriptors are closed, and every call but the destructor answers not_held.
///
/// \thread  Calls on one Claim are serialised inside; any thread of the owner may make them.
/// \limit   A child made by a raw clone(2), vfork(2) or _Fork(3), for which pthread_atfork(3) handlers do not run,
///          keeps the descriptors open until it calls exec or dies (exec lets the parent of a vfork or posix_spawn(3)
///          go on a moment before it has closed them: fs/exec.c, begin_new_exec). release() frees the device all the
///          same, but for O_EXCL; the owner's death then frees everything but the flock, record locks, TIOCEXCL and
///          O_EXCL. exec(2) without leave_to_exec() ends the claim but for its UUCP lock files, which name a living
///          process until that ends: release() before such an exec.
class HF_API Claim {
 public:
  Claim() noexcept;  ///< holds nothing
  Claim(Claim&& other) noexcept;
  Claim& operator=(Claim&& other) noexcept;
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  ~Claim();  ///< releases; does nothing in a forked child

  /// Whether this process holds the devices through this object.
  [[nodiscard]] bool held() const noexcept;
  [[nodiscard]] explicit operator bool() const noexcept { return held(); }

  /// A descriptor of a device of the claim, open for use.
  ///
  /// Borrowed: it belongs to the claim, is closed by release(), and must not be closed by the caller. On a terminal
  /// it is the very description that carries the locks (opening twice would move the modem lines twice or be refused
  /// by our own TIOCEXCL); elsewhere it is opened on first use. Opened read-write, or read-only when only that is
  /// permitted; O_NONBLOCK is set on terminals, clear it with fcntl(2) F_SETFL.
  ///
  /// \param index  which of the devices, in the order in which they were asked for
  /// \returns not_held after release; not_permitted, gone or system_fault from open(2); invalid_argument for an
  ///          index out of range
  [[nodiscard]] Result<int> fd(std::size_t index = 0);

  /// Whether the devices are still there, and ours. Takes in what the broker has said; notices() tells it in full.
  ///
  /// Once the broker has taken the claim back, check() and every other call but release() answer revoked or lapsed. The
  /// descriptors stay open until release(), but others may have the device: stop using them.
  ///
  /// A device that is pulled out stays claimed: its locks live on in our descriptors, and most drivers keep its number
  /// for us. Plugged in again it is another device, to be claimed anew by its stable name; where it got the old number
  /// back (input devices), that is refused until release().
  /// \returns gone, naming the device; revoked or lapsed; not_held
  /// \cost  one lstat(2) a device; one recvmsg(2) more where the broker knows of the claim
  [[nodiscard]] Result<> check();

  /// A descriptor that poll(2) shows readable when check() may answer otherwise than before. Call check() then.
  ///
  /// It also hears what the broker says: somebody asks for the device, the claim's time is nearly over, the claim is
  /// over. Borrowed: closed by release(), not to be read. Made on first use: an inotify instance (inotify(7): by
  /// default a user has 128 of them), which makes release() some 5 ms longer after the devices are free.
  /// \returns no_resources when the user has no inotify instance left: call check() from time to time then; gone, when
  ///          a device went before; not_held
  [[nodiscard]] Result<int> notice_fd();

  /// What the broker has said about this claim since the last call, oldest first. Never waits.
  [[nodiscard]] std::vector<Notice> notices();

  /// The claim's time starts anew, and is `lease` long.
  /// \returns the time left, which the broker may have cut; not_held when the claim has no limit or nobody who counts
  ///          (Options::lease); revoked or lapsed when it is too late
  [[nodiscard]] Result<std::chrono::nanoseconds> renew(std::chrono::nanoseconds lease);

  /// What is left of the claim's time; nullopt when it has no limit.
  [[nodiscard]] std::optional<std::chrono::nanoseconds> time_left() const;

  /// Whether the broker knows of the claim; what it offers works then.
  [[nodiscard]] bool is_brokered() const noexcept;

  /// Gives the devices back. Idempotent; cannot fail: what vanished meanwhile is as good as given back.
  /// \cost  the reverse of claim(): a dozen system calls on a terminal
  void release() noexcept;

  /// Exclusive to shared, with no moment in which a stranger could get exclusive hold. Never refused by others.
  /// \returns not_held; system_fault when a lock cannot be changed, the claim then stays exclusive
  [[nodiscard]] Result<> downgrade();

  /// Shared to exclusive. Refused when others share; the claim then stays shared. Never waits, so never deadlocks.
  [[nodiscard]] Result<> upgrade();

  /// Makes the descriptors survive exec(2) of this process: the program that follows keeps the claim until it ends.
  ///
  /// Call it right before exec: from now on children made by any thread that exec inherit the descriptors as well.
  /// If exec fails the claim is as before, and keep_from_exec() takes the permission back.
  [[nodiscard]] Result<> leave_to_exec();
  [[nodiscard]] Result<> keep_from_exec();

  [[nodiscard]] Mode mode() const noexcept;
  /// As it was when the claim was granted, or changed its mode.
  [[nodiscard]] Enforcement enforcement() const noexcept;
  /// The canonical paths of all nodes covered, siblings included, in the order of their numbers.
  [[nodiscard]] std::vector<std::string> nodes() const;
  /// What was taken and what was not available.
  [[nodiscard]] std::vector<MarkReport> report() const;

  struct State;  // opaque
  explicit Claim(std::unique_ptr<State> state) noexcept;

 private:
  std::unique_ptr<State> state_;
};

/// Takes devices with every convention that applies, all or nothing, or refuses and holds nothing.
///
/// A device is named by any path, a symbolic link, or "c4:64" / "b8:0". No open(2) of a device happens before its
/// proxy lock and its lock files are held. Where the broker answers ($HOLDFAST_SOCKET, else /run/holdfast/socket; an
/// empty variable means none), it takes the marks for this process and keeps the queue; both keep the descriptors, so
/// the death of either ends nothing that the other holds. Without it, waiting wakes on the kernel's close events of the
/// lock file and the node and looks five times a second at what has no event; it holds nothing meanwhile.
///
/// \param devices  at least one; duplicates and several names of one device count once
/// \thread  thread-safe. Two claims of one process exclude each other like those of two processes.
/// \returns refused, timed_out, interrupted as `options` say; deadlock when waiting would close a cycle of owners,
/// which
///          the message names (broker only; so is claiming again, and waiting, for what this process has);
///          invalid_argument for an empty list or path; no_such_device, not_a_device, not_permitted, gone; ambiguous
///          for a drive whose names cannot be told apart; no_resources for EMFILE, ENFILE, ENOMEM, ENOSPC; system_fault
///          for the rest, with errno, and for a time limit where there is no broker to keep it
/// \cost    a terminal: some 40 system calls, three of them to find no broker; measured against the bare calls in
/// bench/
/// \source  fcntl_locking(2), flock(2), ioctl_tty(2), open(2), FHS 3.0 section 5.9, libburn doc/ddlp.txt
[[nodiscard]] HF_API Result<Claim> claim(std::span<const std::string> devices, const Options& options = {});
[[nodiscard]] HF_API Result<Claim> claim(std::string_view device, const Options& options = {});

}  // namespace holdfast
