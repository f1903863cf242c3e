// SPDX-License-Identifier: MIT
// journal.hpp - what the next broker must know when this one is killed: whose claims there are, and the tokens.
//
// A file in the state directory, of this boot alone. Each grant, change and end is one line, written with one write(2)
// before it is answered, so that whatever a client was told is in it; what a kill leaves half written was told to
// nobody. Nothing is synced: a killed process loses no page of a file, and a dead machine loses the claims anyway.
// The file is written anew, from what is known here, at the start and when it has grown; that appears by rename.
//
// Tokens must rise across boots too, where nothing of this is left. The arbiter counts from 0 in each boot, and the
// journal gives a base to add: the clock's seconds times 2^24 when the boot's first broker started, which rises faster
// than anybody can grant. A file that outlives the boot keeps the last base for the case that the clock went back.
#pragma once

#include "base/unique_fd.hpp"
#include "broker/interfaces.hpp"
#include "broker/journal_line.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::broker {

class Journal final : public Memory {
 public:
  struct Places {
    std::string state;    ///< directory of the journal; goes with the boot
    std::string lasting;  ///< directory that outlives the boot; empty: there is none
  };
  /// What an earlier broker of this boot left.
  struct Found {
    std::vector<JournalClaim> claims;  ///< their owners may be dead by now
    std::vector<JournalToken> tokens;  ///< the latest of each device
    std::size_t refused_lines = 0;     ///< not ours, or damaged
  };

  /// Reads what is there and writes it anew. The directories are made when they are missing.
  /// \returns refused when another broker has the state directory; system_fault when it cannot be written
  [[nodiscard]] static Result<Journal> open(const Places& places, Found& found);

  Journal(Journal&&) noexcept = default;
  Journal& operator=(Journal&&) noexcept = default;

  /// One more than any broker of this boot had before.
  [[nodiscard]] wire::Epoch epoch() const { return head_.epoch; }
  /// How many brokers this boot had before, about.
  [[nodiscard]] std::uint64_t restarts() const { return static_cast<std::uint64_t>(head_.epoch) - head_.token_base; }
  [[nodiscard]] const PlaceKey& place_key() const { return head_.place_key; }
  /// To be added to the arbiter's tokens.
  [[nodiscard]] std::uint64_t token_base() const { return head_.token_base; }
  /// Larger than any number of a claim in this boot.
  [[nodiscard]] std::uint64_t next_claim() const { return head_.next_claim; }

  void granted(const ClaimRecord& claim, const claiming::Holding& holding) override;
  void ended(wire::ClaimId claim) override;
  void passed_on(wire::ClaimId from, const ClaimRecord& to, const claiming::Holding& holding) override;
  void record(const ClaimRecord& claim);

  /// Why the last line is not in the file, 0 when it is: then the next one brings the file up to date.
  [[nodiscard]] int errnum() const { return errnum_; }

 private:
  Journal() = default;
  void read(std::string_view text, const std::string& boot, Found& found);
  void count_from_a_new_base(const std::string& lasting, const std::string& boot);
  [[nodiscard]] static std::string line_of(const ClaimRecord& claim);
  void remember(const ClaimRecord& claim, std::string line);
  void append(std::string_view line);
  [[nodiscard]] int write_anew();

  base::UniqueFd directory_;  // locked as long as we live
  base::UniqueFd file_;
  JournalHead head_;
  std::map<wire::ClaimId, std::string> claims_;  // their lines
  std::map<device::DeviceId, arbiter::Token> tokens_;
  std::size_t size_ = 0;
  std::size_t size_when_new_ = 0;
  int errnum_ = 0;
};

}  // namespace holdfast::broker
