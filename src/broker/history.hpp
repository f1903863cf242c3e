// SPDX-License-Identifier: MIT
// history.hpp - the history's thread: takes events without waiting, writes them in batches, and answers questions page
// by page, so that neither a slow disk nor a long answer stalls or grows the broker.
#pragma once

#include "base/unique_fd.hpp"
#include "broker/history_file.hpp"
#include "wire/message.hpp"

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace holdfast::broker {

/// A page of an answer that is wanted.
struct Question {
  std::uint64_t ticket = 0;  ///< whose, in the asker's own words
  std::uint32_t number = 0;  ///< of the message that is answered
  wire::HistoryQuery query;
  std::optional<Range> rest;  ///< what is left of it after the pages before
};
struct Answer {
  std::uint64_t ticket = 0;
  std::vector<std::byte> packet;
  std::optional<Question> next;  ///< to ask for the page that follows
};

/// \thread  the loop's alone, but for its own
class History {
 public:
  struct Pace {
    std::chrono::milliseconds batch{250};  ///< an event waits at most so long to be written
    std::size_t events = 65'536;           ///< that wait to be written; more are counted and said to be missed
  };
  History(std::string path, Retention retention, Pace pace);
  History(std::string path, Retention retention) : History{std::move(path), retention, Pace{}} {}
  History(const History&) = delete;
  History& operator=(const History&) = delete;
  ~History();  ///< writes what waits

  void add(const wire::Event& event);
  void ask(Question question);

  /// Readable when take() has something.
  [[nodiscard]] int fd() const { return wake_.get(); }
  struct News {
    std::vector<Answer> answers;
    std::vector<std::string> troubles;  ///< lines for the log
  };
  [[nodiscard]] News take();

 private:
  void work();
  void write(std::vector<wire::Event>& batch, std::uint64_t lost);
  Answer answer(const Question& question);
  void tell_trouble(std::string trouble);
  void wake();

  const std::string path_;
  const Retention retention_;
  const Pace pace_;
  base::UniqueFd wake_;

  // The thread's alone.
  std::optional<HistoryFile> file_;
  std::string why_none_;
  bool failing_ = false;
  std::uint64_t unwritten_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable work_;
  std::vector<wire::Event> events_;
  std::uint64_t lost_ = 0;  // for want of room
  std::vector<Question> questions_;
  News news_;
  bool ending_ = false;

  std::thread thread_;
};

}  // namespace holdfast::broker
