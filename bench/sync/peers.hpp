// SPDX-License-Identifier: MIT
// The locks that ours are measured beside, all with the standard's names, so that one measure fits every lock.
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <unistd.h>
#include <holdfast/sync/mutex.hpp>
#include <holdfast/sync/process_mutex.hpp>
#include <holdfast/sync/rw_semaphore.hpp>
#include <holdfast/sync/semaphore.hpp>
#include <holdfast/sync/spinlock.hpp>

#include <cerrno>
#include <mutex>
#include <shared_mutex>

#if HAVE_BOOST
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_upgradable_mutex.hpp>
#endif
#if HAVE_ABSL
#include <absl/synchronization/mutex.h>
#endif
#if HAVE_NSYNC
#include <nsync.h>
#endif
#if HAVE_CK
extern "C" {
#include <ck_pflock.h>
#include <ck_rwlock.h>
#include <spinlock/fas.h>  // ck_spinlock.h has kinds that are C and not C++
#include <spinlock/ticket.h>
}
#endif

namespace bench {

namespace sync = holdfast::sync;

struct Pthread {
  pthread_mutex_t it{};
  Pthread(int robust, int protocol) {
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_mutexattr_setrobust(&attributes, robust);
    ::pthread_mutexattr_setprotocol(&attributes, protocol);
    ::pthread_mutex_init(&it, &attributes);
  }
  void lock() {
    if (::pthread_mutex_lock(&it) == EOWNERDEAD) ::pthread_mutex_consistent(&it);
  }
  void unlock() { ::pthread_mutex_unlock(&it); }
};
struct PthreadShared : Pthread {
  PthreadShared() : Pthread(PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE) {}
};
struct PthreadRobust : Pthread {
  PthreadRobust() : Pthread(PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE) {}
};
struct PthreadPi : Pthread {
  PthreadPi() : Pthread(PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_INHERIT) {}
};
struct PthreadSpin {
  pthread_spinlock_t it{};
  PthreadSpin() { ::pthread_spin_init(&it, PTHREAD_PROCESS_SHARED); }
  void lock() { ::pthread_spin_lock(&it); }
  void unlock() { ::pthread_spin_unlock(&it); }
};
struct PthreadRw {
  pthread_rwlock_t it{};
  explicit PthreadRw(int kind = PTHREAD_RWLOCK_DEFAULT_NP) {
    pthread_rwlockattr_t attributes;
    ::pthread_rwlockattr_init(&attributes);
    ::pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_rwlockattr_setkind_np(&attributes, kind);
    ::pthread_rwlock_init(&it, &attributes);
  }
  void lock() { ::pthread_rwlock_wrlock(&it); }
  void unlock() { ::pthread_rwlock_unlock(&it); }
  void lock_shared() { ::pthread_rwlock_rdlock(&it); }
  void unlock_shared() { ::pthread_rwlock_unlock(&it); }
};
struct PthreadRwWriters : PthreadRw {
  PthreadRwWriters() : PthreadRw(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) {}
};

struct Posix {
  sem_t it{};
  Posix() { ::sem_init(&it, 1, 1); }
  void lock() { ::sem_wait(&it); }
  void unlock() { ::sem_post(&it); }
};

/// What the kernel keeps of files: owned by an open description, so good for processes and not for threads.
struct File {
  int fd = ::memfd_create("bench", MFD_CLOEXEC);
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(fd); }
};
struct Flock : File {
  void lock() { ::flock(fd, LOCK_EX); }
  void unlock() { ::flock(fd, LOCK_UN); }
};
struct Ofd : File {
  /// In a child of fork: an open description of its own.
  void reopen() {
    char path[32];
    ::snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    own = ::open(path, O_RDWR | O_CLOEXEC);
  }
  void lock() { set(F_WRLCK); }
  void unlock() { set(F_UNLCK); }

 private:
  void set(short type) {
    struct flock range{};
    range.l_type = type;
    range.l_whence = SEEK_SET;
    ::fcntl(own >= 0 ? own : fd, F_OFD_SETLKW, &range);
  }
  static inline int own = -1;  // not in the lock: processes share that
};
struct SysV {
  int id = ::semget(IPC_PRIVATE, 1, 0600);
  SysV() { ::semctl(id, 0, SETVAL, 1); }
  SysV(const SysV&) = delete;
  SysV& operator=(const SysV&) = delete;
  ~SysV() { ::semctl(id, 0, IPC_RMID); }
  void by(short units) {
    sembuf change{0, units, SEM_UNDO};
    ::semop(id, &change, 1);
  }
  void lock() { by(-1); }
  void unlock() { by(1); }
};

#if HAVE_BOOST
using BoostMutex = boost::interprocess::interprocess_mutex;
struct BoostRw : boost::interprocess::interprocess_upgradable_mutex {
  void lock_shared() { lock_sharable(); }
  void unlock_shared() { unlock_sharable(); }
};
#endif

#if HAVE_ABSL
struct Absl {
  absl::Mutex it;
  void lock() { it.Lock(); }
  void unlock() { it.Unlock(); }
  void lock_shared() { it.ReaderLock(); }
  void unlock_shared() { it.ReaderUnlock(); }
};
#endif

#if HAVE_NSYNC
struct Nsync {
  nsync::nsync_mu it{};
  void lock() { nsync::nsync_mu_lock(&it); }
  void unlock() { nsync::nsync_mu_unlock(&it); }
  void lock_shared() { nsync::nsync_mu_rlock(&it); }
  void unlock_shared() { nsync::nsync_mu_runlock(&it); }
};
#endif

#if HAVE_CK
struct CkFas {
  ck_spinlock_fas_t it = CK_SPINLOCK_FAS_INITIALIZER;
  void lock() { ::ck_spinlock_fas_lock(&it); }
  void unlock() { ::ck_spinlock_fas_unlock(&it); }
};
struct CkTicket {
  ck_spinlock_ticket_t it = CK_SPINLOCK_TICKET_INITIALIZER;
  void lock() { ::ck_spinlock_ticket_lock(&it); }
  void unlock() { ::ck_spinlock_ticket_unlock(&it); }
};
struct CkRw {
  ck_rwlock_t it = CK_RWLOCK_INITIALIZER;
  void lock() { ::ck_rwlock_write_lock(&it); }
  void unlock() { ::ck_rwlock_write_unlock(&it); }
  void lock_shared() { ::ck_rwlock_read_lock(&it); }
  void unlock_shared() { ::ck_rwlock_read_unlock(&it); }
};
struct CkPhaseFair {
  ck_pflock_t it = CK_PFLOCK_INITIALIZER;
  void lock() { ::ck_pflock_write_lock(&it); }
  void unlock() { ::ck_pflock_write_unlock(&it); }
  void lock_shared() { ::ck_pflock_read_lock(&it); }
  void unlock_shared() { ::ck_pflock_read_unlock(&it); }
};
#endif

// Ours, where the names or the construction differ from the standard's.

struct Plain {
  sync::semaphore it{1};
  void lock() { static_cast<void>(it.down()); }
  void unlock() { static_cast<void>(it.up()); }
};
struct Owned {
  sync::owned_semaphore<1> it;
  void lock() { static_cast<void>(it.down()); }
  void unlock() { static_cast<void>(it.up()); }
};
struct WriterFirst : sync::rw_semaphore {
  WriterFirst() : rw_semaphore(sync::Policy::writer_first) {}
};

}  // namespace bench
