// SPDX-License-Identifier: MIT
// soak.cpp - claims and attacks for a while, owners killed at any moment, and a judge that asks nobody: attackers write
// down when they got in, the test when the guard stood, and no attack may lie wholly inside such a time.
#include "vm/guard/support.hpp"
#include "vm/support/kernel.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <random>

namespace holdfast::vm {
namespace {

using guard::BootClock;
using testing_support::pidfd_of;

constexpr const char* kDisk = "/dev/vda";
constexpr std::size_t kClaimsAtLeast = 5;  // however slow the machine is

struct Span {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

std::int64_t now() { return BootClock::now().time_since_epoch().count(); }

/// What an attacker writes down, in memory that it shares with the test.
struct Diary {
  static constexpr std::size_t kMost = 200'000;
  std::atomic<std::size_t> successes{0};
  std::atomic<std::size_t> refusals{0};
  std::array<Span, kMost> when;
};

/// Opens the device again and again, or uses a descriptor from before all claims, and writes down each success.
class Attacker {
 public:
  enum class Way : std::uint8_t { open, old_descriptor };

  explicit Attacker(Way way)
      : diary_{static_cast<Diary*>(
            ::mmap(nullptr, sizeof(Diary), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))} {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      attack(way);
    }
    // Its descriptor is from before all claims.
    while (diary_->successes.load(std::memory_order_acquire) == 0) ::sched_yield();
  }
  Attacker(const Attacker&) = delete;
  Attacker& operator=(const Attacker&) = delete;
  ~Attacker() {
    stop();
    ::munmap(diary_, sizeof(Diary));
  }
  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  [[nodiscard]] const Diary& diary() const { return *diary_; }

 private:
  [[noreturn]] void attack(Way way) {
    const int old = ::open(kDisk, O_RDONLY | O_CLOEXEC);
    char byte = 0;
    while (true) {
      const std::int64_t begin = now();
      bool got_in = false;
      if (way == Way::open) {
        const int fd = ::open(kDisk, O_RDONLY | O_CLOEXEC);
        got_in = fd >= 0;
        if (got_in) ::close(fd);
      } else {
        got_in = ::pread(old, &byte, 1, 0) == 1;
      }
      const std::int64_t end = now();
      const std::size_t at = diary_->successes.load(std::memory_order_relaxed);
      if (!got_in) diary_->refusals.fetch_add(1, std::memory_order_relaxed);
      if (!got_in || at == Diary::kMost) continue;
      diary_->when[at] = {begin, end};
      diary_->successes.store(at + 1, std::memory_order_release);
    }
  }

  Diary* diary_;
  pid_t pid_ = -1;
};

// Successes that lie wholly inside a time in which the device was guarded.
std::size_t intrusions(const Diary& diary, const std::vector<Span>& guarded) {
  std::size_t count = 0;
  const std::size_t all = diary.successes.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < all; ++i) {
    const Span& one = diary.when.at(i);
    const auto after = std::ranges::upper_bound(guarded, one.begin, {}, &Span::begin);
    if (after != guarded.begin() && one.end < std::prev(after)->end) ++count;
  }
  return count;
}

class GuardSoak : public GuardTest {
 protected:
  enum class Enforce : std::uint8_t { yes, no, with_a_rest_after_each };

  // Claims in a row, of which some end by release and some by the owner's death; when the device was guarded.
  std::vector<Span> claims(Enforce enforce_it) {
    std::vector<Span> guarded;
    std::mt19937 random{::testing::UnitTest::GetInstance()->random_seed() + 1U};
    const auto end = std::chrono::steady_clock::now() + soak_time();
    while (std::chrono::steady_clock::now() < end || guarded.size() < kClaimsAtLeast) {
      const pid_t owner = ::fork();
      if (owner == 0)
        while (true) ::pause();
      const base::UniqueFd pidfd = pidfd_of(owner);
      std::optional<guard::Enforced> claim;
      if (enforce_it != Enforce::no) {
        auto made = guard().enforce(nodes_of({kDisk}), {.pidfd = pidfd.get()}, Mode::exclusive);
        EXPECT_TRUE(made) << made.error().message;
        if (made) claim.emplace(std::move(*made));
      }
      Span span{now(), 0};
      ::poll(nullptr, 0, static_cast<int>(random() % 20));  // some owners have it long
      span.end = now();
      if (random() % 2 == 0 && claim) guard().release(*claim);
      ::kill(owner, SIGKILL);
      ::waitpid(owner, nullptr, 0);
      if (claim) guard().release(*claim);
      if (enforce_it == Enforce::with_a_rest_after_each) guard().rest();
      guarded.push_back(span);
    }
    return guarded;
  }
};

TEST_F(GuardSoak, nobody_gets_in_while_it_is_guarded) {
  Attacker by_open{Attacker::Way::open};
  Attacker by_descriptor{Attacker::Way::old_descriptor};
  const auto guarded = claims(Enforce::yes);
  for (Attacker* const one : {&by_open, &by_descriptor}) {
    one->stop();
    EXPECT_EQ(intrusions(one->diary(), guarded), 0U) << "of " << one->diary().successes;
    EXPECT_GT(one->diary().refusals, 0U);
    EXPECT_GT(one->diary().successes, 0U) << "between the claims";
  }
  EXPECT_EQ(guard().switches().active, 0);
}

// The hooks are attached by each claim and taken off after it.
TEST_F(GuardSoak, nobody_gets_in_though_the_hooks_come_and_go) {
  const OneProcessor one_processor;
  Attacker by_open{Attacker::Way::open};
  Attacker by_descriptor{Attacker::Way::old_descriptor};
  const auto guarded = claims(Enforce::with_a_rest_after_each);
  for (Attacker* const one : {&by_open, &by_descriptor}) {
    one->stop();
    EXPECT_EQ(intrusions(one->diary(), guarded), 0U) << "of " << one->diary().successes;
    EXPECT_GT(one->diary().refusals, 0U);
    EXPECT_GT(one->diary().successes, 0U) << "between the claims";
  }
}

// The judge must be able to say no.
TEST_F(GuardSoak, without_the_guard_the_judge_sees_intruders) {
  Attacker by_open{Attacker::Way::open};
  Attacker by_descriptor{Attacker::Way::old_descriptor};
  const auto pretended = claims(Enforce::no);
  for (Attacker* const one : {&by_open, &by_descriptor}) {
    one->stop();
    EXPECT_GT(intrusions(one->diary(), pretended), 0U);
  }
}

}  // namespace
}  // namespace holdfast::vm
