// SPDX-License-Identifier: MIT
// c_api.cpp - the front door for C: the same claims, errno for an answer. Nothing is decided here.
#include <holdfast/holdfast.h>
#include <holdfast/claim.hpp>
#include <holdfast/watch.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

struct hf_claim {
  holdfast::Claim claim;
  std::mutex mutex{};                      // of what follows
  std::deque<holdfast::Notice> notices{};  // taken from the claim, not yet from us
};

struct hf_watch {
  holdfast::Watch watch;
};

namespace {

using holdfast::errc;
using holdfast::Error;

int errno_of(const Error& error) {
  switch (static_cast<errc>(error.code.value())) {
    case errc::refused:
      return EBUSY;
    case errc::timed_out:
      return ETIMEDOUT;
    case errc::interrupted:
      return EINTR;
    case errc::not_permitted:
      return EACCES;
    case errc::no_such_device:
      return ENOENT;
    case errc::not_a_device:
      return ENODEV;
    case errc::gone:
      return ENXIO;
    case errc::not_held:
      return EPERM;
    case errc::invalid_argument:
      return EINVAL;
    case errc::ambiguous:
      return ENOTUNIQ;
    case errc::no_resources:
      return error.errnum != 0 ? error.errnum : ENOMEM;
    case errc::system_fault:
      return error.errnum != 0 ? error.errnum : EIO;
    case errc::deadlock:
      return EDEADLK;
    case errc::revoked:
      return ECANCELED;
    case errc::lapsed:
      return ETIME;
  }
  return EIO;
}

template <std::size_t size>
void copy(const std::string& text, char (&out)[size]) {
  const std::size_t length = std::min(text.size(), size - 1);
  std::memcpy(out, text.data(), length);
  out[length] = '\0';
}

int fail(const Error& error, hf_error* out) {
  if (out != nullptr) {
    out->holder = error.holder ? error.holder->pid : 0;
    copy(error.message, out->message);
    copy(error.device, out->device);
  }
  errno = errno_of(error);
  return -1;
}

int answer(const holdfast::Result<>& result) { return result ? 0 : fail(result.error(), nullptr); }

int invalid(const char* what, hf_error* out) {
  Error error;
  error.code = errc::invalid_argument;
  error.message = what;
  return fail(error, out);
}

constexpr std::uint32_t kKnownFlags =
    HF_SHARED | HF_UNIT | HF_NO_OPEN | HF_INTERRUPTED | HF_TREE | HF_NO_BROKER | HF_GUARDED | HF_UNGUARDED;

// A time longer than nanoseconds can count is cut.
std::chrono::nanoseconds milliseconds_at_most(std::int64_t count) {
  constexpr auto kMost = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::nanoseconds::max());
  return std::min(std::chrono::milliseconds{count}, kMost);
}

// HF_WAIT_NONE, HF_WAIT_FOREVER or milliseconds; a wait longer than the clock can count is one for ever.
holdfast::Wait wait_of(std::int64_t milliseconds) {
  using holdfast::Wait;
  constexpr std::int64_t kLongest =
      std::chrono::duration_cast<std::chrono::milliseconds>(Wait::Clock::duration::max()).count();
  if (milliseconds == HF_WAIT_NONE) return Wait::none();
  if (milliseconds == HF_WAIT_FOREVER || milliseconds > kLongest) return Wait::for_ever();
  return Wait::at_most(std::chrono::milliseconds{milliseconds});
}

// False when the caller's words make no sense to this version.
bool translate(const hf_options& from, holdfast::Options& to) {
  if (from.size != sizeof from || (from.flags & ~kKnownFlags) != 0 || from.wait_ms < HF_WAIT_FOREVER ||
      (from.conventions >> holdfast::kConventionCount) != 0 || from.lease_ms < 0 || from.priority < HF_IDLE ||
      from.priority > HF_URGENT || from.reserved != 0 ||
      (from.flags & (HF_GUARDED | HF_UNGUARDED)) == (HF_GUARDED | HF_UNGUARDED))
    return false;
  using namespace holdfast;
  if ((from.flags & HF_SHARED) != 0) to.mode = Mode::shared;
  if ((from.flags & HF_UNIT) != 0) to.cover = Cover::unit;
  if ((from.flags & HF_NO_OPEN) != 0) to.opening = Opening::never;
  if ((from.flags & HF_INTERRUPTED) != 0) to.on_signal = OnSignal::give_up;
  if ((from.flags & HF_TREE) != 0) to.owner_scope = OwnerScope::tree;
  for (int i = 0; i < kConventionCount; ++i)
    if ((from.conventions >> i & 1U) != 0) to.conventions = to.conventions.without(static_cast<Convention>(i));
  to.wait = wait_of(from.wait_ms);
  if (from.purpose != nullptr) to.purpose = from.purpose;
  if ((from.flags & HF_NO_BROKER) != 0) to.way = Way::never_broker;
  if ((from.flags & HF_GUARDED) != 0) to.guarding = Guarding::required;
  if ((from.flags & HF_UNGUARDED) != 0) to.guarding = Guarding::off;
  to.priority = static_cast<Priority>(from.priority - HF_IDLE);
  if (from.lease_ms > 0) to.lease = milliseconds_at_most(from.lease_ms);
  return true;
}

std::vector<std::string> names_of(const char* const* devices, std::size_t count) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) names.emplace_back(devices[i]);
  return names;
}

bool is_any_missing(const char* const* devices, std::size_t count) {
  return std::any_of(devices, devices + count, [](const char* name) { return name == nullptr; });
}

// One bit for each EventKind, in its order; a static_assert below holds the two together.
holdfast::EventKinds kinds_of(std::uint32_t bits) {
  holdfast::EventKinds kinds;
  for (int i = 0; i < holdfast::kEventKindCount; ++i)
    if (bits == 0 || (bits >> i & 1U) != 0) kinds = kinds.with(static_cast<holdfast::EventKind>(i));
  return kinds;
}
static_assert(HF_EVENT_MISSED == 1U << static_cast<unsigned>(holdfast::EventKind::missed) &&
              holdfast::kEventKindCount == 12);

std::int64_t milliseconds_of(std::chrono::nanoseconds time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

void translate(const holdfast::Event& from, hf_event& to) {
  to = {};
  to.kind = 1U << static_cast<unsigned>(from.kind);
  to.shared = from.mode == holdfast::Mode::shared ? 1 : 0;
  to.at_ms = std::chrono::floor<std::chrono::milliseconds>(from.at.time_since_epoch()).count();
  to.waited_ms = milliseconds_of(from.waited);
  to.held_ms = milliseconds_of(from.held);
  to.pid = from.who.pid;
  copy(from.who.command, to.command);
  copy(from.who.user, to.user);
  copy(from.device, to.device);
  copy(from.number, to.number);
  copy(from.who.purpose, to.purpose);
  copy(from.detail, to.detail);
}

}  // namespace

extern "C" {

int hf_claim_devices(hf_claim** claim, const char* const* devices, size_t count, const hf_options* options,
                     hf_error* error) {
  if (claim == nullptr) return invalid("no place for the claim", error);
  *claim = nullptr;
  if (devices == nullptr && count > 0) return invalid("no device was named", error);
  holdfast::Options words;
  if (options != nullptr && !translate(*options, words))
    return invalid("options of another version, or unknown ones", error);
  if (is_any_missing(devices, count)) return invalid("a device name is NULL", error);
  auto taken = holdfast::claim(names_of(devices, count), words);
  if (!taken) return fail(taken.error(), error);
  *claim = new (std::nothrow) hf_claim{std::move(*taken)};
  if (*claim != nullptr) return 0;
  errno = ENOMEM;
  return -1;
}

int hf_claim_device(hf_claim** claim, const char* device, const hf_options* options, hf_error* error) {
  return hf_claim_devices(claim, &device, 1, options, error);
}

int hf_claim_fd(hf_claim* claim, size_t index) {
  if (claim == nullptr) return invalid("no claim", nullptr);
  const auto fd = claim->claim.fd(index);
  return fd ? *fd : fail(fd.error(), nullptr);
}

int hf_claim_held(const hf_claim* claim) { return claim != nullptr && claim->claim.held() ? 1 : 0; }

int hf_claim_check(hf_claim* claim) {
  return claim == nullptr ? invalid("no claim", nullptr) : answer(claim->claim.check());
}

int hf_claim_notice_fd(hf_claim* claim) {
  if (claim == nullptr) return invalid("no claim", nullptr);
  const auto fd = claim->claim.notice_fd();
  return fd ? *fd : fail(fd.error(), nullptr);
}

int hf_claim_notice(hf_claim* claim, hf_notice* notice) {
  if (claim == nullptr || notice == nullptr) return invalid("no claim, or no place for the notice", nullptr);
  const std::lock_guard guard{claim->mutex};
  for (holdfast::Notice& one : claim->claim.notices()) claim->notices.push_back(std::move(one));
  if (claim->notices.empty()) return 0;
  const holdfast::Notice first = std::move(claim->notices.front());
  claim->notices.pop_front();
  notice->kind = static_cast<int>(first.kind) + HF_ASKED_TO_LEAVE;
  notice->grace_ms = std::chrono::duration_cast<std::chrono::milliseconds>(first.grace).count();
  copy(first.by, notice->by);
  copy(first.reason, notice->reason);
  return 1;
}

int hf_claim_renew(hf_claim* claim, int64_t lease_ms) {
  if (claim == nullptr || lease_ms <= 0) return invalid("no claim, or no time", nullptr);
  const auto left = claim->claim.renew(milliseconds_at_most(lease_ms));
  return left ? 0 : fail(left.error(), nullptr);
}

int hf_claim_downgrade(hf_claim* claim) {
  return claim == nullptr ? invalid("no claim", nullptr) : answer(claim->claim.downgrade());
}

int hf_claim_upgrade(hf_claim* claim) {
  return claim == nullptr ? invalid("no claim", nullptr) : answer(claim->claim.upgrade());
}

int hf_claim_leave_to_exec(hf_claim* claim) {
  return claim == nullptr ? invalid("no claim", nullptr) : answer(claim->claim.leave_to_exec());
}

void hf_release(hf_claim* claim) { delete claim; }

int hf_watch_devices(hf_watch** watch, const char* const* devices, size_t count, uint32_t kinds, hf_error* error) {
  if (watch == nullptr) return invalid("no place for the watch", error);
  *watch = nullptr;
  if ((devices == nullptr && count > 0) || is_any_missing(devices, count))
    return invalid("a device name is NULL", error);
  if ((kinds >> holdfast::kEventKindCount) != 0) return invalid("unknown kinds of event", error);
  auto opened = holdfast::Watch::open(names_of(devices, count), kinds_of(kinds));
  if (!opened) return fail(opened.error(), error);
  *watch = new (std::nothrow) hf_watch{std::move(*opened)};
  if (*watch != nullptr) return 0;
  errno = ENOMEM;
  return -1;
}

int hf_watch_fd(const hf_watch* watch) { return watch == nullptr ? invalid("no watch", nullptr) : watch->watch.fd(); }

int hf_watch_event(hf_watch* watch, hf_event* event, int64_t wait_ms) {
  if (watch == nullptr || event == nullptr || wait_ms < HF_WAIT_FOREVER)
    return invalid("no watch, or no place for the event, or no such wait", nullptr);
  const auto next = watch->watch.next(wait_of(wait_ms));
  if (!next) return next.error().code == errc::timed_out ? 0 : fail(next.error(), nullptr);
  translate(*next, *event);
  return 1;
}

void hf_watch_close(hf_watch* watch) { delete watch; }

}  // extern "C"
