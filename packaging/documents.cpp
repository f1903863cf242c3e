// SPDX-License-Identifier: MIT
// documents.cpp - writes what is installed beside the command but made from its table: holdfast(1) and the bash
// completion. A program of its own, so that the command does not carry what it never prints.
#include "cli/texts.hpp"

#include <cstdio>
#include <string>
#include <string_view>

namespace {

int write_file(const char* path, const std::string& text) {
  std::FILE* const file = std::fopen(path, "we");
  const bool wrote = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (file != nullptr && std::fclose(file) == 0 && wrote) return 0;
  std::perror(path);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc == 3 ? argv[1] : "";
  if (what == "man") return write_file(argv[2], holdfast::cli::man_page());
  if (what == "completion") return write_file(argv[2], holdfast::cli::bash_completion());
  std::fputs("usage: documents man|completion FILE\n", stderr);
  return 2;
}
