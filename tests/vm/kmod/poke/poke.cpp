// SPDX-License-Identifier: MIT
// poke.cpp - a program of the checksum device. With a descriptor: what its owner becomes by exec(2), waits for SIGUSR1,
// then processes and unlocks. With a path: locks, processes, unlocks as any program does, says so, and waits for
// SIGUSR1. The status is 0 when it was let, else the errno.
#include <holdfast_checksum.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace {

void wait_for_signal(const sigset_t& go) {
  int got = 0;
  ::sigwait(&go, &got);
}

int process_and_unlock(int device) {
  hf_checksum_process nothing{};
  if (::ioctl(device, HF_IOC_PROCESS, &nothing) != 0) return errno;
  return ::ioctl(device, HF_IOC_UNLOCK, 0) != 0 ? errno : 0;
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) return 255;
  sigset_t go;
  ::sigemptyset(&go);
  ::sigaddset(&go, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &go, nullptr);
  if (words[1][0] != '/') {
    wait_for_signal(go);
    return process_and_unlock(std::atoi(words[1]));
  }
  const int device = ::open(words[1], O_RDWR | O_CLOEXEC);
  if (device < 0 || ::ioctl(device, HF_IOC_LOCK, 0) != 0) return errno;
  if (const int error = process_and_unlock(device); error != 0) return error;
  if (::write(STDOUT_FILENO, "done\n", 5) != 5) return errno;
  wait_for_signal(go);
  return 0;
}
