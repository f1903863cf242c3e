// SPDX-License-Identifier: MIT
// mmc.cpp - the burner's command set. One table says what each command needs; one function builds each answer. What is
// accepted without effect (SEND OPC CALIBRATION, SYNCHRONIZE CACHE, ...) has none on a medium that is written at once.
#include "vm/burner/mmc.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace holdfast::burner {
namespace {

constexpr std::uint16_t kProfileDvdPlusRw = 0x001A;  // MMC-5 table 89
constexpr std::uint32_t kSpeed = 5540;               // kB/s: DVD at 4x
constexpr std::uint32_t kBufferBytes = 1U << 20;     // what the drive says its cache has

using Bytes = std::vector<std::uint8_t>;

std::uint16_t get16(std::span<const std::uint8_t> from, std::size_t at) {
  return static_cast<std::uint16_t>(from[at] << 8 | from[at + 1]);
}

std::uint32_t get32(std::span<const std::uint8_t> from, std::size_t at) {
  return static_cast<std::uint32_t>(get16(from, at)) << 16 | get16(from, at + 2);
}

void put16(std::span<std::uint8_t> to, std::size_t at, std::size_t value) {
  to[at] = static_cast<std::uint8_t>(value >> 8);
  to[at + 1] = static_cast<std::uint8_t>(value);
}

void put32(std::span<std::uint8_t> to, std::size_t at, std::size_t value) {
  put16(to, at, value >> 16);
  put16(to, at + 2, value & 0xFFFF);
}

void put_text(std::span<std::uint8_t> to, std::size_t at, std::size_t width, std::string_view text) {
  for (std::size_t i = 0; i < width; ++i) to[at + i] = static_cast<std::uint8_t>(i < text.size() ? text[i] : ' ');
}

Reply failed(Sense sense) { return {.sense = sense}; }

Reply answer(const Bytes& bytes, std::size_t allocated, Buffer data) {
  const std::size_t length = std::min({bytes.size(), allocated, data.size()});
  std::copy_n(bytes.begin(), length, data.begin());
  return {.length = length};
}

struct Extent {
  std::uint64_t start;
  std::uint64_t count;
};

/// The blocks that a READ, WRITE or VERIFY names: the groups of commands differ in where the numbers stand.
Extent extent_of(const Cdb& cdb) {
  switch (cdb[0]) {
    case 0x08:  // READ(6): zero means 256
      return {get32(cdb, 0) & 0x1FFFFF, cdb[4] == 0 ? 256U : cdb[4]};
    case 0xA8:
    case 0xAA:
      return {get32(cdb, 2), get32(cdb, 6)};
    case 0xBE:  // READ CD: 24 bits
      return {get32(cdb, 2), get32(cdb, 5) & 0xFFFFFF};
    default:
      return {get32(cdb, 2), get16(cdb, 7)};
  }
}

}  // namespace

enum class Phase : std::uint8_t { none, in, out };
enum class Needs : std::uint8_t {
  nothing,  // answered even when a unit attention is pending
  no_news,  // reports a pending unit attention first
  medium,   // and a medium in a closed tray
};

struct Command {
  std::uint8_t opcode;
  std::string_view name;
  Phase phase;
  Needs needs;
  Reply (Drive::*run)(const Cdb&, Buffer);

  static const Command* find(std::uint8_t opcode);
};

const Command* Command::find(std::uint8_t opcode) {
  using enum Phase;
  using enum Needs;
  static constexpr Command kCommands[] = {
      {0x00, "TEST_UNIT_READY", none, medium, &Drive::accept},
      {0x03, "REQUEST_SENSE", in, nothing, &Drive::request_sense},
      {0x04, "FORMAT_UNIT", out, medium, &Drive::accept},
      {0x08, "READ(6)", in, medium, &Drive::read},
      {0x12, "INQUIRY", in, nothing, &Drive::inquiry},
      {0x15, "MODE_SELECT(6)", out, no_news, &Drive::mode_select},
      {0x1A, "MODE_SENSE(6)", in, no_news, &Drive::mode_sense},
      {0x1B, "START_STOP_UNIT", none, no_news, &Drive::start_stop},
      {0x1E, "PREVENT_ALLOW_MEDIUM_REMOVAL", none, no_news, &Drive::prevent_removal},
      {0x23, "READ_FORMAT_CAPACITIES", in, no_news, &Drive::read_format_capacities},
      {0x25, "READ_CAPACITY", in, medium, &Drive::read_capacity},
      {0x28, "READ(10)", in, medium, &Drive::read},
      {0x2A, "WRITE(10)", out, medium, &Drive::write},
      {0x2B, "SEEK(10)", none, medium, &Drive::accept},
      {0x2E, "WRITE_AND_VERIFY(10)", out, medium, &Drive::write},
      {0x2F, "VERIFY(10)", none, medium, &Drive::verify},
      {0x35, "SYNCHRONIZE_CACHE", none, medium, &Drive::accept},
      {0x43, "READ_TOC", in, medium, &Drive::read_toc},
      {0x46, "GET_CONFIGURATION", in, nothing, &Drive::get_configuration},
      {0x4A, "GET_EVENT_STATUS_NOTIFICATION", in, nothing, &Drive::get_event_status},
      {0x51, "READ_DISC_INFORMATION", in, medium, &Drive::read_disc_information},
      {0x52, "READ_TRACK_INFORMATION", in, medium, &Drive::read_track_information},
      {0x53, "RESERVE_TRACK", none, medium, &Drive::accept},
      {0x54, "SEND_OPC_INFORMATION", out, medium, &Drive::accept},
      {0x55, "MODE_SELECT(10)", out, no_news, &Drive::mode_select},
      {0x5A, "MODE_SENSE(10)", in, no_news, &Drive::mode_sense},
      {0x5B, "CLOSE_TRACK_SESSION", none, medium, &Drive::accept},
      {0x5C, "READ_BUFFER_CAPACITY", in, medium, &Drive::read_buffer_capacity},
      {0xA8, "READ(12)", in, medium, &Drive::read},
      {0xAA, "WRITE(12)", out, medium, &Drive::write},
      {0xAC, "GET_PERFORMANCE", in, no_news, &Drive::get_performance},
      {0xAD, "READ_DISC_STRUCTURE", in, medium, &Drive::read_disc_structure},
      {0xB6, "SET_STREAMING", out, no_news, &Drive::accept},
      {0xBB, "SET_CD_SPEED", none, no_news, &Drive::accept},
      {0xBD, "MECHANISM_STATUS", in, no_news, &Drive::mechanism_status},
      {0xBE, "READ_CD", in, medium, &Drive::read},
  };
  const auto* found = std::find_if(std::begin(kCommands), std::end(kCommands),
                                   [opcode](const Command& command) { return command.opcode == opcode; });
  return found == std::end(kCommands) ? nullptr : found;
}

std::array<std::uint8_t, 18> fixed_format(Sense sense) {
  const auto number = static_cast<std::uint32_t>(sense);
  std::array<std::uint8_t, 18> bytes{};
  bytes[0] = 0x70;
  bytes[2] = static_cast<std::uint8_t>(number >> 16);
  bytes[7] = 10;  // bytes that follow
  put16(bytes, 12, number & 0xFFFF);
  return bytes;
}

std::string_view name_of(std::uint8_t opcode) {
  const Command* command = Command::find(opcode);
  return command == nullptr ? "UNKNOWN" : command->name;
}

// The mode pages' first values: read/write error recovery, and write parameters (MMC-5 7.5): packets of 16 blocks.
Drive::Drive(Medium* medium, std::string serial)
    : medium_{medium},
      serial_{std::move(serial)},
      recovery_page_{0x01, kRecoveryPage - 2, 0, 1, 0, 0, 0, 0, 1},
      write_page_{0x05, kWritePage - 2, 0, 0x05, 0x08, 16} {}

bool Drive::takes_data(std::uint8_t opcode) const {
  const Command* command = Command::find(opcode);
  return command != nullptr && command->phase == Phase::out;
}

Reply Drive::execute(const Cdb& cdb, Buffer data) {
  const Command* command = Command::find(cdb[0]);
  if (command == nullptr) return failed(Sense::invalid_opcode);
  if (command->needs != Needs::nothing && attention_ != Sense::none) {
    return failed(std::exchange(attention_, Sense::none));
  }
  if (command->needs == Needs::medium && !has_medium()) {
    return failed(tray_open_ ? Sense::no_medium_tray_open : Sense::no_medium);
  }
  return (this->*command->run)(cdb, data);
}

Reply Drive::accept(const Cdb&, Buffer) { return {}; }

// Sense goes out with the status of the command that failed, so here nothing is left but an unit attention.
Reply Drive::request_sense(const Cdb& cdb, Buffer data) {
  const auto sense = fixed_format(std::exchange(attention_, Sense::none));
  return answer({sense.begin(), sense.end()}, cdb[4], data);
}

Reply Drive::inquiry(const Cdb& cdb, Buffer data) {
  if ((cdb[1] & 1) != 0) return vital_product_data(cdb, data);
  if (cdb[2] != 0) return failed(Sense::invalid_field);
  Bytes bytes(36);
  bytes[0] = 0x05;  // CD/DVD device
  bytes[1] = 0x80;  // removable
  bytes[2] = 0x05;  // SPC-3
  bytes[3] = 0x02;  // response data format
  bytes[4] = static_cast<std::uint8_t>(bytes.size() - 5);
  put_text(bytes, 8, 8, "HOLDFAST");
  put_text(bytes, 16, 16, "LAB DVD+RW");
  put_text(bytes, 32, 4, "1.0");
  return answer(bytes, get16(cdb, 3), data);
}

Reply Drive::vital_product_data(const Cdb& cdb, Buffer data) {  // SPC-3 7.6
  Bytes bytes{0x05, cdb[2], 0, 0};
  switch (cdb[2]) {
    case 0x00:
      bytes.insert(bytes.end(), {0x00, 0x80, 0x83});
      break;
    case 0x80:
      bytes.insert(bytes.end(), serial_.begin(), serial_.end());
      break;
    case 0x83: {  // one designator: ASCII, T10 vendor identification, of the logical unit
      const std::string id = "HOLDFAST" + serial_;
      bytes.insert(bytes.end(), {0x02, 0x01, 0x00, static_cast<std::uint8_t>(id.size())});
      bytes.insert(bytes.end(), id.begin(), id.end());
      break;
    }
    default:
      return failed(Sense::invalid_field);
  }
  put16(bytes, 2, bytes.size() - 4);
  return answer(bytes, get16(cdb, 3), data);
}

Reply Drive::mode_sense(const Cdb& cdb, Buffer data) {
  const bool six = cdb[0] == 0x1A;
  const std::uint8_t wanted = cdb[2] & 0x3F;
  const bool changeable = cdb[2] >> 6 == 1;  // asks for a mask of what MODE SELECT may change
  Bytes bytes(six ? 4 : 8);
  const std::size_t header = bytes.size();
  const auto settable = [&](const auto& page) {
    if (wanted != page[0] && wanted != 0x3F) return;
    bytes.insert(bytes.end(), page.begin(), page.end());
    if (changeable) std::fill(bytes.end() - static_cast<std::ptrdiff_t>(page.size()) + 2, bytes.end(), 0xFF);
  };
  settable(recovery_page_);
  settable(write_page_);
  if (wanted == 0x2A || wanted == 0x3F) {  // capabilities (MMC-3; gone from later ones, but every program reads it)
    Bytes page(36);
    page[0] = 0x2A;
    page[1] = static_cast<std::uint8_t>(page.size() - 2);
    if (!changeable) {
      page[2] = 0x1F;                   // reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R
      page[3] = 0x13;                   // writes CD-R, CD-RW, DVD-R: there is no bit for DVD+RW
      page[4] = 0x70;                   // multisession, mode 2 forms
      page[6] = locked_ ? 0x2B : 0x29;  // tray, ejects, can be locked, is locked
      for (const std::size_t at : {8, 14, 18, 20, 28}) put16(page, at, kSpeed);  // read, write: most, now
      put16(page, 12, kBufferBytes / 1024);
      put16(page, 30, 1);  // one write speed descriptor
      put16(page, 34, kSpeed);
    }
    bytes.insert(bytes.end(), page.begin(), page.end());
  }
  if (bytes.size() == header) return failed(Sense::invalid_field);
  if (six) {
    bytes[0] = static_cast<std::uint8_t>(bytes.size() - 1);
  } else {
    put16(bytes, 0, bytes.size() - 2);
  }
  return answer(bytes, six ? cdb[4] : get16(cdb, 7), data);
}

Reply Drive::mode_select(const Cdb& cdb, Buffer data) {
  const bool six = cdb[0] == 0x15;
  const std::size_t listed = std::min<std::size_t>(six ? cdb[4] : get16(cdb, 7), data.size());
  if (listed < (six ? 4U : 8U)) return listed == 0 ? Reply{} : failed(Sense::invalid_parameter);
  const std::size_t descriptors = six ? data[3] : get16(data, 6);
  for (std::size_t at = (six ? 4U : 8U) + descriptors; at + 2 <= listed; at += 2U + data[at + 1]) {
    const auto take = [&](auto& page) {
      if ((data[at] & 0x3F) != page[0] || at + 2 + data[at + 1] > listed || data[at + 1] > page.size() - 2)
        return false;
      std::copy_n(&data[at + 2], data[at + 1], page.begin() + 2);
      return true;
    };
    if (!take(recovery_page_) && !take(write_page_)) return failed(Sense::invalid_parameter);
  }
  return {};
}

Reply Drive::start_stop(const Cdb& cdb, Buffer) {
  if ((cdb[4] & 2) == 0) return {};  // spins up or down: nothing turns here
  const bool open = (cdb[4] & 1) == 0;
  if (open && locked_) return failed(Sense::removal_prevented);
  if (open != tray_open_ && medium_ != nullptr) {
    event_ = open ? Event::media_removal : Event::new_media;
    attention_ = open ? Sense::none : Sense::medium_changed;
  }
  tray_open_ = open;
  return {};
}

Reply Drive::prevent_removal(const Cdb& cdb, Buffer) {
  locked_ = (cdb[4] & 1) != 0;
  return {};
}

Reply Drive::read_format_capacities(const Cdb& cdb, Buffer data) {  // MMC-5 6.24
  Bytes bytes(has_medium() ? 20 : 12);
  bytes[3] = static_cast<std::uint8_t>(bytes.size() - 4);
  put32(bytes, 4, blocks());
  put32(bytes, 8, kBlock);
  bytes[8] = has_medium() ? 2 : 3;  // formatted; no medium
  if (has_medium()) {
    put32(bytes, 12, blocks());
    bytes[16] = 0x26 << 2;  // format type: DVD+RW basic
  }
  return answer(bytes, get16(cdb, 7), data);
}

Reply Drive::read_capacity(const Cdb&, Buffer data) {
  Bytes bytes(8);
  put32(bytes, 0, blocks() - 1);
  put32(bytes, 4, kBlock);
  return answer(bytes, bytes.size(), data);
}

Reply Drive::read(const Cdb& cdb, Buffer data) {
  const auto [start, count] = extent_of(cdb);
  if (start + count > blocks()) return failed(Sense::block_out_of_range);
  const std::size_t length = std::min<std::size_t>(count * kBlock, data.size());
  if (!medium_->read(start * kBlock, data.first(length))) return failed(Sense::read_failed);
  return {.length = length};
}

Reply Drive::write(const Cdb& cdb, Buffer data) {
  const auto [start, count] = extent_of(cdb);
  if (start + count > blocks()) return failed(Sense::block_out_of_range);
  const std::size_t length = count * kBlock;
  if (data.size() < length) return failed(Sense::invalid_field);
  if (!medium_->write(start * kBlock, data.first(length))) return failed(Sense::write_failed);
  return {.written = length};
}

Reply Drive::verify(const Cdb& cdb, Buffer) {
  const auto [start, count] = extent_of(cdb);
  return start + count > blocks() ? failed(Sense::block_out_of_range) : Reply{};
}

Reply Drive::read_toc(const Cdb& cdb, Buffer data) {  // MMC-5 6.26: one data track, which has the whole medium
  const bool minutes = (cdb[1] & 2) != 0;
  const int format = (cdb[2] & 0xF) != 0 ? cdb[2] & 0xF : cdb[9] >> 6;  // byte 9: where SFF-8020i has it
  if (format > 1) return failed(Sense::invalid_field);
  Bytes bytes{0, 0, 1, 1};
  const auto entry = [&](std::uint8_t number, std::uint32_t block) {
    const std::size_t at = bytes.size();
    bytes.insert(bytes.end(), {0, 0x14, number, 0, 0, 0, 0, 0});
    const std::uint32_t frames = block + 150;
    put32(bytes, at + 4, minutes ? std::min(frames / 4500, 255U) << 16 | frames / 75 % 60 << 8 | frames % 75 : block);
  };
  if (format == 1 || cdb[6] <= 1) entry(1, 0);
  if (format == 0) entry(0xAA, blocks());
  put16(bytes, 0, bytes.size() - 2);
  return answer(bytes, get16(cdb, 7), data);
}

Reply Drive::get_configuration(const Cdb& cdb, Buffer data) {  // MMC-5 5.3 and 6.6
  constexpr std::uint8_t kPersistent = 2;
  const std::uint8_t current = has_medium() ? 1 : 0;
  const std::uint16_t first = get16(cdb, 2);
  const int which = cdb[1] & 3;  // 0 all, 1 the current ones, 2 the one that is named
  Bytes bytes(8);
  put16(bytes, 6, has_medium() ? kProfileDvdPlusRw : 0);
  const auto feature = [&](std::uint16_t code, std::uint8_t flags, const Bytes& more) {
    if (code < first || (which == 1 && (flags & 1) == 0) || (which == 2 && code != first)) return;
    const std::size_t at = bytes.size();
    bytes.insert(bytes.end(), {0, 0, flags, static_cast<std::uint8_t>(more.size())});
    put16(bytes, at, code);
    bytes.insert(bytes.end(), more.begin(), more.end());
  };
  Bytes random_write(12);
  if (has_medium()) put32(random_write, 0, blocks() - 1);
  put32(random_write, 4, kBlock);
  put16(random_write, 8, 16);  // blocks in one error correction unit
  const auto version = [](int number) { return static_cast<std::uint8_t>(number << 2); };
  feature(0x0000, kPersistent | 1, {0x00, 0x1A, current, 0, 0x00, 0x10, 0, 0});  // profiles
  feature(0x0001, version(2) | kPersistent | 1, {0, 0, 0, 1, 1, 0, 0, 0});       // core: SCSI
  feature(0x0002, version(1) | kPersistent | 1, {0, 0, 0, 0});                   // morphing
  feature(0x0003, kPersistent | 1, {0x29, 0, 0, 0});                             // removable: tray, lock, eject
  feature(0x0010, current, {0, 0, kBlock >> 8, 0, 0, 16, 0, 0});                 // random readable
  feature(0x001F, current, {});                                                  // DVD read
  feature(0x0020, version(1) | current, random_write);                           // random writable
  feature(0x002A, current, {1, 0, 0, 0});                                        // DVD+RW: writes
  feature(0x0100, kPersistent | 1, {});                                          // power management
  feature(0x0105, kPersistent | 1, {0, 0, 0, 0});                                // timeout
  feature(0x0107, version(3) | current, {0x1F, 0, 0, 0});                        // real-time streaming, all bits
  feature(0x0108, kPersistent | 1, {serial_.begin(), serial_.end()});            // serial number
  put32(bytes, 0, bytes.size() - 4);
  return answer(bytes, get16(cdb, 7), data);
}

Reply Drive::get_event_status(const Cdb& cdb, Buffer data) {   // MMC-5 6.7
  if ((cdb[1] & 1) == 0) return failed(Sense::invalid_field);  // only polled
  constexpr std::uint8_t kMediaClass = 4;
  Bytes bytes{0, 2, 0x80, 1 << kMediaClass};  // none of the classes asked for
  if ((cdb[4] & (1 << kMediaClass)) != 0) {
    const int presence = (tray_open_ ? 1 : 0) | (has_medium() ? 2 : 0);
    const auto code = static_cast<std::uint8_t>(std::exchange(event_, Event::none));
    bytes = {0, 6, kMediaClass, 1 << kMediaClass, code, static_cast<std::uint8_t>(presence), 0, 0};
  }
  return answer(bytes, get16(cdb, 7), data);
}

Reply Drive::read_disc_information(const Cdb& cdb, Buffer data) {  // MMC-5 6.22
  if ((cdb[1] & 7) != 0) return failed(Sense::invalid_field);      // only standard information
  Bytes bytes(34);
  put16(bytes, 0, bytes.size() - 2);
  bytes[2] = 0x1E;                                // erasable, last session and disc complete
  bytes[3] = bytes[4] = bytes[5] = bytes[6] = 1;  // one session with one track
  bytes[7] = 0x23;                                // unrestricted use, formatted to the end
  std::fill_n(bytes.begin() + 16, 8, 0xFF);       // no further session can be
  return answer(bytes, get16(cdb, 7), data);
}

Reply Drive::read_track_information(const Cdb& cdb, Buffer data) {  // MMC-5 6.27
  const std::uint32_t address = get32(cdb, 2);
  const bool by_block = (cdb[1] & 3) == 0;
  if (by_block ? address >= blocks() : address != 1) return failed(Sense::invalid_field);
  Bytes bytes(36);
  put16(bytes, 0, bytes.size() - 2);
  bytes[2] = bytes[3] = 1;  // track, session
  bytes[5] = 0x04;          // data, recorded uninterrupted
  bytes[6] = 0x01;          // mode 1
  put32(bytes, 20, 16);
  put32(bytes, 24, blocks());
  return answer(bytes, get16(cdb, 7), data);
}

Reply Drive::read_buffer_capacity(const Cdb& cdb, Buffer data) {
  Bytes bytes(12);
  put16(bytes, 0, bytes.size() - 2);
  put32(bytes, 4, kBufferBytes);
  put32(bytes, 8, kBufferBytes);
  return answer(bytes, get16(cdb, 7), data);
}

Reply Drive::get_performance(const Cdb& cdb, Buffer data) {  // MMC-5 6.8
  const std::uint8_t type = cdb[10];
  Bytes bytes(24);
  put32(bytes, 0, bytes.size() - 4);
  const std::uint32_t last = has_medium() ? blocks() - 1 : 0;
  if (type == 0x00) {  // nominal performance: start, speed, end, speed
    bytes[4] = (cdb[1] & 4) != 0 ? 2 : 0;
    put32(bytes, 12, kSpeed);
    put32(bytes, 16, last);
    put32(bytes, 20, kSpeed);
  } else if (type == 0x03) {  // write speeds: end, read, write
    put32(bytes, 12, last);
    put32(bytes, 16, kSpeed);
    put32(bytes, 20, kSpeed);
  } else {
    return failed(Sense::invalid_field);
  }
  return answer(bytes, 8U + 16U * get16(cdb, 8), data);
}

Reply Drive::read_disc_structure(const Cdb& cdb, Buffer data) {  // MMC-5 6.23
  if ((cdb[1] & 0xF) != 0) return failed(Sense::invalid_field);  // only those of DVD
  constexpr std::uint32_t kFirstSector = 0x30000;
  Bytes bytes;
  switch (cdb[7]) {
    case 0x00:  // physical format, from the lead-in
    case 0x11:  // the same, from the groove (ADIP)
      bytes.resize(cdb[7] == 0 ? 4 + 2048 : 4 + 256);
      bytes[4] = 0x92;  // DVD+RW, version 2
      bytes[5] = 0x0F;  // 120 mm, speed not said
      bytes[6] = 0x02;  // one layer, rewritable
      put32(bytes, 8, kFirstSector);
      put32(bytes, 12, kFirstSector + blocks() - 1);
      break;
    case 0x01:  // copyright: none
      bytes.resize(4 + 4);
      break;
    default:
      return failed(Sense::invalid_field);
  }
  put16(bytes, 0, bytes.size() - 2);
  return answer(bytes, get16(cdb, 8), data);
}

Reply Drive::mechanism_status(const Cdb& cdb, Buffer data) {
  Bytes bytes(8);
  bytes[1] = tray_open_ ? 0x10 : 0;
  return answer(bytes, get16(cdb, 8), data);
}

}  // namespace holdfast::burner
