// SPDX-License-Identifier: MIT
// mmc.hpp - an optical burner as a value: commands go in, data and sense come out.
//
// No emulator has a burner, and a test of device locking needs one that real burn programs accept. The drive here holds
// a DVD+RW (profile 1Ah): the simplest medium that they all know and that is written with plain random-access WRITE.
// Nothing in this file makes a system call; the medium is an interface. Clauses are those of MMC-5 (r03c) and SPC-3.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace holdfast::burner {

constexpr std::size_t kBlock = 2048;

using Cdb = std::array<std::uint8_t, 16>;  // shorter commands are padded with zeros
using Buffer = std::span<std::uint8_t>;

/// Sense key, additional sense code and its qualifier (SPC-3 4.5.6), as one number.
enum class Sense : std::uint32_t {
  none = 0,
  no_medium = 0x023A00,
  no_medium_tray_open = 0x023A02,
  write_failed = 0x030C00,
  read_failed = 0x031100,
  invalid_opcode = 0x052000,
  block_out_of_range = 0x052100,
  invalid_field = 0x052400,
  invalid_parameter = 0x052600,
  removal_prevented = 0x055302,
  medium_changed = 0x062800,
};

/// Fixed format (SPC-3 4.5.3).
[[nodiscard]] std::array<std::uint8_t, 18> fixed_format(Sense sense);

struct Reply {
  Sense sense = Sense::none;
  std::size_t length = 0;   // bytes for the initiator, at the start of the buffer
  std::size_t written = 0;  // bytes that went to the medium: what a paced drive takes its time for
};

/// What answers SCSI commands.
class Unit {
 public:
  virtual ~Unit() = default;
  /// Whether the command's buffer comes filled by the initiator.
  [[nodiscard]] virtual bool takes_data(std::uint8_t opcode) const = 0;
  virtual Reply execute(const Cdb& cdb, Buffer data) = 0;
};

class Medium {
 public:
  virtual ~Medium() = default;
  [[nodiscard]] virtual std::uint32_t blocks() const = 0;
  virtual bool read(std::uint64_t offset, Buffer data) = 0;
  virtual bool write(std::uint64_t offset, std::span<const std::uint8_t> data) = 0;
};

/// "TEST_UNIT_READY"; "UNKNOWN" for what the drive does not know.
[[nodiscard]] std::string_view name_of(std::uint8_t opcode);

class Drive : public Unit {
 public:
  /// `medium` may be null: an empty drive. Otherwise it must outlive the drive.
  Drive(Medium* medium, std::string serial);
  [[nodiscard]] bool takes_data(std::uint8_t opcode) const override;
  Reply execute(const Cdb& cdb, Buffer data) override;

 private:
  friend struct Command;
  enum class Event : std::uint8_t { none = 0, new_media = 2, media_removal = 3 };
  static constexpr std::size_t kRecoveryPage = 12;
  static constexpr std::size_t kWritePage = 52;

  [[nodiscard]] bool has_medium() const { return medium_ != nullptr && !tray_open_; }
  [[nodiscard]] std::uint32_t blocks() const { return has_medium() ? medium_->blocks() : 0; }

  Reply accept(const Cdb&, Buffer);
  Reply request_sense(const Cdb&, Buffer);
  Reply inquiry(const Cdb&, Buffer);
  Reply vital_product_data(const Cdb&, Buffer);
  Reply mode_sense(const Cdb&, Buffer);
  Reply mode_select(const Cdb&, Buffer);
  Reply start_stop(const Cdb&, Buffer);
  Reply prevent_removal(const Cdb&, Buffer);
  Reply read_format_capacities(const Cdb&, Buffer);
  Reply read_capacity(const Cdb&, Buffer);
  Reply read(const Cdb&, Buffer);
  Reply write(const Cdb&, Buffer);
  Reply verify(const Cdb&, Buffer);
  Reply read_toc(const Cdb&, Buffer);
  Reply get_configuration(const Cdb&, Buffer);
  Reply get_event_status(const Cdb&, Buffer);
  Reply read_disc_information(const Cdb&, Buffer);
  Reply read_track_information(const Cdb&, Buffer);
  Reply read_buffer_capacity(const Cdb&, Buffer);
  Reply get_performance(const Cdb&, Buffer);
  Reply read_disc_structure(const Cdb&, Buffer);
  Reply mechanism_status(const Cdb&, Buffer);

  Medium* medium_;
  std::string serial_;
  bool tray_open_ = false;
  bool locked_ = false;
  Event event_ = Event::none;
  Sense attention_ = Sense::none;
  std::array<std::uint8_t, kRecoveryPage> recovery_page_;
  std::array<std::uint8_t, kWritePage> write_page_;
};

}  // namespace holdfast::burner
