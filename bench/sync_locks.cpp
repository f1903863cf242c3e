// SPDX-License-Identifier: MIT
// What the locks cost beside their peers, in one run: alone, among threads with an empty and with a short section,
// between two processes, handed over, for readers and writers, for one who waits among others, and after a holder's
// death. All take turns (sync/measure.hpp). Prints Markdown tables of medians and the goals with what came of them;
// --plot FILE draws the bars of docs/sync.md.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "sync/chains.hpp"
#include "sync/measure.hpp"
#include "sync/peers.hpp"
#include "sync/plot.hpp"

namespace {

using namespace bench;

constexpr int kThreads[] = {2, 4, 8};

std::string with(const char* figure, int threads) { return figure + (" " + std::to_string(threads)); }

enum Traits : unsigned {
  kThreadsToo = 1,  // may contend among threads: of files, the owner is the open description
  kShared = 2,      // works between processes
};

template <class Lock>
void exclusive(Rounds& rounds, const std::string& name, unsigned traits) {
  const auto lock = std::make_shared<Lock>();
  rounds.add("alone", [=](Ledger& ledger) {
    ledger.see("alone", name, alone((traits & kThreadsToo) != 0 ? 200'000 : 20'000, [&] {
                 lock->lock();
                 lock->unlock();
               }));
  });
  if ((traits & kThreadsToo) == 0) return;
  for (const int threads : kThreads) {
    for (const char* const figure : {"empty", "short"}) {
      const int section = *figure == 'e' ? 0 : short_section();
      rounds.add(with(figure, threads), [=](Ledger& ledger) {
        const Rate rate = among(threads, [&](int, unsigned long) {
          lock->lock();
          work(section);
          lock->unlock();
        });
        ledger.see(with(figure, threads), name, rate.millions);
        ledger.see(with(figure, threads) + " fairness", name, rate.fairness);
      });
    }
  }
  rounds.add("hand-over", [=](Ledger& ledger) { ledger.see("hand-over", name, hand_over<Lock>(Beside::thread)); });
  if ((traits & kShared) == 0) return;
  rounds.add("processes", [=](Ledger& ledger) { ledger.see("processes", name, between_processes<Lock>()); });
  rounds.add("hand-over between processes", [=](Ledger& ledger) {
    ledger.see("hand-over between processes", name, hand_over<Lock>(Beside::process));
  });
}

template <class Lock>
void shared(Rounds& rounds, const std::string& name) {
  const auto lock = std::make_shared<Lock>();
  const auto read = [=] {
    lock->lock_shared();
    lock->unlock_shared();
  };
  const auto write = [=] {
    lock->lock();
    lock->unlock();
  };
  rounds.add("read", [=](Ledger& ledger) { ledger.see("read", name, alone(200'000, read)); });
  rounds.add("write", [=](Ledger& ledger) { ledger.see("write", name, alone(200'000, write)); });
  struct Mix {
    const char* figure;
    unsigned long one_write_in;
  };
  for (const int threads : kThreads) {
    for (const Mix mix : {Mix{"readers", 0}, Mix{"99:1", 100}, Mix{"90:10", 10}}) {
      rounds.add(with(mix.figure, threads), [=](Ledger& ledger) {
        ledger.see(with(mix.figure, threads), name, among(threads, [&](int, unsigned long round) {
                                                      if (mix.one_write_in != 0 && round % mix.one_write_in == 0) {
                                                        write();
                                                      } else {
                                                        read();
                                                      }
                                                    }).millions);
      });
    }
  }
  const auto see = [name](Ledger& ledger, const std::string& figure, const Waits& waits) {
    ledger.see(figure, name, waits.median);
    ledger.see(figure + " 99 %", name, waits.most_of_them);
    ledger.see(figure + " longest", name, waits.longest);
  };
  const auto reads = [=](auto hold) {
    lock->lock_shared();
    hold();
    lock->unlock_shared();
  };
  const auto writes = [=](auto hold) {
    lock->lock();
    hold();
    lock->unlock();
  };
  rounds.add("starving writer", [=](Ledger& ledger) {
    see(ledger, "starving writer", among_others(reads, [&] { lock->lock(); }, [&] { lock->unlock(); }));
  });
  rounds.add("starving reader", [=](Ledger& ledger) {
    see(ledger, "starving reader", among_others(writes, [&] { lock->lock_shared(); }, [&] { lock->unlock_shared(); }));
  });
}

constexpr std::size_t kGiB = 1UL << 30;

/// Waits of 3 to 22 ms before the kill, so that no lock's habits meet the same instant each time.
std::chrono::microseconds wait_before(int i) { return std::chrono::microseconds(3000 + i * 6367 % 19000); }

template <class Lock, class Take>
void death(Rounds& rounds, const std::string& name, bool large, Take take, void (*settle)(Lock&) = [](Lock&) {}) {
  rounds.add("death", [=](Ledger& ledger) {
    std::vector<double> times;
    for (int i = 0; i < 25; ++i) times.push_back(after_death<Lock>(0, wait_before(i), take, settle));
    ledger.see("death", name, quantile(times, 0.5));
    ledger.see("death 99 %", name, quantile(times, 0.99));
  });
  if (!large) return;
  rounds.add("death of 1 GiB", [=](Ledger& ledger) {
    for (int i = 0; i < 2; ++i)
      ledger.see("death of 1 GiB", name, after_death<Lock>(kGiB, wait_before(i), take, settle));
  });
}

void deaths(Rounds& rounds) {
  const auto checked = [](auto& l) { static_cast<void>(l.lock_checked()); };
  death<PthreadRobust>(rounds, "pthread, robust", true, [](auto& l) { l.lock(); });
  death<PthreadPi>(rounds, "pthread, robust, PI", false, [](auto& l) { l.lock(); });
  death<Ofd>(rounds, "OFD lock", true, [](auto& l) { l.lock(); }, [](Ofd& l) { l.reopen(); });
  death<sync::mutex>(rounds, "mutex", true, checked);
  death<sync::process_mutex>(rounds, "process_mutex", true, checked);
  death<sync::rw_semaphore>(rounds, "rw_semaphore, phase_fair", false, [](sync::rw_semaphore& l) {
    static_cast<void>(l.is_locked() ? l.down_write() : l.down_read());  // a writer after a dead reader
  });
  death<sync::owned_semaphore<1>>(rounds, "owned_semaphore<1>", false, [](auto& l) { static_cast<void>(l.down()); });
}

template <std::size_t kDepth>
void chains(Rounds& rounds) {
  struct Locks {
    std::array<Bare, 4> bare;
    std::array<Hooked, 4> hooked;
  };
  const auto locks = std::make_shared<Locks>();
  for (std::size_t i = 0; i < 4; ++i) {
    static const char* const kNames[] = {"bench.a", "bench.b", "bench.c", "bench.d"};
    locks->hooked[i].lock_class = LockClass{kNames[i]};
  }
  const std::string figure = with("chain", kDepth);
  rounds.add("chain", [=](Ledger& ledger) {
    for (int i = 0; i < 60; ++i) {
      ledger.see(figure, "without", chain<kDepth>(locks->bare));
      order::switch_off();
      ledger.see(figure, "off", chain<kDepth>(locks->hooked));
      if (order::switch_on()) std::abort();
      ledger.see(figure, "on", chain<kDepth>(locks->hooked));
    }
    order::switch_off();
  });
#if HAVE_ABSL
  const auto absl_locks = std::make_shared<std::array<Absl, 4>>();
  rounds.add("chain", [=](Ledger& ledger) {
    for (int i = 0; i < 60; ++i) {
      absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
      ledger.see(figure, "absl off", chain<kDepth>(*absl_locks));
      absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kReport);
      ledger.see(figure, "absl on", chain<kDepth>(*absl_locks));
    }
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  });
#endif
}

Rounds all() {
  Rounds rounds;
  constexpr unsigned kBoth = kThreadsToo | kShared;
  exclusive<std::mutex>(rounds, "std::mutex", kThreadsToo);
  exclusive<PthreadShared>(rounds, "pthread, shared", kBoth);
  exclusive<PthreadRobust>(rounds, "pthread, robust", kBoth);
  exclusive<PthreadPi>(rounds, "pthread, robust, PI", kBoth);
#if HAVE_BOOST
  exclusive<BoostMutex>(rounds, "boost::interprocess_mutex", kBoth);
#endif
#if HAVE_ABSL
  exclusive<Absl>(rounds, "absl::Mutex", kThreadsToo);
#endif
#if HAVE_NSYNC
  exclusive<Nsync>(rounds, "nsync_mu", kThreadsToo);
#endif
  exclusive<sync::mutex>(rounds, "mutex", kBoth);
  exclusive<sync::process_mutex>(rounds, "process_mutex", kBoth);
  exclusive<Posix>(rounds, "sem_t", kBoth);
  exclusive<Plain>(rounds, "semaphore", kBoth);
  exclusive<Owned>(rounds, "owned_semaphore<1>", kBoth);
  exclusive<PthreadSpin>(rounds, "pthread_spin", kBoth);
#if HAVE_CK
  exclusive<CkFas>(rounds, "ck_spinlock_fas", kBoth);
  exclusive<CkTicket>(rounds, "ck_spinlock_ticket", kBoth);
#endif
  exclusive<sync::spinlock>(rounds, "spinlock", kBoth);
  exclusive<sync::robust_spinlock>(rounds, "robust_spinlock", kBoth);
  exclusive<Ofd>(rounds, "OFD lock", 0);
  exclusive<Flock>(rounds, "flock", 0);
  exclusive<SysV>(rounds, "semop, SEM_UNDO", 0);

  shared<std::shared_mutex>(rounds, "std::shared_mutex");
  shared<PthreadRw>(rounds, "pthread_rwlock, shared");
  shared<PthreadRwWriters>(rounds, "pthread_rwlock, writers first");
#if HAVE_BOOST
  shared<BoostRw>(rounds, "boost upgradable");
#endif
#if HAVE_ABSL
  shared<Absl>(rounds, "absl::Mutex");
#endif
#if HAVE_NSYNC
  shared<Nsync>(rounds, "nsync_mu");
#endif
#if HAVE_CK
  shared<CkRw>(rounds, "ck_rwlock");
  shared<CkPhaseFair>(rounds, "ck_pflock");
#endif
  shared<sync::rw_semaphore>(rounds, "rw_semaphore, phase_fair");
  shared<WriterFirst>(rounds, "rw_semaphore, writer_first");

  const auto guarded = std::make_shared<sync::spinlock>();
  rounds.add("alone", [=](Ledger& ledger) {
    ledger.see("irqsave", "spinlock",
               alone(100'000, [&] { const sync::irqsave_guard<sync::spinlock> guard(*guarded); }));
    ledger.see("irqsave", "signal mask", alone(100'000, [&] {
                 sigset_t every;
                 sigset_t saved;
                 ::sigfillset(&every);
                 ::pthread_sigmask(SIG_BLOCK, &every, &saved);
                 ::pthread_sigmask(SIG_SETMASK, &saved, nullptr);
               }));
  });
  deaths(rounds);
  chains<1>(rounds);
  chains<2>(rounds);
  chains<4>(rounds);
  return rounds;
}

// -------------------------------------------------------------------------------------------------------- the report

constexpr const char* kExclusive[] = {"std::mutex",
                                      "pthread, shared",
                                      "pthread, robust",
                                      "pthread, robust, PI",
                                      "boost::interprocess_mutex",
                                      "absl::Mutex",
                                      "nsync_mu",
                                      "mutex",
                                      "process_mutex",
                                      "sem_t",
                                      "semaphore",
                                      "owned_semaphore<1>",
                                      "pthread_spin",
                                      "ck_spinlock_fas",
                                      "ck_spinlock_ticket",
                                      "spinlock",
                                      "robust_spinlock",
                                      "OFD lock",
                                      "flock",
                                      "semop, SEM_UNDO"};
constexpr const char* kReaders[] = {"std::shared_mutex",
                                    "pthread_rwlock, shared",
                                    "pthread_rwlock, writers first",
                                    "boost upgradable",
                                    "absl::Mutex",
                                    "nsync_mu",
                                    "ck_rwlock",
                                    "ck_pflock",
                                    "rw_semaphore, phase_fair",
                                    "rw_semaphore, writer_first"};
constexpr const char* kDying[] = {"pthread, robust", "pthread, robust, PI",      "OFD lock",          "mutex",
                                  "process_mutex",   "rw_semaphore, phase_fair", "owned_semaphore<1>"};

std::string number(double value) {
  if (std::isnan(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof(text), value < 10 ? "%.2f" : value < 1000 ? "%.1f" : "%.0f", value);
  return text;
}

std::string three(const Ledger& ledger, const char* figure, const std::string& lock) {
  std::string text;
  for (const int threads : kThreads)
    text += (text.empty() ? "" : " / ") + number(ledger.median(with(figure, threads), lock));
  return text.starts_with('-') ? "-" : text;
}

void tables(const Ledger& ledger) {
  std::printf(
      "| lock | lock+unlock ns | empty section, M/s, 2 / 4 / 8 threads | 0.43 us section | fairness of 8 | two "
      "processes, M/s | hand-over us, threads | processes |\n|---|---|---|---|---|---|---|---|\n");
  for (const char* const lock : kExclusive)
    std::printf("| %s | %s | %s | %s | %s | %s | %s | %s |\n", lock, number(ledger.median("alone", lock)).c_str(),
                three(ledger, "empty", lock).c_str(), three(ledger, "short", lock).c_str(),
                number(ledger.median("short 8 fairness", lock)).c_str(),
                number(ledger.median("processes", lock)).c_str(), number(ledger.median("hand-over", lock)).c_str(),
                number(ledger.median("hand-over between processes", lock)).c_str());

  std::printf(
      "\n| lock | read ns | write ns | readers only, M/s, 2 / 4 / 8 | one write in 100 | one in 10 |\n"
      "|---|---|---|---|---|---|\n");
  for (const char* const lock : kReaders)
    std::printf("| %s | %s | %s | %s | %s | %s |\n", lock, number(ledger.median("read", lock)).c_str(),
                number(ledger.median("write", lock)).c_str(), three(ledger, "readers", lock).c_str(),
                three(ledger, "99:1", lock).c_str(), three(ledger, "90:10", lock).c_str());

  std::printf(
      "\n| lock | a writer among 3 readers waits, us: median / 99 %% / longest | a reader among 3 writers |\n"
      "|---|---|---|\n");
  for (const char* const lock : kReaders) {
    std::printf("| %s |", lock);
    for (const std::string figure : {"starving writer", "starving reader"})
      std::printf(" %s / %s / %s |", number(ledger.median(figure, lock)).c_str(),
                  number(ledger.median(figure + " 99 %", lock)).c_str(),
                  number(ledger.most(figure + " longest", lock)).c_str());
    std::printf("\n");
  }

  std::printf("\n| a holder is killed: to the next one, us | median | 99 %% | holder of 1 GiB |\n|---|---|---|---|\n");
  for (const char* const lock : kDying)
    std::printf("| %s | %s | %s | %s |\n", lock, number(ledger.median("death", lock)).c_str(),
                number(ledger.median("death 99 %", lock)).c_str(),
                number(ledger.median("death of 1 GiB", lock)).c_str());

  std::printf("\n| validator, ns for a chain of | 1 | 2 | 4 |\n|---|---|---|---|\n");
  for (const char* const build : {"without", "off", "on", "absl off", "absl on"}) {
    std::printf("| %s |", build);
    for (const char* const figure : {"chain 1", "chain 2", "chain 4"})
      std::printf(" %s |", number(ledger.median(figure, build)).c_str());
    std::printf("\n");
  }
}

/// The goals, each a ratio to a peer that was measured in turn with it, or a time.
class Goals {
 public:
  explicit Goals(const Ledger& ledger) : ledger_(ledger) {
    std::printf("\n| goal | wanted | seen | |\n|---|---|---|---|\n");
  }
  ~Goals() { std::printf("\n%d of %d goals met\n", met_, met_ + missed_); }
  Goals(const Goals&) = delete;
  Goals& operator=(const Goals&) = delete;

  void ratio(const std::string& figure, const std::string& lock, const std::string& peer, const char* how,
             double limit) {
    says(lock + " / " + peer + ": " + figure, ledger_.median(figure, lock) / ledger_.median(figure, peer), how, limit,
         "x");
  }
  void says(const std::string& what, double seen, const char* how, double limit, const char* unit) {
    if (std::isnan(seen)) return;
    const bool met = *how == '<' ? seen <= limit : seen >= limit;
    ++(met ? met_ : missed_);
    std::printf("| %s | %s %g %s | %s %s | %s |\n", what.c_str(), how, limit, unit, number(seen).c_str(), unit,
                met ? "met" : "**missed**");
  }
  [[nodiscard]] double of(const std::string& figure, const std::string& lock) const {
    return ledger_.median(figure, lock);
  }

 private:
  const Ledger& ledger_;
  int met_ = 0;
  int missed_ = 0;
};

void goals(const Ledger& ledger) {
  Goals g(ledger);
  g.ratio("alone", "mutex", "std::mutex", "<=", 1.15);
  g.ratio("alone", "mutex", "pthread, robust", "<=", 0.9);
  for (const int threads : kThreads) {
    g.ratio(with("empty", threads), "mutex", "pthread, robust", ">=", 1.4);
    g.ratio(with("empty", threads), "mutex", "std::mutex", ">=", threads == 2 ? 1.0 : 0.75);
  }
  g.says("mutex: fairness, empty 8", g.of("empty 8 fairness", "mutex"), ">=", 0.5, "");
  for (const int threads : kThreads) {
    g.ratio(with("short", threads), "mutex", "pthread, robust", ">=", 1.15);
    g.ratio(with("short", threads), "mutex", "std::mutex", ">=", threads == 8 ? 0.85 : 1.4);
  }
  g.says("mutex: fairness, short 8", g.of("short 8 fairness", "mutex"), ">=", 0.5, "");
  g.ratio("processes", "mutex", "pthread, robust", ">=", 1.4);
  g.says("mutex: two processes / two threads", g.of("processes", "mutex") / g.of("empty 2", "mutex"), ">=", 0.85, "x");

  g.ratio("alone", "process_mutex", "std::mutex", "<=", 1.1);
  g.ratio("alone", "OFD lock", "process_mutex", ">=", 30);
  g.ratio("alone", "flock", "process_mutex", ">=", 15);
  g.ratio("alone", "semop, SEM_UNDO", "process_mutex", ">=", 15);

  const char* const ours = "rw_semaphore, phase_fair";
  g.ratio("read", ours, "std::shared_mutex", "<=", 1.15);
  for (const int threads : kThreads) {
    g.ratio(with("readers", threads), ours, "std::shared_mutex", ">=", 4.5);
    g.ratio(with("99:1", threads), ours, "std::shared_mutex", ">=", 2);
    g.ratio(with("90:10", threads), ours, "std::shared_mutex", ">=", 0.8);
  }
  g.says("rw_semaphore: writer among readers, 99 %", g.of("starving writer 99 %", ours), "<=", 400, "us");
  g.says("rw_semaphore: reader among writers, 99 %", g.of("starving reader 99 %", ours), "<=", 400, "us");

  g.ratio("alone", "robust_spinlock", "pthread_spin", "<=", 1.7);
  g.ratio("short 8", "robust_spinlock", "pthread_spin", ">=", 3);

  g.ratio("death", "mutex", "pthread, robust", "<=", 1.3);
  g.says("process_mutex: after a death", g.of("death", "process_mutex"), "<=", 300, "us");
  g.ratio("death of 1 GiB", "OFD lock", "process_mutex", ">=", 10);

  g.says("irqsave pair, beyond the spinlock", g.of("irqsave", "spinlock") - g.of("alone", "spinlock"), "<=", 3, "ns");
  constexpr double kMore[] = {1.5, 6, 16};
  for (const int i : {0, 1, 2}) {
    const std::string figure = with("chain", 1 << i);
    g.says("validator on, beyond none: " + figure, g.of(figure, "on") - g.of(figure, "without"), "<=", kMore[i], "ns");
  }
  g.says("validator off / none: chain 1", g.of("chain 1", "off") / g.of("chain 1", "without"), "<=", 1.01, "x");
}

void draw(const Ledger& ledger, const char* file) {
  Plot plot("What the locks cost beside their peers (ours are blue)");
  const auto panel = [&](const char* title, const std::string& figure, const auto& locks) {
    plot.panel(title);
    for (const char* const lock : locks) plot.bar(lock, ledger.median(figure, lock));
  };
  panel("lock + unlock alone, ns: less is better", "alone", std::vector(kExclusive, kExclusive + 17));
  panel("8 threads, sections of 0.43 us, million a second", "short 8", std::vector(kExclusive, kExclusive + 17));
  panel("8 readers, million a second", "readers 8", kReaders);
  panel("8 threads, one write in 10, million a second", "90:10 8", kReaders);
  if (!plot.save(file)) std::fprintf(stderr, "sync_locks: cannot write %s\n", file);
}

}  // namespace

int main(int argc, char** argv) {
  int rounds = 7;
  std::string only;
  const char* file = nullptr;
  for (int i = 1; i < argc; ++i) {
    const bool more = i + 1 < argc;
    if (more && std::strcmp(argv[i], "--rounds") == 0) {
      rounds = std::max(1, std::atoi(argv[++i]));
    } else if (more && std::strcmp(argv[i], "--only") == 0) {
      only = argv[++i];
    } else if (more && std::strcmp(argv[i], "--plot") == 0) {
      file = argv[++i];
    } else {
      std::fprintf(stderr, "usage: sync_locks [--rounds 7] [--only PART-OF-A-FIGURE] [--plot FILE.svg]\n");
      return 2;
    }
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
#if HAVE_ABSL
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // Debian builds it to be on
#endif
  Ledger ledger;
  all().run(ledger, rounds, only);
  tables(ledger);
  goals(ledger);
  if (file != nullptr) draw(ledger, file);
}
