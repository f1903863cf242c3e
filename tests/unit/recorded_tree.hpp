// SPDX-License-Identifier: MIT
// recorded_tree.hpp - lays a recorded device tree out as a directory: /sys, udev's database and a /dev with real nodes.
// Nobody opens the nodes: there is no telling which device of this machine has their numbers.
#pragma once

#include "base/places.hpp"

#include <gtest/gtest.h>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::test {

class RecordedTree {
 public:
  enum class Udev { running, absent };

  explicit RecordedTree(std::string_view record, Udev udev = Udev::running) : udev_{udev} {
    std::string name = "/tmp/holdfast-tree-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) return;
    root_ = name;
    std::ifstream file{std::string{RECORDED_DIR} + "/" + std::string{record} + ".umockdev"};
    EXPECT_TRUE(file) << "no record " << record;
    if (udev_ == Udev::running) std::filesystem::create_directories(places().udev_data);
    std::vector<std::string> block;
    for (std::string line; std::getline(file, line);) {
      if (!line.empty()) {
        block.push_back(line);
        continue;
      }
      lay_out(block);
      block.clear();
    }
    lay_out(block);
  }
  ~RecordedTree() {
    if (!root_.empty()) std::filesystem::remove_all(root_);
  }
  RecordedTree(const RecordedTree&) = delete;
  RecordedTree& operator=(const RecordedTree&) = delete;

  [[nodiscard]] base::Places places() const {
    base::Places places;
    places.dev = root_ + "/dev";
    places.sys = root_ + "/sys";
    places.udev_data = root_ + "/run/udev/data";
    return places;
  }
  [[nodiscard]] std::string dev(std::string_view name) const { return places().dev + "/" + std::string{name}; }
  [[nodiscard]] std::string sys(std::string_view path) const { return places().sys + std::string{path}; }

 private:
  static void write(const std::string& path, std::string_view content) {
    std::filesystem::create_directories(std::filesystem::path{path}.parent_path());
    std::ofstream{path} << content;
  }
  static void link(const std::string& target, const std::string& path) {
    std::filesystem::create_directories(std::filesystem::path{path}.parent_path());
    ::symlink(target.c_str(), path.c_str());  // two drives may want one name; the first has it, as with udev
  }

  void lay_out(const std::vector<std::string>& block) {
    if (block.empty()) return;
    std::string path;
    std::vector<std::string> links;
    std::vector<std::string> learnt;  // by udev, not said by the kernel
    std::map<std::string, std::string> properties;
    for (const std::string& line : block) {
      const std::string value = line.substr(3);
      const auto equals = value.find('=');
      const std::string key = value.substr(0, equals);
      const std::string rest = equals == std::string::npos ? std::string{} : value.substr(equals + 1);
      switch (line.front()) {
        case 'P':
          path = value;
          break;
        case 'S':
          links.push_back(value);
          break;
        case 'E':
          key.starts_with("ID_") ? learnt.push_back(value) : void(properties[key] = rest);
          break;
        case 'A':
          write(sys(path) + "/" + key, rest + "\n");
          break;
        case 'L':
          link(rest, sys(path) + "/" + key);
          break;
        default:
          break;
      }
    }
    const std::string up = to_sys(path);
    link(up + "class/" + properties["SUBSYSTEM"], sys(path) + "/subsystem");
    std::string uevent;
    for (const auto& [key, value] : properties)
      if (key != "SUBSYSTEM") uevent += key + "=" + (key == "DEVNAME" ? value.substr(5) : value) + "\n";
    write(sys(path) + "/uevent", uevent);
    if (properties.contains("MAJOR")) lay_out_node(path, properties, links, learnt);
  }

  void lay_out_node(const std::string& path, std::map<std::string, std::string>& properties,
                    const std::vector<std::string>& links, const std::vector<std::string>& learnt) {
    const bool is_block = properties["SUBSYSTEM"] == "block";
    const std::string number = properties["MAJOR"] + ":" + properties["MINOR"];
    link("../.." + path, sys(is_block ? "/dev/block/" : "/dev/char/") + number);
    const std::string name = properties["DEVNAME"].substr(5);
    const std::string node = dev(name);
    std::filesystem::create_directories(std::filesystem::path{node}.parent_path());
    const auto part = [&properties](const char* key) { return static_cast<unsigned>(std::stoul(properties[key])); };
    const dev_t rdev = makedev(part("MAJOR"), part("MINOR"));
    EXPECT_EQ(::mknod(node.c_str(), (is_block ? S_IFBLK : S_IFCHR) | 0600, rdev), 0) << node;
    std::string database;
    for (const std::string& one : links) {
      link(node, dev(one));
      database += "S:" + one + "\n";
    }
    for (const std::string& one : learnt) database += "E:" + one + "\n";
    if (udev_ == Udev::running) write(places().udev_data + (is_block ? "/b" : "/c") + number, database);
  }

  static std::string to_sys(std::string_view path) {
    std::string up;
    for (const char c : path)
      if (c == '/') up += "../";
    return up;
  }

  Udev udev_;
  std::string root_;
};

}  // namespace holdfast::test
