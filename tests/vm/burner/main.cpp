// SPDX-License-Identifier: MIT
// lab_burner - gives a virtual machine optical burners that real burn programs accept.
//
// Runs as root inside the guest until SIGTERM or its parent's end. A drive's commands can be logged, one line each, so
// that a test can show what reached a drive while it burned, and its writing can be slowed down, so that a burn lasts.
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "vm/burner/mmc.hpp"
#include "vm/burner/tcmu.hpp"

extern char** environ;

namespace holdfast::burner {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::string_view kUsage =
    "usage: lab_burner [--size MB] [--empty] [--image FILE] [--log FILE] [--rate BYTES_PER_S] [--drives N]\n"
    "Prints 'ready /dev/srN /dev/sgM' per drive and serves until SIGTERM or its parent's end.\n"
    "  --size MB   size of the medium, 64 unless told (or the image's own size)\n"
    "  --empty     no medium\n"
    "  --image F   the medium's content; with several drives F.0, F.1, ... Without it, memory that is lost at the end\n"
    "  --log F     append 'SECONDS DRIVE SENSE NAME CDB' per command; SECONDS as of CLOCK_MONOTONIC, DRIVE from 0,\n"
    "              SENSE 000000 or key, code and qualifier\n"
    "  --rate N    bytes per second that a drive can write\n"
    "  --drives N  that many drives, 1 unless told, on one host\n";
constexpr std::uint64_t kMost = 31;  // targets of a tcm_loop host

struct Options {
  std::uint64_t megabytes = 0;  // 0: not said
  std::uint64_t rate = 0;       // 0: as fast as it goes
  std::uint64_t drives = 1;
  bool empty = false;
  std::string image;
  std::string log;
};

std::unexpected<std::string> fault(int errnum, std::string_view what, std::string_view path) {
  return std::unexpected{fmt::format("{}: {}: {}", path, what, base::errno_text(errnum))};
}

class FileMedium : public Medium {
 public:
  static Result<std::unique_ptr<FileMedium>> open(const std::string& path, std::uint64_t megabytes) {
    base::UniqueFd fd{path.empty() ? ::memfd_create("medium", MFD_CLOEXEC)
                                   : ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
    if (!fd) return fault(errno, "open", path);
    off_t size = ::lseek(fd.get(), 0, SEEK_END);
    if (megabytes != 0 || size < static_cast<off_t>(kBlock)) {
      size = static_cast<off_t>((megabytes != 0 ? megabytes : 64) << 20);
      if (::ftruncate(fd.get(), size) != 0) return fault(errno, "ftruncate", path);
    }
    return std::unique_ptr<FileMedium>{new FileMedium{std::move(fd), static_cast<std::uint64_t>(size)}};
  }
  std::uint32_t blocks() const override { return static_cast<std::uint32_t>(size_ / kBlock); }
  bool read(std::uint64_t offset, Buffer data) override {
    return ::pread(fd_.get(), data.data(), data.size(), static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(data.size());
  }
  bool write(std::uint64_t offset, std::span<const std::uint8_t> data) override {
    return ::pwrite(fd_.get(), data.data(), data.size(), static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(data.size());
  }

 private:
  FileMedium(base::UniqueFd fd, std::uint64_t size) : fd_{std::move(fd)}, size_{size} {}
  base::UniqueFd fd_;
  std::uint64_t size_;
};

/// A drive with the slowness of a real one and somebody who takes notes.
class WatchedDrive : public Unit {
 public:
  WatchedDrive(Drive drive, std::uint64_t number, const Options& options, int log)
      : drive_{std::move(drive)}, number_{number}, rate_{options.rate}, log_{log} {}
  bool takes_data(std::uint8_t opcode) const override { return drive_.takes_data(opcode); }
  Reply execute(const Cdb& cdb, Buffer data) override {
    const auto arrived = Clock::now();
    const Reply reply = drive_.execute(cdb, data);
    if (rate_ != 0 && reply.written != 0) {
      std::this_thread::sleep_until(arrived + std::chrono::microseconds{reply.written * 1'000'000 / rate_});
    }
    if (log_ >= 0) note(arrived, cdb, reply);
    return reply;
  }

 private:
  void note(Clock::time_point arrived, const Cdb& cdb, const Reply& reply) const {
    const std::chrono::duration<double> seconds = arrived.time_since_epoch();
    std::string line = fmt::format("{:.6f} {} {:06x} {}", seconds.count(), number_,
                                   static_cast<std::uint32_t>(reply.sense), name_of(cdb[0]));
    for (const std::uint8_t byte : cdb) line += fmt::format(" {:02x}", byte);
    line += '\n';
    if (::write(log_, line.data(), line.size()) < 0) std::perror("lab_burner: log");  // one write, so lines stay whole
  }

  Drive drive_;
  std::uint64_t number_;
  std::uint64_t rate_;
  int log_;
};

/// The only entry of a directory in sysfs, as a node.
std::optional<std::string> only_node(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries{::opendir(directory.c_str()), &::closedir};
  while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
    const std::string node = fmt::format("/dev/{}", entry->d_name);
    if (entry->d_name[0] != '.' && ::access(node.c_str(), F_OK) == 0) return node;
  }
  return std::nullopt;
}

/// "/dev/srN /dev/sgM" as soon as both exist.
Result<std::string> await_nodes(const std::string& address, int dev_events) {
  const std::string device = "/sys/bus/scsi/devices/" + address;
  const auto deadline = Clock::now() + std::chrono::seconds{60};
  while (true) {
    const auto sr = only_node(device + "/block");
    const auto sg = only_node(device + "/scsi_generic");
    if (sr && sg) return fmt::format("{} {}", *sr, *sg);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return std::unexpected{fmt::format("{}: no sr and sg nodes after 60 seconds", address)};
    pollfd event{dev_events, POLLIN, 0};
    ::poll(&event, 1, static_cast<int>(left.count()));
    char events[4096];
    if (::read(dev_events, events, sizeof events) < 0 && errno != EAGAIN) return fault(errno, "inotify", "/dev");
  }
}

Result<void> prepare_kernel() {
  const char* const command[] = {"modprobe",         "-a",       "configfs", "uio", "target_core_mod",
                                 "target_core_user", "tcm_loop", "sr_mod",   "sg",  nullptr};
  pid_t child = 0;
  int status = 0;
  if (const int error = ::posix_spawnp(&child, command[0], nullptr, nullptr, const_cast<char**>(command), environ)) {
    return fault(error, "start", command[0]);
  }
  if (::waitpid(child, &status, 0) < 0 || status != 0) return std::unexpected{"modprobe: the kernel lacks a module"};
  if (::access("/sys/kernel/config/target", F_OK) != 0 &&
      ::mount("configfs", "/sys/kernel/config", "configfs", 0, nullptr) != 0) {
    return fault(errno, "mount", "/sys/kernel/config");
  }
  return {};
}

Result<void> run(const Options& options) {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigprocmask(SIG_BLOCK, &ends, nullptr);  // before the first thread, so that all have it
  // Killed by SIGKILL, it would leave drives that never answer, and whoever touches them would hang for minutes. So it
  // goes with its parent, but in good order, and not with the cgroup that a test is killed by.
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  (void)write_file("/sys/fs/cgroup/cgroup.procs", "0");
  if (auto prepared = prepare_kernel(); !prepared) return prepared;
  base::UniqueFd log;
  if (!options.log.empty()) {
    log.reset(::open(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!log) return fault(errno, "open", options.log);
  }
  const base::UniqueFd dev_events{::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
  if (::inotify_add_watch(dev_events.get(), "/dev", IN_CREATE | IN_MOVED_TO) < 0) {
    return fault(errno, "inotify", "/dev");
  }

  const std::string host = fmt::format("{:016x}", 0x6001405000000000U | static_cast<unsigned>(::getpid()));
  std::list<std::unique_ptr<FileMedium>> media;
  std::list<WatchedDrive> drives;
  std::list<Attached> attached;  // the last, so the first to go
  for (std::uint64_t number = 0; number < options.drives; ++number) {
    const std::string image =
        options.drives == 1 || options.image.empty() ? options.image : fmt::format("{}.{}", options.image, number);
    if (!options.empty) {
      auto medium = FileMedium::open(image, options.megabytes);
      if (!medium) return std::unexpected{medium.error()};
      media.push_back(std::move(*medium));
    }
    Medium* medium = options.empty ? nullptr : media.back().get();
    drives.emplace_back(Drive{medium, fmt::format("LAB{:05}", number + 1)}, number, options, log.get());
    const std::uint64_t bytes = (medium != nullptr ? medium->blocks() : 1) * kBlock;
    auto device = Attached::attach(drives.back(), bytes, host, static_cast<int>(number) + 1);
    if (!device) return std::unexpected{device.error()};
    attached.push_back(std::move(*device));
    const auto nodes = await_nodes(attached.back().address(), dev_events.get());
    if (!nodes) return std::unexpected{nodes.error()};
    fmt::print("ready {}\n", *nodes);
    std::fflush(stdout);
  }
  int signal = 0;
  sigwait(&ends, &signal);
  while (!attached.empty()) attached.pop_back();  // the first one made the host that all of them use
  return {};
}

std::optional<Options> options_of(int argc, char** argv) {
  static const option kLong[] = {{"size", 1, nullptr, 's'}, {"empty", 0, nullptr, 'e'}, {"image", 1, nullptr, 'i'},
                                 {"log", 1, nullptr, 'l'},  {"rate", 1, nullptr, 'r'},  {"drives", 1, nullptr, 'd'},
                                 {"help", 0, nullptr, 'h'}, {nullptr, 0, nullptr, 0}};
  Options options;
  const auto number = [](std::uint64_t& to, std::uint64_t most) {
    const std::string_view text{optarg};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
    return error == std::errc{} && end == text.data() + text.size() && to >= 1 && to <= most;
  };
  for (int name; (name = ::getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
    bool good = true;
    switch (name) {
      case 's':
        good = number(options.megabytes, 1U << 20);
        break;
      case 'r':
        good = number(options.rate, 1ULL << 40);
        break;
      case 'd':
        good = number(options.drives, kMost);
        break;
      case 'e':
        options.empty = true;
        break;
      case 'i':
        options.image = optarg;
        break;
      case 'l':
        options.log = optarg;
        break;
      case 'h':
        fmt::print("{}", kUsage);
        std::exit(0);
      default:
        good = false;
    }
    if (!good) return std::nullopt;
  }
  return optind == argc ? std::optional{options} : std::nullopt;
}

}  // namespace
}  // namespace holdfast::burner

int main(int argc, char** argv) {
  const auto options = holdfast::burner::options_of(argc, argv);
  if (!options) {
    fmt::print(stderr, "{}", holdfast::burner::kUsage);
    return 2;
  }
  if (const auto done = holdfast::burner::run(*options); !done) {
    fmt::print(stderr, "lab_burner: {}\n", done.error());
    return 1;
  }
  return 0;
}
