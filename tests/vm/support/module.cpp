// SPDX-License-Identifier: MIT
// module.cpp - init_module(2) and delete_module(2) as they are; modprobe(8) would want the modules installed.
#include "vm/support/module.hpp"

#include "interop/support/bench.hpp"
#include "process/support/child.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace holdfast::vm {

Modules modules() {
  const char* kernel = std::getenv("LAB_KERNEL");
  if (kernel == nullptr) return {{}, "not in a machine of the lab"};
  // A kernel of one's own is named by its path; its modules are where HOLDFAST_MODULES says.
  const char* own = std::getenv("HOLDFAST_MODULES");
  Modules found{own != nullptr ? own : std::string{KMOD_FOLDER} + "/" + kernel, {}};
  if (std::filesystem::exists(found.folder + "/built")) return found;
  std::ifstream reason{found.folder + "/missing"};
  if (!std::getline(reason, found.missing)) found.missing = "no kernel modules in " + found.folder;
  return found;
}

int insert_module(const std::string& name, const std::string& parameters) {
  const base::UniqueFd file{::open((modules().folder + "/" + name + "/" + name + ".ko").c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) return errno;
  if (::syscall(SYS_finit_module, file.get(), parameters.c_str(), 0) == 0 || errno == EEXIST) return 0;
  return errno;
}

int remove_module(const std::string& name) {
  if (::syscall(SYS_delete_module, name.c_str(), O_NONBLOCK) == 0 || errno == ENOENT) return 0;
  return errno;
}

Module::Module(std::string name, const std::string& parameters) : name_{std::move(name)} {
  const int error = insert_module(name_, parameters);
  if (error != 0) ADD_FAILURE() << "the module " << name_ << " does not load: " << std::strerror(error);
}

Module::~Module() {
  EXPECT_TRUE(interop::eventually([&] { return remove_module(name_) == 0; }, {}, {}, testing_support::kPatience))
      << "the module " << name_ << " is in use";
}

}  // namespace holdfast::vm
