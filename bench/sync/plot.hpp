// SPDX-License-Identifier: MIT
// A picture of bars, one panel below the other two by two, as SVG and nothing else.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace bench {

class Plot {
 public:
  explicit Plot(std::string title) : title_(std::move(title)) {}

  void panel(const char* title) { panels_.push_back({title, {}}); }
  /// A bar of the last panel; none for NAN.
  void bar(const std::string& name, double value) {
    if (!std::isnan(value)) panels_.back().bars.push_back({name, value});
  }

  [[nodiscard]] bool save(const char* path) const {
    std::FILE* const file = std::fopen(path, "w");
    if (file == nullptr) return false;
    int y = 50;
    std::string body;
    for (std::size_t i = 0; i < panels_.size(); i += 2) {
      int height = 0;
      for (std::size_t k = i; k < std::min(i + 2, panels_.size()); ++k)
        height = std::max(height, draw(body, panels_[k], 10 + static_cast<int>(k - i) * kPanel, y));
      y += height + 20;
    }
    std::fprintf(file,
                 "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" "
                 "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
                 "<text x=\"10\" y=\"25\" font-size=\"16\">%s</text>\n%s</svg>\n",
                 2 * kPanel + 10, y, escaped(title_).c_str(), body.c_str());
    return std::fclose(file) == 0;
  }

 private:
  static constexpr int kPanel = 500;
  static constexpr int kNames = 190;
  static constexpr int kLength = 240;
  static constexpr int kRow = 18;

  struct Bar {
    std::string name;
    double value;
  };
  struct Panel {
    std::string title;
    std::vector<Bar> bars;
  };

  static std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
    return out;
  }

  static bool is_ours(const std::string& name) {
    for (const char* const start : {"mutex", "process_mutex", "semaphore", "owned", "spinlock", "robust_", "rw_"})
      if (name.starts_with(start)) return true;
    return false;
  }

  /// Returns how high it is.
  static int draw(std::string& body, const Panel& panel, int x, int y) {
    double most = 0;
    for (const Bar& bar : panel.bars) most = std::max(most, bar.value);
    char line[512];
    std::snprintf(line, sizeof(line), "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", x, y + 12,
                  escaped(panel.title).c_str());
    body += line;
    int at = y + 22;
    for (const Bar& bar : panel.bars) {
      const double length = most > 0 ? bar.value / most * kLength : 0;
      std::snprintf(line, sizeof(line),
                    "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>"
                    "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>"
                    "<text x=\"%.1f\" y=\"%d\" font-size=\"11\">%.*f</text>\n",
                    x + kNames - 6, at + 13, escaped(bar.name).c_str(), x + kNames, at + 2, length, kRow - 4,
                    is_ours(bar.name) ? "#2a6fbb" : "#b9b9b9", x + kNames + length + 4, at + 13, bar.value < 10 ? 2 : 1,
                    bar.value);
      body += line;
      at += kRow;
    }
    return at - y;
  }

  std::string title_;
  std::vector<Panel> panels_;
};

}  // namespace bench
