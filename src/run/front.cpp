// SPDX-License-Identifier: MIT
// front.cpp - `holdfast run`: the process that the caller started, and the order of everything.
//
// Three processes. The command is forked first, before anything is locked, so it inherits no lock; it installs its
// filter and waits. The front, this one, claims with the command's pid in the lock files and stays the command's
// parent: it passes signals on, mirrors stops, answers the command's calls (supervisor.hpp) and gives back before it
// exits. The keeper holds the same descriptors, so that neither `kill -9` of the front nor of the keeper ends the
// claim; when both are killed, the command's intercepted calls fail with ENOSYS (seccomp_unotify(2)) and what is left
// of the claim is the lock files with its pid.
//
// The command is told to go only when the keeper exists: a front killed before leaves a command that ends by itself.
#include "run/run.hpp"

#include "base/error.hpp"
#include "claim/brokered.hpp"
#include "claim/link.hpp"
#include "convention/uucp.hpp"
#include "device/device.hpp"
#include "run/command.hpp"
#include "run/filter_choice.hpp"
#include "run/keeper.hpp"
#include "run/signals.hpp"
#include "run/strangers.hpp"
#include "run/supervisor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <holdfast/enforcement.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace holdfast::run {
namespace {

// Until a new program has been loaded, which asks about a dozen paths, nothing else is done.
constexpr std::chrono::milliseconds kSettled{5};

// How often a broker that went is looked for: it is told of the claim then.
constexpr std::chrono::seconds kBrokerBack{1};

// Between two lines on who was kept out.
constexpr std::chrono::seconds kDenialsApart{10};

// What is left when the command cannot be asked: it would meet the others as if a stranger held them.
ConventionSet without_what_it_meets(ConventionSet conventions) {
  return conventions.without(Convention::flock)
      .without(Convention::posix)
      .without(Convention::o_excl)
      .without(Convention::driver)
      .without(Convention::tiocexcl)
      .without(Convention::whole_disk);
}

class Front {
 public:
  explicit Front(const Request& request) : request_{request} {}

  Result<Outcome> run() {
    auto filter = choose_filter();
    if (!filter) return std::unexpected{std::move(filter.error())};
    auto command = Command::start(request_.command, *filter, signals_.inherited());
    if (!command) return std::unexpected{std::move(command.error())};
    command_.emplace(std::move(*command));
    if (auto ready = claim(); !ready) {
      if (ready.error().code == errc::not_held) on_children();  // the command was killed while it waited
      if (ended_) return outcome_;
      return std::unexpected{std::move(ready.error())};
    }
    command_->go();
    attend();
    tell_what_is_gone();
    give_back();
    return outcome_;
  }

 private:
  Result<std::optional<Filter>> choose_filter() const {
    if (request_.hand_over == HandOver::never) return std::optional<Filter>{};
    Filter filter = Filter::marks;
    for (const std::string& device : request_.devices) {
      const auto id = number_of(device);
      if (!id) return std::unexpected{id.error()};
      if (needs_paths(*id)) filter = Filter::marks_and_paths;
    }
    return std::optional{filter};
  }

  static Result<device::DeviceId> number_of(const std::string& argument) {
    if (const auto number = device::parse_number(argument)) return *number;
    if (auto node = device::look_at(argument)) return node->id;
    auto whole = device::identify(argument);  // for its better error
    if (!whole) return std::unexpected{std::move(whole.error())};
    return whole->node.id;
  }

  Result<> claim() {
    // A filter above us may belong to another run, and only one listener is possible. Without any filter that cannot
    // be, and the command may install its own while we claim.
    const bool maybe_nested = ::prctl(PR_GET_SECCOMP) != 0;
    Command::Installed installed;
    if (maybe_nested) {
      if (auto known = wait_for_filter(installed); !known) return known;
    }
    if (auto taken = take(request_.options); !taken) return taken;
    if (!maybe_nested) {
      if (auto known = wait_for_filter(installed); !known) return known;
    }
    if (request_.hand_over == HandOver::when_asked && !installed.listener && !holding_.covered_by_run()) {
      if (auto reduced = claim_less(installed.errnum); !reduced) return reduced;
    }
    const int listener = installed.listener.get();
    auto keeper = start_keeper(listener);
    if (!keeper) return std::unexpected{std::move(keeper.error())};
    keeper_ = std::move(*keeper);
    supervisor_.emplace(holding_, Listener{std::move(installed.listener), in_hand_}, surroundings());
    return {};
  }

  Result<> wait_for_filter(Command::Installed& into) {
    auto installed = command_->installed();
    if (!installed) return std::unexpected{std::move(installed.error())};
    into = std::move(*installed);
    return {};
  }

  Result<> take(const Options& options) {
    auto looked_for = wanted(options);
    if (!looked_for) return std::unexpected{std::move(looked_for.error())};
    auto taken = *looked_for ? take_from_no_stranger(std::move(**looked_for)) : take_marks(options);
    if (taken && request_.verbose) tell_what_is_taken();
    return taken;
  }

  // What the guard would cut unseen: of a device with an sg node, O_EXCL cannot go through the broker, and is not
  // needed beside the guard. Without the proxy our own broker would look like a stranger.
  Result<std::optional<Wanted>> wanted(const Options& options) const {
    if (options.guarding != Guarding::required || !options.conventions.contains(Convention::proxy))
      return std::optional<Wanted>{};
    auto devices = claiming::identify(request_.devices);
    if (!devices) return std::unexpected{std::move(devices.error())};
    if (!claiming::covers_sg(*devices, options.cover)) return std::optional<Wanted>{};
    Wanted wanted{std::move(*devices), options, command_->id()};
    wanted.options.conventions = options.conventions.without(Convention::o_excl);
    return std::optional{std::move(wanted)};
  }

  Result<> take_from_no_stranger(Wanted wanted) {
    const Options options = wanted.options;
    // Only the broker can guard: without one there is nothing to wait for.
    auto link = claiming::Link::open();
    if (!link) return take_marks(options);
    claiming::Link::keep(std::move(*link));
    Strangers strangers{std::move(wanted)};
    std::string told;
    bool blindness_told = false;
    while (true) {
      auto met = strangers.look(Strangers::Moment::before);
      if (!strangers.blind().empty() && !std::exchange(blindness_told, true))
        say(request_.devices.front() + ": who has it already is not seen in full: " + strangers.blind());
      if (met) {
        if (auto taken = take_marks(options); !taken) return taken;
        met = strangers.look(Strangers::Moment::granted);
        if (met) return met;
        let_go();
      }
      if (!options.wait.waits() || met.error().code != errc::refused) return met;
      if (std::exchange(told, met.error().message) != told) tell(told + "; waiting");
      const Signals::AsInherited as_inherited{signals_};
      if (auto waited = strangers.wait(options.wait, command_->pidfd()); !waited) return waited;
    }
  }

  // Signals are blocked while something is being taken; while we wait and hold nothing they act on us as on any
  // program.
  Result<> take_marks(const Options& options) {
    Options at_once = options;
    at_once.wait = Wait::none();
    auto taken = claiming::claim_either_way(request_.devices, at_once, owner());
    if (!taken && options.wait.waits() && taken.error().code == errc::refused) {
      tell(taken.error().message + "; waiting");
      const Signals::AsInherited as_inherited{signals_};
      taken = claiming::claim_either_way(request_.devices, options, owner());
    }
    if (!taken) return std::unexpected{std::move(taken.error())};
    holding_ = std::move(taken->holding);
    ticket_ = std::move(taken->ticket);
    return {};
  }

  void tell_what_is_taken() const {
    for (const MarkReport& mark : holding_.report()) say(to_string(mark));
    const Enforcement marks = holding_.enforcement();
    say("enforcement: " + std::string{to_string(ticket_ ? std::max(marks, ticket_->enforcement()) : marks)});
  }

  // The command, so that the broker gives back when that is dead, whatever has become of us. O_EXCL is ours alone: the
  // command's own open is met by closing it, and the broker's copy would stay.
  claiming::Owner owner() const { return {command_->id(), command_->pidfd(), ConventionSet{Convention::o_excl}}; }

  void let_go() {
    if (ticket_)
      ticket_->release(holding_);
    else
      holding_.give_back();
    ticket_.reset();
  }

  Result<> claim_less(int why) {
    let_go();
    Options fewer = request_.options;
    fewer.conventions = without_what_it_meets(fewer.conventions);
    say("the command cannot be asked about its own locks (" + base::errno_text(why) + "): only lock files are held");
    return take(fewer);
  }

  Result<Keeper> start_keeper(int listener) {
    if (ticket_) ticket_->has_copies_elsewhere();
    return Keeper::start(holding_, ticket_ ? Keeper::GivesBack::broker : Keeper::GivesBack::keeper, listener, in_hand_,
                         *command_);
  }

  Surroundings surroundings() {
    Surroundings known;
    known.mode = holding_.mode();
    known.command = command_->id();
    known.closed_description = [this](int fd) { keeper_.close_description(fd); };
    known.opened_description = [this](int fd) { keeper_.adopt_description(fd); };
    known.is_ours = [this](pid_t pid) { return pid == ::getpid() || pid == keeper_.pid(); };
    known.tell = [this](std::string_view line) { tell(line); };
    return known;
  }

  // Until the command is dead. It may have died while we waited for our turn with its signal unblocked, which then told
  // nobody.
  void attend() {
    on_children();
    while (!ended_) {
      std::array<pollfd, 5> wanted{{{signals_.fd(), POLLIN, 0},
                                    {command_->channel(), POLLIN, 0},
                                    {supervisor_->listener(), POLLIN, 0},
                                    {supervisor_->events(), POLLIN, 0},
                                    {ticket_ && !is_over_ ? ticket_->fd() : -1, POLLIN, 0}}};
      timespec left{};
      if (::ppoll(wanted.data(), wanted.size(), until_next(left), nullptr) < 0) continue;
      const auto& [signals, channel, listener, events, broker] = wanted;
      if ((listener.revents & POLLIN) != 0) {
        supervisor_->answer_one();
      } else if (listener.revents != 0) {
        supervisor_->stop_listening();
      }
      if (channel.revents != 0) on_exec();
      if (signals.revents != 0) on_signals();
      if (events.revents != 0) supervisor_->on_events();
      if (broker.revents != 0) on_broker();
      on_time();
    }
  }

  // The command goes on whatever the broker says: what it has open stays open, and so does what we have for it.
  void on_broker() {
    const auto held = ticket_->heed(holding_);
    for (const Notice& notice : ticket_->notices()) tell_of(notice);
    if (!held && !is_over_) {
      is_over_ = true;
      say(held.error().message + "; the command goes on");
    } else if (ticket_->is_cut_off()) {
      broker_due_ = Supervisor::Clock::now() + kBrokerBack;
    }
  }

  void tell_of(const Notice& notice) {
    if (notice.kind == Notice::Kind::denied) return tell_of_denial(notice.reason);
    std::string text;
    if (notice.kind == Notice::Kind::asked_to_leave) text = "somebody asks for the device";
    if (notice.kind == Notice::Kind::lapses_soon) text = "the time of the claim is nearly over";
    if (text.empty()) return;
    if (!notice.by.empty()) text += ", " + notice.by;
    if (!notice.reason.empty()) text += ": " + notice.reason;
    say(text);
  }

  // The command has the terminal: whoever attacks on and on shall not write it full. The history has them all.
  void tell_of_denial(std::string_view words) {
    const auto now = Supervisor::Clock::now();
    if (denial_told_ && now - *denial_told_ < kDenialsApart) return;
    denial_told_ = now;
    say(words);
  }

  void on_time() {
    if (!supervisor_->next_look() && !name_due_ && !broker_due_) return;
    const auto now = Supervisor::Clock::now();
    if (broker_due_ && *broker_due_ <= now) {
      broker_due_.reset();
      if (ticket_) on_broker();
    }
    if (supervisor_->next_look() && *supervisor_->next_look() <= now) supervisor_->look_again();
    if (name_due_ && *name_due_ <= now) {
      name_due_.reset();
      name_the_program();
    }
  }

  const timespec* until_next(timespec& left) const {
    auto next = supervisor_->next_look();
    if (name_due_ && (!next || *name_due_ < *next)) next = name_due_;
    if (broker_due_ && (!next || *broker_due_ < *next)) next = broker_due_;
    if (!next) return nullptr;
    const auto time =
        std::max<Supervisor::Clock::duration>(*next - Supervisor::Clock::now(), std::chrono::nanoseconds{0});
    left = {std::chrono::duration_cast<std::chrono::seconds>(time).count(), (time % std::chrono::seconds{1}).count()};
    return &left;
  }

  void on_exec() {
    exec_error_ = command_->exec_result();
    if (exec_error_ == 0) name_due_ = Supervisor::Clock::now() + kSettled;
  }

  // QtSerialPort removes a lock file whose second line is not the name of the program with that pid: before exec it was
  // ours.
  void name_the_program() const {
    const pid_t pid = command_->pid();
    const std::string content = convention::uucp_content(pid);
    for (const auto& mark : holding_.marks()) {
      const convention::MarkView view = mark->view();
      if (view.convention != Convention::uucp || view.files.empty()) continue;
      const base::UniqueFd file{::open(view.files.front().c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
      struct stat status{};
      if (!file || ::fstat(file.get(), &status) != 0 || device::InodeId{status.st_dev, status.st_ino} != view.inode)
        continue;
      const ssize_t written = ::pwrite(file.get(), content.data(), content.size(), 0);
      if (written > 0) [[maybe_unused]]
        const int cut = ::ftruncate(file.get(), written);
    }
  }

  void on_signals() {
    while (const auto signal = signals_.next()) {
      switch (care_for(*signal)) {
        case Care::ignore:
          break;
        case Care::pass_on:
          ::kill(command_->pid(), static_cast<int>(signal->ssi_signo));
          break;
        case Care::go_on:
          continue_command();
          break;
        case Care::children:
          on_children();
          if (ended_) return;
          break;
      }
    }
  }

  void on_children() {
    siginfo_t change{};
    while (change.si_pid = 0, ::waitid(P_PID, static_cast<id_t>(command_->pid()), &change,
                                       WEXITED | WSTOPPED | WCONTINUED | WNOHANG) == 0 &&
                                  change.si_pid != 0) {
      if (change.si_code == CLD_CONTINUED) {
        stopped_ = false;
      } else if (change.si_code == CLD_STOPPED || change.si_code == CLD_TRAPPED) {
        stop_with_command(change.si_status);
      } else {
        ended_ = true;
        command_->forget();
        outcome_ = outcome_of(change);
        return;
      }
    }
    change.si_pid = 0;
    if (keeper_.pid() > 0 && ::waitid(P_PID, static_cast<id_t>(keeper_.pid()), &change, WEXITED | WNOHANG) == 0 &&
        change.si_pid != 0) {
      replace_keeper();
    }
  }

  Outcome outcome_of(const siginfo_t& change) {
    if (command_->channel() >= 0) exec_error_ = command_->exec_result();
    if (exec_error_ == ENOENT) return {Outcome::Kind::not_found, exec_error_};
    if (exec_error_ != 0) return {Outcome::Kind::not_executable, exec_error_};
    if (change.si_code == CLD_EXITED) return {Outcome::Kind::exited, change.si_status};
    return {Outcome::Kind::killed, change.si_status};
  }

  void stop_with_command(int signal) {
    stopped_ = true;
    keeper_.serve();
    Signals::stop_by(signal);
    keeper_.stand_by();
    supervisor_->refresh();
    continue_command();
  }

  void continue_command() {
    siginfo_t change{};
    // A shell continues the whole group, and the command may have been stopped anew or be dead by now: then there is
    // news of it, which on_children() takes. Without news we alone were continued, and the command was meant.
    ::waitid(P_PID, static_cast<id_t>(command_->pid()), &change, WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT);
    if (stopped_ && change.si_pid == 0) ::kill(command_->pid(), SIGCONT);
    stopped_ = false;
  }

  void replace_keeper() {
    keeper_.forget();
    if (auto another = start_keeper(supervisor_->listener())) keeper_ = std::move(*another);
  }

  // The command has met EIO or a hang-up; whoever reads its words may wonder why.
  void tell_what_is_gone() {
    if (auto there = holding_.check(); !there) say(there.error().message);
  }

  // Before we exit, so that the next program in a script finds the device free.
  void give_back() {
    if (somebody_still_asks()) {
      keeper_.care_for_orphans();
    }
    keeper_.kill();
    supervisor_->settle();
    if (ticket_)
      keeper_.reap();  // its copies of O_EXCL would keep the next one out, who is granted before we hear of it
    let_go();
    keeper_.reap();
  }

  // Descendants with the command's filter live on; without a listener every call of theirs that it picks out would
  // fail.
  bool somebody_still_asks() const {
    pollfd listener{supervisor_->listener(), 0, 0};
    if (listener.fd < 0) return false;
    return ::poll(&listener, 1, 0) == 0;  // POLLHUP: the filter has no user left (Linux 5.9)
  }

  void tell(std::string_view line) const {
    if (request_.verbose) say(line);
  }
  static void say(std::string_view line) {
    const std::string text = "holdfast: " + base::printable(line, 1024) + "\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  }

  const Request& request_;
  Signals signals_;
  std::optional<Command> command_;
  claiming::Holding holding_;
  std::unique_ptr<claiming::Ticket> ticket_;  // nullptr: the broker knows nothing of the claim
  InHand in_hand_;
  std::optional<Supervisor> supervisor_;
  Keeper keeper_;
  int exec_error_ = 0;
  std::optional<Supervisor::Clock::time_point> name_due_;
  std::optional<Supervisor::Clock::time_point> broker_due_;
  std::optional<Supervisor::Clock::time_point> denial_told_;
  bool is_over_ = false;  // the claim, before the command
  bool stopped_ = false;
  bool ended_ = false;
  Outcome outcome_;
};

}  // namespace

Result<Outcome> run(const Request& request) {
  if (request.command.empty())
    return std::unexpected{base::failure(errc::invalid_argument, "no command was given", {})};
  return Front{request}.run();
}

}  // namespace holdfast::run
