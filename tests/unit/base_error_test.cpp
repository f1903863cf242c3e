// SPDX-License-Identifier: MIT
// What reaches a terminal or a lock file's line, and which answer an errno is.
#include "base/error.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

namespace holdfast::base {
namespace {

TEST(Printable, plain_text_and_utf8_pass_unchanged) {
  EXPECT_EQ(printable("/dev/ttyUSB0"), "/dev/ttyUSB0");
  EXPECT_EQ(printable("Gerät № 7 🔌"), "Gerät № 7 🔌");
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, control_characters_become_question_marks) {
  EXPECT_EQ(printable("a\x1B[31mb"), "a?[31mb");
  EXPECT_EQ(printable("one\ntwo\ttwo\x7F"), "one?two?two?");
  EXPECT_EQ(printable(std::string_view{"\0x", 2}), "?x");
}

TEST(Printable, control_characters_of_the_upper_half_become_question_marks) {
  EXPECT_EQ(printable("\xC2\x9B"), "?") << "CSI, as UTF-8 writes it";
  EXPECT_EQ(printable("\x9B"), "?") << "CSI as one byte";
  EXPECT_EQ(printable("\xC2\xA0"), "\xC2\xA0") << "the first character that is no control";
}

TEST(Printable, bytes_that_are_not_utf8_become_question_marks_one_each) {
  EXPECT_EQ(printable("\xFFz"), "?z");
  EXPECT_EQ(printable("\x80\xBF"), "??") << "continuations without a head";
  EXPECT_EQ(printable("\xE2\x82"), "??") << "cut short";
  EXPECT_EQ(printable("\xC3("), "?(");
  EXPECT_EQ(printable("\xC0\xAF"), "??") << "an overlong slash";
  EXPECT_EQ(printable("\xE0\x80\x9B"), "???") << "an overlong CSI";
  EXPECT_EQ(printable("\xF0\x80\x80\x9B"), "????");
  EXPECT_EQ(printable("\xED\xA0\x80"), "???") << "half of a surrogate pair";
  EXPECT_EQ(printable("\xF4\x90\x80\x80"), "????") << "beyond U+10FFFF";
}

TEST(Printable, edges_of_the_well_formed_ranges_pass) {
  for (const char* text : {"\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, cut_never_splits_a_character) {
  EXPECT_EQ(printable("abcdef", 3), "abc");
  EXPECT_EQ(printable("ab€", 4), "ab");
  EXPECT_EQ(printable("ab€", 5), "ab€");
  EXPECT_EQ(printable("x", 0), "");
  EXPECT_EQ(printable(std::string(1000, 'x')).size(), 256U);
}

TEST(ErrcFromErrno, each_errno_is_the_answer_that_the_header_promises) {
  for (const int errnum : {EACCES, EPERM, EROFS}) EXPECT_EQ(errc_from_errno(errnum), errc::not_permitted);
  for (const int errnum : {ENOENT, ENOTDIR, ELOOP}) EXPECT_EQ(errc_from_errno(errnum), errc::no_such_device);
  for (const int errnum : {ENXIO, ENODEV}) EXPECT_EQ(errc_from_errno(errnum), errc::gone);
  for (const int errnum : {EMFILE, ENFILE, ENOMEM, ENOSPC, EDQUOT})
    EXPECT_EQ(errc_from_errno(errnum), errc::no_resources);
  EXPECT_EQ(errc_from_errno(EBUSY), errc::refused);
  EXPECT_EQ(errc_from_errno(EINTR), errc::interrupted);
  EXPECT_EQ(errc_from_errno(ENAMETOOLONG), errc::invalid_argument);
  EXPECT_EQ(errc_from_errno(EBADF), errc::system_fault);
  EXPECT_EQ(errc_from_errno(0), errc::system_fault);
}

TEST(Fault, names_device_call_and_reason_in_one_line) {
  const Error error = fault(EMFILE, "open", "/dev/ttyS0");
  EXPECT_EQ(error.code, errc::no_resources);
  EXPECT_EQ(error.message, "/dev/ttyS0: open: Too many open files");
  EXPECT_EQ(error.device, "/dev/ttyS0");
  EXPECT_EQ(error.errnum, EMFILE);
  EXPECT_FALSE(error.holder);
}

TEST(Fault, without_a_device_begins_with_the_call) {
  EXPECT_EQ(fault(EMFILE, "inotify_init1", "").message, "inotify_init1: Too many open files");
}

TEST(Fault, hostile_device_name_is_kept_as_given_but_printed_harmless) {
  const Error error = fault(ENOENT, "open", "/dev/\x1B]0;evil");
  EXPECT_EQ(error.device, "/dev/\x1B]0;evil");
  EXPECT_EQ(error.message, "/dev/?]0;evil: open: No such file or directory");
}

TEST(ErrorCategory, every_code_has_words_of_its_own) {
  EXPECT_STREQ(error_category().name(), "holdfast");
  for (int value = static_cast<int>(errc::refused); value <= static_cast<int>(errc::lapsed); ++value) {
    EXPECT_NE(error_category().message(value), "unknown") << value;
    for (int other = value + 1; other <= static_cast<int>(errc::lapsed); ++other)
      EXPECT_NE(error_category().message(value), error_category().message(other));
  }
  EXPECT_EQ(error_category().message(0), "unknown");
  const std::error_code code = errc::gone;
  EXPECT_EQ(code, errc::gone);
  EXPECT_EQ(code.category(), error_category());
}

TEST(HolderText, nothing_known_is_still_a_sentence_part) { EXPECT_EQ(to_string(Holder{}), "process[?]"); }

TEST(HolderText, name_pid_and_means_are_shown) {
  Holder holder;
  holder.pid = 4121;
  holder.command = "picocom";
  EXPECT_EQ(to_string(holder), "picocom[4121]");
  holder.means = {"UUCP lock file", "flock"};
  EXPECT_EQ(to_string(holder), "picocom[4121] (UUCP lock file, flock)");
}

TEST(HolderText, clock_time_is_shown_for_today_and_the_date_for_before) {
  const auto since = [](std::chrono::hours ago) {
    Holder holder;
    holder.pid = 1;
    holder.since = std::chrono::system_clock::now() - ago;
    return to_string(holder);
  };
  const std::string time = "process[1] since 00:00:00";
  EXPECT_EQ(since(std::chrono::hours{0}).size(), time.size()) << since(std::chrono::hours{0});
  const std::string date = "process[1] since 2000-01-01 00:00";
  EXPECT_EQ(since(std::chrono::hours{240}).size(), date.size()) << since(std::chrono::hours{240});
}

TEST(HolderText, hostile_name_and_means_are_printed_harmless) {
  Holder holder;
  holder.pid = 7;
  holder.command = "a\x1B[2J";
  holder.means = {"UUCP lock file /run/lock/LCK..\x1B[2J"};
  EXPECT_EQ(to_string(holder), "a?[2J[7] (UUCP lock file /run/lock/LCK..?[2J)");
}

}  // namespace
}  // namespace holdfast::base
