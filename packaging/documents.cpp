// SPDX-License-Identifier: MIT
// documents.cpp - writes what is installed beside the command but made from its tables: holdfast(1), the list of
// conventions in holdfast(7), and the bash completion. A program of its own, so that the command does not carry what it
// never prints.
#include "cli/texts.hpp"
#include "convention/convention.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>

namespace {

std::string conventions() {
  std::string out;
  for (const holdfast::convention::Entry& entry : holdfast::convention::table())
    out += fmt::format(".It Cm {}\n{}", entry.name,
                       holdfast::cli::mdoc_text(fmt::format("{}. Limit: {}.", entry.takes, entry.limit)));
  out.pop_back();
  return out;
}

std::string with_conventions(const char* path) {
  std::ifstream file{path};
  std::string text{std::istreambuf_iterator<char>{file}, {}};
  constexpr std::string_view marker = "@conventions@";
  const auto at = text.find(marker);
  return at == std::string::npos ? std::string{} : text.replace(at, marker.size(), conventions());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  std::string text;
  if (what == "man1") text = holdfast::cli::man_page();
  if (what == "man7" && argc == 3) text = with_conventions(argv[2]);
  if (what == "completion") text = holdfast::cli::bash_completion();
  std::cout << text << std::flush;
  return !text.empty() && std::cout ? 0 : 1;
}
