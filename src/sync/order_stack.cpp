// SPDX-License-Identifier: MIT
// The unwinder of the C++ runtime is called directly: backtrace(3) loads it with dlopen at its first call, which a
// signal handler must not do. An address's module is asked of _dl_find_object (glibc 2.35), which takes no lock.
#include "sync/order_stack.hpp"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <string_view>

namespace holdfast::sync::order {

namespace {

constexpr unsigned kOffsetBits = 48;
constexpr std::uint64_t kOffset = (std::uint64_t{1} << kOffsetBits) - 1;

struct Walk {
  std::array<const void*, kFrames> addresses;
  std::size_t count;
  std::uintptr_t below;
};

_Unwind_Reason_Code visit(_Unwind_Context* context, void* data) {
  auto& walk = *static_cast<Walk*>(data);
  int before_call = 0;
  const std::uintptr_t address = _Unwind_GetIPInfo(context, &before_call);
  if (address == 0 || walk.count == kFrames) return _URC_END_OF_STACK;
  // The "CFA" that is asked for here is the frame's stack pointer.
  if (_Unwind_GetCFA(context) <= walk.below) return _URC_NO_REASON;
  // A return address may lie behind the function's last instruction: name the call instead.
  walk.addresses[walk.count++] =
      reinterpret_cast<const void*>(before_call != 0 ? address : address - 1);  // NOLINT(performance-no-int-to-ptr)
  return _URC_NO_REASON;
}

std::uint64_t hash_of(std::string_view path) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : path) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  return hash | 1;
}

}  // namespace

std::uint64_t Modules::number(const char* path, std::uintptr_t base) noexcept {
  for (std::uint64_t i = 0; i < kModules; ++i)
    if (base_[i].load(std::memory_order_relaxed) == base + 1) return i;
  char program[256];
  if (*path == '\0') {  // the program itself
    const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program - 1);
    program[std::max<ssize_t>(length, 0)] = '\0';
    path = program;
  }
  std::string_view name = path;
  if (name.size() > 111) name.remove_prefix(name.size() - 111);
  const std::uint64_t key = hash_of(name);
  for (std::uint64_t i = 0; i < kModules; ++i) {
    Module& module = region_.module[i];
    std::uint64_t at = 0;
    if (!module.key.compare_exchange_strong(at, key, std::memory_order_relaxed) && at != key) continue;
    if (module.named.load(std::memory_order_relaxed) == 0) {
      module.path.store(name);
      module.named.store(1, std::memory_order_release);  // pairs with the acquire in unpack()
    }
    base_[i].store(base + 1, std::memory_order_relaxed);
    return i;
  }
  full_.store(true, std::memory_order_relaxed);
  return kModules;
}

std::uint64_t Modules::pack(const void* address) noexcept {
  const auto place = reinterpret_cast<std::uintptr_t>(address);
  dl_find_object found{};
  if (address == nullptr || ::_dl_find_object(const_cast<void*>(address), &found) != 0) return place & kOffset;
  // In a static program there is no link map; it was linked at its addresses, or says where it was moved to.
  const link_map* map = found.dlfo_link_map;
  const std::uintptr_t base = map != nullptr ? map->l_addr : 0;
  const std::uint64_t module = number(map != nullptr && map->l_name != nullptr ? map->l_name : "", base);
  return module == kModules ? place & kOffset : ((module + 1) << kOffsetBits) | ((place - base) & kOffset);
}

void Modules::unpack(std::uint64_t place, char (&path)[112], Frame& to, Symbols symbols) const noexcept {
  to = {.module = nullptr, .offset = place & kOffset, .symbol = nullptr, .into = 0};
  const std::uint64_t module = (place >> kOffsetBits) - 1;
  if (module >= kModules || region_.module[module].named.load(std::memory_order_acquire) == 0) return;
  region_.module[module].path.load(path);
  to.module = path;
  const std::uint64_t base = base_[module].load(std::memory_order_relaxed);
  if (symbols == Symbols::leave || base == 0) return;
  Dl_info info{};
  const std::uintptr_t address = base - 1 + to.offset;
  if (::dladdr(reinterpret_cast<const void*>(address), &info) == 0 ||  // NOLINT(performance-no-int-to-ptr)
      info.dli_sname == nullptr)
    return;
  to.symbol = info.dli_sname;
  to.into = address - reinterpret_cast<std::uintptr_t>(info.dli_saddr);
}

void capture(Modules& modules, const void* below, Sighting& to) noexcept {
  Walk walk{.addresses = {}, .count = 0, .below = reinterpret_cast<std::uintptr_t>(below)};
  _Unwind_Backtrace(&visit, &walk);
  to.frames = walk.count;
  for (std::size_t i = 0; i < walk.count; ++i) to.stack[i] = modules.pack(walk.addresses[i]);
}

}  // namespace holdfast::sync::order
