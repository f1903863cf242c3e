// SPDX-License-Identifier: MIT
// broker_bench.cpp - what the broker costs, against what the kernel offers for the same: a ping-pong over the same kind
// of socket, flock(2)'s wake-up, flock(2) among readers; and against a process that hands on a word as the broker does
// and knows nothing, which no broker can beat. Everything is measured in turns with its peer, and the ratios are of
// medians.
//
// usage: broker_bench HOLDFASTD [ROUNDS [round-trips|hand-offs|deaths|writers]]
#include "base/unique_fd.hpp"
#include "wire/codec.hpp"

#include <holdfast/claim.hpp>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace holdfast;
using base::UniqueFd;
using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC: one clock for all processes

void must(bool done, const char* what) {
  if (done) return;
  std::perror(what);
  std::exit(1);
}

std::int64_t now() { return Clock::now().time_since_epoch().count(); }

double us_since(std::int64_t then) { return static_cast<double>(now() - then) / 1000.0; }

struct Times {
  std::vector<double> us;
  void add(double time) { us.push_back(time); }
  [[nodiscard]] double part(double of_all) {
    if (us.empty()) return 0;
    std::ranges::sort(us);
    return us[std::min(us.size() - 1, static_cast<std::size_t>(static_cast<double>(us.size()) * of_all))];
  }
  [[nodiscard]] double median() { return part(0.5); }
};

// A forked process that runs `body` until it ends or this object goes.
class Process {
 public:
  explicit Process(const std::function<void()>& body) : pid_{::fork()} {
    must(pid_ >= 0, "fork");
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
    ::_exit(0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() { end(); }
  [[nodiscard]] pid_t pid() const { return pid_; }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

template <class T>
class Shared {
 public:
  Shared() {
    void* const memory = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "mmap");
    value_ = new (memory) T{};
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { ::munmap(value_, sizeof(T)); }
  T* operator->() const { return value_; }

 private:
  T* value_;
};

struct Pipe {
  Pipe() { must(::pipe2(ends.data(), O_CLOEXEC) == 0, "pipe"); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  void say() const { must(::write(ends[1], "x", 1) == 1, "pipe"); }
  void await() const {
    char byte = 0;
    must(::read(ends[0], &byte, 1) == 1, "pipe");
  }
  std::array<int, 2> ends{};
};

// A holdfastd of our own.
class Broker {
 public:
  explicit Broker(const std::string& program) {
    must(::mkdtemp(folder_.data()) != nullptr, "mkdtemp");
    std::filesystem::create_directory(folder_ + "/state");
    int ends[2];
    must(::pipe2(ends, O_CLOEXEC) == 0, "pipe");
    heard_.reset(ends[0]);
    const UniqueFd theirs{ends[1]};
    const std::string state = folder_ + "/state";
    const std::string path = socket();
    process_.emplace([&] {
      ::dup2(theirs.get(), STDERR_FILENO);
      ::execl(program.c_str(), program.c_str(), "--socket", path.c_str(), "--state", state.c_str(), "--history", "none",
              nullptr);
    });
    std::string words;
    std::array<char, 256> text{};
    while (words.find("ready") == std::string::npos) {
      pollfd more{heard_.get(), POLLIN, 0};
      must(::poll(&more, 1, 10'000) == 1, program.c_str());
      const ssize_t got = ::read(heard_.get(), text.data(), text.size());
      must(got > 0, program.c_str());
      words.append(text.data(), static_cast<std::size_t>(got));
    }
    ::setenv("HOLDFAST_SOCKET", path.c_str(), 1);
  }
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;
  ~Broker() {
    ::kill(process_->pid(), SIGTERM);
    ::waitpid(process_->pid(), nullptr, 0);
    process_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  [[nodiscard]] std::string socket() const { return folder_ + "/socket"; }

 private:
  std::string folder_ = "/run/holdfast-bench-XXXXXX";
  UniqueFd heard_;
  std::optional<Process> process_;
};

struct Terminal {
  Terminal() {
    int slave = -1;
    int ours = -1;
    std::array<char, 64> name{};
    must(::openpty(&ours, &slave, name.data(), nullptr, nullptr) == 0, "openpty");
    ::close(slave);
    master.reset(ours);
    path = name.data();
  }
  UniqueFd master;
  std::string path;
};

// --- The wire, with no library in between and no memory allocated ----------------------------------------------------

UniqueFd connect_to(const std::string& path) {
  UniqueFd socket{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  must(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
  return socket;
}

class Wire {
 public:
  explicit Wire(const std::string& path) : socket_{connect_to(path)}, room_(wire::kMostBytes) {
    send(wire::Hello{wire::kVersion, wire::kVersion, "broker_bench"});
    must(hear().index() == 0, "no welcome");
  }
  void send(const wire::FromClient& message, int descriptor = -1) {
    must(wire::encode(++number_, message, packet_).has_value(), "encode");
    iovec bytes{packet_.data(), packet_.size()};
    msghdr header{};
    header.msg_iov = &bytes;
    header.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    if (descriptor >= 0) {
      header.msg_control = control.data();
      header.msg_controllen = control.size();
      cmsghdr* const rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
    }
    must(::sendmsg(socket_.get(), &header, MSG_NOSIGNAL) >= 0, "sendmsg");
  }
  /// Closes what descriptors come; those of the latest grant stay open until release().
  wire::FromBroker hear() {
    iovec bytes{room_.data(), room_.size()};
    msghdr header{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(253 * sizeof(int))> control;
    header.msg_iov = &bytes;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    must(got > 0, "recvmsg");
    std::size_t descriptors = 0;
    for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr; each = CMSG_NXTHDR(&header, each)) {
      if (each->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(each) + i * sizeof fd, sizeof fd);
        held_.emplace_back(fd);
      }
      descriptors += count;
    }
    auto message = wire::decode_from_broker(std::span{room_}.first(static_cast<std::size_t>(got)), descriptors);
    must(message.has_value(), "decode");
    if (const auto* refused = std::get_if<wire::Refused>(&message->body)) {
      std::fprintf(stderr, "broker_bench: %s\n", refused->message.c_str());
      std::exit(1);
    }
    return std::move(message->body);
  }
  wire::ClaimId hear_grant() {
    while (true) {
      const wire::FromBroker message = hear();
      if (const auto* granted = std::get_if<wire::Granted>(&message)) return granted->claim;
    }
  }
  void release(wire::ClaimId claim) {
    send(wire::Release{claim, wire::Copies::closed});
    held_.clear();
    while (!std::holds_alternative<wire::Done>(hear())) {
    }
  }
  [[nodiscard]] std::size_t sent_bytes() const { return packet_.size(); }

 private:
  UniqueFd socket_;
  std::uint32_t number_ = 0;
  std::vector<std::byte> packet_;
  std::vector<std::byte> room_;
  std::vector<UniqueFd> held_;
};

wire::Claim claim_of(const std::string& path, Mode mode = Mode::exclusive) {
  struct stat node{};
  must(::stat(path.c_str(), &node) == 0, path.c_str());
  wire::Claim claim;
  claim.devices = {{path, wire::NodeKind::character, major(node.st_rdev), minor(node.st_rdev), node.st_dev}};
  claim.mode = mode;
  return claim;
}

// --- Claim and release against ping-pong -----------------------------------------------------------------------------

// A message with the credentials of its sender, as the broker reads it.
ssize_t receive(int socket, std::span<char> room, int flags) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control;
  iovec bytes{room.data(), room.size()};
  msghdr header{};
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  return ::recvmsg(socket, &header, flags);
}

// What a broker that did nothing would do: epoll, recvmsg with credentials, sendmsg.
[[noreturn]] void echo(int socket) {
  const int on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
  const UniqueFd poller{::epoll_create1(EPOLL_CLOEXEC)};
  epoll_event event{EPOLLIN, {}};
  ::epoll_ctl(poller.get(), EPOLL_CTL_ADD, socket, &event);
  std::vector<char> room(wire::kMostBytes);
  while (::epoll_wait(poller.get(), &event, 1, -1) == 1) {
    const ssize_t got = receive(socket, room, 0);
    if (got <= 0) ::_exit(0);
    iovec answer{room.data(), static_cast<std::size_t>(got)};
    msghdr out{};
    out.msg_iov = &answer;
    out.msg_iovlen = 1;
    ::sendmsg(socket, &out, MSG_NOSIGNAL);
  }
  ::_exit(0);
}

class PingPong {
 public:
  PingPong() {
    must(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends_.data()) == 0, "socketpair");
    server_.emplace([this] { echo(ends_[1]); });
    ::close(ends_[1]);
  }
  PingPong(const PingPong&) = delete;
  PingPong& operator=(const PingPong&) = delete;
  ~PingPong() { ::close(ends_[0]); }
  void go(std::size_t bytes) {
    must(::send(ends_[0], room_.data(), bytes, MSG_NOSIGNAL) > 0 && ::recv(ends_[0], room_.data(), room_.size(), 0) > 0,
         "ping-pong");
  }

 private:
  std::array<int, 2> ends_{};
  std::array<char, 4096> room_{};
  std::optional<Process> server_;
};

// The median time of one, taken in turns.
void round_trips(const std::string& socket, int rounds) {
  const Terminal terminal;
  PingPong peer;
  Wire client{socket};
  const wire::Claim all = claim_of(terminal.path);
  wire::Claim proxy = all;
  proxy.conventions = {Convention::proxy};
  proxy.opening = Opening::never;
  client.send(all);
  const std::size_t claim_bytes = client.sent_bytes();
  client.release(client.hear_grant());
  const std::size_t release_bytes = client.sent_bytes();

  Times ping_pongs;
  Times by_proxy;
  Times by_all;
  Times by_library;
  Times daemonless;
  // Twenty of a kind at a time: both sides are warm, as they are for whoever claims often, and the turns are short.
  constexpr int kOfAKind = 20;
  const auto time = [](Times& times, const auto& body) {
    for (int i = 0; i < kOfAKind; ++i) {
      const std::int64_t begin = now();
      body();
      times.add(us_since(begin));
    }
  };
  const auto claim_and_release = [&](const wire::Claim& claim) {
    client.send(claim);
    client.release(client.hear_grant());
  };
  const auto by_claim = [&] {
    auto mine = claim(terminal.path);
    if (!mine) std::fprintf(stderr, "broker_bench: %s\n", mine.error().message.c_str());
    must(mine.has_value(), "claim");
  };
  const std::string& through = socket;
  for (int i = 0; i < rounds; i += kOfAKind) {
    time(ping_pongs, [&] {
      peer.go(claim_bytes);
      peer.go(release_bytes);
    });
    time(by_proxy, [&] { claim_and_release(proxy); });
    time(by_all, [&] { claim_and_release(all); });
    ::setenv("HOLDFAST_SOCKET", through.c_str(), 1);
    time(by_library, by_claim);
    ::setenv("HOLDFAST_SOCKET", "", 1);
    time(daemonless, by_claim);
  }
  ::setenv("HOLDFAST_SOCKET", through.c_str(), 1);
  const double two = ping_pongs.median();
  std::printf(
      "claim and release through the broker: proxy alone %.1f us, all conventions %.1f us, by the library %.1f us; "
      "two ping-pongs %.1f us; daemonless %.1f us\n",
      by_proxy.median(), by_all.median(), by_library.median(), two, daemonless.median());
  std::printf("ratio broker/ping-pong proxy %.2f\n", by_proxy.median() / two);
  std::printf("ratio broker/ping-pong all %.2f\n", by_all.median() / two);
  std::printf("ratio broker/ping-pong+daemonless all %.2f\n", by_all.median() / (two + daemonless.median()));
  std::printf("ratio library/ping-pong+daemonless all %.2f\n", by_library.median() / (two + daemonless.median()));
}

// --- Hand-off against flock(2) ---------------------------------------------------------------------------------------

class ByBroker {
 public:
  ByBroker(const std::string& socket, const std::string& path, Mode mode = Mode::exclusive)
      : wire_{socket}, claim_{claim_of(path, mode)} {
    claim_.patience.waits = true;
  }
  void take() {
    wire_.send(claim_);
    id_ = wire_.hear_grant();
  }
  void give_back() { wire_.release(id_); }

 protected:
  Wire wire_;
  wire::Claim claim_;
  wire::ClaimId id_{};
};

// The broker's part of it: no lock files, no node.
class ByProxy : public ByBroker {
 public:
  ByProxy(const std::string& socket, const std::string& path) : ByBroker{socket, path} {
    claim_.conventions = {Convention::proxy};
    claim_.opening = Opening::never;
  }
};

class ByLibrary {
 public:
  ByLibrary(const std::string&, const std::string& path, Mode mode = Mode::exclusive) : path_{path}, mode_{mode} {}
  void take() {
    auto mine = claim(path_, {.mode = mode_, .wait = Wait::for_ever()});
    must(mine.has_value(), "claim");
    mine_ = std::move(*mine);
  }
  void give_back() { mine_.release(); }

 private:
  std::string path_;
  Mode mode_;
  Claim mine_;
};

class ByFlock {
 public:
  ByFlock(const std::string&, const std::string& path, Mode mode = Mode::exclusive)
      : fd_{::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)},
        how_{mode == Mode::exclusive ? LOCK_EX : LOCK_SH} {}
  void take() const {
    while (::flock(fd_.get(), how_) != 0) must(errno == EINTR, "flock");
  }
  void give_back() const { ::flock(fd_.get(), LOCK_UN); }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  int how_;
};

// The floor of every broker: as the holder, the waiter and holdfastd, with the same socket, epoll and messages of about
// the same size, but the one in the middle does nothing with what it hears than send the next one its word. Of two
// processes, who are never both holders.
class Relay {
 public:
  explicit Relay(std::string path) : path_{std::move(path)} {
    UniqueFd listener{::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    must(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
             ::listen(listener.get(), 2) == 0,
         "bind");
    process_.emplace([&] { run(listener.get()); });
  }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  ~Relay() { ::unlink(path_.c_str()); }
  [[nodiscard]] const std::string& path() const { return path_; }

  static constexpr char kTake = 't';
  static constexpr char kGiveBack = 'r';
  static constexpr std::size_t kBytes = 128;

 private:
  static void send(int to) {
    static constexpr std::array<char, kBytes> kWord{};
    must(::send(to, kWord.data(), kWord.size(), MSG_NOSIGNAL) > 0, "relay");
  }

  static void run(int listener) {
    const UniqueFd poller{::epoll_create1(EPOLL_CLOEXEC)};
    std::vector<UniqueFd> clients;
    const int on = 1;
    for (int i = 0; i < 2; ++i) {
      const int client = clients.emplace_back(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)).get();
      ::setsockopt(client, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
      epoll_event event{EPOLLIN, {.fd = client}};
      ::epoll_ctl(poller.get(), EPOLL_CTL_ADD, client, &event);
    }
    int waiting = -1;
    bool is_held = false;
    epoll_event event{};
    std::vector<char> room(wire::kMostBytes);
    while (::epoll_wait(poller.get(), &event, 1, -1) == 1) {
      if (receive(event.data.fd, room, MSG_DONTWAIT) <= 0) return;
      if (room.front() == kTake) {
        if (std::exchange(is_held, true))
          waiting = event.data.fd;
        else
          send(event.data.fd);
        continue;
      }
      is_held = waiting >= 0;
      if (is_held) send(std::exchange(waiting, -1));
      send(event.data.fd);
    }
  }

  std::string path_;
  std::optional<Process> process_;
};

class ByRelay {
 public:
  ByRelay(const std::string& relay, const std::string&) : socket_{connect_to(relay)} {}
  void take() { ask(Relay::kTake); }
  void give_back() { ask(Relay::kGiveBack); }

 private:
  void ask(char word) {
    room_.front() = word;
    must(::send(socket_.get(), room_.data(), room_.size(), MSG_NOSIGNAL) > 0 &&
             ::recv(socket_.get(), room_.data(), room_.size(), 0) > 0,
         "relay");
  }

  UniqueFd socket_;
  std::array<char, Relay::kBytes> room_{};
};

struct Released {
  std::atomic<std::int64_t> at{0};
};

// The child holds, the parent waits, and notes how long after the release it got through.
template <class Lock>
void hand_over(const std::string& socket, int rounds, Times& times) {
  const Terminal terminal;
  const Shared<Released> released;
  const Pipe begin;
  const Pipe taken;
  const Process holder{[&] {
    Lock lock{socket, terminal.path};
    for (int round = 0; round < rounds; ++round) {
      begin.await();
      lock.take();
      taken.say();
      ::poll(nullptr, 0, 5);  // the waiter must be asleep by then, or there is nothing to wake
      released->at = now();
      lock.give_back();
    }
    ::pause();
  }};
  Lock lock{socket, terminal.path};
  for (int round = 0; round < rounds; ++round) {
    begin.say();
    taken.await();
    lock.take();
    times.add(us_since(released->at));
    lock.give_back();
  }
}

struct Queue {
  struct Asked {
    std::atomic<std::int64_t> at{0};
  };
  std::array<Asked, 4> waiting;
  std::atomic<int> grants{0};
  std::atomic<int> barged{0};
};

// Four processes that want it all the time; whoever gets it before one that has waited a millisecond longer has barged.
template <class Lock>
double barging(const std::string& socket, int rounds) {
  constexpr std::int64_t kMillisecond = 1'000'000;
  const Terminal terminal;
  const Shared<Queue> queue;
  std::vector<std::unique_ptr<Process>> processes;
  for (std::size_t self = 0; self < queue->waiting.size(); ++self)
    processes.push_back(std::make_unique<Process>([&, self] {
      Lock lock{socket, terminal.path};
      while (true) {
        const std::int64_t asked = now();
        queue->waiting[self].at = asked;
        lock.take();
        queue->waiting[self].at = 0;
        bool passed = false;
        for (const Queue::Asked& other : queue->waiting) {
          const std::int64_t theirs = other.at;
          passed = passed || (theirs != 0 && theirs + kMillisecond < asked);
        }
        queue->barged += passed ? 1 : 0;
        ++queue->grants;
        ::poll(nullptr, 0, 2);
        lock.give_back();
      }
    }));
  while (queue->grants < rounds) ::poll(nullptr, 0, 5);
  return 100.0 * queue->barged / queue->grants;
}

void hand_offs(const std::string& socket, int rounds) {
  Times broker;
  Times proxy;
  Times library;
  Times relay;
  Times flock;
  for (int part = 0; part < 4; ++part) {
    const Relay in_between{socket + ".relay"};
    hand_over<ByBroker>(socket, rounds / 4, broker);
    hand_over<ByProxy>(socket, rounds / 4, proxy);
    hand_over<ByLibrary>(socket, rounds / 4, library);
    hand_over<ByRelay>(in_between.path(), rounds / 4, relay);
    hand_over<ByFlock>(socket, rounds / 4, flock);
  }
  std::printf(
      "release to next holder: broker %.0f us (nine tenths %.0f), proxy alone %.0f us, by the library %.0f us, a relay "
      "that does nothing else %.0f us (%.0f), flock %.0f us (%.0f)\n",
      broker.median(), broker.part(0.9), proxy.median(), library.median(), relay.median(), relay.part(0.9),
      flock.median(), flock.part(0.9));
  std::printf("ratio relay/flock hand-off %.2f\n", relay.median() / flock.median());
  std::printf("ratio broker/relay hand-off proxy %.2f\n", proxy.median() / relay.median());
  std::printf("ratio broker/relay hand-off %.2f\n", broker.median() / relay.median());
  std::printf("ratio library/relay hand-off %.2f\n", library.median() / relay.median());
  std::printf("ratio broker/flock hand-off proxy %.2f\n", proxy.median() / flock.median());
  std::printf("ratio broker/flock hand-off %.2f\n", broker.median() / flock.median());
  std::printf("ratio library/flock hand-off %.2f\n", library.median() / flock.median());
  std::printf("barged past one that waited longer: broker %.1f %% of grants, flock %.1f %%\n",
              barging<ByBroker>(socket, rounds), barging<ByFlock>(socket, rounds));
}

// --- Death -----------------------------------------------------------------------------------------------------------

void deaths(const std::string& socket, int rounds) {
  const Terminal terminal;
  Times granted;
  Times seen;
  Wire client{socket};
  wire::Claim waits = claim_of(terminal.path);
  waits.patience.waits = true;
  const Pipe taken;
  for (int round = 0; round < rounds; ++round) {
    {
      Process owner{[&] {
        Wire wire{socket};
        wire.send(claim_of(terminal.path));
        wire.hear_grant();
        taken.say();
        ::pause();
      }};
      taken.await();
      client.send(waits);
      must(std::holds_alternative<wire::Queued>(client.hear()), "not queued");
      ::poll(nullptr, 0, 1);
      const std::int64_t killed = now();
      ::kill(owner.pid(), SIGKILL);
      const wire::ClaimId claim = client.hear_grant();
      granted.add(us_since(killed));
      client.release(claim);
    }
    // What the kernel takes to tell anybody.
    const Process other{[] { ::pause(); }};
    const UniqueFd pidfd{static_cast<int>(::syscall(SYS_pidfd_open, other.pid(), 0))};
    pollfd dead{pidfd.get(), POLLIN, 0};
    ::poll(nullptr, 0, 1);
    const std::int64_t killed = now();
    ::kill(other.pid(), SIGKILL);
    ::poll(&dead, 1, -1);
    seen.add(us_since(killed));
  }
  std::printf(
      "owner killed to next granted: %.0f us, p99 %.0f us, most %.0f us; to its pidfd being readable: %.0f us, p99 "
      "%.0f us\n",
      granted.median(), granted.part(0.99), granted.part(1), seen.median(), seen.part(0.99));
  std::printf("ratio granted/pidfd death %.2f\n", granted.median() / seen.median());
  std::printf("ratio death p99 in ms %.3f\n", granted.part(0.99) / 1000);
}

// --- A writer among readers ------------------------------------------------------------------------------------------

constexpr double kMostWaitUs = 1'000'000;

template <class Lock>
class Readers {
 public:
  Readers(const std::string& socket, const std::string& path) {
    for (int i = 0; i < 8; ++i)
      readers_.push_back(std::make_unique<Process>([&] {
        Lock lock{socket, path, Mode::shared};
        while (true) {
          lock.take();
          ::poll(nullptr, 0, 3);
          lock.give_back();
        }
      }));
    ::poll(nullptr, 0, 50);
  }

 private:
  std::vector<std::unique_ptr<Process>> readers_;
};

void writers(const std::string& socket, int rounds) {
  Times broker;
  Times flock;
  int starved = 0;
  {
    const Terminal terminal;
    const Readers<ByBroker> readers{socket, terminal.path};
    ByBroker writer{socket, terminal.path};
    for (int round = 0; round < rounds; ++round) {
      const std::int64_t begin = now();
      writer.take();
      broker.add(us_since(begin));
      writer.give_back();
      ::poll(nullptr, 0, 5);
    }
  }
  {
    const Terminal terminal;
    const Readers<ByFlock> readers{socket, terminal.path};
    const ByFlock writer{socket, terminal.path};
    struct sigaction heard{};
    heard.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &heard, nullptr);
    for (int round = 0; round < 5; ++round) {
      const itimerval limit{{0, 0}, {1, 0}};
      ::setitimer(ITIMER_REAL, &limit, nullptr);
      const std::int64_t begin = now();
      const bool got = ::flock(writer.fd(), LOCK_EX) == 0;
      flock.add(got ? us_since(begin) : kMostWaitUs);
      starved += got ? 0 : 1;
      if (got) writer.give_back();
    }
    const itimerval none{};
    ::setitimer(ITIMER_REAL, &none, nullptr);
  }
  std::printf(
      "a writer among 8 overlapping readers of 3 ms: broker %.1f ms, most %.1f ms; flock %.1f ms, in %d of 5 tries "
      "not within a second\n",
      broker.median() / 1000, broker.part(1) / 1000, flock.median() / 1000, starved);
  std::printf("ratio flock/broker writer %.1f\n", flock.median() / broker.median());
}

// Lock files and the journal are on /run, which is in memory wherever systemd or sysvinit started the system. Where it
// is not, in a container, a namespace of our own makes it so; otherwise the file system would be measured.
void as_where_run_is_in_memory() {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("broker_bench", "/run", "tmpfs", 0, "mode=0755") != 0 || ::mkdir("/run/lock", 0777) != 0 ||
      ::chmod("/run/lock", 01777) != 0)
    std::printf("/run as it is here: %s\n", std::strerror(errno));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: broker_bench HOLDFASTD [ROUNDS [round-trips|hand-offs|deaths|writers]]\n");
    return 64;
  }
  as_where_run_is_in_memory();
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 400;
  const auto wanted = [&](std::string_view part) { return argc < 4 || part == argv[3]; };
  const Broker broker{argv[1]};
  if (wanted("round-trips")) round_trips(broker.socket(), rounds * 5);
  if (wanted("hand-offs")) hand_offs(broker.socket(), rounds);
  if (wanted("deaths")) deaths(broker.socket(), rounds);
  if (wanted("writers")) writers(broker.socket(), rounds / 10);
  return 0;
}
