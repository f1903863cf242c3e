// SPDX-License-Identifier: MIT
// module.hpp - a kernel module of kmod/, built for the kernel that runs here, loaded for the length of a test.
#pragma once

#include "base/unique_fd.hpp"

#include <string>

namespace holdfast::vm {

/// Where the modules for the running kernel were built, or why they were not. Only tests in the lab have any: they
/// are for its kernels.
struct Modules {
  std::string folder;
  std::string missing;  ///< the reason to skip; empty when they are there
};
[[nodiscard]] Modules modules();

/// The name's module is loaded, or was already; 0 or an errno. Parameters as for insmod(8).
int insert_module(const std::string& name, const std::string& parameters = {});
/// 0 or an errno: EWOULDBLOCK when it is in use. A module that is not loaded counts as removed.
int remove_module(const std::string& name);

class Module {
 public:
  explicit Module(std::string name, const std::string& parameters = {});  ///< fails the test when it does not load
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  ~Module();  ///< waits until nobody uses it (tests end their processes), and removes it

 private:
  std::string name_;
};

}  // namespace holdfast::vm
