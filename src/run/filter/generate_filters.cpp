// SPDX-License-Identifier: MIT
// generate_filters.cpp - compiles the seccomp filters of calls.hpp, at build time.
//
// libseccomp knows the system call numbers of every architecture and how to branch on them; linking it into the command
// would cost its start-up time, so this program runs during the build and writes arrays.
//
// Usage: generate_filters OUTPUT
#include <fcntl.h>
#include <holdfast_exclusive.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#ifndef F_OFD_GETLK
#error "needs the open-file-description locks of Linux 3.15"
#endif

namespace {

// fcntl64 on 32-bit architectures (include/uapi/asm-generic/fcntl.h).
constexpr unsigned kGetlk64 = 12;
constexpr unsigned kSetlk64 = 13;
constexpr unsigned kSetlkw64 = 14;

struct Architecture {
  std::uint32_t token;
  const char* audit_name;
};
#if defined(__x86_64__)
constexpr std::array kArchitectures{Architecture{SCMP_ARCH_X86_64, "AUDIT_ARCH_X86_64"},
                                    Architecture{SCMP_ARCH_X86, "AUDIT_ARCH_I386"},
                                    Architecture{SCMP_ARCH_X32, "AUDIT_ARCH_X86_64"}};
#elif defined(__aarch64__)
constexpr std::array kArchitectures{Architecture{SCMP_ARCH_AARCH64, "AUDIT_ARCH_AARCH64"},
                                    Architecture{SCMP_ARCH_ARM, "AUDIT_ARCH_ARM"}};
#else
#error "the architectures that this processor runs are not listed yet"
#endif

struct Named {
  const char* name;
  const char* call;  // enumerator of Call
};
constexpr std::array kNames{
    Named{"flock", "flock"},         Named{"fcntl", "fcntl"},       Named{"fcntl64", "fcntl"},
    Named{"ioctl", "ioctl"},         Named{"open", "open"},         Named{"openat", "openat"},
    Named{"openat2", "openat2"},     Named{"creat", "creat"},       Named{"stat", "stat"},
    Named{"lstat", "stat"},          Named{"stat64", "stat"},       Named{"lstat64", "stat"},
    Named{"access", "stat"},         Named{"newfstatat", "statat"}, Named{"fstatat64", "statat"},
    Named{"statx", "statat"},        Named{"faccessat", "statat"},  Named{"faccessat2", "statat"},
    Named{"link", "link"},           Named{"linkat", "linkat"},     Named{"symlink", "symlink"},
    Named{"symlinkat", "symlinkat"}, Named{"rename", "rename"},     Named{"renameat", "renameat"},
    Named{"renameat2", "renameat2"}, Named{"unlink", "unlink"},     Named{"unlinkat", "unlinkat"},
};

[[noreturn]] void fail(const char* what, int code) {
  std::fprintf(stderr, "generate_filters: %s: %s\n", what, std::strerror(code < 0 ? -code : code));
  std::exit(1);
}

class Rules {
 public:
  Rules() : context_{seccomp_init(SCMP_ACT_ALLOW)} {
    if (context_ == nullptr) fail("seccomp_init", ENOMEM);
    // An architecture that is not ours runs no command of ours either.
    check("bad architecture", seccomp_attr_set(context_, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ALLOW));
    check("optimise", seccomp_attr_set(context_, SCMP_FLTATR_CTL_OPTIMIZE, 2));
    for (const Architecture& architecture : kArchitectures) {
      const int added = seccomp_arch_add(context_, architecture.token);
      if (added != 0 && added != -EEXIST) fail(architecture.audit_name, added);
    }
  }
  Rules(const Rules&) = delete;
  Rules& operator=(const Rules&) = delete;
  ~Rules() { seccomp_release(context_); }

  void ask_about(const char* name) { add(name, 0, {}); }
  /// Only when argument & mask == value. The kernel reads these arguments as 32-bit numbers, so the upper half is not
  /// looked at.
  void ask_about(const char* name, unsigned argument, std::uint32_t mask, std::uint32_t value) {
    add(name, 1, {argument, SCMP_CMP_MASKED_EQ, mask, value});
  }

  void write(std::FILE* out, const char* array) {
    std::FILE* const compiled = std::tmpfile();
    if (compiled == nullptr) fail("tmpfile", errno);
    check("seccomp_export_bpf", seccomp_export_bpf(context_, ::fileno(compiled)));
    if (std::fseek(compiled, 0, SEEK_SET) != 0) fail("fseek", errno);
    std::fprintf(out, "constexpr sock_filter %s[] = {\n", array);
    sock_filter step{};
    while (std::fread(&step, sizeof step, 1, compiled) == 1) {
      std::fprintf(out, "    {0x%04x, %u, %u, 0x%08x},\n", step.code, step.jt, step.jf, step.k);
    }
    std::fprintf(out, "};\n");
    std::fclose(compiled);
  }

 private:
  static void check(const char* what, int code) {
    if (code != 0) fail(what, code);
  }
  void add(const char* name, unsigned count, const scmp_arg_cmp& comparison) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) return;  // newer than this libseccomp
    check(name, seccomp_rule_add_array(context_, SCMP_ACT_NOTIFY, number, count, count == 0 ? nullptr : &comparison));
  }

  scmp_filter_ctx context_;
};

void ask_about_locks(Rules& rules) {
  constexpr std::uint32_t kWhole = 0xffffffff;
  rules.ask_about("flock");
  for (const char* const name : {"fcntl", "fcntl64"}) {
    for (const unsigned command : {unsigned{F_GETLK}, unsigned{F_SETLK}, unsigned{F_SETLKW}, unsigned{F_OFD_GETLK},
                                   unsigned{F_OFD_SETLK}, unsigned{F_OFD_SETLKW}, kGetlk64, kSetlk64, kSetlkw64}) {
      rules.ask_about(name, 1, kWhole, command);
    }
  }
  for (const unsigned long request :
       {static_cast<unsigned long>(TIOCEXCL), static_cast<unsigned long>(TIOCNXCL),
        static_cast<unsigned long>(TIOCGEXCL), static_cast<unsigned long>(HF_IOC_LOCK),
        static_cast<unsigned long>(HF_IOC_TRYLOCK), static_cast<unsigned long>(HF_IOC_LOCK_UNTIL)}) {
    rules.ask_about("ioctl", 1, kWhole, static_cast<std::uint32_t>(request));
  }
}

void ask_about_exclusive_opens(Rules& rules) {
  rules.ask_about("open", 1, O_EXCL, O_EXCL);
  rules.ask_about("openat", 2, O_EXCL, O_EXCL);
  rules.ask_about("openat2");  // its flags are behind a pointer
}

void ask_about_paths(Rules& rules) {
  for (const char* const name : {"open",      "openat", "openat2",   "creat",      "stat",   "lstat",   "stat64",
                                 "lstat64",   "access", "faccessat", "faccessat2", "link",   "linkat",  "symlink",
                                 "symlinkat", "rename", "renameat",  "renameat2",  "unlink", "unlinkat"}) {
    rules.ask_about(name);
  }
  // With AT_EMPTY_PATH they look at a descriptor: what fstat(3) has become.
  rules.ask_about("newfstatat", 3, AT_EMPTY_PATH, 0);
  rules.ask_about("fstatat64", 3, AT_EMPTY_PATH, 0);
  rules.ask_about("statx", 2, AT_EMPTY_PATH, 0);
}

void write_numbers(std::FILE* out) {
  std::fprintf(out, "constexpr NumberedCall kCalls[] = {\n");
  for (const Architecture& architecture : kArchitectures) {
    for (const Named& named : kNames) {
      const int number = seccomp_syscall_resolve_name_arch(architecture.token, named.name);
      if (number >= 0) std::fprintf(out, "    {%s, %d, Call::%s},\n", architecture.audit_name, number, named.call);
    }
  }
  std::fprintf(out, "};\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: generate_filters OUTPUT\n");
    return 64;
  }
  // The filters are for the machine that runs them: what the kernel under this build can do is not the question.
  seccomp_api_set(6);
  std::FILE* const out = std::fopen(argv[1], "w");
  if (out == nullptr) fail(argv[1], errno);
  Rules marks;
  ask_about_locks(marks);
  ask_about_exclusive_opens(marks);
  marks.write(out, "kMarks");
  Rules marks_and_paths;
  ask_about_locks(marks_and_paths);
  ask_about_paths(marks_and_paths);
  marks_and_paths.write(out, "kMarksAndPaths");
  write_numbers(out);
  if (std::fclose(out) != 0) fail(argv[1], errno);
  return 0;
}
