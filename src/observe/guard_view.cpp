// SPDX-License-Identifier: MIT
// guard_view.cpp - see the header.
#include "observe/guard_view.hpp"

#include "base/error.hpp"
#include "observe/events.hpp"
#include "observe/render.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>
#include <string_view>

namespace holdfast::observe {
namespace {

using nlohmann::ordered_json;

std::string_view word_of(GuardView::State state) { return state == GuardView::State::on ? "on" : "off"; }

}  // namespace

std::string to_text(const GuardView& view) {
  std::string text = fmt::format("the guard is {}\n", word_of(view.state));
  for (const GuardView::Lack& lack : view.lacks)
    text += fmt::format("lacks: {}\n       remedy: {}\n", base::printable(lack.what), base::printable(lack.remedy));
  if (view.state == GuardView::State::on && view.devices.empty()) text += "no device is guarded\n";
  if (!view.devices.empty()) {
    std::vector<std::array<std::string, 5>> rows{{"DEVICE", "NUMBER", "OWNERS", "DENIED", "LEFT"}};
    for (const GuardView::Device& device : view.devices)
      rows.push_back({base::printable(device.path), device.number, fmt::format("{}", device.owners),
                      fmt::format("{}", device.denials), device.left ? duration_text(*device.left) : "-"});
    text += aligned(rows);
  }
  for (const GuardView::Mapping& mapping : view.mappings)
    text += fmt::format("mapped: {} by {}[{}]; unless it is the holder, end it: a mapping cannot be taken back\n",
                        base::printable(mapping.path), base::printable(mapping.command, 32), mapping.pid);
  return text;
}

std::string to_json(const GuardView& view) {
  ordered_json out;
  out["guard"] = word_of(view.state);
  out["devices"] = ordered_json::array();
  for (const GuardView::Device& device : view.devices)
    out["devices"].push_back(
        {{"device", device.path},
         {"number", device.number},
         {"owners", device.owners},
         {"denials", device.denials},
         {"lapses_in_seconds",
          device.left ? ordered_json(std::chrono::duration<double>{*device.left}.count()) : ordered_json{}}});
  out["mappings"] = ordered_json::array();
  for (const GuardView::Mapping& mapping : view.mappings)
    out["mappings"].push_back({{"device", mapping.path}, {"pid", mapping.pid}, {"command", mapping.command}});
  out["lacks"] = ordered_json::array();
  for (const GuardView::Lack& lack : view.lacks) out["lacks"].push_back({{"what", lack.what}, {"remedy", lack.remedy}});
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace holdfast::observe
