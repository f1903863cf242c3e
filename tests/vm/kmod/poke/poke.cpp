// SPDX-License-Identifier: MIT
// poke.cpp - what an owner of the checksum device becomes by exec(2): waits for SIGUSR1, then processes and unlocks by
// the descriptor that it is given. 0 when it was let, else the errno.
#include <holdfast_checksum.h>

#include <signal.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstdlib>

int main(int count, char** words) {
  if (count != 2) return 255;
  const int device = std::atoi(words[1]);
  sigset_t go;
  ::sigemptyset(&go);
  ::sigaddset(&go, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &go, nullptr);
  int got = 0;
  ::sigwait(&go, &got);
  hf_checksum_process nothing{};
  if (::ioctl(device, HF_IOC_PROCESS, &nothing) != 0) return errno;
  return ::ioctl(device, HF_IOC_UNLOCK, 0) != 0 ? errno : 0;
}
