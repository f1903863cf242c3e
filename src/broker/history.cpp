// SPDX-License-Identifier: MIT
// history.cpp - one thread, one lock. The lock is held to exchange vectors, never across SQLite.
#include "broker/history.hpp"

#include "base/error.hpp"
#include "wire/codec.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <csignal>
#include <utility>

namespace holdfast::broker {
namespace {

constexpr std::size_t kBatch = 1024;  // written at once when so many wait, whatever the time
constexpr int kRowsAtOnce = 512;
constexpr std::size_t kLeast = wire::kHeaderBytes + 2 + 1;  // the count of the list, and `more`
constexpr std::chrono::minutes kBetweenForgetting{10};

wire::Event missed(std::uint64_t lost) {
  wire::Event event;
  event.kind = wire::EventKind::missed;
  event.at = std::chrono::system_clock::now();
  event.detail = fmt::format("{} events could not be written", lost);
  return event;
}

// How much of a packet's body an event takes; nothing for one that no message can carry.
std::optional<std::size_t> size_of(const wire::Event& event, std::vector<std::byte>& scratch) {
  if (!wire::encode(0, wire::FromBroker{event}, scratch)) return std::nullopt;
  return scratch.size() - wire::kHeaderBytes;
}

std::vector<std::byte> encoded(std::uint32_t number, const wire::FromBroker& message) {
  std::vector<std::byte> packet;
  (void)wire::encode(number, message, packet);  // was measured, or is short
  return packet;
}

}  // namespace

History::History(std::string path, Retention retention, Pace pace)
    : path_{std::move(path)}, retention_{retention}, pace_{pace}, wake_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {
  // Signals are the loop's.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread{[this] { work(); }};
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

History::~History() {
  {
    const std::scoped_lock lock{mutex_};
    ending_ = true;
  }
  work_.notify_one();
  thread_.join();
}

void History::add(const wire::Event& event) {
  std::size_t waiting = 0;
  {
    const std::scoped_lock lock{mutex_};
    if (events_.size() >= pace_.events) {
      ++lost_;
      return;
    }
    events_.push_back(event);
    waiting = events_.size();
  }
  if (waiting == 1 || waiting == kBatch) work_.notify_one();
}

void History::ask(Question question) {
  {
    const std::scoped_lock lock{mutex_};
    questions_.push_back(std::move(question));
  }
  work_.notify_one();
}

History::News History::take() {
  eventfd_t count = 0;
  (void)::eventfd_read(wake_.get(), &count);
  const std::scoped_lock lock{mutex_};
  return std::exchange(news_, {});
}

void History::wake() { (void)::eventfd_write(wake_.get(), 1); }

void History::tell_trouble(std::string trouble) {
  {
    const std::scoped_lock lock{mutex_};
    news_.troubles.push_back(std::move(trouble));
  }
  wake();
}

void History::work() {
  if (auto file = HistoryFile::open(path_)) {
    file_ = std::move(*file);
  } else {
    why_none_ = file.error().message;
    tell_trouble(fmt::format("no history is kept: {}", base::printable(why_none_)));
  }
  std::vector<wire::Event> batch;
  std::vector<Question> questions;
  auto forget_at = std::chrono::steady_clock::now();
  std::unique_lock lock{mutex_};
  while (true) {
    const auto something = [this] { return ending_ || !questions_.empty() || !events_.empty(); };
    if (file_)
      work_.wait_until(lock, forget_at, something);
    else
      work_.wait(lock, something);
    // A question comes after what happened before it; an ending after everything.
    work_.wait_for(lock, pace_.batch,
                   [&] { return ending_ || !questions_.empty() || events_.empty() || events_.size() >= kBatch; });
    const bool ending = ending_;
    batch.swap(events_);
    questions.swap(questions_);
    const std::uint64_t lost = std::exchange(lost_, 0);
    lock.unlock();

    if (!batch.empty() || lost > 0) write(batch, lost);
    batch.clear();
    for (const Question& question : questions) {
      Answer reply = answer(question);
      const std::scoped_lock again{mutex_};
      news_.answers.push_back(std::move(reply));
    }
    if (!questions.empty()) wake();
    questions.clear();
    if (ending) return;
    if (file_ && std::chrono::steady_clock::now() >= forget_at) {
      const auto more = file_->forget_some(retention_, std::chrono::system_clock::now());
      // What cannot be deleted now can be later; what cannot be written is said when events come.
      forget_at = std::chrono::steady_clock::now() + (more && *more ? std::chrono::minutes{0} : kBetweenForgetting);
    }
    lock.lock();
  }
}

void History::write(std::vector<wire::Event>& batch, std::uint64_t lost) {
  unwritten_ += lost;
  if (!file_) return;
  if (unwritten_ > 0) batch.insert(failing_ ? batch.begin() : batch.end(), missed(unwritten_));
  if (const auto done = file_->add(batch); done) {
    unwritten_ = 0;
    failing_ = false;
    return;
  } else if (!failing_) {
    tell_trouble(fmt::format("the history has a gap: {}", base::printable(done.error().message)));
  }
  unwritten_ += batch.size() - (unwritten_ > 0 ? 1 : 0);
  failing_ = true;
}

Answer History::answer(const Question& question) {
  Answer reply{question.ticket, {}, std::nullopt};
  const auto refuse = [&](const std::string& why) {
    wire::Refused refused;
    refused.code = errc::system_fault;
    refused.message = base::printable(fmt::format("the broker keeps no history: {}", why), wire::kMostText);
    reply.packet = encoded(question.number, refused);
    return reply;
  };
  if (!file_) return refuse(why_none_);
  const auto range = question.rest ? Result<Range>{*question.rest} : file_->find(question.query);
  if (!range) return refuse(range.error().message);
  auto rows = file_->read(question.query, *range, kRowsAtOnce);
  if (!rows) return refuse(rows.error().message);

  wire::HistoryAnswer page;
  std::size_t bytes = kLeast;
  std::optional<std::int64_t> next;
  for (Row& row : *rows) {
    const auto size = size_of(row.event, reply.packet);
    if (!size || kLeast + *size > wire::kMostBytes) continue;
    if (bytes + *size > wire::kMostBytes) {
      next = row.id;
      break;
    }
    bytes += *size;
    page.events.push_back(std::move(row.event));
  }
  if (!next && rows->size() == kRowsAtOnce) next = rows->back().id + 1;
  if (next && *next <= range->last) {
    page.more = wire::More::follows;
    reply.next = question;
    reply.next->rest = Range{*next, range->last};
  }
  reply.packet = encoded(question.number, page);
  return reply;
}

}  // namespace holdfast::broker
