// SPDX-License-Identifier: MIT
// programs.cpp - see the header.
#include "guard/programs.hpp"

#include "base/error.hpp"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast_guard.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string_view>

// The compiled programs, as bytes of ours: what is installed needs no file beside it.
__asm__(
    ".pushsection .rodata\n"
    ".balign 16\n"
    "holdfast_guard_object:\n"
    ".incbin \"" HOLDFAST_GUARD_OBJECT
    "\"\n"
    "holdfast_guard_object_end:\n"
    ".popsection\n");
extern "C" {
extern const char holdfast_guard_object[];      // NOLINT(readability-identifier-naming): the assembler's names
extern const char holdfast_guard_object_end[];  // NOLINT(readability-identifier-naming)
}

namespace holdfast::guard {
namespace {

constexpr long kBpffs = 0xcafe4a11;  // BPF_FS_MAGIC, include/uapi/linux/magic.h

struct ObjectDeleter {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};
struct LinkDeleter {
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};
struct TypesDeleter {
  void operator()(btf* types) const { btf__free(types); }
};
using Object = std::unique_ptr<bpf_object, ObjectDeleter>;
using Link = std::unique_ptr<bpf_link, LinkDeleter>;
using Types = std::unique_ptr<btf, TypesDeleter>;

// What libbpf says of the latest failure: it has no other way to say it.
thread_local std::string latest_words;

int keep_words(libbpf_print_level level, const char* format, va_list arguments) {
  if (level == LIBBPF_DEBUG) return 0;
  std::array<char, 256> line{};
  const int length = std::vsnprintf(line.data(), line.size(), format, arguments);
  if (latest_words.size() < 1024) latest_words += base::printable(line.data(), 200) + " ";
  return length;
}

Error failed(std::string_view what, int errnum) {
  const auto code = errnum == EPERM || errnum == EACCES ? errc::not_permitted : errc::system_fault;
  std::string message = fmt::format("the guard: {}: {}", what, base::errno_text(errnum));
  if (!latest_words.empty()) message += " (" + base::printable(latest_words, 200) + ")";
  Error error = base::failure(code, std::move(message), {});
  error.errnum = errnum;
  return error;
}

std::string map_pin(const Places& places, std::string_view name) { return fmt::format("{}/map_{}", places.pins, name); }
std::string link_pin(const Places& places, std::string_view name) {
  return fmt::format("{}/link_{}", places.pins, name);
}
std::string program_pin(const Places& places, std::string_view name) {
  return fmt::format("{}/program_{}", places.pins, name);
}

// One at a time installs and removes.
Result<base::UniqueFd> alone(const Places& places) {
  Result<base::UniqueFd> folder = open_pins(places);
  if (!folder) return folder;
  while (::flock(folder->get(), LOCK_EX) != 0)
    if (errno != EINTR) return std::unexpected(failed("flock " + places.pins, errno));
  return folder;
}

bool is_iterator(const bpf_program* program) {
  return std::string_view{bpf_program__section_name(program)}.starts_with("iter/");
}

// Hooks that not every kernel has ("?lsm/...") are loaded where it has them.
void choose(bpf_object* object, const btf* kernel) {
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object) {
    const std::string_view section = bpf_program__section_name(program);
    if (!section.starts_with("?lsm/")) continue;
    const std::string hook = "bpf_lsm_" + std::string{section.substr(5)};
    bpf_program__set_autoload(program, btf__find_by_name_kind(kernel, hook.c_str(), BTF_KIND_FUNC) > 0);
  }
}

Result<Object> loaded(const Places& places) {
  latest_words.clear();
  libbpf_set_print(keep_words);
  const std::size_t size = static_cast<std::size_t>(holdfast_guard_object_end - holdfast_guard_object);
  bpf_object_open_opts options{};
  options.sz = sizeof options;
  options.object_name = "holdfast_guard";
  Object object{bpf_object__open_mem(holdfast_guard_object, size, &options)};
  if (!object) return std::unexpected(failed("read the programs", errno));
  const Types kernel{btf__load_vmlinux_btf()};
  if (!kernel) return std::unexpected(failed(places.types, errno));
  choose(object.get(), kernel.get());
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object.get()) {
    if (bpf_map__is_internal(map)) continue;
    const base::UniqueFd there{bpf_obj_get(map_pin(places, bpf_map__name(map)).c_str())};
    if (there && bpf_map__reuse_fd(map, there.get()) != 0) return std::unexpected(failed("take over a map", errno));
  }
  if (bpf_object__load(object.get()) != 0) return std::unexpected(failed("load", errno));
  return object;
}

std::uint32_t number_of_map(int map) {
  bpf_map_info info{};
  std::uint32_t size = sizeof info;
  return map >= 0 && bpf_obj_get_info_by_fd(map, &info, &size) == 0 ? info.id : 0;
}

bool has_the_pinned_maps(const bpf_object* object, const Places& places) {
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (bpf_map__is_internal(map)) continue;
    const base::UniqueFd there{bpf_obj_get(map_pin(places, bpf_map__name(map)).c_str())};
    if (!there || number_of_map(there.get()) != number_of_map(bpf_map__fd(map))) return false;
  }
  return true;
}

// What a program is, whoever loaded it: a hash of its instructions.
using Tag = std::array<unsigned char, BPF_TAG_SIZE>;
std::optional<Tag> tag_of(int program) {
  bpf_prog_info info{};
  std::uint32_t size = sizeof info;
  if (program < 0 || bpf_obj_get_info_by_fd(program, &info, &size) != 0) return std::nullopt;
  Tag tag{};
  std::memcpy(tag.data(), info.tag, tag.size());
  return tag;
}

std::optional<Tag> tag_behind(const std::string& link) {
  const base::UniqueFd fd{bpf_obj_get(link.c_str())};
  bpf_link_info info{};
  std::uint32_t size = sizeof info;
  if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) return std::nullopt;
  const base::UniqueFd program{bpf_prog_get_fd_by_id(info.prog_id)};
  return tag_of(program.get());
}

// The new pin takes the old one's name: the old link's last reference goes, and it is detached.
Result<> replace_pin(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return std::unexpected(failed("rename to " + to, errno));
  return {};
}

Result<> attach(const bpf_program* program, const Places& places) {
  const std::string pin = link_pin(places, bpf_program__name(program));
  const auto there = tag_behind(pin);
  if (there && there == tag_of(bpf_program__fd(program))) return {};
  Link link;
  if (std::string_view{bpf_program__section_name(program)}.starts_with("cgroup/")) {
    const base::UniqueFd root{::open(places.control_group.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!root) return std::unexpected(failed(places.control_group, errno));
    link.reset(bpf_program__attach_cgroup(program, root.get()));
  } else {
    link.reset(bpf_program__attach(program));
  }
  if (!link) return std::unexpected(failed(fmt::format("attach {}", bpf_program__section_name(program)), errno));
  const std::string fresh = pin + "_new";
  ::unlink(fresh.c_str());
  if (bpf_link__pin(link.get(), fresh.c_str()) != 0) return std::unexpected(failed("pin " + fresh, errno));
  return replace_pin(fresh, pin);
}

Result<> pin_program(const bpf_program* program, const Places& places) {
  const std::string pin = program_pin(places, bpf_program__name(program));
  const base::UniqueFd there{bpf_obj_get(pin.c_str())};
  if (there && tag_of(there.get()) == tag_of(bpf_program__fd(program))) return {};
  const std::string fresh = pin + "_new";
  ::unlink(fresh.c_str());
  if (bpf_obj_pin(bpf_program__fd(program), fresh.c_str()) != 0) return std::unexpected(failed("pin " + fresh, errno));
  return replace_pin(fresh, pin);
}

template <class Change>
void with_switches(const Places& places, const Change& change) {
  const base::UniqueFd map{bpf_obj_get(map_pin(places, "switches").c_str())};
  if (!map) return;
  void* const memory = ::mmap(nullptr, sizeof(hf_guard_switches), PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
  if (memory == MAP_FAILED) return;
  change(*static_cast<hf_guard_switches*>(memory));
  ::munmap(memory, sizeof(hf_guard_switches));
}

bool something_is_guarded(const Places& places) {
  bool is = false;
  with_switches(places, [&](hf_guard_switches& all) { is = std::atomic_ref{all.active}.load() > 0; });
  return is;
}

// A program is detached some time after its link's last reference is gone (kernel/bpf/syscall.c, bpf_link_put()): who
// switches the guard off must not wait for that.
void let_everything_pass(const Places& places) {
  with_switches(places, [](hf_guard_switches& all) {
    std::atomic_ref{all.active}.store(std::numeric_limits<std::int64_t>::min() / 2);
  });
}

// What every process calls all the time. They are attached as long as something is guarded, so that a machine on which
// nothing is pays nothing. The others are called seldom.
constexpr std::array<std::string_view, 7> kBusyHooks{"hf_open", "hf_permission", "hf_ioctl", "hf_ioctl_compat",
                                                     "hf_mmap", "hf_mprotect",   "hf_fcntl"};
bool is_busy(std::string_view program) { return std::ranges::find(kBusyHooks, program) != kBusyHooks.end(); }

// The same program cannot be attached again before its last link is gone, which is a moment after its pin
// (kernel/bpf/trampoline.c, bpf_trampoline_add_prog()). No event tells of that.
base::UniqueFd attached_anew(int program) {
  constexpr std::chrono::seconds kPatience{10};
  const auto end = std::chrono::steady_clock::now() + kPatience;
  base::UniqueFd link{bpf_raw_tracepoint_open(nullptr, program)};
  while (!link && errno == EBUSY && std::chrono::steady_clock::now() < end) {
    ::poll(nullptr, 0, 1);
    link.reset(bpf_raw_tracepoint_open(nullptr, program));
  }
  return link;
}

std::string first_line(const std::string& path) {
  std::ifstream file{path};
  std::string line;
  std::getline(file, line);
  return line;
}

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const auto end = list.find(',');
    if (list.substr(0, end) == word) return true;
    list = end == std::string_view::npos ? std::string_view{} : list.substr(end + 1);
  }
  return false;
}

}  // namespace

std::vector<Lack> lacks(const Places& places) {
  std::vector<Lack> found;
  const std::string modules = first_line(places.modules);
  if (modules.empty())
    found.push_back({places.modules + " cannot be read", "mount -t securityfs none /sys/kernel/security"});
  else if (!has_word(modules, "bpf"))
    found.push_back({"the kernel does not ask BPF programs (BPF LSM)",
                     fmt::format("boot with lsm={},bpf; the kernel needs CONFIG_BPF_LSM=y", modules)});
  if (::access(places.types.c_str(), R_OK) != 0)
    found.push_back(
        {"the kernel does not tell its types (" + places.types + ")", "use a kernel with CONFIG_DEBUG_INFO_BTF=y"});
  struct statfs file_system{};
  const std::string parent = std::filesystem::path{places.pins}.parent_path();
  if (::statfs(parent.c_str(), &file_system) != 0 || file_system.f_type != kBpffs)
    found.push_back({parent + " is no BPF file system", "mount -t bpf none " + parent});
  if (::access((places.control_group + "/cgroup.procs").c_str(), R_OK) != 0)
    found.push_back(
        {"no unified control groups in " + places.control_group, "mount -t cgroup2 none " + places.control_group});
  return found;
}

Result<base::UniqueFd> open_pins(const Places& places) {
  base::UniqueFd folder{::open(places.pins.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
  struct stat seen{};
  if (!folder || ::fstat(folder.get(), &seen) != 0) return std::unexpected(failed("open " + places.pins, errno));
  // bpffs may be open to all, and whoever owns the folder can take our pins away.
  if ((seen.st_uid != 0 && seen.st_uid != ::geteuid()) || (seen.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return std::unexpected(base::failure(
        errc::not_permitted, fmt::format("the guard: {} belongs to user {}: rmdir it", places.pins, seen.st_uid), {}));
  return folder;
}

Result<> install(const Places& places) {
  if (::mkdir(places.pins.c_str(), 0700) != 0 && errno != EEXIST)
    return std::unexpected(failed("mkdir " + places.pins, errno));
  // The kernel takes its time to verify programs, and feeders must not wait for that.
  auto object = installed(places) ? loaded(places) : Result<Object>{};
  const auto turn = alone(places);
  if (!turn) return std::unexpected(turn.error());
  if (!object || !*object || !has_the_pinned_maps(object->get(), places)) object = loaded(places);
  if (!object) return std::unexpected(object.error());
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object->get()) {
    if (bpf_map__is_internal(map)) continue;
    const std::string pin = map_pin(places, bpf_map__name(map));
    if (::access(pin.c_str(), F_OK) != 0 && bpf_obj_pin(bpf_map__fd(map), pin.c_str()) != 0)
      return std::unexpected(failed("pin " + pin, errno));
  }
  const bool watching = is_watching(places);
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object->get()) {
    if (!bpf_program__autoload(program)) continue;
    if (auto pinned = pin_program(program, places); !pinned) return pinned;
    if (is_iterator(program)) continue;
    const bool rests = is_busy(bpf_program__name(program)) && !watching && !something_is_guarded(places);
    if (rests) continue;
    if (auto attached = attach(program, places); !attached) return attached;
  }
  return {};
}

Result<> watch(const Places& places) {
  for (const std::string_view name : kBusyHooks) {
    const std::string pin = link_pin(places, name);
    if (::access(pin.c_str(), F_OK) == 0) continue;
    const base::UniqueFd program{bpf_obj_get(program_pin(places, name).c_str())};
    if (!program && errno == ENOENT) continue;  // not a hook of this kernel
    if (!program) return std::unexpected(failed(program_pin(places, name), errno));
    const base::UniqueFd link = attached_anew(program.get());
    if (!link) return std::unexpected(failed(fmt::format("attach {}", name), errno));
    if (bpf_obj_pin(link.get(), pin.c_str()) != 0) return std::unexpected(failed("pin " + pin, errno));
  }
  return {};
}

void rest(const Places& places) noexcept {
  for (const std::string_view name : kBusyHooks) ::unlink(link_pin(places, name).c_str());
}

bool is_watching(const Places& places) noexcept { return ::access(link_pin(places, "hf_open").c_str(), F_OK) == 0; }

Result<> remove(const Places& places) {
  const auto turn = alone(places);
  if (!turn) {
    if (turn.error().errnum == ENOENT) return {};
    return std::unexpected(turn.error());
  }
  let_everything_pass(places);
  std::error_code error;
  for (const std::string_view kind : {"link_", "program_", "map_"})
    for (const auto& entry : std::filesystem::directory_iterator{places.pins, error})
      if (entry.path().filename().string().starts_with(kind)) std::filesystem::remove(entry.path(), error);
  if (error) return std::unexpected(failed("unpin in " + places.pins, error.value()));
  ::rmdir(places.pins.c_str());
  return {};
}

bool installed(const Places& places) { return ::access(link_pin(places, "hf_death").c_str(), F_OK) == 0; }

Result<base::UniqueFd> pinned(const Places& places, const std::string& name) {
  base::UniqueFd fd{bpf_obj_get(fmt::format("{}/{}", places.pins, name).c_str())};
  if (!fd && errno == ENOENT) return std::unexpected(base::failure(errc::not_held, "the guard is not installed", {}));
  if (!fd) return std::unexpected(failed(name, errno));
  return fd;
}

}  // namespace holdfast::guard
