// SPDX-License-Identifier: MIT
// closer.cpp - see the header.
#include "broker/closer.hpp"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace holdfast::broker {

namespace {

constexpr std::size_t kMostClosers = 4;
constexpr std::size_t kMostWaiting = 512;  // of one user: two messages' worth
constexpr int kNudge = SIGALRM;
constexpr timespec kEvery{0, 1'000'000};

/// Sends the calling thread a signal once in a while, as long as it lives.
class Nudges {
 public:
  Nudges() {
    struct sigaction nothing{};
    nothing.sa_handler = [](int) {};  // but unlike SIG_IGN it ends a wait
    ::sigaction(kNudge, &nothing, nullptr);
    sigset_t nudge;
    ::sigemptyset(&nudge);
    ::sigaddset(&nudge, kNudge);
    ::pthread_sigmask(SIG_UNBLOCK, &nudge, nullptr);
    sigevent to_us{};
    to_us.sigev_notify = SIGEV_THREAD_ID;
    to_us.sigev_signo = kNudge;
    to_us._sigev_un._tid = ::gettid();  // glibc 2.36 has no other name for it (timer_create(2))
    is_there_ = ::timer_create(CLOCK_MONOTONIC, &to_us, &timer_) == 0;
  }
  Nudges(const Nudges&) = delete;
  Nudges& operator=(const Nudges&) = delete;
  ~Nudges() {
    if (is_there_) ::timer_delete(timer_);
  }
  void begin() const { set({kEvery, kEvery}); }
  void end() const { set({}); }

 private:
  void set(const itimerspec& times) const {
    if (is_there_) ::timer_settime(timer_, 0, &times, nullptr);
  }
  timer_t timer_{};
  bool is_there_ = false;
};

}  // namespace

Closer::~Closer() {
  {
    const std::lock_guard guard{mutex_};
    stopping_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Closer::close(uid_t whose, base::UniqueFd fd) {
  if (!fd) return;
  {
    const std::lock_guard guard{mutex_};
    entries_.push_back({whose, std::move(fd)});
    ++waiting_[whose];
    if (entries_.size() > idle_ && threads_.size() < kMostClosers) start_one();
  }
  wanted_.notify_one();
}

// Where there is none to be had, those that there are will come to it, or the next call starts one.
void Closer::start_one() {
  try {
    threads_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    return;
  }
}

bool Closer::is_behind(uid_t whose) const {
  const std::lock_guard guard{mutex_};
  const auto found = waiting_.find(whose);
  return found != waiting_.end() && found->second > kMostWaiting;
}

void Closer::work() {
  const Nudges nudges;
  std::unique_lock lock{mutex_};
  while (true) {
    ++idle_;
    wanted_.wait(lock, [&] { return stopping_ || !entries_.empty(); });
    --idle_;
    if (entries_.empty()) return;
    Entry entry = std::move(entries_.front());
    entries_.pop_front();
    lock.unlock();
    nudges.begin();
    entry.fd.reset();
    nudges.end();
    lock.lock();
    if (const auto count = waiting_.find(entry.whose); --count->second == 0) waiting_.erase(count);
  }
}

}  // namespace holdfast::broker
