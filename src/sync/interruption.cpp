// SPDX-License-Identifier: MIT
#include "sync/interruption.hpp"

#include <holdfast/sync/termination.hpp>

#include <time.h>

namespace holdfast::sync {
namespace {

// Of one thread and its handlers: volatile and in order is enough. A child of fork keeps what its thread noted.
struct Interruption {
  volatile bool noted = false;
  volatile timespec until{};  // when the sleep ends that the thread is in, or about to begin
};

thread_local constinit Interruption mine __attribute__((tls_model("initial-exec")));

}  // namespace

void note_interruption() noexcept {
  mine.noted = true;
  mine.until.tv_sec = 0;  // long past, whatever tv_nsec is
}

void clear_interruption() noexcept { mine.noted = false; }

futex::Woke sleep_interruptibly(const futex::Word& word, std::uint32_t value, futex::Class as, std::uint64_t deadline) {
  Interruption& here = mine;
  const timespec until = futex::instant(deadline != 0 ? deadline : futex::kFarAway);
  here.until.tv_nsec = until.tv_nsec;
  here.until.tv_sec = until.tv_sec;
  // After the deadline: whoever notes from here on spoils it.
  if (here.noted) {
    here.noted = false;
    return futex::Woke::interrupted;
  }
  const futex::Woke why = futex::wait(word, value, as, here.until);
  if (why == futex::Woke::look_again || (why == futex::Woke::timed_out && !here.noted)) return why;
  here.noted = false;
  return futex::Woke::interrupted;
}

}  // namespace holdfast::sync
