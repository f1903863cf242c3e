// SPDX-License-Identifier: MIT
// claim_bench.cpp - what the library adds to the system calls that a claim of a terminal is made of.
//
// The same marks are taken and given back three ways, interleaved: by the library; by the very calls that the library
// makes (see strace(1)), written down one after another with every path spelt out beforehand; and by the marks alone,
// without finding out who the device is. The rows at the end are ratios of medians.
#include <holdfast/claim.hpp>

#include <benchmark/benchmark.h>

#include <fcntl.h>
#include <pty.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

void must(bool done, const char* what) {
  if (done) return;
  std::perror(what);
  std::exit(1);
}

// Everything about a terminal that the calls need, put together before the clock runs.
struct Terminal {
  std::string path;
  bool pseudo = false;
  std::string proxy;
  std::array<std::string, 5> names;
  std::size_t name_count = 0;
  std::vector<std::string> links_to_read;  // what identification asks sysfs
  std::string udev_record;
};

Terminal describe(const std::string& path) {
  struct stat node{};
  must(::stat(path.c_str(), &node) == 0, path.c_str());
  Terminal terminal;
  terminal.path = path;
  terminal.pseudo = path.starts_with("/dev/pts/");
  const unsigned numbers[] = {major(node.st_rdev), minor(node.st_rdev)};
  char text[128];
  if (terminal.pseudo)
    std::snprintf(text, sizeof text, "/run/lock/holdfast-c%u:%u@%llu", numbers[0], numbers[1],
                  static_cast<unsigned long long>(node.st_dev));
  else
    std::snprintf(text, sizeof text, "/run/lock/holdfast-c%u:%u", numbers[0], numbers[1]);
  terminal.proxy = text;
  const std::string base = path.substr(path.rfind('/') + 1);
  std::vector<std::string> names{"LCK.." + base};
  if (terminal.pseudo) names.push_back("LCK..pts_" + base);
  std::snprintf(text, sizeof text, "LK.%03u.%03u.%03u", major(node.st_dev), numbers[0], numbers[1]);
  names.emplace_back(text);
  std::snprintf(text, sizeof text, "LCK.C.%03u.%03u", numbers[0], numbers[1]);
  names.emplace_back(text);
  std::snprintf(text, sizeof text, "LCK.%03u.%03u", numbers[0], numbers[1]);
  names.emplace_back(text);
  terminal.name_count = names.size();
  std::ranges::move(names, terminal.names.begin());
  if (terminal.pseudo) return terminal;
  std::snprintf(text, sizeof text, "/sys/dev/char/%u:%u", numbers[0], numbers[1]);
  terminal.links_to_read.emplace_back(text);
  char* const real = ::realpath(text, nullptr);
  std::string directory = real == nullptr ? "" : real;
  std::free(real);
  // The driver is that of the nearest parent that has a real one; the port layers of the serial core come first.
  directory = directory.substr(0, directory.rfind("/tty/"));
  for (int i = 0; i < 3 && directory.size() > std::strlen("/sys/devices/"); ++i) {
    terminal.links_to_read.push_back(directory + "/driver");
    directory = directory.substr(0, directory.rfind('/'));
  }
  std::snprintf(text, sizeof text, "/run/udev/data/c%u:%u", numbers[0], numbers[1]);
  terminal.udev_record = text;
  return terminal;
}

struct flock whole(short type, off_t start, off_t length) {
  struct flock words{};
  words.l_type = type;
  words.l_whence = SEEK_SET;
  words.l_start = start;
  words.l_len = length;
  return words;
}

void set_lock(int fd, short type, off_t start, off_t length) {
  struct flock words = whole(type, start, length);
  must(::fcntl(fd, F_OFD_SETLK, &words) == 0, "F_OFD_SETLK");
}

// Who the device is: the library's calls, without looking at the answers.
void identify(const Terminal& terminal) {
  const int node = ::open(terminal.path.c_str(), O_PATH | O_CLOEXEC);
  struct stat facts{};
  ::fstat(node, &facts);
  char target[4096];
  for (const std::string& link : terminal.links_to_read)
    benchmark::DoNotOptimize(::readlink(link.c_str(), target, sizeof target));
  if (!terminal.pseudo) {
    const int record = ::open(terminal.udev_record.c_str(), O_RDONLY | O_CLOEXEC);
    if (record >= 0) {
      benchmark::DoNotOptimize(::read(record, target, sizeof target));
      ::close(record);
    } else if (::access("/run/udev/data", F_OK) != 0) {
      for (const char* links : {"/dev/serial/by-id", "/dev/serial/by-path"})
        if (const int directory = ::open(links, O_RDONLY | O_DIRECTORY | O_CLOEXEC); directory >= 0) ::close(directory);
    }
  }
  ::close(node);
  ::faccessat(AT_FDCWD, terminal.path.c_str(), R_OK, AT_EACCESS);
}

struct Held {
  int proxy = -1;
  int directory = -1;
  int file = -1;
  int node = -1;
  struct stat made{};
};

Held take(const Terminal& terminal) {
  Held held;
  held.proxy = ::open(terminal.proxy.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  must(held.proxy >= 0, terminal.proxy.c_str());
  struct stat status{};
  struct stat named{};
  ::fstat(held.proxy, &status);
  must(S_ISREG(status.st_mode) && status.st_nlink == 1, "proxy");
  set_lock(held.proxy, F_WRLCK, 0, 1);
  must(::lstat(terminal.proxy.c_str(), &named) == 0 && named.st_ino == status.st_ino, "proxy");
  set_lock(held.proxy, F_WRLCK, 512, 1);
  char record[256] = {};
  std::snprintf(record, sizeof record, "1 %d %d %d xh %u\n\n", ::getpid(), 1, 1, ::geteuid());
  must(::pwrite(held.proxy, record, sizeof record, 512) == sizeof record, "record");

  held.directory = ::open("/run/lock", O_PATH | O_DIRECTORY | O_CLOEXEC);
  utsname host{};
  ::uname(&host);
  char program[4096];
  const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program - 1);
  program[std::max<ssize_t>(length, 0)] = '\0';
  const char* const slash = std::strrchr(program, '/');
  char content[256];
  const int size = std::snprintf(content, sizeof content, "%10d\n%.64s\n%s\n", ::getpid(),
                                 slash == nullptr ? program : slash + 1, host.nodename);
  held.file = ::openat(held.directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
  must(held.file >= 0, "O_TMPFILE");
  ::fstat(held.file, &held.made);
  must(::write(held.file, content, static_cast<std::size_t>(size)) == size, "lock file");
  char source[32];
  std::snprintf(source, sizeof source, "/proc/self/fd/%d", held.file);
  for (std::size_t i = 0; i < terminal.name_count; ++i)
    must(::linkat(AT_FDCWD, source, held.directory, terminal.names[i].c_str(), AT_SYMLINK_FOLLOW) == 0, "linkat");
  if (terminal.pseudo) {  // lockdev's name is looked at only
    const std::string& flat = terminal.names[1];
    char watched[64];
    std::snprintf(watched, sizeof watched, "LCK..pts:%s", flat.c_str() + std::strlen("LCK..pts_"));
    const int there = ::openat(held.directory, watched, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (there >= 0) ::close(there);
  }

  held.node = ::open(terminal.path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  must(held.node >= 0, terminal.path.c_str());
  ::fstat(held.node, &status);
  must(::flock(held.node, LOCK_EX | LOCK_NB) == 0, "flock");
  set_lock(held.node, F_WRLCK, 0, 0);
  int exclusive = 0;
  ::ioctl(held.node, TIOCGEXCL, &exclusive);
  if (!terminal.pseudo) ::ioctl(held.node, TIOCEXCL);
  return held;
}

void give_back(const Terminal& terminal, const Held& held) {
  if (!terminal.pseudo) ::ioctl(held.node, TIOCNXCL);
  set_lock(held.node, F_UNLCK, 0, 0);
  ::flock(held.node, LOCK_UN);
  ::close(held.node);
  for (std::size_t i = terminal.name_count; i-- > 0;) {
    struct stat now{};
    const char* const name = terminal.names[i].c_str();
    if (::fstatat(held.directory, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_ino == held.made.st_ino)
      ::unlinkat(held.directory, name, 0);
  }
  ::close(held.file);
  ::close(held.directory);
  must(::pwrite(held.proxy, "", 1, 512) == 1, "record");
  set_lock(held.proxy, F_UNLCK, 0, 0);
  ::close(held.proxy);
}

void by_library(benchmark::State& state, const Terminal& terminal) {
  for (auto _ : state) {
    auto claim = holdfast::claim(terminal.path);
    if (!claim) {
      state.SkipWithError(claim.error().message.c_str());
      break;
    }
    claim->release();
  }
}

void by_calls(benchmark::State& state, const Terminal& terminal) {
  for (auto _ : state) {
    identify(terminal);
    give_back(terminal, take(terminal));
  }
}

void by_marks(benchmark::State& state, const Terminal& terminal) {
  for (auto _ : state) give_back(terminal, take(terminal));
}

class Medians : public benchmark::ConsoleReporter {
 public:
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs)
      if (run.run_type == Run::RT_Iteration && !run.error_occurred)
        times_[run.run_name.function_name].push_back(run.GetAdjustedRealTime());
      else if (run.error_occurred)
        std::fprintf(stderr, "%s: %s\n", run.run_name.function_name.c_str(), run.error_message.c_str());
  }

  void print(const std::vector<std::string>& terminals) {
    for (const std::string& terminal : terminals) {
      const double library = median(terminal + " library");
      const double calls = median(terminal + " calls");
      const double marks = median(terminal + " marks");
      std::printf("claim and release of %s: library %.1f us, the same calls %.1f us, the marks alone %.1f us\n",
                  terminal.c_str(), library, calls, marks);
      std::printf("ratio library/calls %s %.2f\n", terminal.c_str(), library / calls);
      std::printf("ratio library/marks %s %.2f\n", terminal.c_str(), library / marks);
    }
  }

 private:
  double median(const std::string& name) {
    std::vector<double>& times = times_[name];
    if (times.empty()) return 0;
    std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
    return times[times.size() / 2];
  }

  std::map<std::string, std::vector<double>> times_;
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments{argv[0], "--benchmark_enable_random_interleaving=true",
                                     "--benchmark_repetitions=25", "--benchmark_min_time=0.02"};
  std::vector<std::string> devices;
  for (int i = 1; i < argc; ++i) (argv[i][0] == '-' ? arguments : devices).emplace_back(argv[i]);
  int master = -1;
  int slave = -1;
  std::array<char, 64> name{};
  must(::openpty(&master, &slave, name.data(), nullptr, nullptr) == 0, "openpty");
  ::close(slave);
  if (devices.empty()) devices = {name.data(), "/dev/ttyS0"};

  std::vector<std::string> measured;
  for (const std::string& device : devices) {
    // Once before: the proxy file stays, and a device that is not there, or taken, is left out.
    if (auto claim = holdfast::claim(device); !claim) {
      std::fprintf(stderr, "%s\n", claim.error().message.c_str());
      continue;
    }
    const Terminal terminal = describe(device);
    const std::string label = terminal.pseudo ? "a pty" : device;
    measured.push_back(label);
    const auto add = [&](const char* kind, auto body) {
      benchmark::RegisterBenchmark((label + " " + kind).c_str(),
                                   [=](benchmark::State& state) { body(state, terminal); })
          ->Unit(benchmark::kMicrosecond)
          ->UseRealTime();
    };
    add("library", by_library);
    add("calls", by_calls);
    add("marks", by_marks);
  }
  std::vector<char*> words;
  for (std::string& argument : arguments) words.push_back(argument.data());
  int count = static_cast<int>(words.size());
  benchmark::Initialize(&count, words.data());
  Medians medians;
  benchmark::RunSpecifiedBenchmarks(&medians);
  medians.print(measured);
}
