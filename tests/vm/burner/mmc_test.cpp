// SPDX-License-Identifier: MIT
// mmc_test.cpp - the burner's command set on a medium in memory. That real programs accept it is shown in the guest.
#include "vm/burner/mmc.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <random>
#include <vector>

namespace holdfast::burner {
namespace {

class MemoryMedium : public Medium {
 public:
  explicit MemoryMedium(std::uint32_t blocks) : bytes_(blocks * kBlock) {}
  std::uint32_t blocks() const override { return static_cast<std::uint32_t>(bytes_.size() / kBlock); }
  bool read(std::uint64_t offset, Buffer data) override {
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), data.size(), data.begin());
    return !broken;
  }
  bool write(std::uint64_t offset, std::span<const std::uint8_t> data) override {
    std::copy(data.begin(), data.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
    return !broken;
  }
  bool broken = false;

 private:
  std::vector<std::uint8_t> bytes_;
};

class Burner : public testing::Test {
 protected:
  Reply send(std::initializer_list<int> bytes) {
    Cdb cdb{};
    std::transform(bytes.begin(), bytes.end(), cdb.begin(), [](int byte) { return static_cast<std::uint8_t>(byte); });
    return drive.execute(cdb, data);
  }
  [[nodiscard]] std::uint32_t number_at(std::size_t at) const {
    std::uint32_t number = 0;
    for (std::size_t i = 0; i < 4; ++i) number = number << 8 | data[at + i];
    return number;
  }

  MemoryMedium medium{64};
  std::vector<std::uint8_t> data = std::vector<std::uint8_t>(4 * kBlock);
  Drive drive{&medium, "SERIAL"};
};

TEST_F(Burner, reads_back_what_was_written) {
  std::fill(data.begin(), data.begin() + 2 * kBlock, 0x5A);
  const Reply written = send({0x2A, 0, 0, 0, 0, 7, 0, 0, 2});  // WRITE(10), block 7, two blocks
  EXPECT_EQ(written.sense, Sense::none);
  EXPECT_EQ(written.written, 2 * kBlock);
  std::fill(data.begin(), data.end(), 0);
  const Reply read = send({0xA8, 0, 0, 0, 0, 6, 0, 0, 0, 4});  // READ(12), blocks 6 to 9
  EXPECT_EQ(read.length, 4 * kBlock);
  EXPECT_EQ(data[kBlock - 1], 0);
  EXPECT_EQ(data[kBlock], 0x5A);
  EXPECT_EQ(data[3 * kBlock - 1], 0x5A);
  EXPECT_EQ(data[3 * kBlock], 0);
}

TEST_F(Burner, refuses_blocks_beyond_the_end) {
  EXPECT_EQ(send({0x28, 0, 0, 0, 0, 63, 0, 0, 1}).sense, Sense::none);
  EXPECT_EQ(send({0x28, 0, 0, 0, 0, 63, 0, 0, 2}).sense, Sense::block_out_of_range);
  EXPECT_EQ(send({0x2A, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 1}).sense, Sense::block_out_of_range);
  EXPECT_EQ(send({0x2F, 0, 0, 0, 0, 64, 0, 0, 1}).sense, Sense::block_out_of_range);
}

TEST_F(Burner, refuses_a_write_with_less_data_than_it_names) {
  EXPECT_EQ(send({0x2A, 0, 0, 0, 0, 0, 0, 0, 5}).sense, Sense::invalid_field);
}

TEST_F(Burner, passes_on_the_failure_of_its_medium) {
  medium.broken = true;
  EXPECT_EQ(send({0x28, 0, 0, 0, 0, 0, 0, 0, 1}).sense, Sense::read_failed);
  const Reply written = send({0x2A, 0, 0, 0, 0, 0, 0, 0, 1});
  EXPECT_EQ(written.sense, Sense::write_failed);
  EXPECT_EQ(written.written, 0U);
}

TEST_F(Burner, says_that_it_holds_a_dvd_plus_rw) {
  const Reply reply = send({0x46, 0, 0, 0, 0, 0, 0, 4, 0});
  ASSERT_GT(reply.length, 8U);
  EXPECT_EQ(number_at(0), reply.length - 4);
  EXPECT_EQ(number_at(4), 0x1AU);
}

TEST_F(Burner, names_one_feature_when_asked_for_one) {
  const Reply reply = send({0x46, 2, 0, 0x2A, 0, 0, 0, 4, 0});
  ASSERT_EQ(reply.length, 16U);
  EXPECT_EQ(number_at(8), 0x002A0104U);  // DVD+RW, current, four bytes more
}

TEST_F(Burner, has_a_random_writable_feature_only_with_a_medium) {
  send({0x46, 1, 0, 0x20, 0, 0, 0, 4, 0});
  EXPECT_EQ(number_at(8) >> 16, 0x20U);
  Drive empty{nullptr, "SERIAL"};
  const Reply reply = empty.execute(Cdb{0x46, 1, 0, 0x20, 0, 0, 0, 4, 0}, data);
  ASSERT_GT(reply.length, 12U);
  EXPECT_NE(number_at(8) >> 16, 0x20U);
  EXPECT_EQ(number_at(4), 0U);  // no profile is current
}

TEST_F(Burner, cuts_an_answer_at_the_allocated_length) {
  EXPECT_EQ(send({0x12, 0, 0, 0, 5}).length, 5U);
  EXPECT_EQ(data[4], 31);  // still tells how much there is
}

TEST_F(Burner, tells_its_serial_number_in_vital_product_data) {
  const Reply reply = send({0x12, 1, 0x80, 0, 255});
  EXPECT_EQ(std::string(data.begin() + 4, data.begin() + static_cast<std::ptrdiff_t>(reply.length)), "SERIAL");
  EXPECT_EQ(send({0x12, 1, 0xB0, 0, 255}).sense, Sense::invalid_field);
}

TEST_F(Burner, tells_capacity_as_its_last_block) {
  send({0x25});
  EXPECT_EQ(number_at(0), 63U);
  EXPECT_EQ(number_at(4), kBlock);
}

TEST_F(Burner, keeps_the_write_parameters_that_were_selected) {
  std::fill(data.begin(), data.end(), 0);
  data[8] = 0x05;
  data[9] = 50;
  data[10] = 0x42;
  EXPECT_EQ(send({0x55, 0x10, 0, 0, 0, 0, 0, 0, 60}).sense, Sense::none);
  std::fill(data.begin(), data.end(), 0);
  EXPECT_EQ(send({0x5A, 0, 0x05, 0, 0, 0, 0, 0, 255}).length, 60U);
  EXPECT_EQ(data[10], 0x42);
}

TEST_F(Burner, refuses_a_mode_page_that_is_longer_than_it_is_or_unknown) {
  std::fill(data.begin(), data.end(), 0);
  data[8] = 0x05;
  data[9] = 51;
  EXPECT_EQ(send({0x55, 0x10, 0, 0, 0, 0, 0, 0, 61}).sense, Sense::invalid_parameter);
  data[9] = 50;
  EXPECT_EQ(send({0x55, 0x10, 0, 0, 0, 0, 0, 0, 59}).sense, Sense::invalid_parameter);
  data[8] = 0x2A;
  EXPECT_EQ(send({0x55, 0x10, 0, 0, 0, 0, 0, 0, 60}).sense, Sense::invalid_parameter);
  EXPECT_EQ(send({0x5A, 0, 0x0E, 0, 0, 0, 0, 0, 255}).sense, Sense::invalid_field);
}

TEST_F(Burner, ejects_unless_locked_and_reports_the_medium_once_when_it_is_back) {
  EXPECT_EQ(send({0x1E, 0, 0, 0, 1}).sense, Sense::none);
  EXPECT_EQ(send({0x1B, 0, 0, 0, 2}).sense, Sense::removal_prevented);
  EXPECT_EQ(send({0x00}).sense, Sense::none);
  EXPECT_EQ(send({0x1E}).sense, Sense::none);
  EXPECT_EQ(send({0x1B, 0, 0, 0, 2}).sense, Sense::none);
  EXPECT_EQ(send({0x00}).sense, Sense::no_medium_tray_open);
  EXPECT_EQ(send({0x1B, 0, 0, 0, 3}).sense, Sense::none);
  EXPECT_EQ(send({0x12, 0, 0, 0, 96}).sense, Sense::none);  // INQUIRY does not use the news up
  EXPECT_EQ(send({0x00}).sense, Sense::medium_changed);
  EXPECT_EQ(send({0x00}).sense, Sense::none);
}

TEST_F(Burner, tells_an_event_once) {
  EXPECT_EQ(send({0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8}).sense, Sense::invalid_field);  // only polled
  send({0x1B, 0, 0, 0, 2});
  EXPECT_EQ(send({0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8}).length, 8U);
  EXPECT_EQ(number_at(4), 0x03010000U);  // removal; tray open, no medium
  send({0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8});
  EXPECT_EQ(number_at(4), 0x00010000U);
  EXPECT_EQ(send({0x4A, 1, 0, 0, 0x02, 0, 0, 0, 8}).length, 4U);
  EXPECT_EQ(data[2], 0x80);  // no such class
}

TEST_F(Burner, without_a_medium_says_so_to_what_needs_one) {
  Drive empty{nullptr, "SERIAL"};
  for (const int opcode : {0x00, 0x25, 0x28, 0x2A, 0x43, 0x51, 0x5C}) {
    EXPECT_EQ(empty.execute(Cdb{static_cast<std::uint8_t>(opcode)}, data).sense, Sense::no_medium) << opcode;
  }
  EXPECT_EQ(empty.execute(Cdb{0x23, 0, 0, 0, 0, 0, 0, 0, 255}, data).length, 12U);
  EXPECT_EQ(data[8], 3);  // descriptor: no medium
}

TEST_F(Burner, refuses_a_command_that_it_does_not_know) {
  EXPECT_EQ(send({0xA1}).sense, Sense::invalid_opcode);  // BLANK is for other media
  EXPECT_EQ(name_of(0xA1), "UNKNOWN");
}

TEST_F(Burner, lists_one_track_and_the_lead_out) {
  EXPECT_EQ(send({0x43, 0, 0, 0, 0, 0, 0, 0, 255}).length, 20U);
  EXPECT_EQ(data[14], 0xAA);
  EXPECT_EQ(number_at(16), 64U);
  EXPECT_EQ(send({0x43, 2, 0, 0, 0, 0, 0xAA, 0, 255}).length, 12U);
  EXPECT_EQ(number_at(8), 2U << 8 | 64U);  // block 64 is 2 seconds and 64 frames
}

TEST_F(Burner, answers_any_command_within_its_buffer) {
  std::mt19937 random{1};
  for (int round = 0; round < 200'000; ++round) {
    Cdb cdb;
    for (std::uint8_t& byte : cdb) byte = static_cast<std::uint8_t>(random() % 3 == 0 ? random() : 0);
    cdb[0] = static_cast<std::uint8_t>(random());
    std::vector<std::uint8_t> exact(random() % 64);  // a buffer of its own, so that a sanitizer sees its end
    for (std::uint8_t& byte : exact) byte = static_cast<std::uint8_t>(random() % 64);
    ASSERT_LE(drive.execute(cdb, exact).length, exact.size()) << int{cdb[0]};
  }
}

TEST(SenseData, stands_where_the_fixed_format_has_it) {
  const auto bytes = fixed_format(Sense::medium_changed);
  EXPECT_EQ(bytes[0], 0x70);
  EXPECT_EQ(bytes[2], 6);
  EXPECT_EQ(bytes[12], 0x28);
  EXPECT_EQ(bytes[13], 0x00);
}

}  // namespace
}  // namespace holdfast::burner
